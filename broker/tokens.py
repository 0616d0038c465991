"""Bearer tokens: checking those that callers show, and fetching those that we show.

Two kinds of caller, as at Fiks: a citizen with an ID-porten token (``pid`` is the fødselsnummer), and a machine with a
Maskinporten token (``scope``, ``client_id``, ``consumer`` in ISO 6523). Checked: signature by a key of the issuer, algorithm,
issuer, audience, times. A key that we do not know makes us fetch the issuer's keys again, at most once in ten seconds, which
is how keys rotate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from uuid import uuid4

import httpx
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import ECKey, KeySet

from broker.web import FiksError
from crypto.certificates import nokkel_id
from schemas.errors import InvalidNameError
from schemas.names import Fodselsnummer, Organisasjonsnummer

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from broker.clock import Clock

ALGORITHMS: Final = ["RS256", "ES256", "PS256"]
SCOPE: Final = "ks:fiks"
GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LEEWAY_S: Final = 10
REFRESH_AFTER_S: Final = 10.0
ASSERTION_LIFETIME: Final = timedelta(minutes=2)
RENEW_BEFORE: Final = timedelta(seconds=10)

_INVALID: Final = "Klarte ikke å validere access_token"
_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}


class JwksSource(Protocol):
    """Where an issuer's public keys come from."""

    async def keys(self, *, refresh: bool) -> KeySet:
        """Return the keys; ``refresh`` says that a token named a key that the last answer did not have."""
        ...


class StaticJwks:
    """Keys that never change: for tests."""

    def __init__(self, jwks: dict[str, Any]) -> None:
        self._keys = KeySet.import_key_set(jwks)  # type: ignore[arg-type]  # their TypedDict is narrower than JSON

    async def keys(self, *, refresh: bool) -> KeySet:
        """Return the keys."""
        _ = refresh
        return self._keys


class HttpJwks:
    """Keys fetched from an issuer's ``jwks_uri`` and kept."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._http = http
        self._keys: KeySet | None = None
        self._fetched = -REFRESH_AFTER_S

    async def keys(self, *, refresh: bool) -> KeySet:
        """Return the keys, fetched again when asked to and the last fetch is ten seconds old.

        Raises:
            FiksError: 503, when the issuer does not answer and nothing was ever fetched.
        """
        due = time.monotonic() - self._fetched >= REFRESH_AFTER_S
        if self._keys is None or (refresh and due):
            self._keys = await self._fetch() or self._keys
        if self._keys is None:
            raise FiksError(503, "utstederen av access_token svarer ikke; prøv igjen", headers={"Retry-After": "5"})
        return self._keys

    async def _fetch(self) -> KeySet | None:
        self._fetched = time.monotonic()
        try:
            answer = await self._http.get(self._url)
            answer.raise_for_status()
            return KeySet.import_key_set(answer.json())
        except (httpx.HTTPError, ValueError, KeyError, TypeError, JoseError):  # any JSON may come, or none
            return None


@dataclass(frozen=True)
class Client:
    """A machine that showed a valid token.

    Attributes:
        client_id: For a connector, its id in the katalog.
        organisasjonsnummer: The ``consumer``, when the token names one.
    """

    client_id: str
    organisasjonsnummer: Organisasjonsnummer | None


class TokenVerifier:
    """Checks ``Authorization`` headers.

    Args:
        issuer: The ``iss`` that counts.
        audience: The ``aud`` that counts.
        jwks: The issuer's keys.
        clock: What the time is.
    """

    def __init__(self, issuer: str, audience: str, jwks: JwksSource, clock: Clock) -> None:
        self._issuer = issuer
        self._audience = audience
        self._jwks = jwks
        self._clock = clock

    async def citizen(self, authorization: str | None) -> Fodselsnummer:
        """Return the person whose token this is.

        Raises:
            FiksError: 401 for a missing or invalid token, 403 for a valid one that names no person.
        """
        return (await self.citizen_for(authorization))[0]

    async def citizen_for(self, authorization: str | None) -> tuple[Fodselsnummer, float]:
        """Return the person whose token this is, and for how many seconds more it is valid: for an answer that goes on.

        Raises:
            FiksError: As ``citizen``.
        """
        claims = await self._claims(authorization)
        try:
            person = Fodselsnummer(str(claims.get("pid", "")))
        except InvalidNameError:
            raise FiksError(403, "access_token gjelder ikke en person (pid mangler)") from None
        return person, max(float(claims["exp"]) - self._clock().timestamp(), 0.0)

    async def client(self, authorization: str | None, scope: str = SCOPE) -> Client:
        """Return the machine whose token this is.

        Raises:
            FiksError: 401 for a missing or invalid token, 403 for a valid one without ``scope``.
        """
        claims = await self._claims(authorization)
        client_id = claims.get("client_id")
        if scope not in str(claims.get("scope", "")).split() or not isinstance(client_id, str):
            raise FiksError(403, f"access_token har ikke scope {scope}")
        return Client(client_id, _consumer(claims))

    async def any_caller(self, authorization: str | None) -> None:
        """Accept any valid token, a citizen's or a machine's.

        Raises:
            FiksError: 401.
        """
        await self._claims(authorization)

    async def _claims(self, authorization: str | None) -> dict[str, Any]:
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise FiksError(401, "mangler Authorization: Bearer <access_token>", headers=_CHALLENGE)
        for refresh in (False, True):
            keys = await self._jwks.keys(refresh=refresh)
            try:
                return self._check(token.strip(), keys)
            except InvalidKeyIdError:  # the issuer may have a new key since we asked
                continue
            except JoseError:
                break
        raise FiksError(401, _INVALID, headers=_CHALLENGE)

    def _check(self, token: str, keys: KeySet) -> dict[str, Any]:
        claims = jwt.decode(token, keys, algorithms=ALGORITHMS).claims
        now = int(self._clock().timestamp())
        jwt.JWTClaimsRegistry(
            now=now,
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._audience},
            exp={"essential": True},
        ).validate(claims)
        return claims


def _consumer(claims: dict[str, Any]) -> Organisasjonsnummer | None:
    consumer = claims.get("consumer")
    identifier = str(cast("dict[str, Any]", consumer).get("ID", "")) if isinstance(consumer, dict) else ""
    try:
        return Organisasjonsnummer(identifier.removeprefix("0192:"))
    except InvalidNameError:
        return None


def _token_of(answer: httpx.Response) -> tuple[str, timedelta]:
    """Return the token in an issuer's answer and how long it is valid; a proxy may have answered with anything."""
    try:
        body = answer.json()
        return str(body["access_token"]), timedelta(seconds=int(body["expires_in"]))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise httpx.DecodingError("utstederens svar er ikke et access_token", request=answer.request) from error


