"""One suite for every ``broker.sql.Database``: a file of SQLite's, and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from broker.sql import Connection, Database, open_database
from broker.sql.postgres import MAX_ATTEMPTS
from schemas.errors import ConfigurationError, OutcomeUnknownError, StoreError, UniqueViolationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from postgres import PostgresServer

SCRIPT = """
-- what's in here; semicolons; and a "quote"
CREATE TABLE ord (
    nr INTEGER PRIMARY KEY AUTOINCREMENT,
    tekst TEXT NOT NULL UNIQUE,
    bytes BLOB,
    tall INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX ord_tall ON ord (tall) WHERE tall > 0;
CREATE TABLE sett (a TEXT NOT NULL, b INTEGER NOT NULL, PRIMARY KEY (a, b)) STRICT, WITHOUT ROWID;
"""
MIGRATIONS = (SCRIPT,)
MORE = "ALTER TABLE ord ADD COLUMN extra TEXT DEFAULT 'x;?%';"


@pytest.fixture
async def database(database_place: str) -> AsyncIterator[Database]:
    async with open_database(database_place, MIGRATIONS) as opened:
        yield opened


def insert(tekst: str, tall: int = 0) -> Callable[[Connection], int]:
    def call(connection: Connection) -> int:
        row = connection.execute("INSERT INTO ord (tekst, tall) VALUES (?, ?) RETURNING nr", (tekst, tall)).fetchone()
        return int(row[0])

    return call


def texts(connection: Connection) -> list[str]:
    return [row["tekst"] for row in connection.execute("SELECT tekst FROM ord ORDER BY nr")]


def held(database: Database) -> tuple[asyncio.Task[None], threading.Event, threading.Event]:
    """Occupy the writer until the second event is set, so that whatever is asked for meanwhile waits together."""
    begun, go_on = threading.Event(), threading.Event()

    def call(_: Connection) -> None:
        begun.set()
        assert go_on.wait(30)

    return asyncio.create_task(database.write(call)), begun, go_on


async def together(database: Database, *calls: Callable[[Connection], Any]) -> list[Any]:
    """Have all these run in one transaction."""
    holding, begun, go_on = held(database)
    assert await asyncio.to_thread(begun.wait, 30)
    writes = [asyncio.create_task(database.write(call)) for call in calls]
    await asyncio.sleep(0)  # each task has run until it waits, and its write is in the queue
    go_on.set()
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    await holding
    return list(outcomes)


async def test_a_write_returns_its_result_and_a_read_sees_it(database: Database) -> None:
    assert await database.write(insert("a")) == 1
    assert await database.read(texts) == ["a"]


async def test_values_come_back_as_they_were_and_by_name_and_place(database: Database) -> None:
    def both(connection: Connection) -> tuple[Any, ...]:
        connection.execute(
            "INSERT INTO ord (tekst, bytes, tall) VALUES (?, ?, ?) -- a ? in a comment", ("æ?%s%'", b"\0\xff", 2**60)
        )
        row = connection.execute(
            "SELECT tekst, bytes, tall, '?%s' AS fast FROM ord WHERE tekst LIKE '%?%' OR tekst = ?", ("",)
        ).fetchone()
        missing = connection.execute("SELECT bytes FROM ord WHERE tekst = ?", ("finnes ikke",)).fetchone()
        return tuple(row), row["tekst"], row[1], list(row.keys()), len(row), missing

    values, text, blob, names, length, missing = await database.write(both)
    assert values == ("æ?%s%'", b"\0\xff", 2**60, "?%s")
    assert (text, blob, names, length, missing) == ("æ?%s%'", b"\0\xff", ["tekst", "bytes", "tall", "fast"], 4, None)


async def test_text_is_ordered_byte_by_byte(database: Database) -> None:
    for tekst in ("b", "a", "Å", "Z", "_", "ä"):
        await database.write(insert(tekst))
    ordered = await database.read(
        lambda connection: [row[0] for row in connection.execute("SELECT tekst FROM ord ORDER BY tekst")]
    )
    assert ordered == ["Z", "_", "a", "b", "Å", "ä"]


async def test_changes_tell_how_many_rows_they_touched(database: Database) -> None:
    def change(connection: Connection) -> tuple[int, int, int]:
        rows = [("a", 1), ("b", 1), ("c", 2)]
        connection.executemany("INSERT INTO ord (tekst, tall) VALUES (?, ?)", rows)
        again = "INSERT INTO ord (tekst, tall) VALUES (?, ?) ON CONFLICT (tekst) DO NOTHING"
        update = "INSERT INTO ord (tekst, tall) VALUES (?, ?) ON CONFLICT (tekst) DO UPDATE SET tall = excluded.tall"
        return (
            connection.execute(again, ("a", 9)).rowcount,
            connection.execute(update, ("a", 7)).rowcount,
            connection.executemany("DELETE FROM ord WHERE tekst = ?", [("b",), ("c",)]).rowcount,
        )

    assert await database.write(change) == (0, 1, 2)
    assert await database.read(lambda connection: tuple(connection.execute("SELECT tall FROM ord").fetchone())) == (7,)


async def test_what_was_written_is_there_after_a_restart(database_place: str) -> None:
    for tekst in ("a", "b"):
        async with open_database(database_place, MIGRATIONS) as database:
            await database.write(insert(tekst))
    async with open_database(database_place, MIGRATIONS) as database:
        assert await database.read(texts) == ["a", "b"]


async def test_writes_that_wait_together_share_a_commit(database: Database) -> None:
    outcomes = await together(database, *[insert(str(n)) for n in range(200)])
    assert outcomes == list(range(1, 201)), "in the order in which they were asked for"
    assert database.commits == 2, "the one that held the writer, and theirs"


async def test_a_write_that_fails_undoes_itself_alone(database: Database) -> None:
    def half_done(connection: Connection) -> None:
        insert("never")(connection)
        raise LookupError("own")

    def wrong(connection: Connection) -> None:
        insert("never that either")(connection)
        connection.execute("SELECT 'hemmelig' FROM finnes_ikke")

    first, own, twice, database_own, last = await together(
        database, insert("a"), half_done, insert("a"), wrong, insert("b")
    )
    assert isinstance(first, int)
    assert isinstance(last, int)
    assert isinstance(own, LookupError)
    assert isinstance(twice, UniqueViolationError)
    assert isinstance(database_own, StoreError)
    assert await database.read(texts) == ["a", "b"]


async def test_a_write_alone_that_fails_leaves_nothing(database: Database) -> None:
    def half_done(connection: Connection) -> None:
        insert("never")(connection)
        raise LookupError("own")

    with pytest.raises(LookupError, match="own"):
        await database.write(half_done)
    assert await database.read(texts) == []
    assert await database.write(insert("a"))


async def test_a_row_that_is_there_is_told_by_name_and_without_its_values(database: Database) -> None:
    await database.write(insert("hemmelig"))
    with pytest.raises(UniqueViolationError) as raised:
        await database.write(insert("hemmelig"))
    assert "hemmelig" not in str(raised.value)
    assert not raised.value.retriable
    with pytest.raises(UniqueViolationError):
        await database.write(
            lambda connection: connection.executemany("INSERT INTO sett (a, b) VALUES (?, ?)", [("a", 1), ("a", 1)])
        )
    with pytest.raises(StoreError) as missing:
        await database.write(lambda connection: connection.execute("INSERT INTO ord (tekst) VALUES (?)", (None,)))
    assert not isinstance(missing.value, UniqueViolationError), "a null is another mistake"


async def test_no_error_quotes_the_databases_text(database: Database) -> None:
    for place in (database.write, database.read):
        with pytest.raises(StoreError) as raised:
            await place(lambda connection: connection.execute("SELECT 'hemmelig' FROM finnes_ikke").fetchall())
        assert "finnes_ikke" not in str(raised.value)


async def test_reading_cannot_write_and_goes_on_afterwards(database: Database) -> None:
    with pytest.raises(StoreError, match="kan ikke skrives"):
        await database.read(insert("a"))
    assert await database.read(texts) == []


async def test_a_read_sees_one_moment(database: Database) -> None:
    await database.write(insert("a"))
    between, go_on = threading.Event(), threading.Event()

    def twice(connection: Connection) -> tuple[list[str], list[str]]:
        before = texts(connection)
        between.set()
        assert go_on.wait(30)
        return before, texts(connection)

    reading = asyncio.create_task(database.read(twice))
    assert await asyncio.to_thread(between.wait, 30)
    await database.write(insert("b"))
    go_on.set()
    assert await reading == (["a"], ["a"])
    assert await database.read(texts) == ["a", "b"]


async def test_a_caller_that_gives_up_stops_neither_the_write_nor_the_others(database: Database) -> None:
    waiting = asyncio.create_task(database.write(insert("a")))
    await asyncio.sleep(0)
    waiting.cancel()
    await database.write(insert("b"))
    assert await database.read(texts) == ["a", "b"]


async def test_closing_finishes_what_was_asked_for(database_place: str) -> None:
    database = open_database(database_place, MIGRATIONS)
    await database.open()
    with pytest.raises(RuntimeError):
        await database.open()
    writes = [asyncio.create_task(database.write(insert(str(n)))) for n in range(20)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(database.close())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        await database.write(insert("too late"))
    await closing
    assert len(await asyncio.gather(*writes)) == 20
    await database.close()
    with pytest.raises(RuntimeError):
        await database.write(insert("late"))
    with pytest.raises(RuntimeError):
        await database.read(texts)


async def test_migrations_run_once_each_and_in_order(database_place: str) -> None:
    async with open_database(database_place, MIGRATIONS) as database:
        await database.write(insert("a"))
    for _ in range(2):
        async with open_database(database_place, (*MIGRATIONS, MORE)) as database:
            row = await database.read(lambda connection: connection.execute("SELECT tekst, extra FROM ord").fetchone())
            assert tuple(row) == ("a", "x;?%")


async def test_a_migration_that_fails_leaves_the_version_that_was(database_place: str) -> None:
    async with open_database(database_place, MIGRATIONS):
        pass
    broken = "CREATE TABLE two (id INTEGER);\nCREATE TABLE ord (id INTEGER);"
    with pytest.raises(StoreError):
        await open_database(database_place, (*MIGRATIONS, broken)).open()
    async with open_database(database_place, (*MIGRATIONS, "CREATE TABLE two (id INTEGER);")) as database:
        assert await database.read(lambda connection: connection.execute("SELECT * FROM two").fetchall()) == []


async def test_a_newer_database_is_refused(database_place: str) -> None:
    async with open_database(database_place, (*MIGRATIONS, MORE)):
        pass
    with pytest.raises(StoreError, match="versjon 2; dette programmet kjenner 1"):
        await open_database(database_place, MIGRATIONS).open()
    with pytest.raises(StoreError, match="versjon 2"):
        await open_database(database_place, MIGRATIONS, read_only=True).open()


async def test_a_reader_reads_beside_the_writer_and_cannot_write(database_place: str, database: Database) -> None:
    await database.write(insert("a"))
    async with open_database(database_place, MIGRATIONS, read_only=True) as reader:
        assert await reader.read(texts) == ["a"]
        await database.write(insert("b"))
        assert await reader.read(texts) == ["a", "b"]
        with pytest.raises(RuntimeError):
            await reader.write(insert("c"))
        with pytest.raises(StoreError, match="kan ikke skrives"):
            await reader.read(insert("c"))


async def test_a_reader_makes_no_database_and_waits_for_no_migration(database_place: str) -> None:
    with pytest.raises(StoreError):
        await open_database(database_place, MIGRATIONS, read_only=True).open()
    async with open_database(database_place, MIGRATIONS):
        pass
    with pytest.raises(StoreError, match="versjon 1, og her trengs 2"):
        await open_database(database_place, (*MIGRATIONS, MORE), read_only=True).open()


async def test_scrubbing_changes_nothing_that_is_there(database: Database) -> None:
    await asyncio.gather(*[database.write(insert(str(n))) for n in range(5)])
    await database.write(lambda db: db.execute("DELETE FROM ord WHERE tekst = ?", ("3",)))
    await asyncio.gather(database.scrub(), database.write(insert("x")), database.scrub())
    assert sorted(await database.read(texts)) == ["0", "1", "2", "4", "x"]


# ---- What only a server that several share has to keep.


@pytest.fixture
async def pair(postgres_url: str) -> AsyncIterator[tuple[Database, Database]]:
    """Two instances of one process."""
    async with open_database(postgres_url, MIGRATIONS) as one, open_database(postgres_url, MIGRATIONS) as two:
        yield one, two


async def test_of_a_hundred_that_want_one_row_in_two_instances_one_gets_it(pair: tuple[Database, Database]) -> None:
    def take(connection: Connection) -> int:
        taken = "INSERT INTO ord (tekst) VALUES (?) ON CONFLICT (tekst) DO NOTHING"
        mine = connection.execute(taken, ("den ene",)).rowcount
        assert connection.execute("SELECT nr FROM ord WHERE tekst = ?", ("den ene",)).fetchone() is not None
        return mine

    won = await asyncio.gather(*[pair[n % 2].write(take) for n in range(100)])
    assert sum(won) == 1


async def test_what_a_write_has_read_stays_true_until_its_commit(pair: tuple[Database, Database]) -> None:
    await pair[0].write(insert("teller"))

    def add_one(connection: Connection) -> None:
        tall = connection.execute("SELECT tall FROM ord WHERE tekst = ?", ("teller",)).fetchone()[0]
        connection.execute("UPDATE ord SET tall = ? WHERE tekst = ?", (tall + 1, "teller"))

    await asyncio.gather(*[pair[n % 2].write(add_one) for n in range(200)])
    assert await pair[0].read(lambda db: db.execute("SELECT tall FROM ord").fetchone()[0]) == 200


async def test_numbers_are_committed_in_order(pair: tuple[Database, Database]) -> None:
    """Whoever has read up to a number has missed none before it."""
    one, two = pair
    begun, go_on = threading.Event(), threading.Event()

    def slowly(connection: Connection) -> int:
        nr = insert("slow")(connection)
        begun.set()
        assert go_on.wait(30)
        return nr

    slow = asyncio.create_task(one.write(slowly))
    assert await asyncio.to_thread(begun.wait, 30)
    quick = asyncio.create_task(two.write(insert("quick")))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(quick), 0.3)
    assert await two.read(texts) == []
    go_on.set()
    assert await slow < await quick


async def test_an_instance_that_stops_in_the_middle_holds_up_the_others_for_a_while_only(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.sql.postgres.IDLE_TIMEOUT_MS", 300)
    begun, go_on = threading.Event(), threading.Event()

    def asleep(connection: Connection) -> None:
        insert("never")(connection)
        begun.set()
        assert go_on.wait(30)

    async with open_database(postgres_url, MIGRATIONS) as one, open_database(postgres_url, MIGRATIONS) as two:
        sleeping = asyncio.create_task(one.write(asleep))
        assert await asyncio.to_thread(begun.wait, 30)
        assert await two.write(insert("a"))
        go_on.set()
        with pytest.raises(StoreError) as raised:
            await sleeping
        assert not isinstance(raised.value, OutcomeUnknownError)
        assert await one.write(insert("b"))
        assert await one.read(texts) == ["a", "b"]


async def test_two_that_start_at_once_migrate_once(postgres_url: str) -> None:
    databases = [open_database(postgres_url, (*MIGRATIONS, MORE)) for _ in range(4)]
    await asyncio.gather(*[database.open() for database in databases])
    try:
        versions = await databases[0].read(lambda db: db.execute("SELECT nr FROM migrering ORDER BY nr").fetchall())
        assert [row[0] for row in versions] == [1, 2]
    finally:
        await asyncio.gather(*[database.close() for database in databases])


async def test_another_stores_database_is_refused(postgres_url: str) -> None:
    async with open_database(postgres_url, MIGRATIONS):
        pass
    commented = SCRIPT.replace("nr INTEGER", "nr    INTEGER").replace("what's in here", "changed words")
    async with open_database(postgres_url, (commented,)):
        pass
    with pytest.raises(ConfigurationError, match="annet lager"):
        await open_database(postgres_url, ("CREATE TABLE noe (id INTEGER);",)).open()


async def test_stores_in_schemas_of_one_database_know_nothing_of_each_other(postgres_server: PostgresServer) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(connection: Connection) -> int:
        begun.set()
        assert go_on.wait(30)
        return insert("slow")(connection)

    places = [postgres_server.new_schema() for _ in range(2)]
    async with open_database(places[0], MIGRATIONS) as one, open_database(places[1], (*MIGRATIONS, MORE)) as two:
        slow = asyncio.create_task(one.write(slowly))
        assert await asyncio.to_thread(begun.wait, 30)
        await two.write(insert("quick"))
        go_on.set()
        assert await slow == 1
        assert (await one.read(texts), await two.read(texts)) == (["slow"], ["quick"])


async def test_a_deadlock_is_run_again(postgres_server: PostgresServer, postgres_url: str) -> None:
    runs: list[int] = []
    has_one, go_on = threading.Event(), threading.Event()

    def both(connection: Connection) -> None:
        connection.execute("UPDATE ord SET tall = tall + 1 WHERE tekst = ?", ("a",))
        runs.append(1)
        has_one.set()
        assert go_on.wait(30)
        connection.execute("UPDATE ord SET tall = tall + 1 WHERE tekst = ?", ("b",))

    async with open_database(postgres_url, MIGRATIONS) as database:
        await database.write(insert("a"))
        await database.write(insert("b"))
        name = postgres_url.rsplit("/", 1)[1]
        with postgres_server.admin(name) as stranger, stranger.transaction():
            stranger.execute("SET LOCAL deadlock_timeout = '60s'")  # so that it is the other that finds it
            stranger.execute("UPDATE ord SET tall = 100 WHERE tekst = 'b'")
            ours = asyncio.create_task(database.write(both))
            assert await asyncio.to_thread(has_one.wait, 30)
            theirs = asyncio.create_task(
                asyncio.to_thread(stranger.execute, "UPDATE ord SET tall = 100 WHERE tekst = 'a'")
            )
            await waiting_for_a_lock(postgres_server, name)
            go_on.set()
            await theirs
        await ours
        assert 1 < len(runs) <= MAX_ATTEMPTS  # which of the two gets the row after a deadlock is the server's choice
        assert await database.read(
            lambda db: [tuple(row) for row in db.execute("SELECT tekst, tall FROM ord ORDER BY nr")]
        ) == [("a", 101), ("b", 101)]


async def waiting_for_a_lock(server: PostgresServer, database: str) -> None:
    """Return when somebody in this database waits for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
    with server.admin() as admin:
        async with asyncio.timeout(30):
            while (row := admin.execute(query, (database,)).fetchone()) is not None and not row[0]:  # noqa: ASYNC110 - see below
                await asyncio.sleep(0.02)  # it is the server's event, and it sends none


async def test_a_transaction_that_the_server_always_ends_fails_after_some_times(postgres_url: str) -> None:
    runs: list[int] = []

    def never(connection: Connection) -> None:
        runs.append(1)
        connection.execute("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$")

    async with open_database(postgres_url, MIGRATIONS) as database:
        with pytest.raises(StoreError, match="40001") as raised:
            await database.write(never)
        assert raised.value.retriable
        assert 1 < len(runs) < 20
        assert await database.write(insert("a"))


async def test_a_lost_connection_fails_what_is_under_way_and_is_made_anew(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with open_database(postgres_url, MIGRATIONS) as database:
        await database.write(insert("a"))
        assert await database.read(texts) == ["a"]
        begun, go_on = threading.Event(), threading.Event()

        def interrupted(connection: Connection) -> None:
            insert("never")(connection)
            begun.set()
            assert go_on.wait(30)
            insert("never again")(connection)

        writing = asyncio.create_task(database.write(interrupted))
        assert await asyncio.to_thread(begun.wait, 30)
        cut_all(postgres_server, postgres_url)
        go_on.set()
        with pytest.raises(StoreError, match="kan ikke nås") as raised:
            await writing
        assert raised.value.retriable
        assert await database.read(texts) == ["a"]
        assert await database.write(insert("b"))
        assert await database.read(texts) == ["a", "b"]


def cut_all(server: PostgresServer, url: str) -> None:
    name = url.rsplit("/", 1)[1]
    with server.admin() as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))


