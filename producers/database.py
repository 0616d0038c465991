"""The producers' one database: which tables it has, script by script.

Each module that keeps something there exports its own script. A new one is added at the END: a database counts how many were run.
"""

from __future__ import annotations

from typing import Final

from producers import eskalering_rows, gjenoppretting, kopi_rows, leases, outbox, recall_rows, topic_watch

MIGRATIONS: Final = (
    *outbox.MIGRATIONS,
    leases.MIGRATION,
    outbox.BUCKETS_MIGRATION,
    kopi_rows.MIGRATION,
    topic_watch.MIGRATION,
    gjenoppretting.MIGRATION,
    eskalering_rows.MIGRATION,
    eskalering_rows.EXPIRY_MIGRATION,
    recall_rows.MIGRATION,
    eskalering_rows.ENDED_MIGRATION,
    recall_rows.SIGNED_MIGRATION,
)
"""SQL scripts in order of arrival; only ever added to."""
