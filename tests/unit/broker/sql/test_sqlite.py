from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest

from broker.sql.ports import Connection
from broker.sql.sqlite import SqliteDatabase as Database
from schemas.errors import StoreError, StoreFullError, UniqueViolationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIGRATIONS = ("CREATE TABLE one (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);",)


def insert(text: str) -> Callable[[Connection], int]:
    def call(connection: Connection) -> int:
        return int(connection.execute("INSERT INTO one (text) VALUES (?) RETURNING id", (text,)).fetchone()[0])

    return call


def texts(connection: Connection) -> list[str]:
    return [row["text"] for row in connection.execute("SELECT text FROM one ORDER BY id")]


async def test_a_write_returns_its_result_and_a_read_sees_it(tmp_path: Path) -> None:
    async with Database(tmp_path / "x.db", MIGRATIONS) as database:
        assert await database.write(insert("a")) == 1
        assert await database.read(texts) == ["a"]


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    for text in ("a", "b"):
        async with Database(tmp_path / "x.db", MIGRATIONS) as database:
            await database.write(insert(text))
    async with Database(tmp_path / "x.db", MIGRATIONS) as database:
        assert await database.read(texts) == ["a", "b"]


async def test_writes_that_wait_together_share_a_commit(tmp_path: Path) -> None:
    async with Database(tmp_path / "x.db", MIGRATIONS) as database:
        ids = await asyncio.gather(*[database.write(insert(str(n))) for n in range(1000)])
        assert sorted(i for i in ids if i) == list(range(1, 1001))
        assert database.commits < 100
        assert len(await database.read(texts)) == 1000


async def test_a_write_that_fails_undoes_itself_alone(tmp_path: Path) -> None:
    def half_done(connection: Connection) -> None:
        insert("never")(connection)
        raise LookupError("own")

    async with Database(tmp_path / "x.db", MIGRATIONS) as database:
        outcomes = await asyncio.gather(
            database.write(insert("a")), database.write(half_done), database.write(insert("b")), return_exceptions=True
        )
        assert outcomes[0] == 1
        assert isinstance(outcomes[1], LookupError)
        assert await database.read(texts) == ["a", "b"]


async def test_a_broken_unique_index_is_told_by_its_own_name(tmp_path: Path) -> None:
    async with Database(tmp_path / "x.db", MIGRATIONS) as database:
        await database.write(insert("a"))
        with pytest.raises(UniqueViolationError):
            await database.write(insert("a"))
        assert await database.read(texts) == ["a"]


async def test_a_full_disk_says_so_keeps_nothing_and_ends_when_there_is_room(tmp_path: Path) -> None:
    def limit(pages: int) -> Callable[[Connection], int]:
        return lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()[0]

    async with Database(tmp_path / "x.db", MIGRATIONS) as database:
        await database.write(limit(8))
        with pytest.raises(StoreFullError, match="disken er full") as raised:
            await database.write(insert("x" * 100_000))
        assert raised.value.retriable
        await database.write(limit(1_000))
        await database.write(insert("y" * 100_000))
        assert await database.read(texts) == ["y" * 100_000]


async def test_other_errors_of_sqlite_are_store_errors_without_its_text(tmp_path: Path) -> None:
    async with Database(tmp_path / "x.db", MIGRATIONS) as database:
        with pytest.raises(StoreError) as raised:
            await database.write(lambda connection: connection.execute("SELECT 'hemmelig' FROM nothing"))
        assert "nothing" not in str(raised.value)


async def test_reading_cannot_write(tmp_path: Path) -> None:
    async with Database(tmp_path / "x.db", MIGRATIONS) as database:
        with pytest.raises(StoreError, match="kan ikke skrives"):
            await database.read(insert("a"))


async def test_migrations_run_once_each_and_in_order(tmp_path: Path) -> None:
    second = "ALTER TABLE one ADD COLUMN extra TEXT DEFAULT 'x;y';\nCREATE INDEX i ON one (extra);"
    async with Database(tmp_path / "x.db", MIGRATIONS) as database:
        await database.write(insert("a"))
    for _ in range(2):
        async with Database(tmp_path / "x.db", (*MIGRATIONS, second)) as database:
            row = await database.read(lambda connection: connection.execute("SELECT text, extra FROM one").fetchone())
            assert tuple(row) == ("a", "x;y")


