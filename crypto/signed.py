"""Detached CMS signatures (CAdES-BES): written over a manifest's bytes, and verified.

Written: SHA-256 with the signer's key (RSA PKCS#1 v1.5 or ECDSA), signed attributes contentType, signingTime, messageDigest and
signing-certificate-v2, and the whole certificate chain. DER.

Verified, DER or BER:

1. Every SignerInfo must be good: its certificate among those in the signature, its digest that of the content, its value right.
   A signature that is partly wrong was touched by somebody, and we do not choose the half that suits.
2. At least one of the certificates must be trusted, which the caller's ``Trust`` decides. The first of them is the signer.
3. With signed attributes or without. SHA-256, SHA-384 and SHA-512; SHA-1 only from senders that ``Trust`` names, and reported.
4. Content inside the signature is refused: the signed bytes are always the manifest that stands beside it.

Source: RFC 5652 section 5, RFC 5754, RFC 5035 (signing-certificate-v2), ETSI EN 319 122-1.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from crypto import der
from crypto.algorithms import HASHES, OID_RSA, OID_SHA1, OID_SHA256, OID_SHA384, OID_SHA512
from crypto.ber import OID_DATA
from crypto.certificates import certificate_der, issuer_and_serial, subject_key_identifier
from schemas.errors import UnsealError

if TYPE_CHECKING:
    from datetime import datetime

    from crypto.keys import Signer
    from crypto.trust import Trust

OID_SIGNED_DATA = der.oid("1.2.840.113549.1.7.2")
_OID_CONTENT_TYPE = der.oid("1.2.840.113549.1.9.3")
_OID_MESSAGE_DIGEST = der.oid("1.2.840.113549.1.9.4")
_OID_SIGNING_TIME = der.oid("1.2.840.113549.1.9.5")
_OID_SIGNING_CERTIFICATE_V2 = der.oid("1.2.840.113549.1.9.16.2.47")
_OID_ECDSA_SHA256 = der.oid("1.2.840.10045.4.3.2")

# A signature algorithm names its digest, except rsaEncryption, which leaves that to digestAlgorithm.
_RSA = {
    OID_RSA: None,
    der.oid("1.2.840.113549.1.1.5"): OID_SHA1,
    der.oid("1.2.840.113549.1.1.11"): OID_SHA256,
    der.oid("1.2.840.113549.1.1.12"): OID_SHA384,
    der.oid("1.2.840.113549.1.1.13"): OID_SHA512,
}
_ECDSA = {
    der.oid("1.2.840.10045.4.1"): OID_SHA1,
    _OID_ECDSA_SHA256: OID_SHA256,
    der.oid("1.2.840.10045.4.3.3"): OID_SHA384,
    der.oid("1.2.840.10045.4.3.4"): OID_SHA512,
}
_DIGEST_NAMES = {OID_SHA1: "sha1", OID_SHA256: "sha256", OID_SHA384: "sha384", OID_SHA512: "sha512"}
_PKCS1V15 = PKCS1v15()
_SHA256 = hashes.SHA256()
_ECDSA_SHA256 = ec.ECDSA(_SHA256)
_VERSION_1 = der.integer(1)
_CONTEXT_0, _CONTEXT_1 = 0xA0, 0xA1
_KEY_IDENTIFIER = 0x80
_MAX_SIGNERS = 8
SHA1_WARNING = "sha1-signatur"


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that holds.

    Args:
        signer: The first trusted signer's certificate.
        certificates: Every certificate that came with the signature.
        warnings: ``sha1-signatur`` if a SHA-1 digest was let through for this sender.
    """

    signer: x509.Certificate
    certificates: tuple[x509.Certificate, ...]
    warnings: tuple[str, ...] = ()


@lru_cache(maxsize=64)
def _fixed_parts(certificate: x509.Certificate, chain: tuple[x509.Certificate, ...]) -> tuple[bytes, bytes, bytes]:
    """Return what depends on the signer alone: the certificate set, the signer's name, and the attribute that binds it."""
    certificates = sorted({certificate_der(each) for each in (certificate, *chain)})
    name = issuer_and_serial(certificate)
    issuer, serial = der.children(der.read(name))
    issuer_serial = der.sequence(der.sequence(der.context(4, issuer.raw)), serial.raw)
    digest = der.octet_string(hashlib.sha256(certificate_der(certificate)).digest())
    binding = der.sequence(der.sequence(der.sequence(digest, issuer_serial)))
    return der.context(0, *certificates), name, _attribute(_OID_SIGNING_CERTIFICATE_V2, binding)


