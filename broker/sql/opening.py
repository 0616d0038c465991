"""Opens a database by its place: a file, or a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from broker.sql.ports import Database
from broker.sql.sqlite import SqliteDatabase

_SCHEMES: Final = ("postgresql://", "postgres://")


def is_shared(place: str | Path) -> bool:
    """Return whether the place is a server, which several processes may write to."""
    return str(place).startswith(_SCHEMES)


def open_database(place: str | Path, migrations: Sequence[str], *, read_only: bool = False) -> Database:
    """Return the database at ``place``, not opened yet.

    Args:
        place: A file's path, or ``postgresql://…``.
        migrations: SQL scripts in order; see ``broker.sql.ports`` for their words.
        read_only: Only read, beside whoever writes; the database must be there, and of this version.

    Raises:
        ConfigurationError: The URL is none.
    """
    if not is_shared(place):
        return SqliteDatabase(Path(place), migrations, read_only=read_only)
    # Whoever keeps files does without the driver and the time that it takes to import.
    from broker.sql.postgres import PostgresDatabase  # noqa: PLC0415 - see above

    return PostgresDatabase(str(place), migrations, read_only=read_only)