class ClientTokens:
    """Fetches machine tokens by the JWT-bearer grant (RFC 7523, as Maskinporten), and keeps one until shortly before its end.

    Args:
        token_url: The issuer's token endpoint.
        issuer: The issuer's name, audience of the assertion.
        client_id: Who we are; for a connector, its id.
        key: Private key that signs the assertion.
        certificate: Its certificate; the fingerprint is the assertion's ``kid``.
        http: Client to call with.
        clock: What the time is.
        scope: What to ask for.
    """

    def __init__(
        self,
        token_url: str,
        *,
        issuer: str,
        client_id: str,
        key: EllipticCurvePrivateKey,
        certificate: x509.Certificate,
        http: httpx.AsyncClient,
        clock: Clock,
        scope: str = SCOPE,
    ) -> None:
        self._url = token_url
        self._issuer = issuer
        self._client_id = client_id
        self._key = ECKey.import_key(key)
        self._kid = nokkel_id(certificate)
        self._http = http
        self._clock = clock
        self._scope = scope
        self._token = ""
        self._renew_at = datetime.min.replace(tzinfo=UTC)

    async def access_token(self) -> str:
        """Return a token that is valid for at least ten seconds more.

        Raises:
            httpx.HTTPError: The issuer did not answer, refused, or answered with something else than a token.
        """
        now = self._clock()
        if now >= self._renew_at:
            answer = await self._http.post(
                self._url, data={"grant_type": GRANT_TYPE, "assertion": self._assertion(now)}
            )
            answer.raise_for_status()
            self._token, lifetime = _token_of(answer)
            self._renew_at = now + lifetime - RENEW_BEFORE
        return self._token

    def forget(self) -> None:
        """Fetch a new token the next time: somebody refused this one."""
        self._renew_at = datetime.min.replace(tzinfo=UTC)

    def _assertion(self, now: datetime) -> str:
        claims = {
            "iss": self._client_id,
            "aud": self._issuer,
            "scope": self._scope,
            "iat": int(now.timestamp()),
            "exp": int((now + ASSERTION_LIFETIME).timestamp()),
            "jti": str(uuid4()),
        }
        return jwt.encode({"alg": "ES256", "kid": self._kid}, claims, self._key)
