"""PostgreSQL for a store that several instances of a process share: one writer thread each, many writes to a commit.

Rules:

1. ``await write(...)`` returns when the server has the change on disk (``synchronous_commit=on``; a server that runs without
   fsync is refused): one commit, shared with whoever waits at the time.
2. Transactions that write come one after another, through an advisory lock, also those of different instances: what holds for
   SQLite's single writer holds here. What a call reads stays true until its commit, and generated numbers are committed in order.
3. A group is first run without savepoints. If a write in it fails, the group is undone and run again with a savepoint for each,
   so that the one undoes itself alone. A group that the server chose to end (deadlock, serialization) is run again too, as a
   whole, at most ``MAX_ATTEMPTS`` times.
4. A lost connection fails the writes under way, and the next one connects again. Lost in the middle of a commit, the server is
   asked what came of it.
5. Migrations are counted, with a fingerprint of each, in the table ``migrering``; whoever comes first runs them.

No error carries the server's text: it quotes values. Nor anything of the URL but host, port and name of the database.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar, cast

import psycopg
from psycopg import conninfo, errors, pq

from broker.sql import dialect
from broker.sql.group import GroupDatabase, Waiting
from broker.sql.ports import Connection, Cursor
from schemas.errors import ConfigurationError, OutcomeUnknownError, StoreError, StoreFullError, UniqueViolationError

T = TypeVar("T")

MAX_ATTEMPTS: Final = 5
"""How often a group is run that the server ended for another's sake."""
CONNECT_TIMEOUT_S: Final = 5
LOCK_TIMEOUT_MS: Final = 15_000
"""How long a group waits for other instances' groups."""
IDLE_TIMEOUT_MS: Final = 5_000
"""How long an instance that stopped in the middle of a transaction holds up the others; then the server ends it."""

# Locks are the database's, and a store may have a schema to itself.
_WRITE_LOCK: Final = "pg_advisory_xact_lock(1179208531, hashtext(current_schema()))"
_MIGRATION_LOCK: Final = "pg_advisory_xact_lock(1179208532, hashtext(current_schema()))"
_DEFAULTS: Final = {
    "connect_timeout": str(CONNECT_TIMEOUT_S),
    "application_name": "meldingsformidler",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",  # milliseconds
}
_SESSION: Final = (
    "SET client_encoding = 'UTF8'; SET synchronous_commit = on; SET standard_conforming_strings = on;"
    " SET statement_timeout = 60000; SET lock_timeout = {lock}; SET idle_in_transaction_session_timeout = {idle}"
)
_BEGIN: Final = b"BEGIN ISOLATION LEVEL READ COMMITTED"
_ENTER: Final = f"SELECT {_WRITE_LOCK}, pg_current_xact_id()::text".encode()
_SERVER: Final = b"SELECT current_setting('fsync'), current_setting('server_encoding')"
_STATUS: Final = b"SELECT pg_xact_status(%s::xid8)"
_READ: Final = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_VERSIONS: Final = b"""
    CREATE TABLE IF NOT EXISTS migrering (
        nr BIGINT PRIMARY KEY, avtrykk TEXT NOT NULL, kjort TIMESTAMPTZ NOT NULL DEFAULT now()
    )
"""
_UNIQUE: Final = errors.UniqueViolation.sqlstate
_AGAIN: Final = frozenset({errors.DeadlockDetected.sqlstate, errors.SerializationFailure.sqlstate})
_FULL: Final = frozenset({errors.DiskFull.sqlstate, errors.OutOfMemory.sqlstate, "54000"})
_ADVICE: Final = {
    errors.DiskFull.sqlstate: "disken til PostgreSQL er full",
    errors.LockNotAvailable.sqlstate: "en annen instans har skrivelåsen for lenge",
    errors.IdleInTransactionSessionTimeout.sqlstate: "denne instansen stod stille midt i en lagring, og ble avbrutt",
    errors.QueryCanceled.sqlstate: "PostgreSQL brukte for lang tid",
    errors.InvalidPassword.sqlstate: "PostgreSQL godtar ikke innloggingen",
    errors.InvalidAuthorizationSpecification.sqlstate: "PostgreSQL godtar ikke innloggingen",
    errors.InsufficientPrivilege.sqlstate: "brukeren mangler rettigheter i databasen",
    errors.InvalidCatalogName.sqlstate: "databasen finnes ikke",
    errors.ReadOnlySqlTransaction.sqlstate: "databasen kan ikke skrives",
    errors.TooManyConnections.sqlstate: "PostgreSQL har for mange forbindelser",
} | dict.fromkeys(_AGAIN, "andre endrer de samme radene hele tiden")

_Link = psycopg.Connection["PostgresRow"]


class PostgresRow:
    """A row: values by place and by name."""

    __slots__ = ("_places", "_values")

    def __init__(self, places: dict[str, int], values: Sequence[Any]) -> None:
        self._places = places
        self._values = values

    def __getitem__(self, key: int | str) -> Any:
        return self._values[self._places[key] if isinstance(key, str) else key]

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def keys(self) -> Iterable[str]:
        """Return the columns' names, in order."""
        return self._places.keys()


