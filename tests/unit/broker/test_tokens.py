from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey

from broker.tokens import ClientTokens, HttpJwks, JwksSource, StaticJwks, TokenVerifier
from broker.web import FiksError
from crypto.certificates import nokkel_id

ISSUER, AUDIENCE = "https://utsteder.example", "meldingsformidler"
PERSON = "13097248022"


def make_key(kid: str = "k1") -> ECKey:
    return ECKey.import_key(ec.generate_private_key(ec.SECP256R1()), {"kid": kid, "use": "sig", "alg": "ES256"})


KEY = make_key()
JWKS = {"keys": [KEY.as_dict(private=False)]}


def make_token(now: datetime, key: ECKey = KEY, header: dict[str, str] | None = None, **claims: Any) -> str:
    times = {"iat": int(now.timestamp()), "exp": int((now + timedelta(minutes=5)).timestamp())}
    body = {"iss": ISSUER, "aud": AUDIENCE, "pid": PERSON} | times | claims
    body = {name: value for name, value in body.items() if value is not None}
    return jwt.encode({"alg": "ES256", "kid": key.kid or "", **(header or {})}, body, key)


def verifier(clock: Callable[[], datetime], jwks: JwksSource | None = None) -> TokenVerifier:
    return TokenVerifier(ISSUER, AUDIENCE, jwks or StaticJwks(JWKS), clock)


