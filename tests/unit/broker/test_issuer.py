from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import ECKey

from broker.issuer import LocalIssuer, check_loopback, issuer_router, load_issuer_key
from broker.katalog import Katalog
from broker.tokens import GRANT_TYPE, ClientTokens, StaticJwks, TokenVerifier
from broker.web import FiksError, install_fiks_errors
from crypto import write_private_key
from crypto.certificates import nokkel_id, organisasjonsnummer
from schemas.errors import ConfigurationError, KeyFileError
from schemas.names import Fodselsnummer

ISSUER, AUDIENCE = "http://127.0.0.1:1/utsteder", "meldingsformidler"
PERSON = "13097248022"


@pytest.fixture
def issuer(make_entry: Any, clock: Any) -> LocalIssuer:
    key = ec.generate_private_key(ec.SECP256R1())
    return LocalIssuer(ISSUER, AUDIENCE, key, Katalog([make_entry()]), clock)


@pytest.fixture
def verifier(issuer: LocalIssuer, clock: Any) -> TokenVerifier:
    return TokenVerifier(ISSUER, AUDIENCE, StaticJwks(issuer.jwks()), clock)


def make_http(issuer: LocalIssuer) -> httpx.AsyncClient:
    app = FastAPI()
    install_fiks_errors(app)
    app.include_router(issuer_router(issuer))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:1")


def make_assertion(clock: Any, key: Any, kid: str, **changes: Any) -> str:
    now = int(clock().timestamp())
    claims = {"iss": "acme", "aud": ISSUER, "scope": "ks:fiks", "iat": now, "exp": now + 120} | changes
    return jwt.encode({"alg": "ES256", "kid": kid}, claims, ECKey.import_key(key))


async def test_a_citizens_token_is_one_that_our_doors_take(issuer: LocalIssuer, verifier: TokenVerifier) -> None:
    assert await verifier.citizen(f"Bearer {issuer.citizen_token(Fodselsnummer(PERSON))}") == PERSON


async def test_a_token_ends_after_an_hour(issuer: LocalIssuer, verifier: TokenVerifier, clock: Any) -> None:
    token = issuer.citizen_token(Fodselsnummer(PERSON))
    clock.move(hours=1, seconds=11)
    with pytest.raises(FiksError):
        await verifier.citizen(f"Bearer {token}")


def test_the_published_keys_hold_nothing_secret(issuer: LocalIssuer) -> None:
    assert [set(key) & {"d", "p", "q", "k"} for key in issuer.jwks()["keys"]] == [set()]


async def test_a_connector_gets_its_token_by_its_certificate(
    issuer: LocalIssuer, verifier: TokenVerifier, clock: Any, connector_key: Any
) -> None:
    certificate, key = connector_key
    async with make_http(issuer) as http:
        tokens = ClientTokens(
            f"{ISSUER}/token",
            issuer=ISSUER,
            client_id="acme",
            key=key,
            certificate=certificate,
            http=http,
            clock=clock,
        )
        client = await verifier.client(f"Bearer {await tokens.access_token()}")
    assert (client.client_id, client.organisasjonsnummer) == ("acme", "958935420")


@pytest.mark.parametrize(
    "changes",
    [{"iss": "en-annen"}, {"aud": "en-annen"}, {"exp": 0}, {"exp": None}, {"iss": None}, {"aud": None}],
    ids=str,
)
def test_an_assertion_with_wrong_claims_is_refused(
    issuer: LocalIssuer, clock: Any, connector_key: Any, changes: dict[str, Any]
) -> None:
    certificate, key = connector_key
    with pytest.raises(FiksError) as caught:
        issuer.client_token(make_assertion(clock, key, nokkel_id(certificate), **changes))
    assert caught.value.status == 400


def test_an_assertion_of_another_key_is_refused(issuer: LocalIssuer, clock: Any, connector_key: Any) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(FiksError):
        issuer.client_token(make_assertion(clock, other, nokkel_id(connector_key[0])))


def test_a_certificate_that_the_katalog_does_not_have_is_refused(issuer: LocalIssuer, clock: Any, issue: Any) -> None:
    certificate, key = issue("signering")
    with pytest.raises(FiksError):
        issuer.client_token(make_assertion(clock, key, nokkel_id(certificate)))


def test_a_certificate_that_has_expired_is_refused(
    make_entry: Any, make_sertifikat: Any, issue: Any, clock: Any
) -> None:
    certificate, key = issue("signering", start=timedelta(days=-20), days=10)
    katalog = Katalog([make_entry(sertifikater=(make_sertifikat(certificate, "KVITTERING"),))])
    issuer = LocalIssuer(ISSUER, AUDIENCE, ec.generate_private_key(ec.SECP256R1()), katalog, clock)
    with pytest.raises(FiksError):
        issuer.client_token(make_assertion(clock, key, nokkel_id(certificate)))


