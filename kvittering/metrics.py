"""What is counted, under the names that operators look for. A label never holds an id, nor anything from a søknad."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from broker.metrics import DEAD_LETTERS as DEAD_LETTERS  # noqa: PLC0414  # offered here like the others
from broker.metrics import OUTBOX_MESSAGES as OUTBOX_MESSAGES  # noqa: PLC0414  # offered here like the others

LATENCY_BUCKETS_S: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 300.0, 3600.0,
)  # fmt: skip
"""OpenTelemetry's advised buckets for messaging, and four more: a kommune may take minutes."""

RECEIPTS: Final = Counter("fiks_receipts_total", "Kvitteringer that count, by status.", ["status"])
RECEIPT_LATENCY: Final = Histogram(
    "fiks_receipt_latency_seconds",
    "From acceptance until the fagsystem said MOTTATT, by the writers' own clocks.",
    buckets=LATENCY_BUCKETS_S,
)
OLDEST: Final = Gauge(
    "fiks_oldest_unacknowledged_seconds",
    "Age of the oldest message that no fagsystem has said MOTTATT to, no letter was printed of and nobody has ended; 0 for none.",
)
OVERDUE: Final = Gauge(
    "fiks_soknader_overdue",
    "Messages past their deadline that nobody has received, by kommune and reason.",
    ["kommunenummer", "aarsak"],
)
OLDEST_OVERDUE: Final = Gauge(
    "fiks_oldest_overdue_seconds", "How long the message that has been overdue the longest has been so; 0 for none."
)
WITHDRAWALS: Final = Counter(
    "fiks_withdrawals_total",
    "Messages that the watch withdrew from a channel, by event and channel.",
    ["type", "kanal"],
)
WATCH_BLIND: Final = Gauge(
    "fiks_watch_blind_kommuner",
    "Kommuner with something due whose topics cannot be read, so that nothing is withdrawn.",
)
WAITING: Final = Gauge("fiks_receipts_waiting", "Kvitteringer and hendelser that wait for their søknad or their chain.")
APPLIED: Final = Counter(
    "fiks_records_applied_total", "Records taken in, by kind of topic and outcome.", ["kind", "resultat"]
)
STATUS_CHANGES: Final = Counter(
    "fiks_status_changes_total", "Changes of what a citizen is shown, by new status.", ["status"]
)
SET_ASIDE: Final = Gauge("fiks_outbox_set_aside", "Messages in the outbox that Kafka never takes; somebody must look.")
UNREACHABLE: Final = Gauge("fiks_kommuner_unreachable", "Kommuner whose topics cannot be opened though Kafka is there.")
TOPICS_STOPPED: Final = Gauge("fiks_topics_stopped", "Topics that are not read further until somebody accepts them.")
LISTENERS: Final = Gauge("fiks_status_listeners", "Open streams of status.")
