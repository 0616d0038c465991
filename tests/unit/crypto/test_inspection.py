from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from crypto import CmsEncryptor, LoneKey, der, open_enveloped, seal
from crypto.inspection import (
    PREFIX_BYTES,
    StructureProbe,
    describe_envelope,
    dotted,
    foreign_form,
    name_text,
    unwraps,
)
from schemas.errors import CertificateError, UnsealError


def sealed_as_stream(actors: Any, content: bytes) -> bytes:
    encryptor = CmsEncryptor(actors.recipient[0])
    return encryptor.update(content) + encryptor.finalize()


def probe(data: bytes, chunk: int) -> str | None:
    it = StructureProbe(64 * 1024)
    for at in range(0, len(data), chunk):
        it.feed(data[at : at + chunk])
    it.finish()
    return it.problem


def test_describes_our_own_envelopes_by_their_beginning(actors: Any) -> None:
    certificate, private_key = actors.recipient
    for sealed, encoding in (
        (seal(bytes(200_000), certificate), "DER"),
        (sealed_as_stream(actors, bytes(200_000)), "BER"),
    ):
        envelope = describe_envelope(sealed[:PREFIX_BYTES])
        assert envelope is not None
        assert (envelope.content_type, envelope.encoding, envelope.version) == ("EnvelopedData", encoding, 0)
        (recipient,) = envelope.recipients
        assert recipient.serial == certificate.serial_number
        assert recipient.issuer == name_text(certificate.issuer.public_bytes())
        assert unwraps(recipient, private_key) is True
        assert unwraps(recipient, actors.other[1]) is False


@pytest.mark.parametrize("size", range(0, 600, 7))
def test_a_beginning_of_any_length_raises_nothing(actors: Any, size: int) -> None:
    describe_envelope(seal(b"x", actors.recipient[0])[:size])


def test_nonsense_is_no_envelope() -> None:
    assert describe_envelope(b"\x30\x80\x30\x80" * 2000) is None
    assert describe_envelope(b"\x30\x84\xff\xff\xff\xff\x06\x85\xff") is None
    assert foreign_form(b"\x00") is None


@pytest.mark.parametrize("chunk", [1, 50, 100_000])
def test_a_whole_envelope_has_no_problem(actors: Any, chunk: int) -> None:
    assert probe(sealed_as_stream(actors, b"x" * 3000), chunk) is None


@pytest.mark.parametrize("chunk", [1, 50, 100_000])
def test_problems_are_placed(actors: Any, chunk: int) -> None:
    sealed = seal(b"x" * 300, actors.recipient[0])
    assert f"etter {len(sealed) - 1} byte" in str(probe(sealed[:-1], chunk))
    assert "brytes" in str(probe(sealed + b"x", chunk))
    assert f"brytes mellom byte {1 if chunk == 1 else 0} og" in str(probe(b"\x31" + sealed[1:], chunk))


@pytest.mark.parametrize("oid", ["1.2.840.113549.1.7.3", "2.5.4.97", "0.9.2342.19200300.100.1.25"])
def test_oids_read_as_written(oid: str) -> None:
    assert dotted(der.read(der.oid(oid)).content) == oid


def test_an_oid_with_a_large_second_arc_reads_as_the_standard_says() -> None:
    assert dotted(b"\x88\x37\x03") == "2.999.3"  # ITU-T X.690 section 8.19.5, the example


def test_names_agree_with_cryptography() -> None:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "NO"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Æ, Ø + Å"),
            x509.NameAttribute(NameOID.COMMON_NAME, 'a "b" <c>'),
        ]
    )
    assert name_text(name.public_bytes()) == name.rfc4514_string()


def test_a_lone_key_opens_what_is_for_it(actors: Any) -> None:
    sealed = seal(b"innhold", actors.recipient[0])
    assert open_enveloped(sealed, LoneKey(actors.recipient[1])) == b"innhold"
    with pytest.raises(UnsealError):
        open_enveloped(sealed, LoneKey(actors.other[1]))


def test_a_lone_key_must_be_large_enough() -> None:
    with pytest.raises(CertificateError, match="1024"):
        LoneKey(rsa.generate_private_key(public_exponent=65537, key_size=1024))
