"""A small certificate authority for demo and tests, whose certificates look like virksomhetssertifikater.

As the real ones (SEID 2): the organisasjonsnummer stands in the subject both as organizationIdentifier ``NTRNO-`` and as
serialNumber, and encryption and signing have certificates of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from datetime import datetime

    from crypto.keys import PrivateKey
    from schemas.names import Organisasjonsnummer

KeyKind = Literal["rsa3072", "rsa2048", "p256"]
Purpose = Literal["kryptering", "signering"]

_AUTHORITY_DAYS = 3650
_RSA_BITS = {"rsa3072": 3072, "rsa2048": 2048}


@dataclass(frozen=True, slots=True)
class Authority:
    """A self-signed authority that issues certificates directly.

    Args:
        certificate: Its own certificate: what others trust as a root.
        private_key: Its key.
    """

    certificate: x509.Certificate
    private_key: PrivateKey

    @classmethod
    def create(cls, now: datetime, name: str = "Meldingsformidler Test CA") -> Self:
        """Return a new authority with a P-256 key, valid for ten years from ``now`` (aware UTC)."""
        private_key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name, name, None)
        builder = _builder(
            subject, subject, private_key, private_key, now=now, validity=timedelta(days=_AUTHORITY_DAYS)
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        return cls(builder.sign(private_key, hashes.SHA256()), private_key)

    def issue(
        self,
        common_name: str,
        organisasjonsnummer: Organisasjonsnummer,
        *,
        purpose: Purpose,
        now: datetime,
        valid_days: int = 730,
        key: KeyKind = "rsa3072",
    ) -> tuple[x509.Certificate, PrivateKey]:
        """Issue a certificate for a new key.

        Args:
            common_name: For people, for example ``Oslo kommune``.
            organisasjonsnummer: Whose it is.
            purpose: ``kryptering`` (keyEncipherment) or ``signering`` (digitalSignature, nonRepudiation).
            now: Aware UTC; validity begins an hour before, for clocks that differ.
            valid_days: Days from ``now``; negative for one that has expired.
            key: Kind of key; encryption needs RSA.

        Raises:
            ValueError: An encryption certificate with an EC key.
        """
        if purpose == "kryptering" and key == "p256":
            raise ValueError("an encryption certificate needs an RSA key")
        private_key = new_private_key(key)
        return self.certify(
            private_key, common_name, organisasjonsnummer, purpose=purpose, now=now, valid_days=valid_days
        ), private_key

    def certify(
        self,
        private_key: PrivateKey,
        common_name: str,
        organisasjonsnummer: Organisasjonsnummer,
        *,
        purpose: Purpose,
        now: datetime,
        valid_days: int = 730,
    ) -> x509.Certificate:
        """Issue a certificate for a key that exists; otherwise as ``issue``."""
        subject = _subject(common_name, common_name, organisasjonsnummer)
        validity = timedelta(days=valid_days)
        builder = _builder(subject, self.certificate.subject, private_key, self.private_key, now=now, validity=validity)
        usage = (
            _usage(key_encipherment=True, data_encipherment=True)
            if purpose == "kryptering"
            else _usage(digital_signature=True, content_commitment=True)
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=False)
        builder = builder.add_extension(usage, critical=True)
        return builder.sign(self.private_key, hashes.SHA256())


def new_private_key(kind: KeyKind) -> PrivateKey:
    """Return a new private key."""
    if kind == "p256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS[kind])


def _subject(common_name: str, organisation: str, organisasjonsnummer: Organisasjonsnummer | None) -> x509.Name:
    attributes = [
        x509.NameAttribute(NameOID.COUNTRY_NAME, "NO"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation[:64]),
        x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
    ]
    if organisasjonsnummer is not None:
        attributes.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, organisasjonsnummer))
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_IDENTIFIER, f"NTRNO-{organisasjonsnummer}"))
    return x509.Name(attributes)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    private_key: PrivateKey,
    issuer_key: PrivateKey,
    *,
    now: datetime,
    validity: timedelta,
) -> x509.CertificateBuilder:
    end = now + validity
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - timedelta(hours=1))
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private_key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _usage(
    *,
    digital_signature: bool = False,
    content_commitment: bool = False,
    key_encipherment: bool = False,
    data_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=content_commitment,
        key_encipherment=key_encipherment,
        data_encipherment=data_encipherment,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