async def test_a_citizen_is_who_the_token_says(clock: Any) -> None:
    assert await verifier(clock).citizen(f"Bearer {make_token(clock())}") == PERSON


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer  "])
async def test_the_scheme_may_be_written_in_any_case(clock: Any, scheme: str) -> None:
    assert await verifier(clock).citizen(f"{scheme} {make_token(clock())}") == PERSON


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "a.b.c"])
async def test_a_missing_token_is_a_401_with_a_challenge(clock: Any, header: str | None) -> None:
    with pytest.raises(FiksError) as caught:
        await verifier(clock).citizen(header)
    assert caught.value.status == 401
    assert caught.value.headers == {"WWW-Authenticate": "Bearer"}


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://annen.example"},
        {"iss": None},
        {"aud": "annen"},
        {"aud": None},
        {"aud": ["annen", "andre"]},
        {"exp": None},
        {"exp": "snart"},
        {"exp": 0},
        {"nbf": 99_999_999_999},
    ],
    ids=str,
)
async def test_a_token_that_is_not_for_us_or_not_now_is_a_401(clock: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(FiksError) as caught:
        await verifier(clock).citizen(f"Bearer {make_token(clock(), **changes)}")
    assert caught.value.status == 401


async def test_a_token_may_be_for_several(clock: Any) -> None:
    assert await verifier(clock).citizen(f"Bearer {make_token(clock(), aud=['annen', AUDIENCE])}") == PERSON


async def test_a_token_ends_ten_seconds_after_its_time_and_not_before(clock: Any) -> None:
    token = make_token(clock())
    clock.move(minutes=5, seconds=9)
    assert await verifier(clock).citizen(f"Bearer {token}") == PERSON
    clock.move(seconds=2)
    with pytest.raises(FiksError):
        await verifier(clock).citizen(f"Bearer {token}")


async def test_a_citizens_token_says_for_how_long_it_is_valid(clock: Any) -> None:
    ends = int(clock().timestamp()) + 60
    _, seconds = await verifier(clock).citizen_for(f"Bearer {make_token(clock(), pid='15076500565', exp=ends)}")
    assert seconds == pytest.approx(ends - clock().timestamp())
    clock.move(seconds=65)
    assert (await verifier(clock).citizen_for(f"Bearer {make_token(clock(), pid='15076500565', exp=ends)}"))[1] == 0


async def test_a_token_of_another_key_with_the_same_name_is_a_401(clock: Any) -> None:
    with pytest.raises(FiksError) as caught:
        await verifier(clock).citizen(f"Bearer {make_token(clock(), make_key('k1'))}")
    assert caught.value.status == 401


def _unsigned(now: datetime, **header: str) -> str:
    def part(document: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")

    claims = {"iss": ISSUER, "aud": AUDIENCE, "pid": PERSON, "exp": int(now.timestamp()) + 60}
    return f"{part({'alg': 'none', **header})}.{part(claims)}."


async def test_no_algorithm_is_no_signature(clock: Any) -> None:
    for header in ({}, {"kid": "k1"}, {"alg": "None"}, {"alg": "ES256", "kid": "k1"}):
        with pytest.raises(FiksError) as caught:
            await verifier(clock).citizen(f"Bearer {_unsigned(clock(), **header)}")
        assert caught.value.status == 401


async def test_the_public_key_is_no_shared_secret(clock: Any) -> None:
    public = KEY.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[union-attr]  # an EC key
    signed = _unsigned(clock(), alg="HS256", kid="k1").removesuffix(".")
    mac = base64.urlsafe_b64encode(hmac.digest(public, signed.encode(), "sha256")).decode().rstrip("=")
    with pytest.raises(FiksError) as caught:
        await verifier(clock).citizen(f"Bearer {signed}.{mac}")
    assert caught.value.status == 401


@pytest.mark.klartekst("hypothesis may print its examples")
@given(st.text(max_size=60) | st.from_regex(r"[A-Za-z0-9_-]{0,20}(\.[A-Za-z0-9_-]{0,20}){0,4}", fullmatch=True))
async def test_no_text_makes_it_fail_in_another_way(text: str) -> None:
    with pytest.raises(FiksError) as caught:
        await verifier(lambda: datetime.fromisoformat("2026-11-23T12:00:00+00:00")).citizen(f"Bearer {text}")
    assert caught.value.status == 401
    assert not text or len(text) < 4 or text not in caught.value.message


@pytest.mark.parametrize("payload", ["[]", "1", "null", '"x"'])
async def test_a_signed_payload_that_is_no_object_is_a_401(clock: Any, payload: str) -> None:
    from joserfc import jws  # noqa: PLC0415  # only this test signs anything but claims

    token = jws.serialize_compact({"alg": "ES256", "kid": "k1"}, payload.encode(), KEY)
    with pytest.raises(FiksError) as caught:
        await verifier(clock).citizen(f"Bearer {token}")
    assert caught.value.status == 401


@pytest.mark.parametrize("pid", [None, "", "123", PERSON + "1", 7, ["a"]])
async def test_a_token_without_a_person_is_a_403(clock: Any, pid: Any) -> None:
    with pytest.raises(FiksError) as caught:
        await verifier(clock).citizen(f"Bearer {make_token(clock(), pid=pid)}")
    assert caught.value.status == 403


async def test_a_machine_is_known_by_client_id_and_consumer(clock: Any) -> None:
    token = make_token(clock(), pid=None, client_id="acme", scope="annet ks:fiks", consumer={"ID": "0192:958935420"})
    client = await verifier(clock).client(f"Bearer {token}")
    assert (client.client_id, client.organisasjonsnummer) == ("acme", "958935420")


@pytest.mark.parametrize("consumer", [None, "0192:958935420", {}, {"ID": "0192:1"}, {"ID": 7}])
async def test_a_consumer_of_another_form_is_none(clock: Any, consumer: Any) -> None:
    token = make_token(clock(), client_id="acme", scope="ks:fiks", consumer=consumer)
    assert (await verifier(clock).client(f"Bearer {token}")).organisasjonsnummer is None


@pytest.mark.parametrize(
    "changes", [{"scope": None}, {"scope": "ks:fiksio"}, {"scope": "ks"}, {"client_id": None}, {"client_id": 7}]
)
async def test_a_machine_without_scope_or_id_is_a_403(clock: Any, changes: dict[str, Any]) -> None:
    token = make_token(clock(), **({"client_id": "acme", "scope": "ks:fiks"} | changes))
    with pytest.raises(FiksError) as caught:
        await verifier(clock).client(f"Bearer {token}")
    assert caught.value.status == 403


async def test_a_citizen_is_no_machine(clock: Any) -> None:
    with pytest.raises(FiksError) as caught:
        await verifier(clock).client(f"Bearer {make_token(clock())}")
    assert caught.value.status == 403


async def test_any_valid_token_will_do_where_anybody_may(clock: Any) -> None:
    await verifier(clock).any_caller(f"Bearer {make_token(clock())}")
    with pytest.raises(FiksError):
        await verifier(clock).any_caller("Bearer x")


class _Issuer:
    """An issuer's JWKS door, with keys that the test changes."""

    def __init__(self) -> None:
        self.jwks: Any = JWKS
        self.status = 200
        self.calls = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        if self.status == 0:
            raise httpx.ConnectError("nei", request=request)
        return httpx.Response(self.status, json=self.jwks)

    def source(self) -> HttpJwks:
        return HttpJwks("https://x/jwks", httpx.AsyncClient(transport=httpx.MockTransport(self)))


async def test_keys_are_fetched_once_and_kept(clock: Any) -> None:
    issuer = _Issuer()
    checker = verifier(clock, issuer.source())
    for _ in range(5):
        await checker.citizen(f"Bearer {make_token(clock())}")
    assert issuer.calls == 1


async def test_a_new_key_is_fetched_when_a_token_names_it(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.tokens.REFRESH_AFTER_S", 0.0)
    issuer = _Issuer()
    checker = verifier(clock, issuer.source())
    await checker.citizen(f"Bearer {make_token(clock())}")
    new = make_key("k2")
    issuer.jwks = {"keys": [KEY.as_dict(private=False), new.as_dict(private=False)]}
    assert await checker.citizen(f"Bearer {make_token(clock(), new)}") == PERSON
    assert issuer.calls == 2


async def test_made_up_key_names_do_not_make_us_knock_at_the_issuer(clock: Any) -> None:
    issuer = _Issuer()
    checker = verifier(clock, issuer.source())
    for number in range(20):
        with pytest.raises(FiksError) as caught:
            await checker.citizen(f"Bearer {make_token(clock(), make_key(f'x{number}'))}")
        assert caught.value.status == 401
    assert issuer.calls == 1


@pytest.mark.parametrize("status", [0, 500, 404])
async def test_an_issuer_that_never_answered_is_a_503(clock: Any, status: int) -> None:
    issuer = _Issuer()
    issuer.status = status
    with pytest.raises(FiksError) as caught:
        await verifier(clock, issuer.source()).citizen(f"Bearer {make_token(clock())}")
    assert caught.value.status == 503


@pytest.mark.parametrize("jwks", [[], "x", {"keys": [{"kty": "?"}]}, {}])
async def test_an_issuer_that_answers_nonsense_is_a_503(clock: Any, jwks: Any) -> None:
    issuer = _Issuer()
    issuer.jwks = jwks
    with pytest.raises(FiksError) as caught:
        await verifier(clock, issuer.source()).citizen(f"Bearer {make_token(clock())}")
    assert caught.value.status == 503


async def test_old_keys_serve_while_the_issuer_is_away(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.tokens.REFRESH_AFTER_S", 0.0)
    issuer = _Issuer()
    checker = verifier(clock, issuer.source())
    await checker.citizen(f"Bearer {make_token(clock())}")
    issuer.status = 0
    with pytest.raises(FiksError) as caught:
        await checker.citizen(f"Bearer {make_token(clock(), make_key('k9'))}")
    assert caught.value.status == 401
    assert await checker.citizen(f"Bearer {make_token(clock())}") == PERSON


class _TokenDoor:
    """A token endpoint that remembers its assertions."""

    def __init__(self) -> None:
        self.assertions: list[str] = []
        self.status = 200
        self.content: bytes | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        form = dict(httpx.QueryParams(request.content.decode()))
        self.assertions.append(form["assertion"])
        if self.content is not None:
            return httpx.Response(self.status, content=self.content, request=request)
        body = {"access_token": f"t{len(self.assertions)}", "expires_in": 60}
        return httpx.Response(self.status, json=body, request=request)


@pytest.fixture
def door() -> _TokenDoor:
    return _TokenDoor()


@pytest.fixture
def client_tokens(door: _TokenDoor, clock: Any, connector_key: Any) -> ClientTokens:
    certificate, key = connector_key
    return ClientTokens(
        "https://x/token",
        issuer=ISSUER,
        client_id="acme",
        key=key,
        certificate=certificate,
        http=httpx.AsyncClient(transport=httpx.MockTransport(door)),
        clock=clock,
    )


async def test_a_machines_token_is_kept_until_ten_seconds_before_its_end(
    client_tokens: ClientTokens, door: _TokenDoor, clock: Any
) -> None:
    assert [await client_tokens.access_token() for _ in range(3)] == ["t1"] * 3
    clock.move(seconds=49)
    assert await client_tokens.access_token() == "t1"
    clock.move(seconds=1)
    assert await client_tokens.access_token() == "t2"
    assert len(door.assertions) == 2


async def test_the_assertion_is_signed_short_lived_and_never_the_same(
    client_tokens: ClientTokens, door: _TokenDoor, clock: Any, connector_key: Any
) -> None:
    await client_tokens.access_token()
    clock.move(minutes=2)
    await client_tokens.access_token()
    certificate = connector_key[0]
    tokens = [jwt.decode(a, ECKey.import_key(certificate.public_key())) for a in door.assertions]
    claims = tokens[0].claims
    assert tokens[0].header["kid"] == nokkel_id(certificate)
    assert (claims["iss"], claims["aud"], claims["scope"]) == ("acme", ISSUER, "ks:fiks")
    assert claims["exp"] - claims["iat"] == 120
    assert claims["jti"] != tokens[1].claims["jti"]


async def test_a_refused_assertion_is_an_error_and_asked_again_next_time(
    client_tokens: ClientTokens, door: _TokenDoor
) -> None:
    door.status = 400
    with pytest.raises(httpx.HTTPStatusError):
        await client_tokens.access_token()
    door.status = 200
    assert await client_tokens.access_token() == "t2"


@pytest.mark.parametrize(
    "content",
    [
        b"<html>logg inn</html>",
        b"",
        b"[]",
        b"{}",
        b'"t"',
        b'{"access_token": "t"}',
        b'{"access_token": "t", "expires_in": "snart"}',
        b'{"access_token": "t", "expires_in": 1e300}',
        b'{"access_token": "t", "expires_in": null}',
    ],
)
async def test_an_answer_that_is_no_token_is_an_error_of_the_call_and_asked_for_again(
    client_tokens: ClientTokens, door: _TokenDoor, content: bytes
) -> None:
    door.content = content
    with pytest.raises(httpx.HTTPError):
        await client_tokens.access_token()
    door.content = None
    assert await client_tokens.access_token() == "t2"
