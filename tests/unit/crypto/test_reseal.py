from __future__ import annotations

import os
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from asn1crypto import cms as asn1
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto import CmsEncryptor, ContentKey, PackageWriter, Spool, open_enveloped, open_package, reseal
from crypto.cms import SEGMENT_BYTES
from schemas.errors import UnsealError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Actors

    from crypto import KeyRing

    Ring = Callable[..., KeyRing]


def seal(plain: bytes, actors: Actors) -> tuple[bytes, ContentKey]:
    encryptor = CmsEncryptor(actors.recipient[0])
    return encryptor.update(plain) + encryptor.finalize(), encryptor.content_key


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 700), st.integers(0, 3), st.integers(1, 200_000))
def test_the_new_recipient_opens_the_same_and_the_former_nothing(
    actors: Actors, ring: Ring, size: int, segments: int, chunk: int
) -> None:
    plain = os.urandom(max(segments * SEGMENT_BYTES - 350 + size, 0) if segments else size)
    sealed, key = seal(plain, actors)

    again = b"".join(reseal(pieces(sealed, chunk), key, actors.other[0]))

    assert open_enveloped(again, ring(actors.other)) == plain
    with pytest.raises(UnsealError):
        open_enveloped(again, actors.keys)


def test_what_is_sealed_twice_over_is_sealed_as_well(actors: Actors) -> None:
    sealed, key = seal(b"x" * 100_000, actors)
    there = b"".join(reseal([sealed], key, actors.other[0]))
    back = b"".join(reseal([there], key, actors.recipient[0]))

    assert open_enveloped(back, actors.keys) == b"x" * 100_000
    assert len(back) == len(sealed)
    assert back != sealed


def test_a_whole_package_keeps_its_signature(actors: Actors, ring: Ring) -> None:
    sealed: list[bytes] = []
    writer = PackageWriter(sealed.append, recipient=actors.recipient[0], signer=actors.signer, now=actors.now)
    with writer.add("soknad.pdf", "application/pdf") as file:
        file.write(b"%PDF-1.7 innhold")
    writer.finish()
    with Spool() as spool:
        for piece in reseal(sealed, writer.content_key, actors.other[0]):
            spool.write(piece)
        spool.finish()
        with open_package(
            spool, keys=ring(actors.other), trust=actors.trust, now=actors.now, require_forsendelse=False
        ) as opened:
            assert opened.signer == actors.signer.certificate


def test_there_is_one_recipient_of_the_contracts_kind(actors: Actors) -> None:
    sealed, key = seal(b"abc", actors)
    envelope = asn1.ContentInfo.load(b"".join(reseal([sealed], key, actors.other[0])))["content"]
    (recipient,) = envelope["recipient_infos"]

    assert envelope["version"].native == "v0"
    assert recipient.chosen["rid"].chosen["serial_number"].native == actors.other[0].serial_number
    assert recipient.chosen["key_encryption_algorithm"]["algorithm"].native == "rsaes_oaep"


def test_the_key_of_another_package_is_refused(actors: Actors) -> None:
    sealed, key = seal(b"abc", actors)
    with pytest.raises(UnsealError):
        list(reseal([sealed], ContentKey.new(), actors.other[0]))
    refused = 0
    for _ in range(20):
        try:
            list(reseal([sealed], ContentKey(os.urandom(32), key.iv), actors.other[0]))
        except UnsealError:
            refused += 1
    assert refused >= 15


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_package_that_is_cut_off_or_has_something_behind_it_is_refused(actors: Actors, cut: int) -> None:
    sealed, key = seal(os.urandom(100_000), actors)
    for broken in (sealed[:-cut], sealed + bytes(cut), sealed[:200], b""):
        with pytest.raises(UnsealError):
            list(reseal([broken], key, actors.other[0]))


def test_memory_does_not_grow_with_the_package(actors: Actors) -> None:
    encryptor = CmsEncryptor(actors.recipient[0])

    def sealed(count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield encryptor.update(bytes(1024 * 1024))
        yield encryptor.finalize()

    source = sealed(40)
    tracemalloc.start()
    try:
        total = sum(len(piece) for piece in reseal(source, encryptor.content_key, actors.other[0]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total > 40 * 1024 * 1024
    assert peak < 12 * 1024 * 1024
