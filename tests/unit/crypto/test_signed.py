from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from asn1crypto import cms as asn1
from asn1crypto import core, tsp
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto import Authority, Trust, certificate_der, der, sign_detached, verify_detached
from crypto.certificates import issuer_and_serial, subject_key_identifier
from crypto.signed import OID_SIGNED_DATA, SHA1_WARNING
from schemas.errors import UnsealError
from schemas.names import Organisasjonsnummer

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Actors, Pair

CONTENT = b"<ASiCManifest/>"
DATA = der.oid("1.2.840.113549.1.7.1")
SHA256 = der.sequence(der.oid("2.16.840.1.101.3.4.2.1"))
RSA = der.sequence(der.oid("1.2.840.113549.1.1.1"), der.NULL_TLV)


def make_info(
    pair: Pair, content: bytes = CONTENT, *, by_key_identifier: bool = False, algorithm: bytes = RSA
) -> bytes:
    """Return a SignerInfo without signed attributes."""
    certificate, key = pair
    assert isinstance(key, rsa.RSAPrivateKey)
    value = key.sign(content, padding.PKCS1v15(), hashes.SHA256())
    name = der.tlv(0x80, subject_key_identifier(certificate)) if by_key_identifier else issuer_and_serial(certificate)
    return der.sequence(der.integer(3 if by_key_identifier else 1), name, SHA256, algorithm, der.octet_string(value))


def make_signed(*infos: bytes, certificates: tuple[Pair, ...] = (), encapsulated: bytes = b"") -> bytes:
    chosen = b"".join(certificate_der(certificate) for certificate, _ in certificates)
    signed = der.sequence(
        der.integer(1),
        der.set_of(SHA256),
        der.sequence(DATA, encapsulated),
        der.context(0, chosen),
        der.tlv(der.SET, *infos),
    )
    return der.sequence(OID_SIGNED_DATA, der.context(0, signed))


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_ours_is_verified_and_names_its_signer(kind: str, actors: Actors) -> None:
    signer = actors.rsa_signer if kind == "rsa" else actors.signer
    verified = verify_detached(sign_detached(CONTENT, signer, actors.now), CONTENT, actors.trust, actors.now)

    assert verified.signer == signer.certificate
    assert set(verified.certificates) == {signer.certificate, actors.authority.certificate}
    assert verified.warnings == ()


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_ours_is_cades_bes(kind: str, actors: Actors) -> None:
    signer = actors.rsa_signer if kind == "rsa" else actors.signer
    signature = sign_detached(CONTENT, signer, actors.now)
    info = asn1.ContentInfo.load(signature, strict=True)
    (signer_info,) = info["content"]["signer_infos"]
    attributes = {attribute["type"].native: attribute["values"] for attribute in signer_info["signed_attrs"]}

    assert info.dump(force=True) == signature
    assert tsp.SigningCertificateV2  # importing it teaches asn1crypto the attribute
    assert attributes.keys() == {"content_type", "message_digest", "signing_time", "signing_certificate_v2"}
    assert attributes["message_digest"][0].native == hashlib.sha256(CONTENT).digest()
    assert attributes["signing_time"][0].native == actors.now
    bound = attributes["signing_certificate_v2"][0]["certs"][0]
    assert bound["cert_hash"].native == hashlib.sha256(certificate_der(signer.certificate)).digest()
    assert bound["issuer_serial"]["serial_number"].native == signer.certificate.serial_number
    assert info["content"]["encap_content_info"]["content"].native is None
    signed_attributes = core.SetOf.load(b"\x31" + signer_info["signed_attrs"].dump()[1:], spec=core.Any)
    assert sorted(item.dump() for item in signed_attributes) == [item.dump() for item in signed_attributes]


@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
@pytest.mark.parametrize("with_attributes", [True, False])
@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_cryptographys_signatures_are_verified(
    digest: hashes.SHA256,
    with_attributes: bool,  # noqa: FBT001 - a parameter of the shape under test
    kind: str,
    actors: Actors,
) -> None:
    certificate, key = actors.rsa_sender if kind == "rsa" else actors.ec_sender
    options = [PKCS7Options.DetachedSignature, PKCS7Options.Binary]
    if not with_attributes:
        options.append(PKCS7Options.NoAttributes)
    builder = PKCS7SignatureBuilder().set_data(CONTENT).add_signer(certificate, key, digest)

    assert verify_detached(builder.sign(Encoding.DER, options), CONTENT, actors.trust, actors.now).signer == certificate


