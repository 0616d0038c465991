from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from asn1crypto import cms as asn1
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7EnvelopeBuilder, PKCS7Options
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto import CmsDecryptor, CmsEncryptor, KeyRing, Limits, der, open_enveloped, seal
from crypto.algorithms import KEY_TRANSPORT, OAEP_SHA1, OAEP_SHA256, OID_AES_256_CBC, OID_RSA, OID_RSAES_OAEP, PKCS1V15
from crypto.ber import OID_DATA, OID_ENVELOPED_DATA, EnvelopeScanner
from crypto.certificates import issuer_and_serial, subject_key_identifier
from crypto.cms import SEGMENT_BYTES, content_key
from schemas.errors import CertificateError, UnsealError

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Actors, Pair

    Ring = Callable[..., KeyRing]

V15 = der.sequence(OID_RSA, der.NULL_TLV)
OAEP_DEFAULTS = der.sequence(OID_RSAES_OAEP, der.sequence())
PLAIN = b"plaintext " * 50


def stream(data: bytes, actors: Actors, chunk: int) -> bytes:
    encryptor = CmsEncryptor(actors.recipient[0])
    parts = [encryptor.update(data[at : at + chunk]) for at in range(0, len(data), chunk)]
    return b"".join([*parts, encryptor.finalize()])


def recipient_info(
    pair: Pair,
    key: bytes,
    algorithm: bytes = KEY_TRANSPORT,
    *,
    by_key_identifier: bool = False,
    version: int | None = None,
) -> bytes:
    public = pair[0].public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    how = {KEY_TRANSPORT: OAEP_SHA256, OAEP_DEFAULTS: OAEP_SHA1}.get(algorithm, PKCS1V15)
    name = der.tlv(0x80, subject_key_identifier(pair[0])) if by_key_identifier else issuer_and_serial(pair[0])
    number = version if version is not None else 2 * by_key_identifier
    return der.sequence(der.integer(number), name, algorithm, der.octet_string(public.encrypt(key, how)))


def envelope(*recipients: bytes, key: bytes, version: int = 0, plain: bytes = PLAIN) -> bytes:
    iv = os.urandom(16)
    pad = 16 - len(plain) % 16
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    content = encryptor.update(plain + bytes((pad,)) * pad)
    algorithm = der.sequence(OID_AES_256_CBC, der.octet_string(iv))
    info = der.sequence(OID_DATA, algorithm, der.tlv(0x80, content))
    enveloped = der.sequence(der.integer(version), der.tlv(der.SET, *recipients), info)
    return der.sequence(OID_ENVELOPED_DATA, der.context(0, enveloped))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 3), st.integers(1, 5000))
def test_what_is_sealed_opens_whatever_its_size_and_chunks(
    actors: Actors, data: bytes, blocks: int, chunk: int
) -> None:
    plain = data + bytes(blocks * SEGMENT_BYTES // 2)

    assert open_enveloped(seal(plain, actors.recipient[0]), actors.keys) == plain
    assert open_enveloped(stream(plain, actors, chunk + blocks * 997), actors.keys) == plain


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(0, 700))
def test_the_decryptor_takes_any_chunks(actors: Actors, chunk: int, size: int) -> None:
    plain = bytes(range(256)) * 3
    for sealed in (seal(plain[:size], actors.recipient[0]), stream(plain[:size], actors, 100)):
        decryptor = CmsDecryptor(actors.keys)
        parts = [decryptor.update(sealed[at : at + chunk]) for at in range(0, len(sealed), chunk)]

        assert b"".join([*parts, decryptor.finalize()]) == plain[:size]


@pytest.mark.parametrize("size", [0, 15, 16, 17, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 300_000])
def test_sizes_around_blocks_and_segments(size: int, actors: Actors) -> None:
    plain = os.urandom(size)

    assert open_enveloped(seal(plain, actors.recipient[0]), actors.keys) == plain
    assert open_enveloped(stream(plain, actors, 10_000), actors.keys) == plain


def test_ours_is_the_structure_of_ks(actors: Actors) -> None:
    for sealed in (seal(PLAIN, actors.recipient[0]), stream(PLAIN, actors, 100)):
        info = asn1.ContentInfo.load(sealed, strict=True)
        enveloped = info["content"]
        (recipient,) = enveloped["recipient_infos"]
        chosen = recipient.chosen

        assert info["content_type"].native == "enveloped_data"
        assert (enveloped["version"].native, chosen["version"].native) == ("v0", "v0")
        assert chosen["rid"].name == "issuer_and_serial_number"
        assert chosen["key_encryption_algorithm"].dump() == KEY_TRANSPORT
        assert chosen["key_encryption_algorithm"]["parameters"]["hash_algorithm"]["algorithm"].native == "sha256"
        content = enveloped["encrypted_content_info"]
        assert content["content_type"].native == "data"
        assert content["content_encryption_algorithm"]["algorithm"].native == "aes256_cbc"


