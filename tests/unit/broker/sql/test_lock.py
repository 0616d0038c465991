from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from broker.sql.lock import FileLock
from broker.sql.sqlite import SqliteDatabase
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

MIGRATIONS = ("CREATE TABLE one (id INTEGER PRIMARY KEY);",)
HOLD = """
import asyncio, sys
from pathlib import Path
from broker.sql.sqlite import SqliteDatabase

async def main():
    async with SqliteDatabase(Path(sys.argv[1]), ("CREATE TABLE one (id INTEGER PRIMARY KEY);",)):
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def another_process(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


async def test_a_second_process_is_refused_at_once_and_told_who_has_the_file(tmp_path: Path) -> None:
    holder = another_process(tmp_path / "x.db")
    try:
        with pytest.raises(ConfigurationError) as raised:
            await SqliteDatabase(tmp_path / "x.db", MIGRATIONS).open()
        text = str(raised.value)
        assert f"pid {holder.pid}" in text
        assert "x.db" in text
        assert str(tmp_path) not in text
        async with SqliteDatabase(tmp_path / "x.db", MIGRATIONS, read_only=True) as reader:
            assert await reader.read(lambda db: db.execute("SELECT * FROM one").fetchall()) == []
    finally:
        holder.communicate("")
    async with SqliteDatabase(tmp_path / "x.db", MIGRATIONS):
        pass


async def test_a_process_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    holder = another_process(tmp_path / "x.db")
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    async with SqliteDatabase(tmp_path / "x.db", MIGRATIONS):
        pass


async def test_the_same_process_is_refused_as_well(tmp_path: Path) -> None:
    async with SqliteDatabase(tmp_path / "x.db", MIGRATIONS):
        with pytest.raises(ConfigurationError, match=f"pid {os.getpid()}"):
            await SqliteDatabase(tmp_path / "x.db", MIGRATIONS).open()


async def test_a_database_that_could_not_be_opened_is_not_held(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="svarer ikke"):
        await SqliteDatabase(tmp_path / "x.db", ("CREATE NOTHING;",)).open()
    async with SqliteDatabase(tmp_path / "x.db", MIGRATIONS):
        pass


def test_it_is_taken_and_given_back(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "x"), FileLock(tmp_path / "x")
    first.acquire()
    with pytest.raises(ConfigurationError):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()
    assert stat.S_IMODE((tmp_path / "x.lock").stat().st_mode) == 0o600
    assert (tmp_path / "x.lock").read_bytes() == b""
