from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from broker.sql import SqliteDatabase, is_shared, open_database


def test_a_place_that_is_no_url_is_a_file() -> None:
    for place in ("x.db", Path("data/postgresql.sqlite"), "./postgresql:/x"):
        assert not is_shared(place)
        assert isinstance(open_database(place, ()), SqliteDatabase)


def test_a_url_is_a_server() -> None:
    database = open_database("postgresql://u:hemmelig@vert/navn", ())
    assert is_shared("postgres://vert/navn")
    assert type(database).__name__ == "PostgresDatabase"
    assert "hemmelig" not in repr(database)


def test_whoever_keeps_files_does_without_the_driver() -> None:
    code = "import sys, broker.sql; broker.sql.open_database('x.db', ()); sys.exit('psycopg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