def test_a_stream_is_ber_of_indefinite_length_on_all_five_levels(actors: Actors) -> None:
    sealed = stream(PLAIN, actors, 100)

    assert sealed.startswith(b"\x30\x80" + OID_ENVELOPED_DATA + b"\xa0\x80\x30\x80")
    assert sealed.endswith(bytes(10))
    assert asn1.ContentInfo.load(sealed, strict=True).contents


def test_a_known_length_is_der(actors: Actors) -> None:
    sealed = seal(PLAIN, actors.recipient[0])

    assert asn1.ContentInfo.load(sealed, strict=True).dump(force=True) == sealed


def test_every_envelope_has_its_own_key_and_iv(actors: Actors) -> None:
    assert seal(PLAIN, actors.recipient[0])[-512:] != seal(PLAIN, actors.recipient[0])[-512:]


def test_threads_that_seal_at_the_same_time_never_share_a_buffer(actors: Actors) -> None:
    plains = [bytes((number,)) * (50_000 + number) for number in range(64)]
    with ThreadPoolExecutor(8) as threads:
        sealed = list(threads.map(lambda plain: seal(plain, actors.recipient[0]), plains))
        streamed = list(threads.map(lambda plain: stream(plain, actors, 30_000), plains))

    assert [open_enveloped(each, actors.keys) for each in sealed] == plains
    assert [open_enveloped(each, actors.keys) for each in streamed] == plains


@pytest.mark.parametrize("algorithm", [KEY_TRANSPORT, OAEP_DEFAULTS, V15], ids=["OAEP", "OAEP SHA-1", "v1.5"])
@pytest.mark.parametrize("by_key_identifier", [False, True])
def test_every_way_to_wrap_and_to_name_is_accepted(
    algorithm: bytes,
    by_key_identifier: bool,  # noqa: FBT001 - a parameter of the shape under test
    actors: Actors,
) -> None:
    key = os.urandom(32)
    info = recipient_info(actors.recipient, key, algorithm, by_key_identifier=by_key_identifier)

    assert open_enveloped(envelope(info, key=key, version=2 * by_key_identifier), actors.keys) == PLAIN


@pytest.mark.parametrize("order", [(V15, KEY_TRANSPORT), (KEY_TRANSPORT, V15)], ids=["v1.5 first", "OAEP first"])
def test_accept_the_two_recipients_that_net_writes_for_one_certificate(
    order: tuple[bytes, bytes], actors: Actors
) -> None:
    key = os.urandom(32)
    infos = [recipient_info(actors.recipient, key, algorithm) for algorithm in order]

    assert open_enveloped(envelope(*infos, key=key), actors.keys) == PLAIN


def test_a_broken_oaep_recipient_beside_a_good_v15_one_still_opens(actors: Actors) -> None:
    key = os.urandom(32)
    broken = bytearray(recipient_info(actors.recipient, key))
    broken[-1] ^= 1
    infos = [bytes(broken), recipient_info(actors.recipient, key, V15)]

    assert open_enveloped(envelope(*infos, key=key), actors.keys) == PLAIN


def test_oaep_decides_where_the_two_recipients_hold_different_keys(actors: Actors) -> None:
    """PKCS#1 v1.5 cannot tell that it failed, so it must not be asked first."""
    key = os.urandom(32)
    infos = [recipient_info(actors.recipient, os.urandom(32), V15), recipient_info(actors.recipient, key)]

    assert open_enveloped(envelope(*infos, key=key), actors.keys) == PLAIN


@pytest.mark.parametrize("ours", [0, 1])
def test_several_recipients_in_any_order_and_several_keys(ours: int, actors: Actors, ring: Ring) -> None:
    key = os.urandom(32)
    infos = [recipient_info(actors.other, key), recipient_info(actors.recipient, key)]
    sealed = envelope(*(infos if ours else infos[::-1]), key=key)

    assert open_enveloped(sealed, ring(actors.recipient)) == PLAIN
    assert open_enveloped(sealed, ring(actors.other)) == PLAIN
    assert open_enveloped(sealed, ring(actors.recipient, actors.other)) == PLAIN


def test_recipients_of_other_kinds_are_passed_over(actors: Actors) -> None:
    key = os.urandom(32)
    password = der.tlv(0xA3, der.integer(0), der.sequence(), der.octet_string(b"x"))
    unknown = der.sequence(der.integer(0), issuer_and_serial(actors.recipient[0]), der.sequence(der.oid("1.2.3")))
    unknown = der.sequence(*(node.raw for node in der.children(der.read(unknown))), der.octet_string(b"x"))
    sealed = envelope(password, unknown, recipient_info(actors.recipient, key), key=key, version=3)

    assert open_enveloped(sealed, actors.keys) == PLAIN


def test_nothing_for_our_keys_is_refused(actors: Actors, ring: Ring) -> None:
    sealed = seal(PLAIN, actors.recipient[0])

    for keys in (ring(actors.other), KeyRing([])):
        with pytest.raises(UnsealError):
            open_enveloped(sealed, keys)