async def test_what_was_acknowledged_outlives_a_crash_of_the_server_and_the_store_comes_back_by_itself(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with open_database(postgres_url, MIGRATIONS) as database:
        await asyncio.gather(*[database.write(insert(str(n))) for n in range(100)])
        postgres_server.crash()
        for action in (database.write(insert("while it is away")), database.read(texts)):
            with pytest.raises(StoreError, match="kan ikke nås"):
                await action
        postgres_server.start()
        assert sorted(await database.read(texts), key=int) == [str(n) for n in range(100)]
        assert await database.write(insert("x"))


async def test_a_connection_lost_in_a_commit_that_came_through_is_no_error(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = cut_at_commit(monkeypatch, lambda: cut_all(postgres_server, postgres_url), after=True)
    async with open_database(postgres_url, MIGRATIONS) as database:
        assert await database.write(insert("a")) == 1
        assert await database.read(texts) == ["a"]
    assert committed == ["cut"]


async def test_a_connection_lost_before_the_commit_came_through_is_one(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_at_commit(monkeypatch, lambda: cut_all(postgres_server, postgres_url), after=False)
    async with open_database(postgres_url, MIGRATIONS) as database:
        with pytest.raises(StoreError) as raised:
            await database.write(insert("a"))
        assert not isinstance(raised.value, OutcomeUnknownError)
        assert await database.read(texts) == []


async def test_a_connection_lost_in_a_commit_and_a_server_gone_leave_it_unknown(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_at_commit(monkeypatch, postgres_server.crash, after=True)
    async with open_database(postgres_url, MIGRATIONS) as database:
        with pytest.raises(OutcomeUnknownError, match="uvisst"):
            await database.write(insert("a"))
        postgres_server.start()
        assert await database.read(texts) == ["a"]


def cut_at_commit(monkeypatch: pytest.MonkeyPatch, cut: Callable[[], None], *, after: bool) -> list[str]:
    """Cut the connection around the first COMMIT of a write; return what has happened."""
    original = psycopg.Connection.execute
    happened: list[str] = []

    def execute(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        if query != b"COMMIT" or happened:
            return original(self, query, *args, **kwargs)
        happened.append("cut")
        if after:
            original(self, query)
        cut()
        return original(self, "SELECT 1")

    monkeypatch.setattr(psycopg.Connection, "execute", execute)
    return happened


async def test_a_connection_lost_while_nobody_used_it_is_nobodys_error(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with open_database(postgres_url, MIGRATIONS) as database:
        await database.write(insert("a"))
        await database.read(texts)
        cut_all(postgres_server, postgres_url)
        assert await database.write(insert("b"))
        assert await database.read(texts) == ["a", "b"]


async def test_a_write_that_goes_on_after_an_error_is_not_taken_for_done(postgres_url: str) -> None:
    def stubborn(connection: Connection) -> None:
        insert("b")(connection)
        with contextlib.suppress(Exception):
            connection.execute("SELECT * FROM finnes_ikke")

    async with open_database(postgres_url, MIGRATIONS) as database:
        with pytest.raises(StoreError, match="ikke lagret"):
            await database.write(stubborn)
        first, failed, last = await together(database, insert("a"), stubborn, insert("c"))
        assert isinstance(failed, StoreError)
        assert (first, last) != (None, None)
        assert await database.read(texts) == ["a", "c"]


async def test_a_write_alone_that_fails_is_run_once(postgres_url: str) -> None:
    runs: list[int] = []

    def fail(_: Connection) -> None:
        runs.append(1)
        raise LookupError

    async with open_database(postgres_url, MIGRATIONS) as database:
        with pytest.raises(LookupError):
            await database.write(fail)
    assert len(runs) == 1


async def test_a_server_without_fsync_is_refused(postgres_server: PostgresServer, postgres_url: str) -> None:
    postgres_server.set("fsync", "off")
    try:
        with pytest.raises(ConfigurationError, match="fsync"):
            await open_database(postgres_url, MIGRATIONS).open()
    finally:
        postgres_server.set("fsync", "on")


async def test_a_full_disk_says_so(postgres_url: str) -> None:
    async with open_database(postgres_url, MIGRATIONS) as database:
        with pytest.raises(StoreError, match="full") as raised:
            await database.write(
                lambda db: db.execute("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '53100'; END $$")
            )
        assert raised.value.code == "lager.fullt"


async def test_no_error_shows_the_password(postgres_server: PostgresServer, postgres_url: str) -> None:
    wrong = postgres_url.replace(postgres_server.password, "hemmelig-passord")
    missing = postgres_server.url("finnes_ikke")
    for url in (wrong, missing):
        with pytest.raises(StoreError, match="slipper oss ikke inn") as raised:
            await open_database(url, MIGRATIONS).open()
        assert "hemmelig" not in str(raised.value)
        assert postgres_server.password not in str(raised.value)
    with pytest.raises(ConfigurationError) as malformed:
        open_database("postgresql://u:hemmelig@vert:ikke-et-tall?finnes=ikke", MIGRATIONS)
    assert "hemmelig" not in str(malformed.value)
    assert malformed.value.__cause__ is None