def test_a_certificate_for_encryption_signs_nothing(
    make_entry: Any, make_sertifikat: Any, issue: Any, clock: Any
) -> None:
    certificate, key = issue("signering")
    katalog = Katalog([make_entry(sertifikater=(make_sertifikat(certificate, "KRYPTERING"),))])
    issuer = LocalIssuer(ISSUER, AUDIENCE, ec.generate_private_key(ec.SECP256R1()), katalog, clock)
    with pytest.raises(FiksError):
        issuer.client_token(make_assertion(clock, key, nokkel_id(certificate)))


def test_a_katalog_certificate_of_another_kind_of_key_is_refused_and_not_a_crash(
    make_entry: Any, make_sertifikat: Any, issue: Any, clock: Any, connector_key: Any
) -> None:
    certificate, _ = issue("kryptering")  # RSA
    katalog = Katalog([make_entry(sertifikater=(make_sertifikat(certificate, "KVITTERING"),))])
    issuer = LocalIssuer(ISSUER, AUDIENCE, ec.generate_private_key(ec.SECP256R1()), katalog, clock)
    with pytest.raises(FiksError):
        issuer.client_token(make_assertion(clock, connector_key[1], nokkel_id(certificate)))


@pytest.mark.parametrize(
    "text", ["", "a", "a.b.c", "....", "æ.ø.å", "eyJhbGciOiJub25lIn0.e30.", "e30.e30.e30", "W10.e30.AA"]
)
def test_no_text_makes_it_fail_in_another_way(issuer: LocalIssuer, text: str) -> None:
    with pytest.raises(FiksError) as caught:
        issuer.client_token(text)
    assert caught.value.status == 400


async def test_the_door_speaks_oauth(issuer: LocalIssuer, clock: Any, connector_key: Any) -> None:
    certificate, key = connector_key
    assertion = make_assertion(clock, key, nokkel_id(certificate))
    async with make_http(issuer) as http:
        good = await http.post("/utsteder/token", data={"grant_type": GRANT_TYPE, "assertion": assertion})
        wrong_grant = await http.post("/utsteder/token", data={"grant_type": "password", "assertion": assertion})
        missing = await http.post("/utsteder/token", data={"grant_type": GRANT_TYPE})
        told = (await http.get("/utsteder/.well-known/openid-configuration")).json()
        keys = (await http.get("/utsteder/jwks")).json()
    assert (good.status_code, good.json()["token_type"], good.json()["expires_in"]) == (200, "Bearer", 3600)
    assert (wrong_grant.status_code, missing.status_code) == (400, 400)
    assert told == {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks", "token_endpoint": f"{ISSUER}/token"}
    assert keys == issuer.jwks()


async def test_a_developer_gets_a_citizens_token(issuer: LocalIssuer, verifier: TokenVerifier) -> None:
    async with make_http(issuer) as http:
        answer = await http.post("/utsteder/utvikling/borgertoken", json={"pid": PERSON})
        refused = await http.post("/utsteder/utvikling/borgertoken", json={"pid": "hemmelig"})
    assert await verifier.citizen(f"Bearer {answer.json()['access_token']}") == PERSON
    assert refused.status_code == 400
    assert "hemmelig" not in refused.text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_it_may_listen_on_this_machine(host: str) -> None:
    check_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "", "localhost.example.com"])
def test_it_may_listen_nowhere_else(host: str) -> None:
    with pytest.raises(ConfigurationError):
        check_loopback(host)


def test_its_key_is_read_from_a_private_file_alone(tmp_path: Path, issue: Any) -> None:
    path = tmp_path / "utsteder.key"
    write_private_key(path, ec.generate_private_key(ec.SECP256R1()))
    assert load_issuer_key(path).curve.name == "secp256r1"
    os.chmod(path, 0o644)  # noqa: PTH101  # says what a careless admin does
    with pytest.raises(KeyFileError):
        load_issuer_key(path)
    rsa = tmp_path / "rsa.key"
    write_private_key(rsa, issue("kryptering")[1])
    with pytest.raises(ConfigurationError):
        load_issuer_key(rsa)


async def test_the_senders_own_machine_gets_a_token_that_names_the_sender(
    make_entry: Any, clock: Any, issue: Any
) -> None:
    certificate, key = issue("signering")
    issuer = LocalIssuer(
        ISSUER, AUDIENCE, ec.generate_private_key(ec.SECP256R1()), Katalog([make_entry()]), clock, sender=certificate
    )
    verifier = TokenVerifier(ISSUER, AUDIENCE, StaticJwks(issuer.jwks()), clock)
    token = issuer.client_token(make_assertion(clock, key, nokkel_id(certificate), iss="avsender"))
    client = await verifier.client(f"Bearer {token}")
    assert (client.client_id, client.organisasjonsnummer) == ("avsender", organisasjonsnummer(certificate))


def test_a_connectors_certificate_does_not_make_it_the_sender(
    issuer: LocalIssuer, clock: Any, connector_key: Any
) -> None:
    certificate, key = connector_key
    with pytest.raises(FiksError, match="assertion"):
        issuer.client_token(make_assertion(clock, key, nokkel_id(certificate), iss="avsender"))
