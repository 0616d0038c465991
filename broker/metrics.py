"""What several processes count under one name. Each process has its own registry; a test run has all of them in one."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

DEAD_LETTERS: Final = Counter("fiks_dead_letters_total", "Records that were dead-lettered, by code.", ["kode"])
LOG_LINES_LOST: Final = Counter("fiks_log_lines_lost_total", "Log lines that could not be written, mostly a full disk.")
OUTBOX_MESSAGES: Final = Gauge("fiks_outbox_messages", "Messages in the outbox.")
