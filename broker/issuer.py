"""A local issuer of tokens, for development, demo and tests: what ID-porten and Maskinporten are in production.

It hands out a citizen's token to whoever asks, so it exists only where ``formidler up`` starts everything on one machine:
``check_loopback`` refuses any other address to listen on.

* ``GET /utsteder/jwks``: the public keys.
* ``GET /utsteder/.well-known/openid-configuration``: where the rest is.
* ``POST /utsteder/token``: a machine's token by the JWT-bearer grant (RFC 7523). The assertion must be signed by a
  certificate that the katalog holds for that connector.
* ``POST /utsteder/utvikling/borgertoken`` ``{"pid": …}``: a citizen's token.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from fastapi import APIRouter, Form
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from joserfc.jws import extract_compact
from pydantic import BaseModel

from broker.tokens import GRANT_TYPE, LEEWAY_S
from broker.web import FiksError
from crypto.certificates import judge_validity, nokkel_id, organisasjonsnummer
from crypto.keys import load_private_key
from schemas.errors import CertificateError, ConfigurationError, InvalidNameError
from schemas.names import Fodselsnummer, NokkelId, Organisasjonsnummer

if TYPE_CHECKING:
    from pathlib import Path

    from broker.clock import Clock
    from broker.katalog import Katalog

TOKEN_LIFETIME: Final = timedelta(hours=1)
SENDER_CLIENT_ID: Final = "avsender"
"""Client id of the sender's own machines; no connector may have it."""
_ALGORITHM: Final = "ES256"


def check_loopback(host: str) -> None:
    """Refuse to be reachable from elsewhere.

    Raises:
        ConfigurationError: ``host`` is not a loopback address.
    """
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigurationError("den lokale utstederen av tokens kan bare lytte på 127.0.0.1, ::1 eller localhost")


def load_issuer_key(path: Path) -> EllipticCurvePrivateKey:
    """Read the issuer's signing key.

    Raises:
        KeyFileError: The file is missing or readable by others.
        ConfigurationError: It is not an elliptic-curve key.
    """
    key = load_private_key(path)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ConfigurationError(f"{path}: utstederen signerer med en P-256-nøkkel")
    return key


class BorgertokenRequest(BaseModel):
    """Whose token to issue."""

    pid: Fodselsnummer


class LocalIssuer:
    """Signs tokens with one P-256 key.

    Args:
        issuer: Its name, the ``iss`` of every token.
        audience: The ``aud`` of every token.
        key: Signing key.
        katalog: Which certificates belong to which connector.
        clock: What the time is.
        sender: Certificate of the sender's own machines, whose client id is ``SENDER_CLIENT_ID``.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        key: EllipticCurvePrivateKey,
        katalog: Katalog,
        clock: Clock,
        *,
        sender: x509.Certificate | None = None,
    ) -> None:
        self.issuer = issuer
        self._audience = audience
        self._key = ECKey.import_key(key, {"use": "sig", "alg": _ALGORITHM})
        self._key.ensure_kid()
        self._katalog = katalog
        self._clock = clock
        self._sender = sender

    def jwks(self) -> dict[str, Any]:
        """Return the public keys as a JWK set."""
        return {"keys": [self._key.as_dict(private=False)]}

    def citizen_token(self, person: Fodselsnummer) -> str:
        """Return a token as ID-porten's: ``pid`` is the person."""
        return self._sign({"pid": str(person), "sub": str(uuid4()), "acr": "idporten-loa-high"})

    def client_token(self, assertion: str) -> str:
        """Return a token as Maskinporten's for the connector that signed ``assertion``.

        Raises:
            FiksError: 400, when the assertion is not signed by a certificate of that connector, or is out of date.
        """
        try:
            client_id, organisasjonsnummer, scope = self._check_assertion(assertion)
        except (JoseError, InvalidNameError, CertificateError, KeyError):
            raise FiksError(400, "invalid_grant: assertion er ikke gyldig for denne klienten") from None
        consumer = {"authority": "iso6523-actorid-upis", "ID": f"0192:{organisasjonsnummer}"}
        return self._sign({"client_id": client_id, "scope": scope, "consumer": consumer})

    def _check_assertion(self, assertion: str) -> tuple[str, Organisasjonsnummer, str]:
        now = self._clock()
        client_id, organisation, certificate = self._client(str(extract_compact(assertion.encode()).headers()["kid"]))
        key = certificate.public_key()
        if not isinstance(key, EllipticCurvePublicKey):
            raise CertificateError("en klient signerer med en P-256-nøkkel")
        judge_validity(certificate, now)
        token = jwt.decode(assertion, ECKey.import_key(key), algorithms=[_ALGORITHM])
        jwt.JWTClaimsRegistry(
            now=int(now.timestamp()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": client_id},
            aud={"essential": True, "value": self.issuer},
            exp={"essential": True},
        ).validate(token.claims)
        return client_id, organisation, str(token.claims.get("scope", ""))

    def _client(self, kid: str) -> tuple[str, Organisasjonsnummer, x509.Certificate]:
        """Return whose certificate ``kid`` names: the sender's own machine, or a connector of the katalog."""
        if self._sender is not None and nokkel_id(self._sender) == kid:
            return SENDER_CLIENT_ID, organisasjonsnummer(self._sender), self._sender
        entry, certificate = self._katalog.signer(NokkelId(kid))
        return entry.konnektor, entry.organisasjonsnummer, certificate

    def _sign(self, claims: dict[str, Any]) -> str:
        now: datetime = self._clock()
        times = {"iat": int(now.timestamp()), "exp": int((now + TOKEN_LIFETIME).timestamp()), "jti": str(uuid4())}
        header = {"alg": _ALGORITHM, "kid": self._key.kid}
        return jwt.encode(header, {"iss": self.issuer, "aud": self._audience} | times | claims, self._key)


def issuer_router(issuer: LocalIssuer) -> APIRouter:
    """Return the issuer's routes, to be mounted under ``/utsteder``."""
    router = APIRouter(prefix="/utsteder", tags=["utvikling"])

    @router.get("/jwks")
    async def jwks() -> dict[str, Any]:
        return issuer.jwks()

    @router.get("/.well-known/openid-configuration")
    async def configuration() -> dict[str, str]:
        return {
            "issuer": issuer.issuer,
            "jwks_uri": f"{issuer.issuer}/jwks",
            "token_endpoint": f"{issuer.issuer}/token",
        }

    @router.post("/token")
    async def token(grant_type: Annotated[str, Form()], assertion: Annotated[str, Form()]) -> dict[str, str | int]:
        if grant_type != GRANT_TYPE:
            raise FiksError(400, f"unsupported_grant_type: bare {GRANT_TYPE}")
        return _token_answer(issuer.client_token(assertion))

    @router.post("/utvikling/borgertoken")
    async def borgertoken(request: BorgertokenRequest) -> dict[str, str | int]:
        return _token_answer(issuer.citizen_token(request.pid))

    _ = jwks, configuration, token, borgertoken
    return router


def _token_answer(token: str) -> dict[str, str | int]:
    return {"access_token": token, "token_type": "Bearer", "expires_in": int(TOKEN_LIFETIME.total_seconds())}
