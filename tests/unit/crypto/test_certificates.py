from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from crypto import (
    certificate_der,
    certificate_pem,
    judge_recipient,
    judge_signer,
    load_certificate,
    load_certificates,
    nokkel_id,
    organisasjonsnummer,
)
from crypto.certificates import issuer_and_serial, subject_key_identifier
from schemas.errors import CertificateError, KeyFileError

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Actors
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes


@pytest.fixture(scope="session")
def small_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)  # too small on purpose


def make_certificate(
    key: CertificateIssuerPrivateKeyTypes, actors: Actors, *attributes: tuple[x509.ObjectIdentifier, str]
) -> x509.Certificate:
    """Self-signed, without any extension, as KS documents for SvarInn."""
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(7)
    builder = builder.not_valid_before(actors.now).not_valid_after(actors.now + timedelta(days=10))
    return builder.public_key(key.public_key()).sign(key, hashes.SHA256())  # type: ignore[arg-type]  # RSA and EC only


def test_pem_and_der_are_loaded(actors: Actors, tmp_path: Path) -> None:
    certificate = actors.recipient[0]
    pem, der, both = tmp_path / "a.pem", tmp_path / "a.cer", tmp_path / "b.pem"
    pem.write_bytes(certificate_pem(certificate))
    der.write_bytes(certificate_der(certificate))
    both.write_bytes(certificate_pem(certificate) + certificate_pem(actors.authority.certificate))

    assert load_certificate(pem) == load_certificate(der) == certificate
    assert load_certificates(both) == (certificate, actors.authority.certificate)


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_not_a_certificate_is_refused_by_its_path(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.pem"
    path.write_bytes(content)

    with pytest.raises(KeyFileError, match=r"x\.pem"):
        load_certificate(path)


def test_a_missing_file_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"absent\.pem"):
        load_certificate(tmp_path / "absent.pem")


def test_the_nokkel_id_is_the_fingerprint(actors: Actors) -> None:
    certificate = actors.recipient[0]

    assert nokkel_id(certificate) == hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


@pytest.mark.parametrize(
    "attributes",
    [
        [(NameOID.ORGANIZATION_IDENTIFIER, "NTRNO-958935420")],
        [(NameOID.SERIAL_NUMBER, "958935420")],
        [(NameOID.SERIAL_NUMBER, "123456789"), (NameOID.ORGANIZATION_IDENTIFIER, "NTRNO-958935420")],
    ],
    ids=["SEID 2", "SEID 1", "both"],
)
def test_the_organisasjonsnummer_of_virksomhetssertifikater(
    attributes: list[tuple[x509.ObjectIdentifier, str]], actors: Actors
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())

    assert organisasjonsnummer(make_certificate(key, actors, *attributes)) == "958935420"


@pytest.mark.parametrize("text", ["VATNO-958935420", "95893542", "UN:NO-9578-1", "958935420MVA"])
def test_other_identifiers_are_no_organisasjonsnummer(text: str, actors: Actors) -> None:
    certificate = make_certificate(
        ec.generate_private_key(ec.SECP256R1()), actors, (NameOID.SERIAL_NUMBER, text), (NameOID.COMMON_NAME, "x")
    )

    with pytest.raises(CertificateError):
        organisasjonsnummer(certificate)


def test_issuer_and_serial_has_the_issuers_own_bytes(actors: Actors) -> None:
    issuer = actors.authority.certificate.subject.public_bytes()

    assert issuer in issuer_and_serial(actors.recipient[0])
    assert issuer_and_serial(actors.recipient[0]) != issuer_and_serial(actors.other[0])


def test_the_key_identifier_is_computed_where_the_certificate_has_none(actors: Actors) -> None:
    key = actors.recipient[1]
    assert isinstance(key, rsa.RSAPrivateKey)
    bare = make_certificate(key, actors, (NameOID.COMMON_NAME, "x"))

    assert subject_key_identifier(bare) == subject_key_identifier(actors.recipient[0])


def test_a_good_recipient_and_a_good_signer_pass(actors: Actors) -> None:
    judge_recipient(actors.recipient[0], actors.now)
    judge_signer(actors.rsa_sender[0], actors.now)
    judge_signer(actors.ec_sender[0], actors.now)


def test_a_self_signed_certificate_without_key_usage_may_do_both(actors: Actors) -> None:
    key = actors.recipient[1]
    assert isinstance(key, rsa.RSAPrivateKey)
    bare = make_certificate(key, actors, (NameOID.COMMON_NAME, "x"))

    judge_recipient(bare, actors.now)
    judge_signer(bare, actors.now)


def test_each_purpose_has_its_own_certificate(actors: Actors) -> None:
    with pytest.raises(CertificateError, match="keyEncipherment"):
        judge_recipient(actors.rsa_sender[0], actors.now)
    with pytest.raises(CertificateError, match="digitalSignature"):
        judge_signer(actors.recipient[0], actors.now)


def test_time_is_judged_at_both_ends(actors: Actors) -> None:
    for judge, certificate in ((judge_recipient, actors.recipient[0]), (judge_signer, actors.ec_sender[0])):
        with pytest.raises(CertificateError, match="gikk ut"):
            judge(certificate, actors.now + timedelta(days=731))
        with pytest.raises(CertificateError, match="gjelder først fra"):
            judge(certificate, actors.now - timedelta(days=1))


def test_weak_and_wrong_keys_are_refused(actors: Actors, small_key: rsa.RSAPrivateKey) -> None:
    weak = make_certificate(small_key, actors, (NameOID.COMMON_NAME, "x"))
    odd = make_certificate(ec.generate_private_key(ec.SECP256K1()), actors, (NameOID.COMMON_NAME, "x"))

    with pytest.raises(CertificateError, match="1024 bit"):
        judge_recipient(weak, actors.now)
    with pytest.raises(CertificateError, match="1024 bit"):
        judge_signer(weak, actors.now)
    with pytest.raises(CertificateError, match="ikke RSA"):
        judge_recipient(actors.ec_sender[0], actors.now)
    with pytest.raises(CertificateError, match="kurve"):
        judge_signer(odd, actors.now)