def _attribute(oid: bytes, value: bytes) -> bytes:
    return der.sequence(oid, der.set_of(value))


def sign_detached(content: bytes, signer: Signer, now: datetime) -> bytes:
    """Return a detached signature over ``content``.

    Args:
        content: The bytes that will stand beside the signature.
        signer: Certificate, key and chain.
        now: Aware UTC; becomes signingTime.

    Returns:
        DER of a ContentInfo with SignedData.
    """
    certificates, name, binding = _fixed_parts(signer.certificate, signer.chain)
    attributes = der.set_of(
        _attribute(_OID_CONTENT_TYPE, OID_DATA),
        _attribute(_OID_SIGNING_TIME, der.time(now)),
        _attribute(_OID_MESSAGE_DIGEST, der.octet_string(hashlib.sha256(content).digest())),
        binding,
    )
    if isinstance(signer.private_key, rsa.RSAPrivateKey):
        algorithm = der.sequence(OID_RSA, der.NULL_TLV)
        value = signer.private_key.sign(attributes, _PKCS1V15, _SHA256)
    else:
        algorithm = der.sequence(_OID_ECDSA_SHA256)
        value = signer.private_key.sign(attributes, _ECDSA_SHA256)
    digest = der.sequence(OID_SHA256)
    implicit = bytes((_CONTEXT_0,)) + attributes[1:]
    info = der.sequence(_VERSION_1, name, digest, implicit, algorithm, der.octet_string(value))
    signed = der.sequence(_VERSION_1, der.set_of(digest), der.sequence(OID_DATA), certificates, der.set_of(info))
    return der.sequence(OID_SIGNED_DATA, der.context(0, signed))


def verify_detached(signature: bytes, content: bytes, trust: Trust, now: datetime) -> Verified:
    """Check a detached signature over ``content`` and that somebody trusted made it.

    Args:
        signature: ContentInfo with SignedData, DER or BER.
        content: The bytes beside it.
        trust: Whose signature counts, and who may still sign with SHA-1.
        now: Aware UTC time that certificates are judged against.

    Raises:
        UnsealError: Whatever is wrong.
    """
    certificates, signer_infos = _parse(signature)
    signers: list[tuple[x509.Certificate, bool]] = []
    for info in signer_infos:
        signer, digest_oid = _verify_info(info, content, certificates)
        signers.append((signer, digest_oid == OID_SHA1))
    if any(by_sha1 and not trust.allows_sha1(signer) for signer, by_sha1 in signers):
        raise UnsealError
    warnings = (SHA1_WARNING,) if any(by_sha1 for _, by_sha1 in signers) else ()
    for signer, _ in signers:
        if trust.accepts(signer, certificates, now):
            return Verified(signer, certificates, warnings)
    raise UnsealError


def _parse(signature: bytes) -> tuple[tuple[x509.Certificate, ...], list[der.Node]]:
    """Return the certificates and the SignerInfos of a SignedData without content."""
    outer = der.children(der.read(signature))
    if [node.tag for node in outer] != [der.OBJECT_IDENTIFIER, _CONTEXT_0] or outer[0].raw != OID_SIGNED_DATA:
        raise UnsealError
    (signed,) = _exactly(der.children(outer[1]), 1)
    if signed.tag != der.SEQUENCE:
        raise UnsealError
    parts = der.children(signed)
    if [node.tag for node in parts[:3]] != [der.INTEGER, der.SET, der.SEQUENCE]:
        raise UnsealError
    (content_type,) = _exactly(der.children(parts[2]), 1)  # a second part would be content inside the signature
    *optional, infos = parts[3:] or (None,)
    if content_type.raw != OID_DATA or infos is None or infos.tag != der.SET:
        raise UnsealError
    if [node.tag for node in optional] not in ([], [_CONTEXT_0], [_CONTEXT_1], [_CONTEXT_0, _CONTEXT_1]):
        raise UnsealError
    signer_infos = der.children(infos)
    if not 1 <= len(signer_infos) <= _MAX_SIGNERS:
        raise UnsealError
    sets = [node for node in optional if node.tag == _CONTEXT_0]
    return tuple(_certificate(node.raw) for node in (der.children(sets[0]) if sets else [])), signer_infos