async def test_a_migration_that_fails_leaves_the_version_that_was(tmp_path: Path) -> None:
    async with Database(tmp_path / "x.db", MIGRATIONS):
        pass
    broken = "CREATE TABLE two (id INTEGER);\nCREATE TABLE one (id INTEGER);"
    with pytest.raises(StoreError):
        await Database(tmp_path / "x.db", (*MIGRATIONS, broken)).open()
    async with Database(tmp_path / "x.db", (*MIGRATIONS, "CREATE TABLE two (id INTEGER);")) as database:
        assert await database.read(lambda connection: connection.execute("SELECT * FROM two").fetchall()) == []


async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    async with Database(tmp_path / "x.db", (*MIGRATIONS, "CREATE TABLE two (id INTEGER);")):
        pass
    with pytest.raises(StoreError, match="versjon 2"):
        await Database(tmp_path / "x.db", MIGRATIONS).open()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"not a database at all, and long enough to be told apart from an empty one" * 20)
    with pytest.raises(StoreError, match="ikke en database"):
        await Database(tmp_path / "x.db", MIGRATIONS).open()


async def test_nobody_else_can_read_the_files(tmp_path: Path) -> None:
    async with Database(tmp_path / "deep" / "x.db", MIGRATIONS) as database:
        await database.write(insert("a"))
        files = list((tmp_path / "deep").iterdir())
        assert {file.suffix for file in files} == {".db", ".db-wal", ".db-shm", ".lock"}
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_a_caller_that_gives_up_stops_neither_the_write_nor_the_others(tmp_path: Path) -> None:
    async with Database(tmp_path / "x.db", MIGRATIONS) as database:
        waiting = asyncio.create_task(database.write(insert("a")))
        await asyncio.sleep(0)
        waiting.cancel()
        await database.write(insert("b"))
        assert await database.read(texts) == ["a", "b"]


async def test_closing_finishes_what_was_asked_for(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db", MIGRATIONS)
    await database.open()
    writes = [asyncio.create_task(database.write(insert(str(n)))) for n in range(20)]
    await asyncio.sleep(0)
    await database.close()
    assert len(await asyncio.gather(*writes)) == 20
    await database.close()
    with pytest.raises(RuntimeError):
        await database.write(insert("late"))


async def test_what_is_deleted_is_overwritten(tmp_path: Path) -> None:
    secret = "NokkelSomSkalBort" * 20
    async with Database(tmp_path / "x.db", MIGRATIONS) as database:
        await database.write(insert(secret))
    assert secret.encode() in (tmp_path / "x.db").read_bytes()
    async with Database(tmp_path / "x.db", MIGRATIONS) as database:
        await database.write(lambda connection: connection.execute("DELETE FROM one"))
    assert set(os.listdir(tmp_path)) == {"x.db", "x.db.lock"}  # noqa: PTH208 - an asynchronous test may not use Path's
    assert b"NokkelSomSkalBort" not in (tmp_path / "x.db").read_bytes()


async def test_scrubbing_leaves_nothing_of_it_in_the_log_either(tmp_path: Path) -> None:
    secret = "NokkelSomSkalBort"

    def left() -> set[str]:
        return {path.suffix for path in tmp_path.iterdir() if secret.encode() in path.read_bytes()}

    async with Database(tmp_path / "x.db", MIGRATIONS) as database:
        await database.write(insert(secret * 20))
        await database.write(lambda connection: connection.execute("DELETE FROM one"))
        assert await asyncio.to_thread(left) == {".db-wal"}
        await asyncio.gather(database.scrub(), database.write(insert("a")), database.scrub())
        assert await asyncio.to_thread(left) == set()
        assert await database.read(texts) == ["a"]


async def test_scrubbing_beside_another_process_that_reads_says_that_it_could_not(tmp_path: Path) -> None:
    async with Database(tmp_path / "x.db", MIGRATIONS) as database:
        await database.write(insert("a"))
        with contextlib.closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM one").fetchall()
            await database.write(insert("b"))
            assert not await database.scrub()
        assert await database.scrub()


async def test_a_folder_on_a_full_disk_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("broker.sql.sqlite.os.open", no_room)
    with pytest.raises(StoreFullError):
        await Database(tmp_path / "x.db", MIGRATIONS).open()
