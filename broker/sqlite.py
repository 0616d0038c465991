"""SQLite for a store that lives beside one process: one writer thread, many writes to a commit.

Rules:

1. ``await write(...)`` returns when the change is on disk (WAL, ``synchronous=FULL``): an fsync, shared with whoever waits at
   the time.
2. Writes that wait together are one transaction. Each has a savepoint of its own, so that one that fails undoes itself alone.
3. A failed commit fails every write in it, and none of them is kept.
4. Migrations are a list that only grows. ``PRAGMA user_version`` counts how many were run; a database with more than we know
   is refused.

The asyncio bridge over ``sqlite3`` costs a fifth of aiosqlite's, and the fsync is shared.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Self, TypeVar, cast

from schemas.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path
    from types import TracebackType

T = TypeVar("T")

MAX_GROUP: Final = 500
"""Most writes in one commit."""
BUSY_TIMEOUT_MS: Final = 5_000

_PRAGMAS: Final = (
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
)


class _Write:
    """One write that waits: what to do, and who wants to know."""

    __slots__ = ("call", "done")

    def __init__(self, call: Callable[[sqlite3.Connection], object]) -> None:
        self.call = call
        self.done: Future[object] = Future()


class Database:
    """A database file. Use as an asynchronous context manager, or call ``open`` and ``close``.

    Args:
        path: The file; made with mode 0600 if it is not there, its folder too.
        migrations: SQL scripts in order; script ``n`` brings a database from version ``n`` to ``n + 1``. Never change one that
            was released.
    """

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        self._path = path
        self._migrations = tuple(migrations)
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._reader: sqlite3.Connection | None = None
        self._readers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-reader")
        self.commits = 0
        """How many transactions were committed since ``open``, for tests and metrics."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the file and bring it to our version.

        Raises:
            StoreError: It cannot be opened or written, is no database, or is of a newer version.
        """
        if self._writer is not None:
            raise RuntimeError("the database is open already")
        connection = await asyncio.to_thread(self._prepare)
        self._writer = threading.Thread(target=self._write_loop, args=(connection,), name="sqlite-writer", daemon=True)
        self._writer.start()

    async def close(self) -> None:
        """Finish every write that was asked for, then close. May be called twice."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        self._queue.put(None)
        await asyncio.to_thread(writer.join)
        await asyncio.get_running_loop().run_in_executor(self._readers, self._close_reader)
        self._readers.shutdown(wait=False)

    async def write(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``call`` in a transaction and return its result when that is durable.

        Args:
            call: Runs in the writer thread, within a savepoint; must not commit, roll back, or wait for anything.

        Raises:
            StoreError: Nothing of this write is kept. ``retriable``: the disk may get room again.
            Exception: Whatever else ``call`` raised; nothing of it is kept.
        """
        if self._writer is None:
            raise RuntimeError("the database is not open")
        write = _Write(call)
        self._queue.put(write)
        # Shielded: a caller that is cancelled gives up waiting, and the write is made all the same.
        return cast("T", await asyncio.shield(asyncio.wrap_future(write.done)))

    async def read(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``call`` on a connection that only reads, and return its result.

        It sees every write that has returned.

        Raises:
            StoreError: The database cannot be read.
            Exception: Whatever else ``call`` raised.
        """
        if self._writer is None:
            raise RuntimeError("the database is not open")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, call)

    def _prepare(self) -> sqlite3.Connection:
        """Open for writing and migrate."""
        with self._mapped():
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # SQLite gives its -wal and -shm files the mode of this one.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._path.chmod(0o600)
            connection = self._connect()
            try:
                self._migrate(connection)
            except BaseException:
                connection.close()
                raise
            return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")  # two processes that start at once do it once
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(self._migrations):
            connection.execute("ROLLBACK")
            raise StoreError(
                f"{self._path.name} er av versjon {version}; dette programmet kjenner {len(self._migrations)}"
            )
        try:
            for number, script in enumerate(self._migrations[version:], version + 1):
                for statement in statements(script):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    def _write_loop(self, connection: sqlite3.Connection) -> None:
        """Take whatever waits, commit it together, until told to stop."""
        with contextlib.closing(connection):
            last = False
            while not last:
                group, last = self._next_group()
                if group:
                    self._commit_group(connection, group)

    def _next_group(self) -> tuple[list[_Write], bool]:
        """Wait for one write and take all that wait with it; say whether they are the last."""
        group: list[_Write] = []
        item = self._queue.get()
        while item is not None:
            group.append(item)
            if len(group) == MAX_GROUP:
                return group, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit_group(self, connection: sqlite3.Connection, group: list[_Write]) -> None:
        # From here on nobody can cancel: a result that nobody may set would end this thread.
        group = [write for write in group if write.done.set_running_or_notify_cancel()]
        outcomes: list[tuple[_Write, object]] = []
        try:
            with self._mapped():
                connection.execute("BEGIN IMMEDIATE")
                for write in group:
                    try:
                        outcomes.append((write, self._run(connection, write)))
                    except Exception as error:  # it is the caller's own
                        if (
                            not connection.in_transaction
                        ):  # SQLite itself rolled everything back: a full disk, an I/O error
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

    def _run(self, connection: sqlite3.Connection, write: _Write) -> object:
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

    def _read(self, call: Callable[[sqlite3.Connection], T]) -> T:
        with self._mapped():
            if self._reader is None:
                self._reader = self._connect()
                self._reader.execute("PRAGMA query_only = ON")
            return call(self._reader)

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    @contextlib.contextmanager
    def _mapped(self) -> Generator[None]:
        """Raise SQLite's errors as ours. Its text may quote values in a constraint, so only the code's name is kept."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise  # a caller that relies on a unique index asks for this one by name
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", type(error).__name__)
            raise StoreError(
                f"{self._path.name}: {_ADVICE.get(name, 'databasen svarer ikke som ventet')} ({name})"
            ) from error
        except OSError as error:
            raise StoreError(f"{self._path.name}: filen kan ikke åpnes ({type(error).__name__})") from error


_ADVICE: Final = {
    "SQLITE_FULL": "disken er full",
    "SQLITE_BUSY": "databasen brukes av en annen prosess",
    "SQLITE_LOCKED": "databasen brukes av en annen prosess",
    "SQLITE_READONLY": "databasen kan ikke skrives",
    "SQLITE_CANTOPEN": "databasen kan ikke åpnes",
    "SQLITE_NOTADB": "filen er ikke en database",
    "SQLITE_CORRUPT": "databasen er skadet",
}


def statements(script: str) -> list[str]:
    """Return the statements of a script. ``executescript`` would commit on its own, in the middle of a migration."""
    found: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending.strip())
            pending = ""
    if pending.strip():
        raise ValueError("a migration ends in the middle of a statement")
    return found
