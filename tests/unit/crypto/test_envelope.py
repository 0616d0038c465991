from __future__ import annotations

import io
import os
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crypto import (
    AsiceWriter,
    KeyRing,
    Limits,
    OpenedPackage,
    PackageWriter,
    Signer,
    Spool,
    Trust,
    check_forsendelse,
    nokkel_id,
    open_package,
    seal,
    seal_package,
)
from crypto.content_key import ContentKey
from schemas.errors import CertificateError, MismatchError, PackError, UnsealError
from schemas.names import Sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Actors

    from schemas.forsendelse import Forsendelse

SOKNAD = b'{"data": {"navn": "Kari Planlagt"}}'
NAME = "soknad.json"


def seal_files(actors: Actors, forsendelse: Forsendelse, content: bytes = SOKNAD) -> bytes:
    files = [(NAME, "application/json", content), ("forsendelse.json", "application/json", forsendelse.to_json())]
    sealed, _ = seal_package(files, recipient=actors.recipient[0], signer=actors.signer, now=actors.now)
    return sealed


def stream_files(actors: Actors, forsendelse: Forsendelse, chunks: list[bytes]) -> bytes:
    out: list[bytes] = []
    writer = PackageWriter(out.append, recipient=actors.recipient[0], signer=actors.signer, now=actors.now)
    with writer.add(NAME, "application/json") as entry:
        for chunk in chunks:
            entry.write(chunk)
    with writer.add("forsendelse.json", "application/json") as entry:
        entry.write(forsendelse.to_json())
    summary = writer.finish()
    sealed = b"".join(out)
    assert (summary.sha256, summary.size) == (Sha256.of(sealed), len(sealed))
    return sealed


def released(actors: Actors, sealed: bytes, cuts: tuple[int, ...] = ()) -> dict[str, bytes]:
    """Open what came in pieces, and return every byte that a receiver gets."""
    edges = [0, *sorted(cut for cut in cuts if cut < len(sealed)), len(sealed)]
    with Spool() as spool:
        for begin, end in pairwise(edges):
            spool.write(sealed[begin:end])
        spool.finish()
        with open_package(spool, keys=actors.keys, trust=actors.trust, now=actors.now) as opened:
            return {file.name: b"".join(opened.read(file.name)) for file in opened.files}


def test_what_is_sealed_opens_with_its_signer_and_its_forsendelse(
    actors: Actors, forsendelse: Callable[..., Forsendelse], open_sealed: Callable[..., OpenedPackage]
) -> None:
    opened = open_sealed(seal_files(actors, forsendelse()))

    assert opened.forsendelse == forsendelse()
    assert opened.signer == actors.ec_sender[0]
    assert opened.warnings == ()
    assert [file.name for file in opened.files] == [NAME, "forsendelse.json"]
    assert opened.read_bytes(NAME, 1000) == SOKNAD


def test_the_summary_names_the_certificate_and_the_sealed_bytes(actors: Actors) -> None:
    sealed, summary = seal_package(
        [("a", "text/plain", b"x")], recipient=actors.recipient[0], signer=actors.signer, now=actors.now
    )

    assert summary.nokkel_id == nokkel_id(actors.recipient[0])
    assert (summary.sha256, summary.size) == (Sha256.of(sealed), len(sealed))


def test_what_is_in_memory_is_der_and_what_streams_is_ber_of_indefinite_length(
    actors: Actors, forsendelse: Callable[..., Forsendelse]
) -> None:
    assert seal_files(actors, forsendelse())[1] == 0x82
    assert stream_files(actors, forsendelse(), [SOKNAD])[:2] == b"\x30\x80"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chunks=st.lists(st.binary(max_size=3000), max_size=6),
    cuts=st.lists(st.integers(0, 8000), max_size=12).map(tuple),
    repeat=st.sampled_from([1, 1, 50]),
)
def test_any_chunking_on_either_side_gives_the_same_files(
    actors: Actors, forsendelse: Callable[..., Forsendelse], chunks: list[bytes], cuts: tuple[int, ...], repeat: int
) -> None:
    sealed = stream_files(actors, forsendelse(), chunks * repeat)

    assert released(actors, sealed, cuts) == {
        NAME: b"".join(chunks * repeat),
        "forsendelse.json": forsendelse().to_json(),
    }


