"""A file to send, in memory or on disk, read in pieces."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from producers.checks import HEAD_BYTES, detect_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

PIECE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Dokument:
    """A file to send.

    Attributes:
        filnavn: Its name at the receiver.
        mimetype: ``application/pdf``, ``image/png`` or ``image/jpeg``.
        storrelse: Bytes, in clear.
        read: Returns its content from the start, in pieces, each time it is called.
    """

    filnavn: str
    mimetype: str
    storrelse: int
    read: Callable[[], Iterable[bytes]]

    @classmethod
    def of_bytes(cls, filnavn: str, content: bytes, mimetype: str | None = None) -> Self:
        """Return a file whose content is in memory; its type is told by its content when not given."""
        mimetype = mimetype or detect_type(content[:HEAD_BYTES]) or "application/octet-stream"
        return cls(filnavn, mimetype, len(content), lambda: _cut(content))

    @classmethod
    def of_path(cls, path: Path) -> Self:
        """Return a file on disk; its type is told by its content.

        Raises:
            OSError: It cannot be read.
        """
        with path.open("rb") as file:
            mimetype = detect_type(file.read(HEAD_BYTES)) or "application/octet-stream"
        return cls(path.name, mimetype, path.stat().st_size, lambda: _read(path))

    def sha512(self) -> str:
        """Return the digest that ``vedlegg.json`` wants: SHA-512 in hex of the file in clear."""
        digest = hashlib.sha512()
        for piece in self.read():
            digest.update(piece)
        return digest.hexdigest()


def _cut(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
