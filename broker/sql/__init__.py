"""SQL for stores: one text for SQLite beside one process and PostgreSQL under several.

Start in ``ports`` (what a store may ask for) and ``opening``; ``sqlite`` and ``postgres`` keep the same promises, which
``tests/contract/test_database.py`` holds them to. ``group`` is the group commit, ``dialect`` the translation.
"""

from broker.sql.opening import is_shared, open_database
from broker.sql.ports import Connection, Cursor, Database, Row
from broker.sql.sqlite import SqliteDatabase

__all__ = ["Connection", "Cursor", "Database", "Row", "SqliteDatabase", "is_shared", "open_database"]