@pytest.fixture(scope="session")
def packages(actors: Actors, forsendelse: Callable[..., Forsendelse]) -> tuple[bytes, bytes]:
    return seal_files(actors, forsendelse()), stream_files(actors, forsendelse(), [SOKNAD])


@settings(max_examples=300, deadline=None)
@given(data=st.data(), package=st.sampled_from([0, 1]), flip=st.integers(1, 255))
def test_any_flipped_byte_is_refused_and_nothing_released(
    actors: Actors, packages: tuple[bytes, bytes], data: st.DataObject, package: int, flip: int
) -> None:
    sealed = bytearray(packages[package])
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= flip

    with pytest.raises(UnsealError) as caught:
        released(actors, bytes(sealed))
    assert str(caught.value) == UnsealError.TEXT


def test_every_byte_of_a_package_is_accounted_for(actors: Actors, packages: tuple[bytes, bytes]) -> None:
    for sealed in packages:
        unnoticed = [
            at
            for at in range(0, len(sealed), 7)
            if not is_refused(actors, sealed[:at] + bytes((sealed[at] ^ 0x01,)) + sealed[at + 1 :])
        ]
        assert unnoticed == []


def is_refused(actors: Actors, sealed: bytes) -> bool:
    try:
        released(actors, sealed)
    except UnsealError:
        return True
    return False


@settings(max_examples=100, deadline=None)
@given(data=st.data(), package=st.sampled_from([0, 1]))
def test_truncation_anywhere_is_refused(
    actors: Actors, packages: tuple[bytes, bytes], data: st.DataObject, package: int
) -> None:
    sealed = packages[package]

    with pytest.raises(UnsealError):
        released(actors, sealed[: data.draw(st.integers(0, len(sealed) - 1))])


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(),
    noise=st.binary(min_size=1, max_size=40),
    package=st.sampled_from([0, 1]),
    inserted=st.sampled_from([0, 1]),
)
def test_whatever_is_written_into_a_package_the_only_error_is_unseal_error(  # noqa: PLR0917 - hypothesis fills them
    actors: Actors, packages: tuple[bytes, bytes], data: st.DataObject, noise: bytes, package: int, inserted: int
) -> None:
    sealed = packages[package]
    at = data.draw(st.integers(0, len(sealed)))
    changed = sealed[:at] + noise + sealed[at if inserted else at + len(noise) :]

    assert changed == sealed or is_refused(actors, changed)


def test_broken_padding_is_refused_even_around_a_good_package(
    actors: Actors, forsendelse: Callable[..., Forsendelse], packages: tuple[bytes, bytes]
) -> None:
    """An archive of whole blocks, encrypted without padding: everything but the padding is in order."""
    content = forsendelse().to_json()
    archive = io.BytesIO()
    while len(archive.getvalue()) % 16 or not archive.getvalue():
        archive = io.BytesIO()
        content += b" "
        writer = AsiceWriter(archive.write, signer=actors.signer, now=actors.now)
        with writer.add("forsendelse.json", "application/pdf") as entry:
            entry.write(content)
        writer.finish()
    key = ContentKey(os.urandom(32), os.urandom(16))
    encryptor = Cipher(AES(key.key), CBC(key.iv)).encryptor()
    with Spool() as spool:
        spool.write(packages[0])
        spool.finish()
        spool._file.seek(0)
        spool._kept = spool._file.write(encryptor.update(archive.getvalue()))

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("crypto.spool.content_key", lambda *_: key)
            with pytest.raises(UnsealError):
                open_package(spool, keys=actors.keys, trust=actors.trust, now=actors.now)
            patched.setattr("crypto.spool.CbcView.check_padding", lambda _: None)
            open_package(spool, keys=actors.keys, trust=actors.trust, now=actors.now).close()


def test_something_after_the_end_is_refused(actors: Actors, packages: tuple[bytes, bytes]) -> None:
    for sealed in packages:
        with pytest.raises(UnsealError):
            released(actors, sealed + b"\x00")


