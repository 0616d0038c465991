"""What a store asks of a database, whichever it is.

The SQL that goes through a ``Connection`` is the part of SQLite's that ``broker.sql.dialect`` knows how to say to PostgreSQL:

* types TEXT, INTEGER and BLOB; STRICT, WITHOUT ROWID, INTEGER PRIMARY KEY with or without AUTOINCREMENT; indexes, also partial;
* ``?`` for every value; ON CONFLICT DO NOTHING and DO UPDATE; RETURNING (there is no ``lastrowid``);
* no truth values: 0 and 1 are compared with ``= 1``;
* nothing of one database alone: no INSERT OR IGNORE, no JSON functions, no ``rowid``, no PRAGMA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

T = TypeVar("T")


class Row(Protocol):
    """A row: values by place (from 0) and by name."""

    def __getitem__(self, key: int | str, /) -> Any: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...

    def keys(self) -> Iterable[str]:
        """Return the columns' names, in order."""
        ...


class Cursor(Protocol):
    """What a statement gave. A row is a ``Row``; it is typed ``Any`` because its values are what the statement asked for."""

    @property
    def rowcount(self) -> int:
        """How many rows a change touched."""
        ...

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """Where statements are run, within a transaction that is not the caller's to end."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor:
        """Run one statement."""
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Cursor:
        """Run one statement for each row of values."""
        ...


class Database(Protocol):
    """A database with one store in it. Use as an asynchronous context manager, or call ``open`` and ``close``.

    Attributes:
        commits: How many transactions were committed since ``open``, for tests and metrics.
    """

    commits: int

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    async def open(self) -> None:
        """Open it and bring it to our version.

        Raises:
            StoreError: It cannot be opened or written, is no database, or is of a newer version.
            ConfigurationError: Another process has it, or it is another store's.
        """
        ...

    async def close(self) -> None:
        """Finish every write that was asked for, then close. May be called twice."""
        ...

    async def write(self, call: Callable[[Connection], T]) -> T:
        """Run ``call`` in a transaction and return its result when that is durable.

        Args:
            call: Runs in the writer's thread. It must not commit, roll back, wait, or change anything but the database: it is
                run again where a transaction has to be repeated. An error of the database ends it; it must not catch one.

        Raises:
            UniqueViolationError: A unique index or primary key forbids it; nothing of this write is kept.
            OutcomeUnknownError: It may be kept: the connection went in the middle of the commit.
            StoreError: Any other: nothing of this write is kept. ``retriable``: what stops it may pass.
            Exception: Whatever else ``call`` raised; nothing of it is kept.
        """
        ...

    async def read(self, call: Callable[[Connection], T]) -> T:
        """Run ``call`` on a connection that only reads, and return its result.

        It sees every write that has returned, and one moment throughout.

        Raises:
            StoreError: The database cannot be read.
            Exception: Whatever else ``call`` raised.
        """
        ...

    async def scrub(self) -> bool:
        """Take what was deleted out of the database's own files, as far as the database can; return whether it did.

        SQLite does: deleted content is overwritten, and the log of former pages is emptied; not while another process reads.
        PostgreSQL cannot be made to: what is deleted stays in its log and in backups until those are recycled.

        Raises:
            StoreError: It cannot be done now.
        """
        ...
