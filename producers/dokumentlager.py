"""The dokumentlager: sealed packages that are too large for a record, fetched by connectors with an id.

Rules:

1. Only ciphertext comes here. Whoever calls ``create`` writes what a ``PackageWriter`` wrote.
2. When ``commit`` returns, the package survives a power cut: the file is synced, renamed, and its folder synced.
3. What was never committed is gone after ``abort``, and after a crash it is gone after ``sweep``. A committed package is not
   removed there because nobody refers to it: a database that was restored from a backup knows nothing of the packages that are
   newer than the backup, and their søknader are on their topics. Such packages are counted, and go when they are so old that no
   receiver can ask for them (``producers.oppbevaring``).
4. Files are mode 0600 and named by their id; a package never changes once it is there.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from broker.files import sync_folder
from broker.krasj import crash_point
from schemas.errors import InvalidNameError, PackageMissingError, StoreError, StoreFullError
from schemas.names import DokumentlagerId

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime
    from pathlib import Path

CHUNK_BYTES: Final = 256 * 1024

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No room on the disk, in the quota, or within the largest file that there may be."""

_TEMPORARY: Final = ".del"
_SUFFIX: Final = ".cms"


class PackageSink(Protocol):
    """One package on its way into the dokumentlager. Not for two threads at once."""

    def write(self, data: bytes) -> None:
        """Append ciphertext.

        Raises:
            StoreError: It cannot be stored. Only ``abort`` may follow.
        """
        ...

    def commit(self) -> DokumentlagerId:
        """Make the package durable and readable, and return its id.

        Raises:
            StoreError: It is not stored. Only ``abort`` may follow.
        """
        ...

    def abort(self) -> None:
        """Forget all of it. May be called at any time before ``commit`` has returned, and twice."""
        ...


@dataclass(frozen=True, slots=True)
class Swept:
    """What ``sweep`` found.

    Attributes:
        removed: Unfinished packages, which are gone now.
        unknown: Committed packages that nobody refers to, which are still there.
    """

    removed: int
    unknown: int


