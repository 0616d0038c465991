from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from crypto import Authority, Trust
from schemas.names import Organisasjonsnummer

if TYPE_CHECKING:
    from datetime import datetime

    from conftest import Actors


def make_intermediate(authority: Authority, now: datetime, *, ca: bool = True, may_sign: bool = True) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Mellom-CA")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(authority.certificate.subject)
    builder = builder.public_key(key.public_key()).serial_number(5)
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=300))
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=may_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = builder.add_extension(usage, critical=True)
    assert isinstance(authority.private_key, ec.EllipticCurvePrivateKey)
    return Authority(builder.sign(authority.private_key, hashes.SHA256()), key)


def make_root(now: datetime) -> Authority:
    """A root that may have intermediates, which the small authority does not allow."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Rot-CA")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(4).not_valid_before(now - timedelta(days=9))
    builder = builder.not_valid_after(now + timedelta(days=900))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return Authority(builder.sign(key, hashes.SHA256()), key)


NAV = Organisasjonsnummer("889640782")


def issue(authority: Authority, now: datetime) -> x509.Certificate:
    return authority.issue("NAV", NAV, purpose="signering", now=now, valid_days=30, key="p256")[0]


def test_nobody_is_trusted_by_default(actors: Actors) -> None:
    assert not Trust().accepts(actors.ec_sender[0], [actors.authority.certificate], actors.now)


def test_a_root_in_the_signature_is_no_root_of_ours(actors: Actors) -> None:
    stranger = Authority.create(actors.now - timedelta(days=1))

    assert not actors.trust.accepts(issue(stranger, actors.now), [stranger.certificate], actors.now)


def test_an_authority_of_the_same_name_is_another_authority(actors: Actors) -> None:
    impostor = Authority.create(actors.now - timedelta(days=1), "Prøve-CA")

    assert not actors.trust.accepts(issue(impostor, actors.now), [impostor.certificate], actors.now)


def test_a_chain_may_have_intermediates_from_the_signature_or_from_settings(actors: Actors) -> None:
    root = make_root(actors.now)
    middle = make_intermediate(root, actors.now)
    certificate = issue(middle, actors.now)

    assert Trust(roots=[root.certificate]).accepts(certificate, [middle.certificate], actors.now)
    assert Trust(roots=[root.certificate], intermediates=[middle.certificate]).accepts(certificate, [], actors.now)
    assert not Trust(roots=[root.certificate]).accepts(certificate, [], actors.now)


@pytest.mark.parametrize(("ca", "may_sign"), [(False, True), (True, False)])
def test_an_end_certificate_issues_nothing(ca: bool, may_sign: bool, actors: Actors) -> None:  # noqa: FBT001 - parameters
    root = make_root(actors.now)
    middle = make_intermediate(root, actors.now, ca=ca, may_sign=may_sign)

    assert not Trust(roots=[root.certificate]).accepts(issue(middle, actors.now), [middle.certificate], actors.now)


def test_a_pinned_certificate_needs_no_root_but_must_be_valid_and_for_signing(actors: Actors) -> None:
    pinned = Trust(pinned=[actors.ec_sender[0], actors.recipient[0]])

    assert pinned.accepts(actors.ec_sender[0], [], actors.now)
    assert not pinned.accepts(actors.rsa_sender[0], [], actors.now)
    assert not pinned.accepts(actors.recipient[0], [], actors.now)
    assert not pinned.accepts(actors.ec_sender[0], [], actors.now + timedelta(days=731))


def test_what_is_remembered_ends_with_the_chains_validity(actors: Actors) -> None:
    trust = actors.trust
    certificate = issue(actors.authority, actors.now)

    assert [trust.accepts(certificate, [], actors.now + timedelta(days=days)) for days in (0, 0, 29, 31, 0)] == [
        True,
        True,
        True,
        False,
        True,
    ]


def test_a_refusal_is_not_remembered(actors: Actors) -> None:
    root = make_root(actors.now)
    middle = make_intermediate(root, actors.now)
    certificate = issue(middle, actors.now)
    trust = Trust(roots=[root.certificate])

    assert [trust.accepts(certificate, others, actors.now) for others in ([], [middle.certificate])] == [False, True]


def test_memory_is_bounded(actors: Actors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crypto.trust._MAX_REMEMBERED", 2)
    trust = actors.trust
    certificates = [issue(actors.authority, actors.now) for _ in range(4)]

    assert all(trust.accepts(certificate, [], actors.now) for certificate in certificates * 2)
    assert len(trust._remembered) == 2


def test_sha1_is_allowed_by_organisasjonsnummer_alone(actors: Actors) -> None:
    allowing = Trust(allow_sha1_from=frozenset({NAV}))

    assert allowing.allows_sha1(actors.rsa_sender[0])
    assert not allowing.allows_sha1(actors.recipient[0])
    assert not allowing.allows_sha1(actors.authority.certificate)
    assert not Trust().allows_sha1(actors.rsa_sender[0])