def _rows(cursor: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], PostgresRow]:
    places = {column.name: place for place, column in enumerate(cursor.description or ())}
    return lambda values: PostgresRow(places, values)


class _Session:
    """``broker.sql.ports.Connection`` over psycopg's."""

    def __init__(self, link: _Link) -> None:
        self._link = link

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Cursor:
        return self._link.execute(dialect.query(sql), parameters)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Cursor:
        cursor = self._link.cursor()
        cursor.executemany(dialect.query(sql), rows)
        return cursor


class _OneFailed(Exception):  # noqa: N818 - a signal within this module
    """A write of a group failed while there were no savepoints."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class PostgresDatabase(GroupDatabase):
    """A database on a PostgreSQL server.

    Args:
        url: ``postgresql://user:password@host:port/name?option=value``; libpq's own rules.
        migrations: SQL scripts in order, in SQLite's words. Never change one that was released.
        read_only: Only read; the database must be of our version.

    Raises:
        ConfigurationError: ``url`` is none.
    """

    def __init__(self, url: str, migrations: Sequence[str], *, read_only: bool = False) -> None:
        super().__init__("postgres", read_only=read_only)
        try:
            parts = conninfo.conninfo_to_dict(url)
        except psycopg.Error:
            raise ConfigurationError("databasens adresse er ingen gyldig postgresql://-URL") from None
        self._name = f"postgresql://{parts.get('host', 'lokalt')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"
        self._conninfo = conninfo.make_conninfo(url, **{k: v for k, v in _DEFAULTS.items() if k not in parts})
        self._migrations = tuple(migrations)
        self._link: _Link | None = None
        self._reader: _Link | None = None

    def _prepare(self) -> None:
        with self._mapped():
            link = self._connect()
            try:
                if self._read_only:
                    self._check_version(link)
                else:
                    self._migrate(link)
            except BaseException:
                link.close()
                raise
            if self._read_only:
                link.close()
            else:
                self._link = link

    def _connect(self) -> _Link:
        link = psycopg.Connection[PostgresRow].connect(self._conninfo, autocommit=True, row_factory=_rows)
        try:
            link.execute(_SESSION.format(lock=LOCK_TIMEOUT_MS, idle=IDLE_TIMEOUT_MS).encode(), prepare=False)
            self._check_server(link)
        except BaseException:
            link.close()
            raise
        return link

    def _check_server(self, link: _Link) -> None:
        fsync, encoding = cast("PostgresRow", link.execute(_SERVER).fetchone())
        if fsync != "on":
            raise ConfigurationError(f"{self._name}: serveren kjører uten fsync, så det den bekrefter kan gå tapt")
        if encoding != "UTF8":
            raise ConfigurationError(f"{self._name}: databasen må være laget med tegnsettet UTF8")

    def _migrate(self, link: _Link) -> None:
        with link.transaction():
            # Another instance may be at it, and it may take its time.
            link.execute(b"SET LOCAL lock_timeout = '10min'; SET LOCAL statement_timeout = 0")
            link.execute(f"SELECT {_MIGRATION_LOCK}".encode())
            link.execute(_VERSIONS)
            version = self._known(link)
            for number, script in enumerate(self._migrations[version:], version + 1):
                for statement in dialect.script(script):
                    link.execute(statement)
                link.execute(
                    b"INSERT INTO migrering (nr, avtrykk) VALUES (%s, %s)", (number, dialect.fingerprint(script))
                )

    def _known(self, link: _Link) -> int:
        """Return how many migrations were run."""
        prints = [str(row[0]) for row in link.execute(b"SELECT avtrykk FROM migrering ORDER BY nr")]
        if len(prints) > len(self._migrations):
            raise StoreError(
                f"{self._name} er av versjon {len(prints)}; dette programmet kjenner {len(self._migrations)}"
            )
        ours = [dialect.fingerprint(script) for script in self._migrations[: len(prints)]]
        if prints != ours:
            raise ConfigurationError(f"{self._name} tilhører et annet lager; hver prosesstype må ha sin egen database")
        return len(prints)

    def _check_version(self, link: _Link) -> None:
        there = cast("PostgresRow", link.execute(b"SELECT to_regclass('migrering') IS NOT NULL").fetchone())[0]
        version = self._known(link) if there else 0
        if version < len(self._migrations):
            raise StoreError(
                f"{self._name} er av versjon {version}, og her trengs {len(self._migrations)}; start prosessen som eier den"
            )

    def _commit(self, group: list[Waiting]) -> None:
        try:
            with self._mapped():
                outcomes = self._run_group(group)
        except Exception as error:  # noqa: BLE001  # every caller gets it
            for write in group:
                write.done.set_exception(error)
            return
        self.commits += 1
        for write, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, _Failed):
                write.done.set_exception(outcome.error)
            else:
                write.done.set_result(outcome)

    def _run_group(self, group: list[Waiting]) -> list[object]:
        """Run a group until the server has taken it; return each write's result or failure."""
        careful, attempt = False, 1
        while True:
            try:
                return self._attempt(group, careful=careful)
            except _OneFailed as failed:
                if len(group) == 1:
                    raise failed.error from None
                careful = True
            except psycopg.Error as error:
                if error.sqlstate not in _AGAIN or attempt == MAX_ATTEMPTS:
                    raise
                attempt += 1

    def _attempt(self, group: list[Waiting], *, careful: bool) -> list[object]:
        self._link = link = self._begin(self._link, _BEGIN)
        try:
            number = str(cast("PostgresRow", link.execute(_ENTER).fetchone())[1])
            outcomes = [self._run(link, write, careful=careful) for write in group]
        except BaseException:
            self._undo(link)
            raise
        self._end(link, number)
        return outcomes

    def _run(self, link: _Link, write: Waiting, *, careful: bool) -> object:
        if careful:
            link.execute(b"SAVEPOINT one")
        try:
            result = write.call(cast("Connection", _Session(link)))
            self._check_sound(link)
        except Exception as error:
            if isinstance(error, psycopg.Error) and (error.sqlstate in _AGAIN or link.closed):
                raise
            if not careful:
                raise _OneFailed(error) from error
            link.execute(b"ROLLBACK TO SAVEPOINT one")
            link.execute(b"RELEASE SAVEPOINT one")
            return _Failed(self._ours(error))
        if careful:
            link.execute(b"RELEASE SAVEPOINT one")
        return result

    def _check_sound(self, link: _Link) -> None:
        """See that a call has not caught an error of the database: the COMMIT would keep nothing, and tell nobody."""
        if link.info.transaction_status == pq.TransactionStatus.INERROR:
            raise StoreError(f"{self._name}: en skriving gikk videre etter en feil, og er ikke lagret")

    def _end(self, link: _Link, number: str) -> None:
        """Commit; if the connection goes while we do, find out what came of it."""
        try:
            link.execute(b"COMMIT")
        except psycopg.Error:
            self._undo(link)
            if not link.closed or not self._was_committed(number):
                raise

    def _was_committed(self, number: str) -> bool:
        """Ask, over a new connection, what came of a transaction.

        Raises:
            OutcomeUnknownError: Nobody can tell now.
        """
        status: str | None = None
        with contextlib.suppress(psycopg.Error, ConfigurationError):
            self._link = self._connect()
            status = cast("PostgresRow", self._link.execute(_STATUS, (number,)).fetchone())[0]
        if status not in {"committed", "aborted"}:
            raise OutcomeUnknownError(f"{self._name}: forbindelsen gikk midt i en lagring, og utfallet er uvisst")
        return status == "committed"

    def _begin(self, link: _Link | None, statement: bytes) -> _Link:
        """Begin a transaction. A connection that was lost while nobody used it is nobody's error: a new one is made."""
        if link is not None and not link.closed:
            try:
                link.execute(statement)
            except psycopg.OperationalError:
                link.close()
            else:
                return link
        link = self._connect()
        link.execute(statement)
        return link

    def _undo(self, link: _Link) -> None:
        """Leave the transaction; a connection that cannot is closed."""
        try:
            if link.info.transaction_status != pq.TransactionStatus.IDLE:
                link.execute(b"ROLLBACK")
        except psycopg.Error:
            link.close()

    def _read(self, call: Callable[[Connection], T]) -> T:
        with self._mapped():
            self._reader = reader = self._begin(self._reader, _READ)
            try:
                return call(cast("Connection", _Session(reader)))
            finally:
                self._undo(reader)

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def _close_writer(self) -> None:
        if self._link is not None:
            self._link.close()

    @contextlib.contextmanager
    def _mapped(self) -> Generator[None]:
        """Raise psycopg's errors as ours."""
        try:
            yield
        except psycopg.Error as error:
            raise self._ours(error) from None

    def _ours(self, error: Exception) -> Exception:
        if not isinstance(error, psycopg.Error):
            return error
        state = error.sqlstate
        if state is None:
            lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
            text = _refusal(error) if lost else "databasen svarer ikke som ventet"
            return StoreError(f"{self._name}: {text} ({type(error).__name__})")
        kind = UniqueViolationError if state == _UNIQUE else StoreFullError if state in _FULL else StoreError
        text = _ADVICE.get(
            state, "PostgreSQL kan ikke nås" if state[:2] in {"08", "57"} else "databasen svarer ikke som ventet"
        )
        return kind(f"{self._name}: {text} ({state})")


def _refusal(error: psycopg.Error) -> str:
    """Tell a server that is not there from one that lets us not in; libpq has a code for neither."""
    if "FATAL:" in str(error):
        return "PostgreSQL svarer, men slipper oss ikke inn: se etter bruker, passord og databasens navn"
    return "PostgreSQL kan ikke nås"


class _Failed:
    """What came of a write that undid itself alone."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error