def test_ber_of_indefinite_length_is_verified(actors: Actors) -> None:
    info = make_info(actors.rsa_sender)
    certificate = certificate_der(actors.rsa_sender[0])
    end = der.END_OF_CONTENTS
    signed = b"\x30\x80" + der.integer(1) + der.set_of(SHA256) + b"\x30\x80" + DATA + end
    signed += b"\xa0\x80" + certificate + end + b"\x31\x80" + info + end + end
    signature = b"\x30\x80" + OID_SIGNED_DATA + b"\xa0\x80" + signed + end + end

    assert verify_detached(signature, CONTENT, actors.trust, actors.now).signer == actors.rsa_sender[0]


def test_a_signer_may_be_named_by_its_key_identifier(actors: Actors) -> None:
    info = make_info(actors.rsa_sender, by_key_identifier=True)
    signature = make_signed(info, certificates=(actors.rsa_sender,))

    assert verify_detached(signature, CONTENT, actors.trust, actors.now).signer == actors.rsa_sender[0]


def test_other_content_is_refused(actors: Actors) -> None:
    for signer in (actors.signer, actors.rsa_signer):
        with pytest.raises(UnsealError):
            verify_detached(sign_detached(CONTENT, signer, actors.now), CONTENT + b" ", actors.trust, actors.now)


def test_two_signer_infos_of_one_sender_are_accepted_as_net_writes_them(actors: Actors) -> None:
    infos = [make_info(actors.rsa_sender)] * 2
    signature = make_signed(*infos, certificates=(actors.rsa_sender,))

    assert verify_detached(signature, CONTENT, actors.trust, actors.now).signer == actors.rsa_sender[0]


def test_of_several_good_signers_one_trusted_is_enough_and_is_the_signer(actors: Actors) -> None:
    stranger = Authority.create(actors.now - timedelta(days=1)).issue(
        "Fremmed", Organisasjonsnummer("123456789"), purpose="signering", now=actors.now, key="rsa2048"
    )
    infos = [make_info(stranger), make_info(actors.rsa_sender)]
    signature = make_signed(*infos, certificates=(stranger, actors.rsa_sender))

    assert verify_detached(signature, CONTENT, actors.trust, actors.now).signer == actors.rsa_sender[0]
    with pytest.raises(UnsealError):
        verify_detached(make_signed(infos[0], certificates=(stranger,)), CONTENT, actors.trust, actors.now)


def test_a_bad_signer_info_beside_a_good_one_is_refused(actors: Actors) -> None:
    infos = [make_info(actors.rsa_sender), make_info(actors.rsa_sender, b"other")]

    with pytest.raises(UnsealError):
        verify_detached(make_signed(*infos, certificates=(actors.rsa_sender,)), CONTENT, actors.trust, actors.now)


def test_a_signer_without_its_certificate_is_refused(actors: Actors) -> None:
    for certificates in ((), (actors.ec_sender,)):
        with pytest.raises(UnsealError):
            verify_detached(
                make_signed(make_info(actors.rsa_sender), certificates=certificates),
                CONTENT,
                actors.trust,
                actors.now,
            )


def test_content_inside_the_signature_is_refused(actors: Actors) -> None:
    signature = make_signed(
        make_info(actors.rsa_sender),
        certificates=(actors.rsa_sender,),
        encapsulated=der.context(0, der.octet_string(CONTENT)),
    )

    with pytest.raises(UnsealError):
        verify_detached(signature, CONTENT, actors.trust, actors.now)


def test_no_signer_and_too_many_signers_are_refused(actors: Actors) -> None:
    for count in (0, 9):
        signature = make_signed(*[make_info(actors.rsa_sender)] * count, certificates=(actors.rsa_sender,))
        with pytest.raises(UnsealError):
            verify_detached(signature, CONTENT, actors.trust, actors.now)


@pytest.mark.parametrize(
    "oid", ["1.2.840.113549.1.1.5", "1.2.840.113549.1.1.12", "1.2.840.113549.1.1.10", "1.2.840.10045.4.3.2", "1.2.3"]
)
def test_a_signature_algorithm_that_does_not_fit_is_refused(oid: str, actors: Actors) -> None:
    info = make_info(actors.rsa_sender, algorithm=der.sequence(der.oid(oid)))

    with pytest.raises(UnsealError):
        verify_detached(make_signed(info, certificates=(actors.rsa_sender,)), CONTENT, actors.trust, actors.now)


