"""The former place of ``broker.sql``, for callers that have not moved."""

from __future__ import annotations

from broker.sql.scripts import statements
from broker.sql.sqlite import BUSY_TIMEOUT_MS
from broker.sql.sqlite import SqliteDatabase as Database

__all__ = ["BUSY_TIMEOUT_MS", "Database", "statements"]
