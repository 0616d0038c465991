"""Compact JWS with ES256: how kvitteringer are signed, and operators' acts.

The header is ``{"alg":"ES256","typ":"kvittering+jws","x5t#S256":…}``. ``typ`` says what is signed, so that no signature of one
kind passes for another; the last is the base64url SHA-256 of the signer's certificate. The certificate is looked up by it among
those that the verifier has; keys in a header are never used. Only ES256 is accepted, and exactly the three header fields above.

Source: RFC 7515, RFC 7518 section 3.4.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from crypto.certificates import certificate_der
from schemas.errors import SignatureError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography import x509

TYPE = "kvittering+jws"
MAX_JWS_BYTES = 64 * 1024
MAX_HEADER_CHARS = 512
"""Ours has 132. Nothing of a stranger's is parsed before its signature holds, but for so much."""
_NUMBER_BYTES = 32
_PARTS = 3
_ES256 = ec.ECDSA(hashes.SHA256())


def sign_jws(payload: bytes, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, *, typ: str = TYPE) -> str:
    """Return the compact JWS of ``payload``.

    Args:
        payload: Any bytes; for a kvittering UTF-8 JSON.
        key: P-256.
        certificate: The key's certificate, which the header names.
        typ: What is signed.

    Raises:
        ValueError: The key is not P-256, or does not belong to the certificate.
    """
    signing_input = f"{_header(certificate, typ)}.{_encode(payload)}"
    if not isinstance(key.curve, ec.SECP256R1) or key.public_key() != certificate.public_key():
        raise ValueError("ES256 needs a P-256 key that belongs to the certificate")
    r, s = decode_dss_signature(key.sign(signing_input.encode("ascii"), _ES256))
    return f"{signing_input}.{_encode(r.to_bytes(_NUMBER_BYTES, 'big') + s.to_bytes(_NUMBER_BYTES, 'big'))}"


def verify_jws(
    token: str, certificates: Iterable[x509.Certificate], *, typ: str = TYPE
) -> tuple[bytes, x509.Certificate]:
    """Return the payload of a compact JWS, and whose certificate signed it.

    Whether that certificate is valid and may sign this is the caller's question.

    Args:
        token: The compact serialization, at most 64 KiB.
        certificates: Those that may have signed.
        typ: What must have been signed.

    Raises:
        SignatureError: Malformed, another algorithm or type, an unknown certificate, or a wrong signature.
    """
    parts = token.split(".")
    if len(parts) != _PARTS or len(token) > MAX_JWS_BYTES:
        raise SignatureError("kvitteringen er ikke en kompakt JWS")
    certificate = _find(parts[0], tuple(certificates), typ)
    key = certificate.public_key()
    signature = _decode(parts[2])
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise SignatureError("kvitteringens sertifikat har ikke en P-256-nøkkel")
    if len(signature) != 2 * _NUMBER_BYTES:
        raise SignatureError("kvitteringens signatur har feil lengde")
    r, s = (int.from_bytes(half, "big") for half in (signature[:_NUMBER_BYTES], signature[_NUMBER_BYTES:]))
    try:
        key.verify(encode_dss_signature(r, s), f"{parts[0]}.{parts[1]}".encode("ascii"), _ES256)
    except (InvalidSignature, UnicodeEncodeError):
        raise SignatureError("kvitteringens signatur stemmer ikke") from None
    return _decode(parts[1]), certificate


def _find(header: str, certificates: tuple[x509.Certificate, ...], typ: str) -> x509.Certificate:
    """Return the certificate that the header names; a header of our own making is compared as it stands."""
    for certificate in certificates:
        if _header(certificate, typ) == header:
            return certificate
    if len(header) > MAX_HEADER_CHARS:
        raise SignatureError("kvitteringens hode er for langt")
    try:
        fields = json.loads(_decode(header))
    except (ValueError, RecursionError):
        raise SignatureError("kvitteringens hode er ikke JSON") from None
    if not isinstance(fields, dict) or fields.keys() != {"alg", "typ", "x5t#S256"}:
        raise SignatureError("kvitteringens hode har andre felter enn alg, typ og x5t#S256")
    if fields["alg"] != "ES256" or fields["typ"] != typ:
        raise SignatureError("kvitteringen er ikke signert med ES256, eller er ikke en kvittering")
    for certificate in certificates:
        if _thumbprint(certificate) == fields["x5t#S256"]:
            return certificate
    raise SignatureError("kvitteringen er signert med et ukjent sertifikat")


@lru_cache(maxsize=4096)
def _header(certificate: x509.Certificate, typ: str) -> str:
    fields = {"alg": "ES256", "typ": typ, "x5t#S256": _thumbprint(certificate)}
    return _encode(json.dumps(fields, separators=(",", ":")).encode())


def _thumbprint(certificate: x509.Certificate) -> str:
    return _encode(hashlib.sha256(certificate_der(certificate)).digest())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    """Decode base64url, and only the one spelling that encoding gives: a signature must not have two."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise SignatureError("kvitteringen er ikke base64url") from None
    if _encode(data) != text:
        raise SignatureError("kvitteringen er ikke base64url")
    return data
