"""Looking for plaintext where there must be none: in the bytes of topics, databases, packages and logs, as they lie on disk."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from producers.demo.plan import MARKER, PlannedSoknad
from schemas.examples import ETTERNAVN, FORNAVN

WINDOW_BYTES: Final = 8 * 1024 * 1024
_TELLTALES: Final = (b"%PDF-1.", b"personIdentifikator", b"ASiCManifest", MARKER)


@dataclass(frozen=True)
class Scan:
    """What was searched and what was found.

    Attributes:
        files: How many files.
        size: How many bytes that really are on disk.
        patterns: How many things were looked for.
        hits: ``file: what kind``, never the value itself.
    """

    files: int
    size: int
    patterns: int
    hits: tuple[str, ...]


def patterns_of(soknader: Iterable[PlannedSoknad]) -> dict[bytes, str]:
    """Return what to look for, and what kind of leak each would be."""
    found = dict.fromkeys(_TELLTALES, "klartekst")
    found |= dict.fromkeys(_in_base64(MARKER), "klartekst i base64")
    found |= {name.encode(): "navn" for name in (*FORNAVN, *ETTERNAVN)}
    found |= {soknad.person.encode(): "fødselsnummer" for soknad in soknader}
    return found


def scan(folders: Iterable[Path], patterns: dict[bytes, str]) -> Scan:
    """Search every file below ``folders``; sparse files are read where there is data.

    Args:
        folders: Where to look.
        patterns: From ``patterns_of``.
    """
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    overlap = max(map(len, patterns)) - 1
    hits: list[str] = []
    size = 0
    for path in paths:
        kinds: set[str] = set()
        for window in _windows(path, overlap):
            size += len(window)
            kinds |= {kind for pattern, kind in patterns.items() if pattern in window}
        hits += [f"{path}: {kind}" for kind in sorted(kinds)]
    return Scan(len(paths), size, len(patterns), tuple(hits))


def _in_base64(text: bytes) -> list[bytes]:
    """Return the three ways in which ``text`` can look in base64, by where it begins in a group of three bytes."""
    return [base64.b64encode(b"\0" * shift + text)[4 : -4 or None] for shift in range(3)]


def _windows(path: Path, overlap: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        for start, end in _extents(file.fileno(), path.stat().st_size):
            position = start
            while position < end:
                file.seek(position)
                yield file.read(min(WINDOW_BYTES + overlap, end - position))
                position += WINDOW_BYTES


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where a sparse file has data: Kafka's index files are 10 MiB of nothing each."""
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError:  # no data after this point
            return
        position = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, position