def test_a_package_for_somebody_else_is_refused(
    actors: Actors,
    forsendelse: Callable[..., Forsendelse],
    open_sealed: Callable[..., OpenedPackage],
    ring: Callable[..., KeyRing],
) -> None:
    with pytest.raises(UnsealError):
        open_sealed(seal_files(actors, forsendelse()), keys=ring(actors.other))


def test_an_old_key_still_opens_while_keys_rotate(
    actors: Actors,
    forsendelse: Callable[..., Forsendelse],
    open_sealed: Callable[..., OpenedPackage],
    ring: Callable[..., KeyRing],
) -> None:
    assert open_sealed(seal_files(actors, forsendelse()), keys=ring(actors.other, actors.recipient)).files


def test_a_signer_whose_certificate_has_expired_is_refused(
    actors: Actors, forsendelse: Callable[..., Forsendelse], open_sealed: Callable[..., OpenedPackage]
) -> None:
    sealed = seal_files(actors, forsendelse())

    with pytest.raises(UnsealError):
        open_sealed(sealed, now=actors.now + timedelta(days=731))


def test_a_signer_with_an_encryption_certificate_is_refused_by_both_sides(
    actors: Actors, forsendelse: Callable[..., Forsendelse], open_sealed: Callable[..., OpenedPackage]
) -> None:
    signer = Signer(*actors.other)
    with pytest.raises(CertificateError, match="signering"):
        seal_package([("a", "b", b"")], recipient=actors.recipient[0], signer=signer, now=actors.now)
    with pytest.raises(CertificateError, match="signering"):
        PackageWriter(lambda _: None, recipient=actors.recipient[0], signer=signer, now=actors.now)

    archive = io.BytesIO()
    writer = AsiceWriter(archive.write, signer=signer, now=actors.now)
    with writer.add("forsendelse.json", "application/json") as entry:
        entry.write(forsendelse().to_json())
    writer.finish()
    with pytest.raises(UnsealError):
        open_sealed(seal(archive.getvalue(), actors.recipient[0]))


def test_a_missing_forsendelse_is_refused_unless_the_sender_is_foreign(
    actors: Actors, open_sealed: Callable[..., OpenedPackage]
) -> None:
    sealed, _ = seal_package(
        [("a.txt", "text/plain", b"x")], recipient=actors.recipient[0], signer=actors.signer, now=actors.now
    )

    assert open_sealed(sealed, require_forsendelse=False).forsendelse is None
    with pytest.raises(UnsealError):
        open_sealed(sealed)


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b'{"digisosId": 1}', b"[" * 100_000])
def test_a_forsendelse_that_cannot_be_read_is_refused_in_the_same_words(
    content: bytes, actors: Actors, open_sealed: Callable[..., OpenedPackage]
) -> None:
    files = [("forsendelse.json", "application/json", content)]
    sealed, _ = seal_package(files, recipient=actors.recipient[0], signer=actors.signer, now=actors.now)

    with pytest.raises(UnsealError, match=UnsealError.TEXT):
        open_sealed(sealed)


def test_what_is_not_a_package_at_all_is_refused(actors: Actors, open_sealed: Callable[..., OpenedPackage]) -> None:
    for sealed in (b"", b"x", b"PK\x03\x04", seal(b"", actors.recipient[0]), seal(b"not a zip", actors.recipient[0])):
        with pytest.raises(UnsealError):
            open_sealed(sealed)


def test_a_package_that_is_too_large_is_refused(actors: Actors, forsendelse: Callable[..., Forsendelse]) -> None:
    sealed = seal_files(actors, forsendelse())
    with Spool(limits=Limits(max_package_bytes=len(sealed) - 1)) as spool:
        spool.write(sealed)
        spool.finish()

        assert spool.sha256 == Sha256.of(sealed)
        with pytest.raises(UnsealError):
            open_package(spool, keys=actors.keys, trust=actors.trust, now=actors.now)


def test_a_spool_that_changes_between_the_passes_is_noticed(
    actors: Actors, forsendelse: Callable[..., Forsendelse]
) -> None:
    sealed = seal_files(actors, forsendelse(), os.urandom(600_000))
    with Spool() as spool:
        spool.write(sealed)
        spool.finish()
        with open_package(spool, keys=actors.keys, trust=actors.trust, now=actors.now) as opened:
            next(iter(opened.read(NAME)))
            spool._file.seek(400_000)
            spool._file.write(bytes(64))

            with pytest.raises(UnsealError):
                opened.read_bytes(NAME, 600_000)


