"""A plugin for pytest that puts a PostgreSQL in the place of every SQLite file.

``PYTHONPATH=tests/support pytest -p on_postgres``. Each path gets a schema of its own, and the same one whenever it is opened.
What is told about the file itself (modes, locks, what lies in it) cannot hold then; ``tests/contract/test_on_postgres.py`` names
those tests.
"""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from pathlib import Path

from postgres import PostgresServer

import broker.sql
import broker.sql.opening
from broker.sql import is_shared
from broker.sql.postgres import PostgresDatabase

_server = PostgresServer().__enter__()
atexit.register(_server.stop_and_remove)
_urls: dict[str, str] = {}


def _open(place: str | Path, migrations: Sequence[str], *, read_only: bool = False) -> PostgresDatabase:
    key = str(place)
    if is_shared(key):
        return PostgresDatabase(key, migrations, read_only=read_only)
    if key not in _urls:
        _urls[key] = _server.new_schema()
    return PostgresDatabase(_urls[key], migrations, read_only=read_only)


for module in (broker.sql, broker.sql.opening):
    for name in ("SqliteDatabase", "open_database"):
        setattr(module, name, _open)