@pytest.mark.parametrize("algorithm", [KEY_TRANSPORT, V15])
def test_a_key_that_cannot_be_unwrapped_fails_like_any_other_damage(algorithm: bytes, actors: Actors) -> None:
    """Implicit rejection: decryption goes on with a random key, so what fails is the padding (or, 1 of 256, nothing)."""
    key = os.urandom(32)
    info = bytearray(recipient_info(actors.recipient, key, algorithm))
    info[-20] ^= 1
    outcomes: set[str] = set()
    for _ in range(8):
        try:
            opened = open_enveloped(envelope(bytes(info), key=key), actors.keys)
            assert opened != PLAIN
        except UnsealError as error:
            outcomes.add(str(error))
    assert outcomes == {UnsealError.TEXT}


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_content_key_of_another_size_is_refused(size: int, actors: Actors) -> None:
    info = recipient_info(actors.recipient, bytes(size), V15)
    refused = 0
    for _ in range(4):
        try:
            assert open_enveloped(envelope(info, key=bytes(32)), actors.keys) != PLAIN
        except UnsealError:
            refused += 1
    assert refused


@pytest.mark.parametrize(
    ("recipient_version", "version"), [(2, 0), (2, 2), (0, 2), (1, 0)], ids=["both", "names", "envelope", "unknown"]
)
def test_versions_that_do_not_fit_the_structure_are_refused(
    recipient_version: int, version: int, actors: Actors
) -> None:
    key = os.urandom(32)
    info = recipient_info(actors.recipient, key, version=recipient_version)

    with pytest.raises(UnsealError):
        open_enveloped(envelope(info, key=key, version=version), actors.keys)


def test_a_recipient_of_another_shape_is_refused(actors: Actors) -> None:
    with pytest.raises(UnsealError):
        open_enveloped(envelope(der.sequence(der.integer(0)), key=bytes(32)), actors.keys)
    odd = der.sequence(der.integer(0), der.octet_string(b""), KEY_TRANSPORT, der.octet_string(b""))
    with pytest.raises(UnsealError):
        open_enveloped(envelope(odd, key=bytes(32)), actors.keys)


def test_a_row_of_recipients_does_not_cost_a_row_of_private_operations(
    actors: Actors, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def unwrap(*_: object) -> None:
        nonlocal count
        count += 1

    monkeypatch.setattr("crypto.cms._unwrap", unwrap)
    infos = [recipient_info(actors.recipient, bytes(32), V15)] * 60
    scanner = EnvelopeScanner(100_000)
    scanner.feed(envelope(*infos, key=bytes(32)))
    assert scanner.header is not None
    content_key(scanner.header, actors.keys)

    assert count == 4


def test_content_that_is_not_whole_blocks_is_refused(actors: Actors) -> None:
    key = os.urandom(32)
    sealed = envelope(recipient_info(actors.recipient, key), key=key)
    content = der.children(der.children(der.children(der.read(sealed))[1])[0])[2]
    oid, algorithm, data = der.children(content)
    for cut in (0, 15, len(data.content) - 1):
        info = der.sequence(oid.raw, algorithm.raw, der.tlv(0x80, data.content[:cut]))
        enveloped = der.sequence(der.integer(0), der.set_of(recipient_info(actors.recipient, key)), info)
        with pytest.raises(UnsealError):
            open_enveloped(der.sequence(OID_ENVELOPED_DATA, der.context(0, enveloped)), actors.keys)


def test_headers_beyond_the_limit_are_refused(actors: Actors) -> None:
    decryptor = CmsDecryptor(actors.keys, limits=Limits(max_header_bytes=100))

    with pytest.raises(UnsealError):
        decryptor.update(seal(PLAIN, actors.recipient[0]))


def test_truncated_envelopes_are_refused_at_the_end(actors: Actors) -> None:
    sealed = seal(PLAIN, actors.recipient[0])
    decryptor = CmsDecryptor(actors.keys)
    decryptor.update(sealed[:-1])

    with pytest.raises(UnsealError):
        decryptor.finalize()
    with pytest.raises(UnsealError):
        CmsDecryptor(actors.keys).finalize()


def test_cryptographys_own_envelope_opens(actors: Actors) -> None:
    public = actors.recipient[0]
    builder = PKCS7EnvelopeBuilder().set_data(PLAIN).add_recipient(public)
    sealed = builder.set_content_encryption_algorithm(algorithms.AES256).encrypt(Encoding.DER, [PKCS7Options.Binary])

    assert open_enveloped(sealed, actors.keys) == PLAIN


def test_an_ec_certificate_has_no_envelope(actors: Actors) -> None:
    with pytest.raises(CertificateError):
        seal(PLAIN, actors.ec_sender[0])
    with pytest.raises(CertificateError):
        CmsEncryptor(actors.ec_sender[0])