def test_signed_attributes_must_be_for_this_content_and_this_certificate(actors: Actors) -> None:
    """A signature made by the right key over attributes that leave something out, or bind another certificate."""
    certificate, key = actors.rsa_sender
    assert isinstance(key, rsa.RSAPrivateKey)

    def attribute(oid: str, value: bytes) -> bytes:
        return der.sequence(der.oid(oid), der.set_of(value))

    content_type = attribute("1.2.840.113549.1.9.3", DATA)
    digest = attribute("1.2.840.113549.1.9.4", der.octet_string(hashlib.sha256(CONTENT).digest()))

    def binding(data: bytes) -> bytes:
        identifier = der.sequence(der.octet_string(hashlib.sha256(data).digest()))
        return attribute("1.2.840.113549.1.9.16.2.47", der.sequence(der.sequence(identifier)))

    def verify(*attributes: bytes) -> bool:
        signed = der.set_of(*attributes)
        value = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        implicit = b"\xa0" + signed[1:]
        info = der.sequence(
            der.integer(1), issuer_and_serial(certificate), SHA256, implicit, RSA, der.octet_string(value)
        )
        try:
            verify_detached(make_signed(info, certificates=(actors.rsa_sender,)), CONTENT, actors.trust, actors.now)
        except UnsealError:
            return False
        return True

    assert verify(content_type, digest)
    assert verify(content_type, digest, binding(certificate_der(certificate)))
    assert not verify(content_type)
    assert not verify(digest)
    assert not verify(content_type, digest, digest)
    assert not verify(content_type, digest, binding(b"another certificate"))
    assert not verify(attribute("1.2.840.113549.1.9.3", der.oid("1.2.3")), digest)
    assert not verify(content_type, attribute("1.2.840.113549.1.9.4", der.octet_string(bytes(32))))


def test_sha1_needs_a_setting_and_is_reported(actors: Actors, sha1_signature: Callable[[bytes], bytes]) -> None:
    signature = sha1_signature(CONTENT)
    allowing = Trust(roots=actors.trust.roots, allow_sha1_from=frozenset({Organisasjonsnummer("889640782")}))

    assert verify_detached(signature, CONTENT, allowing, actors.now).warnings == (SHA1_WARNING,)
    with pytest.raises(UnsealError):
        verify_detached(signature, CONTENT, actors.trust, actors.now)


def test_a_weak_signing_key_is_refused_even_when_pinned(actors: Actors) -> None:
    key = rsa.generate_private_key(65537, 1024)  # too small on purpose
    certificate = actors.authority.certify(
        key, "NAV", Organisasjonsnummer("889640782"), purpose="signering", now=actors.now
    )
    signature = make_signed(make_info((certificate, key)), certificates=((certificate, key),))

    with pytest.raises(UnsealError):
        verify_detached(signature, CONTENT, Trust(pinned=[certificate]), actors.now)


def test_a_curve_that_we_do_not_know_is_refused(actors: Actors) -> None:
    key = ec.generate_private_key(ec.SECP256K1())
    certificate = actors.authority.certify(
        key, "NAV", Organisasjonsnummer("889640782"), purpose="signering", now=actors.now
    )
    builder = PKCS7SignatureBuilder().set_data(CONTENT).add_signer(certificate, key, hashes.SHA256())
    signature = builder.sign(Encoding.DER, [PKCS7Options.DetachedSignature, PKCS7Options.Binary])

    with pytest.raises(UnsealError):
        verify_detached(signature, CONTENT, Trust(pinned=[certificate]), actors.now)


@pytest.fixture(scope="session")
def signatures(actors: Actors) -> dict[str, bytes]:
    """ECDSA signatures are not all of one length, so hypothesis needs the same ones each time."""
    return {
        "rsa": sign_detached(CONTENT, actors.rsa_signer, actors.now),
        "ec": sign_detached(CONTENT, actors.signer, actors.now),
    }


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # about certificates hit
@settings(max_examples=300, deadline=None)
@given(st.data(), st.binary(min_size=1, max_size=8), st.sampled_from(["rsa", "ec"]))
def test_whatever_is_written_into_a_signature_it_is_refused_or_still_the_senders(
    actors: Actors, signatures: dict[str, bytes], data: st.DataObject, noise: bytes, kind: str
) -> None:
    signature = signatures[kind]
    at = data.draw(st.integers(0, len(signature)))
    try:
        verified = verify_detached(
            signature[:at] + noise + signature[at + len(noise) :], CONTENT, actors.trust, actors.now
        )
    except UnsealError:
        return
    assert verified.signer in (actors.rsa_sender[0], actors.ec_sender[0])
