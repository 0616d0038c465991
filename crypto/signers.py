"""Who signed, as a detached signature states it: read for people, verified elsewhere (``signed``).

Source: RFC 5652 section 5.3.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from crypto import der
from crypto.certificates import issuer_and_serial, subject_key_identifier
from crypto.inspection import algorithm_name

_MESSAGE_DIGEST: Final = der.oid("1.2.840.113549.1.9.4")
_SIGNING_TIME: Final = der.oid("1.2.840.113549.1.9.5")
_CONTEXT_0: Final = 0xA0


@dataclass(frozen=True, slots=True)
class SignerReport:
    """One SignerInfo.

    Args:
        certificate: The certificate that it names, if the signature has it.
        digest: Digest algorithm.
        signature: Signature algorithm, by name or OID.
        signing_time: As the signer claims, aware UTC; None without one.
        same_bytes: Whether the signed digest is the manifest's; None when there are no signed attributes.
    """

    certificate: x509.Certificate | None
    digest: str
    signature: str
    signing_time: datetime | None
    same_bytes: bool | None


def explain_signature(signers: list[SignerReport]) -> str:
    """Return why a signature with these signers, which was refused, does not hold; Norwegian."""
    if not signers:
        return "signaturen har ingen underskriver"
    if any(signer.certificate is None for signer in signers):
        return "sertifikatet til en underskriver er ikke med i signaturen"
    if any(signer.same_bytes is False for signer in signers):
        return "signaturen er over andre byte enn manifestet: manifestet er endret etter signering"
    return (
        "signaturverdien stemmer ikke med sertifikatets nøkkel, algoritmen godtas ikke, eller signing-certificate-v2 "
        "navngir et annet sertifikat"
    )


def read_signers(signature: bytes, content: bytes) -> tuple[tuple[x509.Certificate, ...], list[SignerReport]]:
    """Return the certificates and the signers of a signature over ``content``, as they are stated.

    Raises:
        UnsealError, IndexError, ValueError: It cannot be read.
    """
    signed = der.children(der.children(der.children(der.read(signature), 2)[1], 1)[0], 1)
    sets = [node for node in signed if node.tag == _CONTEXT_0]
    certificates = tuple(x509.load_der_x509_certificate(node.raw) for each in sets for node in der.children(each))
    return certificates, [_read_signer(info, content, certificates) for info in der.children(signed[-1])]


def _read_signer(info: der.Node, content: bytes, certificates: tuple[x509.Certificate, ...]) -> SignerReport:
    _, name, digest_algorithm, *rest = der.children(info, at_least=5)
    attributes = rest.pop(0) if rest[0].tag == _CONTEXT_0 else None
    values = {
        oid.raw: der.children(value_set, 1)[0]
        for oid, value_set in (der.children(node, 2)[:2] for node in (der.children(attributes) if attributes else ()))
    }
    named = [
        certificate
        for certificate in certificates
        if name.raw == issuer_and_serial(certificate) or name.content == subject_key_identifier(certificate)
    ]
    digest = algorithm_name(digest_algorithm)
    stated = values.get(_MESSAGE_DIGEST)
    return SignerReport(
        certificate=named[0] if named else None,
        digest=digest,
        signature=algorithm_name(rest[0]),
        signing_time=_time(values.get(_SIGNING_TIME)),
        same_bytes=None if stated is None else stated.content == _hash(digest, content),
    )


def _hash(name: str, content: bytes) -> bytes:
    return hashlib.new(name.replace("-", "").lower(), content, usedforsecurity=False).digest()


def _time(node: der.Node | None) -> datetime | None:
    if node is None:
        return None
    form = "%y%m%d%H%M%SZ" if node.tag == der.UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(node.content.decode("ascii"), form).replace(tzinfo=UTC)
