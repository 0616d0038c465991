from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder

import broker.kafka.subscriber  # noqa: F401  # it puts the reader in its place
from broker.kafka.lenient import LenientRecords, with_ascii_names

if TYPE_CHECKING:
    from collections.abc import Sequence

Named = tuple[str, bytes | None]


def make_batch(records: Sequence[tuple[bytes | None, bytes | None, list[Named]]], *, compression: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 1_000_000)
    for offset, (key, value, headers) in enumerate(records):
        builder.append(offset, 1_700_000_000_000 + offset, key, value, headers)
    return bytes(builder.build())


def read(data: bytes) -> list[tuple[int, bytes | None, bytes | None, list[Named]]]:
    records = LenientRecords(data)
    found: list[tuple[int, bytes | None, bytes | None, list[Named]]] = []
    while records.has_next():
        batch = records.next_batch()
        assert batch is not None
        found += [(one.offset, one.key, one.value, list(one.headers)) for one in batch]
    assert records.next_batch() is None
    return found


def spoil(batch: bytes) -> bytes:
    """Write a name that is no UTF-8 over each NAVN: no client of ours can send one."""
    return batch.replace(b"NAVN", b"\xff\xfeN\x80")


MIXED: list[tuple[bytes | None, bytes | None, list[Named]]] = [
    (b"a", b"1", [("traceparent", b"x")]),
    (None, None, [("NAVN", None), ("blåbær", b"\xff"), ("NAVN", b"v" * 300)]),
    (b"c", b"\xff\x00", []),
]


def test_what_can_be_read_is_read_as_it_stands() -> None:
    batch = make_batch(MIXED)
    assert read(batch + batch) == [(n, *record) for _ in range(2) for n, record in enumerate(MIXED)]


def test_a_name_that_is_no_utf8_costs_nothing_but_its_own_bytes() -> None:
    whole, spoiled = make_batch(MIXED), spoil(make_batch(MIXED))
    assert len(spoiled) == len(whole)
    expected = [(n, *record) for n, record in enumerate(MIXED)]
    mended = [*expected]
    mended[1] = (1, None, None, [("??N?", None), ("blåbær", b"\xff"), ("??N?", b"v" * 300)])
    assert read(whole + spoiled + whole) == [*expected, *mended, *expected]


def test_a_batch_that_was_cut_off_is_left_for_the_next_fetch() -> None:
    spoiled = spoil(make_batch(MIXED))
    assert len(read(spoiled + spoiled[:-1])) == len(MIXED)


def test_lengths_are_signed_variable_and_as_the_protocol_has_them() -> None:
    long = ("N" * 200, b"x" * 20_000)
    batch = make_batch([(b"k" * 70, None, [long, ("NAVN", b"")]), (b"", b"v", [("NAVN", b"1")])])
    assert read(spoil(batch)) == [
        (0, b"k" * 70, None, [long, ("??N?", b"")]),
        (1, b"", b"v", [("??N?", b"1")]),
    ]


def test_a_compressed_batch_is_not_mended() -> None:
    assert with_ascii_names(make_batch(MIXED, compression=1)) is None


def test_a_batch_knows_what_the_fetcher_asks_of_it() -> None:
    batch = LenientRecords(make_batch(MIXED)).next_batch()
    assert batch is not None
    assert (batch.next_offset, batch.is_control_batch, batch.validate_crc()) == (3, False, True)
    assert next(batch).key == b"a"


def test_a_broken_length_is_still_an_error() -> None:
    batch = bytearray(make_batch(MIXED))
    struct.pack_into(">i", batch, 57, 4)
    with pytest.raises(CorruptRecordException):
        read(bytes(batch))


def test_every_consumer_of_ours_reads_with_it() -> None:
    assert fetcher.MemoryRecords is LenientRecords