def test_read_bytes_has_a_limit(
    actors: Actors, forsendelse: Callable[..., Forsendelse], open_sealed: Callable[..., OpenedPackage]
) -> None:
    opened = open_sealed(seal_files(actors, forsendelse()))

    with pytest.raises(ValueError, match="larger than 10"):
        opened.read_bytes(NAME, 10)
    with pytest.raises(KeyError):
        opened.read_bytes("absent", 10)


def test_nothing_is_sealed_for_a_certificate_that_has_expired(actors: Actors) -> None:
    late = actors.now + timedelta(days=731)

    with pytest.raises(CertificateError):
        PackageWriter(lambda _: None, recipient=actors.recipient[0], signer=actors.signer, now=late)
    with pytest.raises(CertificateError):
        seal_package([("a", "text/plain", b"")], recipient=actors.recipient[0], signer=actors.signer, now=late)


def test_an_empty_package_is_refused(actors: Actors) -> None:
    with pytest.raises(PackError):
        seal_package([], recipient=actors.recipient[0], signer=actors.signer, now=actors.now)


def test_a_package_that_was_given_up_writes_nothing_more(actors: Actors) -> None:
    out: list[bytes] = []
    writer = PackageWriter(out.append, recipient=actors.recipient[0], signer=actors.signer, now=actors.now)
    entry = writer.add("a", "application/pdf")
    entry.write(bytes(200_000))
    writer.abort()
    before = len(out)
    del writer, entry

    assert len(out) == before


def test_a_package_moved_to_another_kommune_or_type_is_refused_by_field_names_alone(
    forsendelse: Callable[..., Forsendelse],
) -> None:
    check_forsendelse(forsendelse(), forsendelse())
    with pytest.raises(MismatchError) as caught:
        check_forsendelse(forsendelse(), forsendelse("4601", "ETTERSENDELSE"))
    assert str(caught.value).endswith("kommunenummer, type")
    assert "4601" not in str(caught.value)


NEWER = {"enhetsnummer": "0315", "nav_ekstern_ref_id": "ref-1", "hastegrad": "VANLIG"}
OTHER = {"enhetsnummer": "0301", "nav_ekstern_ref_id": "ref-2", "hastegrad": "NODHJELP"}


@pytest.mark.parametrize("field", NEWER)
def test_what_the_fagsystem_acts_on_is_compared_when_the_sender_signed_it(
    forsendelse: Callable[..., Forsendelse], field: str
) -> None:
    record = forsendelse().model_copy(update=NEWER)
    check_forsendelse(record, record)
    for signed in (record, forsendelse().model_copy(update={field: NEWER[field]})):
        with pytest.raises(MismatchError) as caught:
            check_forsendelse(signed, record.model_copy(update={field: OTHER[field]}))
        assert str(caught.value).endswith(f"uenige om {field}")


def test_what_an_older_sender_did_not_sign_is_not_compared(forsendelse: Callable[..., Forsendelse]) -> None:
    check_forsendelse(forsendelse(), forsendelse().model_copy(update=NEWER))


def test_an_office_cannot_be_added_to_what_a_newer_sender_signed_without_one(
    forsendelse: Callable[..., Forsendelse],
) -> None:
    signed = forsendelse().model_copy(update=NEWER | {"enhetsnummer": None})
    check_forsendelse(signed, signed)
    with pytest.raises(MismatchError, match="enhetsnummer"):
        check_forsendelse(signed, forsendelse().model_copy(update=NEWER))


def test_a_package_without_forsendelse_never_matches_a_record(forsendelse: Callable[..., Forsendelse]) -> None:
    with pytest.raises(MismatchError):
        check_forsendelse(None, forsendelse())


def test_trust_in_nobody_opens_nothing(
    actors: Actors, forsendelse: Callable[..., Forsendelse], open_sealed: Callable[..., OpenedPackage]
) -> None:
    with pytest.raises(UnsealError):
        open_sealed(seal_files(actors, forsendelse()), trust=Trust())