class Dokumentlager(Protocol):
    """Where sealed packages are kept. All calls block, and may come from any thread."""

    def create(self) -> PackageSink:
        """Begin a package.

        Raises:
            StoreError: There is no room, or no right to write.
        """
        ...

    def size(self, dokumentlager_id: DokumentlagerId) -> int:
        """Return the package's size in bytes.

        Raises:
            PackageMissingError: There is no such package.
        """
        ...

    def state(self, dokumentlager_id: DokumentlagerId) -> str:
        """Return what is another text whenever the package's bytes may have changed.

        Raises:
            PackageMissingError: There is no such package.
        """
        ...

    def read(self, dokumentlager_id: DokumentlagerId, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Return the bytes from ``start`` up to, not including, ``end`` (None: to the last), in pieces.

        Raises:
            PackageMissingError: There is no such package; raised by the call, not by the first piece.
        """
        ...

    def delete(self, dokumentlager_id: DokumentlagerId) -> None:
        """Remove a package; it may be gone already.

        Raises:
            StoreError: It is still there.
        """
        ...

    def ids(self) -> frozenset[DokumentlagerId]:
        """Return every committed package."""
        ...

    def stored_before(self, moment: datetime) -> frozenset[DokumentlagerId]:
        """Return every committed package that was stored before a moment (aware UTC).

        Raises:
            StoreError: It cannot be seen.
        """
        ...

    def sweep(self, known: Collection[DokumentlagerId]) -> Swept:
        """Remove what is unfinished, and count what is unknown. Only while nothing is being written.

        Args:
            known: Packages that somebody refers to.
        """
        ...


class DiskDokumentlager:
    """A dokumentlager in one folder of a local disk.

    Args:
        folder: Made if it does not exist, mode 0700.

    Raises:
        StoreError: The folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _store_error(error) from error

    def create(self) -> PackageSink:
        """Begin a package; see ``Dokumentlager``."""
        return _DiskSink(self._folder, DokumentlagerId.new())

    def size(self, dokumentlager_id: DokumentlagerId) -> int:
        """Return the package's size in bytes; see ``Dokumentlager``."""
        return self._stat(dokumentlager_id).st_size

    def state(self, dokumentlager_id: DokumentlagerId) -> str:
        """Return the file's identity, size and last change; see ``Dokumentlager``."""
        stat = self._stat(dokumentlager_id)
        return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"

    def read(self, dokumentlager_id: DokumentlagerId, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Return a range of the package; see ``Dokumentlager``."""
        size = self.size(dokumentlager_id)
        return _pieces(self._path(dokumentlager_id), start, size if end is None else min(end, size))

    def delete(self, dokumentlager_id: DokumentlagerId) -> None:
        """Remove a package; see ``Dokumentlager``."""
        try:
            self._path(dokumentlager_id).unlink(missing_ok=True)
        except OSError as error:
            raise _store_error(error) from error

    def ids(self) -> frozenset[DokumentlagerId]:
        """Return every committed package; see ``Dokumentlager``."""
        found = (_id_of(path) for path in self._folder.glob(f"*{_SUFFIX}"))
        return frozenset(dokumentlager_id for dokumentlager_id in found if dokumentlager_id is not None)

    def stored_before(self, moment: datetime) -> frozenset[DokumentlagerId]:
        """Return every package whose file was last written before a moment; see ``Dokumentlager``."""
        found: set[DokumentlagerId] = set()
        for dokumentlager_id in self.ids():
            with suppress(PackageMissingError):  # another instance has just deleted it
                if self._stat(dokumentlager_id).st_mtime < moment.timestamp():
                    found.add(dokumentlager_id)
        return frozenset(found)

    def sweep(self, known: Collection[DokumentlagerId]) -> Swept:
        """Remove what is unfinished, and count what is unknown; see ``Dokumentlager``."""
        removed = unknown = 0
        for path in self._folder.iterdir():
            dokumentlager_id = _id_of(path)
            if dokumentlager_id is None:
                continue
            if path.suffix == _TEMPORARY:
                path.unlink(missing_ok=True)
                removed += 1
            elif path.suffix == _SUFFIX and dokumentlager_id not in known:
                unknown += 1
        return Swept(removed, unknown)

    def _stat(self, dokumentlager_id: DokumentlagerId) -> os.stat_result:
        try:
            return self._path(dokumentlager_id).stat()
        except FileNotFoundError:
            raise PackageMissingError("pakken finnes ikke i dokumentlageret") from None
        except OSError as error:
            raise _store_error(error) from error

    def _path(self, dokumentlager_id: DokumentlagerId) -> Path:
        return self._folder / f"{dokumentlager_id}{_SUFFIX}"


class _DiskSink:
    """One file on its way: written beside its place, then renamed into it."""

    def __init__(self, folder: Path, dokumentlager_id: DokumentlagerId) -> None:
        self._id = dokumentlager_id
        self._folder = folder
        self._temporary = folder / f"{dokumentlager_id}{_TEMPORARY}"
        self._final = folder / f"{dokumentlager_id}{_SUFFIX}"
        self._committed = False
        try:
            descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _store_error(error) from error
        self._file = os.fdopen(descriptor, "wb", buffering=CHUNK_BYTES)

    def write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise _store_error(error) from error

    def commit(self) -> DokumentlagerId:
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            crash_point("producers.dokumentlager.before-rename")
            self._temporary.rename(self._final)
            sync_folder(self._folder)
        except OSError as error:
            raise _store_error(error) from error
        self._committed = True
        crash_point("producers.dokumentlager.committed")
        return self._id

    def abort(self) -> None:
        if self._committed:
            return
        with suppress(OSError):  # a flush to a full disk may fail once more
            self._file.close()
        for path in (self._temporary, self._final):  # the folder's sync may have failed after the rename
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _pieces(path: Path, start: int, end: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(start)
            left = end - start
            while left > 0 and (piece := file.read(min(CHUNK_BYTES, left))):
                left -= len(piece)
                yield piece
    except OSError as error:
        raise _store_error(error) from error


def _id_of(path: Path) -> DokumentlagerId | None:
    """Return the id that a file is named by, or None for a file of somebody else's."""
    try:
        return DokumentlagerId(path.stem)
    except InvalidNameError:
        return None


def _store_error(error: OSError) -> StoreError:
    if error.errno in FULL:
        return StoreFullError("disken til dokumentlageret er full")
    return StoreError(f"dokumentlageret kan ikke skrives eller leses ({os.strerror(error.errno or 0)})")
