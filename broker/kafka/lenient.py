"""Reading records whose header names are not UTF-8, which Kafka's broker takes and aiokafka's parser dies of.

Kafka's protocol says that a header's name is UTF-8, but no broker looks, so anybody who may write to a topic may write other
bytes. aiokafka 0.14 then raises ``UnicodeDecodeError`` in the middle of a fetch, and loses what it had parsed before it. Names
carry nothing that a message depends on, so such a record is read like any other, with ``?`` for each byte of that name that is
not ASCII.

Rules:

1. aiokafka parses; only a batch that it cannot decode is looked at by us. We write over bytes of names in a copy, so no length
   and no offset changes, and let it parse again from the record that it stopped at.
2. ``install`` puts this between aiokafka's fetcher and its parser. It has no other door for it; a test with a real broker holds
   that the door is still there.

Source: Kafka protocol, record batch version 2 (kafka.apache.org/documentation, 5.3 Message Format); KIP-82.
"""

from __future__ import annotations

import struct
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords

if TYPE_CHECKING:
    from collections.abc import Iterator

_LENGTH_AT: Final = 8
_OVERHEAD: Final = 12
_MAGIC_AT: Final = 16
_ATTRIBUTES_AT: Final = 21
_COUNT_AT: Final = 57
_RECORDS_AT: Final = 61
_CODEC_MASK: Final = 0x07
_MAGIC: Final = 2


def install() -> None:
    """Let every consumer of this process read such records. May be called more than once."""
    fetcher.MemoryRecords = LenientRecords


class LenientRecords:
    """aiokafka's ``MemoryRecords``: the batches of one fetch.

    Args:
        data: What the broker sent of one partition; the last batch may be cut off.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._records = MemoryRecords(data)
        self._at = 0

    def size_in_bytes(self) -> int:
        """Return how much the broker sent."""
        return self._records.size_in_bytes()

    def has_next(self) -> bool:
        """Return whether there is another whole batch."""
        return self._records.has_next()

    def next_batch(self) -> LenientBatch | None:
        """Return the next batch; None when there is none."""
        batch = self._records.next_batch()
        if batch is None:
            return None
        start = self._at
        (length,) = struct.unpack_from(">i", self._data, start + _LENGTH_AT)
        self._at = start + _OVERHEAD + length
        return LenientBatch(batch, memoryview(self._data)[start : self._at])


class LenientBatch:
    """One batch; all that is not here is aiokafka's.

    Args:
        batch: Parsed by aiokafka as it is iterated.
        data: The batch's bytes.
    """

    def __init__(self, batch: Any, data: memoryview) -> None:
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the records, in order."""
        done = 0
        try:
            for record in self._batch:
                yield record
                done += 1
        except UnicodeDecodeError:
            named = with_ascii_names(self._data)
            if named is None:
                raise
            yield from islice(iter(DefaultRecordBatch(named)), done, None)


def with_ascii_names(batch: bytes | memoryview) -> bytes | None:
    """Return the batch with ``?`` for the bytes that are not ASCII in header names that are not UTF-8.

    Args:
        batch: A whole record batch, version 2.

    Returns:
        As many bytes; its CRC is no longer right. None for a batch that is compressed, which our topics never hold, or older.
    """
    data = bytearray(batch)
    if data[_MAGIC_AT] != _MAGIC or data[_ATTRIBUTES_AT + 1] & _CODEC_MASK:
        return None
    (count,) = struct.unpack_from(">i", data, _COUNT_AT)
    at = _RECORDS_AT
    for _ in range(count):
        length, at = _varint(data, at)
        _name_headers(data, at)
        at += length
    return bytes(data)


def _name_headers(data: bytearray, at: int) -> None:
    """Mend the names of one record, whose attributes are at ``at``."""
    at += 1
    _, at = _varint(data, at)  # timestamp
    _, at = _varint(data, at)  # offset
    for _ in ("key", "value"):
        at = _skip(data, at)
    headers, at = _varint(data, at)
    for _ in range(headers):
        length, at = _varint(data, at)
        data[at : at + length] = _named(data[at : at + length])
        at = _skip(data, at + length)


def _named(name: bytearray) -> bytes:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return bytes(byte if byte < 0x80 else ord("?") for byte in name)  # noqa: PLR2004 - where ASCII ends
    return bytes(name)


def _skip(data: bytearray, at: int) -> int:
    """Return where nullable bytes end that begin at ``at``."""
    length, at = _varint(data, at)
    return at + max(length, 0)


def _varint(data: bytearray, at: int) -> tuple[int, int]:
    """Return a zigzag varint, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return (value >> 1) ^ -(value & 1), at