@lru_cache(maxsize=512)
def _certificate(raw: bytes) -> x509.Certificate:
    """Load a foreign certificate, and make the library parse now whatever it would refuse later."""
    try:
        certificate = x509.load_der_x509_certificate(raw)
        certificate.public_key()
        _ = certificate.extensions, certificate.subject
    except (
        ValueError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ):
        raise UnsealError from None
    return certificate


def _exactly(nodes: list[der.Node], count: int) -> list[der.Node]:
    if len(nodes) != count:
        raise UnsealError
    return nodes


def _verify_info(
    info: der.Node, content: bytes, certificates: tuple[x509.Certificate, ...]
) -> tuple[x509.Certificate, bytes]:
    """Return the certificate that a SignerInfo is good for, and the OID of its digest."""
    _, name, digest_algorithm, *rest = parts = der.children(info, at_least=3)
    attributes = rest.pop(0) if rest and rest[0].tag == _CONTEXT_0 else None
    if [node.tag for node in rest[:2]] != [der.SEQUENCE, der.OCTET_STRING] or parts[0].tag != der.INTEGER:
        raise UnsealError
    if [node.tag for node in rest[2:]] not in ([], [_CONTEXT_1]):  # unsigned attributes: not used
        raise UnsealError
    certificate = _named(name, certificates)
    digest_oid = der.children(digest_algorithm, 1)[0].raw
    if digest_oid not in _DIGEST_NAMES:
        raise UnsealError
    digest = hashlib.new(_DIGEST_NAMES[digest_oid], content, usedforsecurity=digest_oid != OID_SHA1).digest()
    signed = content if attributes is None else _signed_attributes(attributes, digest, certificate)
    _verify_value(certificate, der.children(rest[0], 1)[0].raw, digest_oid, rest[1].content, signed)
    return certificate, digest_oid


def _named(name: der.Node, certificates: tuple[x509.Certificate, ...]) -> x509.Certificate:
    for certificate in certificates:
        if name.tag == der.SEQUENCE and name.raw == issuer_and_serial(certificate):
            return certificate
        if name.tag == _KEY_IDENTIFIER and name.content == subject_key_identifier(certificate):
            return certificate
    raise UnsealError


def _signed_attributes(attributes: der.Node, digest: bytes, certificate: x509.Certificate) -> bytes:
    """Check the signed attributes, and return the DER that the signature is over."""
    values: dict[bytes, der.Node] = {}
    nodes = der.children(attributes)
    for node in nodes:
        oid, value_set = _exactly(der.children(node), 2)
        (value,) = _exactly(der.children(value_set), 1)
        if oid.raw in values:
            raise UnsealError
        values[oid.raw] = value
    stated = values.get(_OID_MESSAGE_DIGEST)
    content_type = values.get(_OID_CONTENT_TYPE)
    if stated is None or content_type is None or content_type.raw != OID_DATA:
        raise UnsealError
    if not hmac.compare_digest(stated.content, digest):
        raise UnsealError
    binding = values.get(_OID_SIGNING_CERTIFICATE_V2)
    if binding is not None:
        _check_binding(binding, certificate)
    return der.set_of(*(node.raw for node in nodes))


def _check_binding(binding: der.Node, certificate: x509.Certificate) -> None:
    """Check that signing-certificate-v2 names this certificate first; its hash is SHA-256 when it names none."""
    first = der.children(der.children(der.children(binding, 1)[0], 1)[0], 1)
    name = "sha256"
    if first[0].tag == der.SEQUENCE and len(first) > 1 and first[1].tag == der.OCTET_STRING:
        name = _DIGEST_NAMES.get(der.children(first[0], 1)[0].raw, "")
        first = first[1:]
    if not name or not first or first[0].tag != der.OCTET_STRING:
        raise UnsealError
    if hashlib.new(name, certificate_der(certificate), usedforsecurity=False).digest() != first[0].content:
        raise UnsealError


def _verify_value(
    certificate: x509.Certificate, algorithm_oid: bytes, digest_oid: bytes, value: bytes, signed: bytes
) -> None:
    key = certificate.public_key()
    digest = HASHES[digest_oid]
    try:
        if isinstance(key, rsa.RSAPublicKey) and _RSA.get(algorithm_oid, b"") in (None, digest_oid):
            key.verify(value, signed, _PKCS1V15, digest)
        elif isinstance(key, ec.EllipticCurvePublicKey) and _ECDSA.get(algorithm_oid) == digest_oid:
            key.verify(value, signed, ec.ECDSA(digest))
        else:
            raise UnsealError
    except InvalidSignature:
        raise UnsealError from None
