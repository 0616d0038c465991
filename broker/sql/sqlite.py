"""SQLite for a store that lives beside one process: one writer thread, many writes to a commit.

Rules:

1. ``await write(...)`` returns when the change is on disk (WAL, ``synchronous=FULL``): an fsync, shared with whoever waits at
   the time.
2. Writes that wait together are one transaction. Each has a savepoint of its own, so that one that fails undoes itself alone.
3. A failed commit fails every write in it, and none of them is kept.
4. Migrations are a list that only grows. ``PRAGMA user_version`` counts how many were run; a database with more than we know
   is refused.
5. One process writes a file (``broker.sql.lock``); others may read it.
6. What is deleted is overwritten (``secure_delete``), and gone from the log as well after ``scrub`` or ``close``: keys are
   destroyed by deleting them.

The asyncio bridge over ``sqlite3`` costs a fifth of aiosqlite's, and the fsync is shared.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from broker.sql.group import GroupDatabase, Waiting
from broker.sql.lock import FileLock
from broker.sql.ports import Connection
from broker.sql.scripts import statements
from schemas.errors import StoreError, StoreFullError, UniqueViolationError

T = TypeVar("T")

BUSY_TIMEOUT_MS: Final = 5_000
SCRUB_TIMEOUT_MS: Final = 200

_PRAGMAS: Final = (
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",
)
_READER_PRAGMAS: Final = (f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}", "PRAGMA query_only = ON")
_UNIQUE: Final = frozenset({"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_ROWID"})
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_ADVICE: Final = {
    "SQLITE_FULL": "disken er full",
    "SQLITE_BUSY": "databasen brukes av en annen prosess",
    "SQLITE_LOCKED": "databasen brukes av en annen prosess",
    "SQLITE_READONLY": "databasen kan ikke skrives",
    "SQLITE_CANTOPEN": "databasen kan ikke åpnes",
    "SQLITE_NOTADB": "filen er ikke en database",
    "SQLITE_CORRUPT": "databasen er skadet",
}


class SqliteDatabase(GroupDatabase):
    """A database file.

    Args:
        path: The file; made with mode 0600 if it is not there, its folder too.
        migrations: SQL scripts in order; script ``n`` brings a database from version ``n`` to ``n + 1``. Never change one that
            was released.
        read_only: Only read, beside the process that writes it; the file must be there, and of our version.
    """

    def __init__(self, path: Path, migrations: Sequence[str], *, read_only: bool = False) -> None:
        super().__init__("sqlite", read_only=read_only)
        self._path = path
        self._migrations = tuple(migrations)
        self._lock = FileLock(path)
        self._connection: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    def _prepare(self) -> None:
        with self._mapped():
            if self._read_only:
                with contextlib.closing(self._connect_reader()) as reader:
                    self._check_version(reader)
                return
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock.acquire()
            try:
                self._connection = self._connect_writer()
            except BaseException:
                self._lock.release()
                raise

    def _connect_writer(self) -> sqlite3.Connection:
        """Open for writing and migrate."""
        # SQLite gives its -wal and -shm files the mode of this one.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._path.chmod(0o600)
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            connection.row_factory = sqlite3.Row
            for pragma in _PRAGMAS:
                connection.execute(pragma)
            self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_reader(self) -> sqlite3.Connection:
        place = f"file:{quote(str(self._path.absolute()))}?mode={'ro' if self._read_only else 'rw'}"
        reader = sqlite3.connect(place, uri=True, isolation_level=None, check_same_thread=False)
        reader.row_factory = sqlite3.Row
        for pragma in _READER_PRAGMAS:
            reader.execute(pragma)
        return reader

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = self._version(connection)
            for number, script in enumerate(self._migrations[version:], version + 1):
                for statement in statements(script):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _version(self, connection: sqlite3.Connection) -> int:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(self._migrations):
            raise StoreError(
                f"{self._path.name} er av versjon {version}; dette programmet kjenner {len(self._migrations)}"
            )
        return version

    def _check_version(self, reader: sqlite3.Connection) -> None:
        version = self._version(reader)
        if version < len(self._migrations):
            raise StoreError(
                f"{self._path.name} er av versjon {version}, og her trengs {len(self._migrations)}; start prosessen som eier den"
            )

    def _commit(self, group: list[Waiting]) -> None:
        connection = self._connection
        if connection is None:
            raise RuntimeError("the writer's connection is closed by the writer alone")
        outcomes: list[tuple[Waiting, object]] = []
        try:
            with self._mapped():
                connection.execute("BEGIN IMMEDIATE")
                for write in group:
                    try:
                        outcomes.append((write, self._run(connection, write)))
                    except Exception as error:  # it is the caller's own
                        # SQLite itself rolled everything back: a full disk, an I/O error
                        if not connection.in_transaction:
                            raise
                        write.done.set_exception(error)
                connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  # every caller gets it
            with contextlib.suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            for write in group:
                if not write.done.done():
                    write.done.set_exception(error)
            return
        self.commits += 1
        for write, result in outcomes:
            write.done.set_result(result)

    def _run(self, connection: sqlite3.Connection, write: Waiting) -> object:
        """Run one write; undo it alone if it fails."""
        connection.execute("SAVEPOINT one")
        try:
            with self._mapped():
                result = write.call(connection)
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK TO one")
                connection.execute("RELEASE one")
            raise
        connection.execute("RELEASE one")
        return result

    def _read(self, call: Callable[[Connection], T]) -> T:
        with self._mapped():
            if self._reader is None:
                self._reader = self._connect_reader()
            self._reader.execute("BEGIN")
            try:
                return call(self._reader)
            finally:
                if self._reader.in_transaction:
                    self._reader.execute("ROLLBACK")

    def _scrub(self) -> bool:
        with self._mapped():
            if self._reader is None:
                self._reader = self._connect_reader()
            # While it waits for those who read, it keeps whoever writes from writing.
            self._reader.execute(f"PRAGMA busy_timeout = {SCRUB_TIMEOUT_MS}")
            try:
                busy, _, _ = self._reader.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self._reader.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            return not busy

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _close_writer(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _release(self) -> None:
        self._lock.release()

    @contextlib.contextmanager
    def _mapped(self) -> Generator[None]:
        """Raise SQLite's errors as ours. Its text may quote values in a constraint, so only the code's name is kept."""
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", type(error).__name__)
            kind = UniqueViolationError if name in _UNIQUE else StoreFullError if name == "SQLITE_FULL" else StoreError
            raise kind(
                f"{self._path.name}: {_ADVICE.get(name, 'databasen svarer ikke som ventet')} ({name})"
            ) from error
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise StoreFullError(f"{self._path.name}: disken er full") from error
            raise StoreError(f"{self._path.name}: filen kan ikke åpnes ({type(error).__name__})") from error
