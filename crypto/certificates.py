"""Certificates: load them, name them, and judge them against now and what they are for.

* A certificate without keyUsage may be used for anything (RFC 5280 section 4.2.1.3): KS documents self-signed keys that
  have none.
* Trust in an issuer is another question, see ``trust``.

Source: RFC 5280; ETSI EN 319 412-1 section 5.1.4 (NTRNO-); SEID 1 and 2 for virksomhetssertifikater.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from crypto import der
from schemas.errors import CertificateError, KeyFileError
from schemas.names import NokkelId, Organisasjonsnummer

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

MIN_RSA_BITS = 2048
_SIGNING_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_ORGANISASJON = re.compile(r"(?:NTRNO-)?([0-9]{9})", re.ASCII)


def parse_certificates(pem_or_der: bytes) -> tuple[x509.Certificate, ...]:
    """Return the certificates in PEM (one or more, other blocks are skipped) or in DER (one).

    Raises:
        ValueError: Neither, or no certificate in it.
    """
    if b"-----BEGIN" in pem_or_der:
        return tuple(x509.load_pem_x509_certificates(pem_or_der))
    return (x509.load_der_x509_certificate(pem_or_der),)


def load_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """Return every certificate in the file, PEM or DER, in its order.

    Raises:
        KeyFileError: The file cannot be read, or holds no certificate.
    """
    try:
        return parse_certificates(path.read_bytes())
    except OSError as error:
        raise KeyFileError(f"{path}: sertifikatet kan ikke leses ({error.strerror})") from error
    except ValueError as error:
        raise KeyFileError(f"{path}: ikke et X.509-sertifikat i PEM eller DER") from error


def load_certificate(path: Path) -> x509.Certificate:
    """Return the first certificate in the file, PEM or DER.

    Raises:
        KeyFileError: The file cannot be read, or holds no certificate.
    """
    return load_certificates(path)[0]


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return the certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


@lru_cache(maxsize=4096)
def certificate_der(certificate: x509.Certificate) -> bytes:
    """Return the certificate as DER."""
    return certificate.public_bytes(Encoding.DER)


@lru_cache(maxsize=4096)
def nokkel_id(certificate: x509.Certificate) -> NokkelId:
    """Return the certificate's name in records: its SHA-256 fingerprint."""
    return NokkelId(certificate.fingerprint(hashes.SHA256()).hex())


def organisasjonsnummer(certificate: x509.Certificate) -> Organisasjonsnummer:
    """Return whose certificate it is: organizationIdentifier ``NTRNO-`` (SEID 2), otherwise serialNumber (SEID 1).

    Raises:
        CertificateError: The subject names no organisasjonsnummer.
    """
    for attribute in (NameOID.ORGANIZATION_IDENTIFIER, NameOID.SERIAL_NUMBER):
        for value in certificate.subject.get_attributes_for_oid(attribute):
            match = _ORGANISASJON.fullmatch(str(value.value))
            if match:
                return Organisasjonsnummer(match[1])
    raise CertificateError("sertifikatets subjekt har ikke noe organisasjonsnummer")


@lru_cache(maxsize=4096)
def issuer_and_serial(certificate: x509.Certificate) -> bytes:
    """Return the DER IssuerAndSerialNumber, with the issuer's bytes exactly as they stand in the certificate.

    Re-encoding the name could change its string types, and then no other library would recognise itself as recipient.
    """
    fields = der.children(der.read(certificate.tbs_certificate_bytes))
    at = 1 if fields[0].tag == 0xA0 else 0  # noqa: PLR2004 - an explicit version stands first, except in version 1
    return der.sequence(fields[at + 2].raw, fields[at].raw)


@lru_cache(maxsize=4096)
def subject_key_identifier(certificate: x509.Certificate) -> bytes:
    """Return the subjectKeyIdentifier, as in the certificate or by RFC 5280's first method."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest


def judge_recipient(certificate: x509.Certificate, now: datetime) -> None:
    """Check that packages may be sealed for this certificate.

    Args:
        certificate: The receiver's certificate.
        now: Aware UTC time that it is judged against.

    Raises:
        CertificateError: Not RSA of at least 2048 bits, outside its validity, or not for keyEncipherment.
    """
    rsa_key(certificate)
    judge_validity(certificate, now)
    usage = _key_usage(certificate)
    if usage is not None and not usage.key_encipherment:
        raise CertificateError("sertifikatet er ikke for kryptering (keyUsage mangler keyEncipherment)")


def judge_signer(certificate: x509.Certificate, now: datetime) -> None:
    """Check that packages may be signed with this certificate; whether its issuer is trusted is left to ``Trust``.

    Raises:
        CertificateError: A key of another kind or too weak, outside its validity, or not for signatures.
    """
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, _SIGNING_CURVES):
            raise CertificateError("sertifikatets kurve er ikke P-256, P-384 eller P-521")
    else:
        rsa_key(certificate)
    judge_validity(certificate, now)
    usage = _key_usage(certificate)
    if usage is not None and not (usage.digital_signature or usage.content_commitment):
        raise CertificateError("sertifikatet er ikke for signering (keyUsage mangler digitalSignature)")


def judge_validity(certificate: x509.Certificate, now: datetime) -> None:
    """Check the certificate's time.

    Raises:
        CertificateError: Expired or not yet valid.
    """
    if now < certificate.not_valid_before_utc:
        raise CertificateError(f"sertifikatet gjelder først fra {certificate.not_valid_before_utc:%Y-%m-%d}")
    if now > certificate.not_valid_after_utc:
        raise CertificateError(f"sertifikatet gikk ut {certificate.not_valid_after_utc:%Y-%m-%d}")


def rsa_key(certificate: x509.Certificate) -> rsa.RSAPublicKey:
    """Return the certificate's RSA key.

    Raises:
        CertificateError: Another kind of key, or less than 2048 bits.
    """
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise CertificateError("sertifikatets nøkkel er ikke RSA")
    if key.key_size < MIN_RSA_BITS:
        raise CertificateError(f"sertifikatets RSA-nøkkel har {key.key_size} bit, og må ha minst {MIN_RSA_BITS}")
    return key


def _key_usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None
