from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from crypto import Trust, judge_recipient, judge_signer, new_private_key, organisasjonsnummer
from schemas.errors import CertificateError

if TYPE_CHECKING:
    from conftest import Actors


def test_certificates_look_like_virksomhetssertifikater(actors: Actors) -> None:
    subject = actors.recipient[0].subject.rfc4514_string()

    assert "C=NO" in subject
    assert "O=Oslo kommune" in subject
    assert "CN=Oslo kommune" in subject
    assert "2.5.4.97=NTRNO-958935420" in subject
    assert organisasjonsnummer(actors.recipient[0]) == "958935420"


def test_encryption_and_signing_are_separate(actors: Actors) -> None:
    encryption = actors.recipient[0].extensions.get_extension_for_class(x509.KeyUsage).value
    signing = actors.ec_sender[0].extensions.get_extension_for_class(x509.KeyUsage).value

    assert (encryption.key_encipherment, encryption.digital_signature) == (True, False)
    assert (signing.key_encipherment, signing.digital_signature, signing.content_commitment) == (False, True, True)


def test_what_it_issues_chains_to_it_and_it_signs_no_packages_itself(actors: Actors) -> None:
    assert actors.trust.accepts(actors.ec_sender[0], [], actors.now)
    assert not Trust(roots=[actors.authority.certificate]).accepts(actors.authority.certificate, [], actors.now)


def test_an_expired_certificate_may_be_issued_on_purpose(actors: Actors) -> None:
    certificate = actors.authority.certify(
        actors.recipient[1],
        "Oslo",
        organisasjonsnummer(actors.recipient[0]),
        purpose="kryptering",
        now=actors.now,
        valid_days=-1,
    )

    with pytest.raises(CertificateError, match="gikk ut"):
        judge_recipient(certificate, actors.now)


def test_validity_begins_an_hour_before(actors: Actors) -> None:
    judge_signer(actors.ec_sender[0], actors.now - timedelta(minutes=59))


def test_keys_are_of_the_kind_that_was_asked_for(actors: Actors) -> None:
    assert isinstance(new_private_key("p256"), ec.EllipticCurvePrivateKey)
    key = new_private_key("rsa3072")
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 3072
    with pytest.raises(ValueError, match="RSA"):
        actors.authority.issue(
            "x", organisasjonsnummer(actors.recipient[0]), purpose="kryptering", now=actors.now, key="p256"
        )
