"""The producers' one database: which tables it has, script by script.

Each module that keeps something there exports its own script. A new one is added at the END: a database counts how many were run.
"""

from __future__ import annotations

from typing import Final

from producers import outbox

MIGRATIONS: Final = (*outbox.MIGRATIONS,)
"""SQL scripts in order of arrival; only ever added to."""
