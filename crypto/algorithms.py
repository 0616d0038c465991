"""The algorithms that an envelope may name, by the exact bytes in which the known producers write them.

A table of whole AlgorithmIdentifiers answers for every producer that we have met; anything else is read piece by piece.

Source: RFC 3560 and RFC 4055 section 4.1 (RSAES-OAEP), RFC 8017 (PKCS#1), RFC 3565 (AES in CMS).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from crypto import der
from schemas.errors import UnsealError

if TYPE_CHECKING:
    Unwrapping: TypeAlias = padding.OAEP | padding.PKCS1v15

KEY_BYTES = 32
BLOCK_BYTES = 16

OID_AES_256_CBC = der.oid("2.16.840.1.101.3.4.1.42")
OID_RSA = der.oid("1.2.840.113549.1.1.1")
OID_RSAES_OAEP = der.oid("1.2.840.113549.1.1.7")
OID_MGF1 = der.oid("1.2.840.113549.1.1.8")
OID_P_SPECIFIED = der.oid("1.2.840.113549.1.1.9")

OID_SHA1 = der.oid("1.3.14.3.2.26")
OID_SHA256 = der.oid("2.16.840.1.101.3.4.2.1")
OID_SHA384 = der.oid("2.16.840.1.101.3.4.2.2")
OID_SHA512 = der.oid("2.16.840.1.101.3.4.2.3")

# OAEP's security does not rest on collision resistance, so SHA-1 inside it is no weakness; signatures are another matter.
HASHES: dict[bytes, hashes.HashAlgorithm] = {
    OID_SHA1: hashes.SHA1(),  # noqa: S303 - see above
    OID_SHA256: hashes.SHA256(),
    OID_SHA384: hashes.SHA384(),
    OID_SHA512: hashes.SHA512(),
}


def oaep(digest: hashes.HashAlgorithm, mask_digest: hashes.HashAlgorithm) -> padding.OAEP:
    """Return RSAES-OAEP with these digests and no label."""
    return padding.OAEP(mgf=padding.MGF1(mask_digest), algorithm=digest, label=None)


OAEP_SHA256 = oaep(HASHES[OID_SHA256], HASHES[OID_SHA256])
OAEP_SHA1 = oaep(HASHES[OID_SHA1], HASHES[OID_SHA1])
PKCS1V15 = padding.PKCS1v15()


def _oaep_sha256(null: bytes) -> bytes:
    digest = der.sequence(OID_SHA256, null)
    mask = der.sequence(OID_MGF1, digest)
    return der.sequence(OID_RSAES_OAEP, der.sequence(der.context(0, digest), der.context(1, mask)))


# As KS' BouncyCastle writes it, with explicit NULLs: parameters of 47 bytes.
KEY_TRANSPORT = _oaep_sha256(der.NULL_TLV)

_KNOWN: dict[bytes, Unwrapping] = {
    KEY_TRANSPORT: OAEP_SHA256,
    _oaep_sha256(b""): OAEP_SHA256,  # OpenSSL: 43 bytes
    der.sequence(OID_RSAES_OAEP, der.sequence()): OAEP_SHA1,
    der.sequence(OID_RSAES_OAEP): OAEP_SHA1,
    der.sequence(OID_RSA, der.NULL_TLV): PKCS1V15,
    der.sequence(OID_RSA): PKCS1V15,
}


def key_transport(identifier: der.Node) -> Unwrapping | None:
    """Return how a content key was wrapped, or None for a way that we do not know.

    Args:
        identifier: keyEncryptionAlgorithm of a KeyTransRecipientInfo.

    Raises:
        UnsealError: Malformed.
    """
    known = _KNOWN.get(identifier.raw)
    if known is not None:
        return known
    oid, *parameters = der.children(identifier, at_least=1)
    if oid.raw != OID_RSAES_OAEP or len(parameters) != 1 or parameters[0].tag != der.SEQUENCE:
        return None
    return _oaep_by_parts(parameters[0])


def _oaep_by_parts(parameters: der.Node) -> padding.OAEP | None:
    """Read RSAES-OAEP-params where every part may be absent and stand for SHA-1, MGF1 with SHA-1 and an empty label."""
    digest = mask_digest = HASHES[OID_SHA1]
    for part in der.children(parameters):
        inner, *more = der.children(part, at_least=1)
        if more or inner.tag != der.SEQUENCE:
            return None
        if part.tag == 0xA0:  # noqa: PLR2004 - hashAlgorithm [0]
            chosen = _digest(inner)
        elif part.tag == 0xA1:  # noqa: PLR2004 - maskGenAlgorithm [1]
            chosen = _mask_digest(inner)
        elif part.tag == 0xA2 and _is_empty_label(inner):  # noqa: PLR2004 - pSourceAlgorithm [2]
            continue
        else:
            return None
        if chosen is None:
            return None
        digest, mask_digest = (chosen, mask_digest) if part.tag == 0xA0 else (digest, chosen)  # noqa: PLR2004 - as above
    return oaep(digest, mask_digest)


def _digest(identifier: der.Node) -> hashes.HashAlgorithm | None:
    oid, *parameters = der.children(identifier, at_least=1)
    if [part.raw for part in parameters] not in ([], [der.NULL_TLV]):
        return None
    return HASHES.get(oid.raw)


def _mask_digest(identifier: der.Node) -> hashes.HashAlgorithm | None:
    parts = der.children(identifier)
    if len(parts) != 2 or parts[0].raw != OID_MGF1 or parts[1].tag != der.SEQUENCE:  # noqa: PLR2004 - OID and its one parameter
        return None
    return _digest(parts[1])


def _is_empty_label(identifier: der.Node) -> bool:
    return [part.raw for part in der.children(identifier)] == [OID_P_SPECIFIED, der.octet_string(b"")]


def content_iv(identifier: der.Node) -> bytes:
    """Return the IV of an AES-256-CBC AlgorithmIdentifier, 16 bytes.

    Raises:
        UnsealError: Another cipher, AES-GCM for example, or a malformed one.
    """
    parts = der.children(identifier)
    if len(parts) != 2 or parts[0].raw != OID_AES_256_CBC or parts[1].tag != der.OCTET_STRING:  # noqa: PLR2004 - OID, IV
        raise UnsealError
    iv = parts[1].content
    if len(iv) != BLOCK_BYTES:
        raise UnsealError
    return iv
