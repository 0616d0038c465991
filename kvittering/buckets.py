"""Records on disk, a søknad's together: what lets a rebuild fold whole søknader with bounded memory.

A replay meets a søknad's records far apart, on three topics. Here each record is appended to one of many files by its key, so
that a file holds every record of its søknader, in the order in which they were read, and is small enough for memory. The files
are as the topics are: sealed packages and clear routing, readable by the owner alone, and gone when the rebuild is over.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from broker.record import Incoming
from kvittering.rows import headers_json, headers_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

RECORDS_EACH: Final = 10_000
"""About how many records a file holds: some 10 MB, which is what one worker has in memory at a time."""
MAX_BUCKETS: Final = 400
"""Most files: each is open while records come in."""
_FRAME: Final = struct.Struct(">HIqqIII")
_BUFFER_BYTES: Final = 64 * 1024


def bucket_count(records: int) -> int:
    """Return how many files to share ``records`` between."""
    return min(max(1, -(-records // RECORDS_EACH)), MAX_BUCKETS)


class Buckets:
    """Writes records to files by their key. Use as a context manager; read when it is closed.

    Args:
        folder: An empty folder of our own.
        count: How many files.
        topics: Every topic that a record may be from.
    """

    def __init__(self, folder: Path, count: int, topics: Sequence[str]) -> None:
        self.paths = [folder / f"{number:03}" for number in range(count)]
        self._numbers = {topic: number for number, topic in enumerate(topics)}
        self._files: list[BinaryIO] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for path in self.paths:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._files.append(self._stack.enter_context(os.fdopen(descriptor, "wb", buffering=_BUFFER_BYTES)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, record: Incoming) -> None:
        """Append a record to its søknad's file.

        Raises:
            OSError: The disk is full.
        """
        headers = headers_json(record.headers).encode()
        frame = _FRAME.pack(
            self._numbers[record.topic],
            record.partition,
            record.offset,
            record.timestamp_ms,
            len(record.key),
            len(record.value),
            len(headers),
        )
        file = self._files[zlib.crc32(record.key) % len(self._files)]
        file.write(b"".join((frame, record.key, record.value, headers)))


def read_bucket(path: Path, topics: Sequence[str]) -> Iterator[Incoming]:
    """Return the records of a file, in the order in which they were added.

    Args:
        path: One of ``Buckets.paths``.
        topics: The same as the writer's.
    """
    data = memoryview(path.read_bytes())
    at = 0
    while at < len(data):
        topic, partition, offset, timestamp_ms, *sizes = _FRAME.unpack_from(data, at)
        at += _FRAME.size
        parts: list[bytes] = []
        for size in sizes:
            parts.append(bytes(data[at : at + size]))
            at += size
        headers = headers_of(parts[2].decode())
        yield Incoming(topics[int(topic)], partition, offset, timestamp_ms, parts[0], parts[1], headers)
