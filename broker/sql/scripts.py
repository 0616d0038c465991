"""Migrations are SQL scripts. Here a script falls into its statements."""

from __future__ import annotations

import sqlite3


def statements(script: str) -> list[str]:
    """Return the statements of a script. ``executescript`` would commit on its own, in the middle of a migration."""
    found: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending.strip())
            pending = ""
    if pending.strip():
        raise ValueError("a migration ends in the middle of a statement")
    return found
