"""What the ``producers`` process counts, with the names that dashboards and alerts use.

``kommunenummer`` is a label of accepted søknader alone: 357 values are affordable once, not on every series.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from broker.metrics import OUTBOX_MESSAGES as OUTBOX_MESSAGES  # noqa: PLC0414  # offered here like the others

SOKNADER_ACCEPTED: Final = Counter("fiks_soknader_accepted_total", "Søknader accepted (202).", ["kommunenummer"])
SOKNADER_REFUSED: Final = Counter("fiks_soknader_refused_total", "Submissions not accepted.", ["status", "reason"])
MESSAGES_PUBLISHED: Final = Counter("fiks_messages_published_total", "Messages known to be on their topic.", ["type"])
CLIENT_KEYS_REPEATED: Final = Counter(
    "fiks_client_keys_repeated_total",
    "Client envelopes refused since their key came before with other bytes or from another.",
)
SUBMISSIONS_UNDER_WAY: Final = Gauge("fiks_submissions_under_way", "Submissions that hold a place.")
OUTBOX_OLDEST_SECONDS: Final = Gauge("fiks_outbox_oldest_seconds", "Age of the oldest message in the outbox.")
RELAY_BUCKETS: Final = Gauge("fiks_relay_buckets", "Buckets of the outbox that this instance relays, of 256.")
RELAY_INSTANCES: Final = Gauge("fiks_relay_instances", "Instances that share the outbox, as this one sees them.")
MESSAGES_REPEATED: Final = Counter(
    "fiks_messages_repeated_total", "Messages that were published and that another instance had removed meanwhile."
)
TOPICS_CLOSED: Final = Gauge("fiks_topics_closed", "Topics that are not the ones we know, and take nothing.")
PACKAGES_UNKNOWN: Final = Gauge(
    "fiks_packages_unknown", "Packages in the dokumentlager that no submission referred to at start-up."
)
PACKAGES_FETCHED: Final = Counter(
    "fiks_packages_fetched_total", "Requests for a package in the dokumentlager.", ["status"]
)
COPIES_DESTROYED: Final = Counter(
    "fiks_sender_copies_destroyed_total", "Sender's copies destroyed, by why: mottatt, or another word.", ["aarsak"]
)
SOKNADER_HELD: Final = Gauge(
    "fiks_soknader_held",
    "Søknader held in the outbox since nothing can be sealed for the kommune.",
    ["kommunenummer", "aarsak"],
)
KVITTERINGER_PASSED_OVER: Final = Counter(
    "fiks_sender_kvitteringer_passed_over_total", "Kvitteringer MOTTATT that destroyed no copy, by why.", ["kode"]
)
MELDINGER_SENT_AGAIN: Final = Counter(
    "fiks_meldinger_sent_again_total", "Meldinger put in the outbox again from the sender's copies."
)
ESCALATIONS: Final = Counter(
    "fiks_escalations_total",
    "Messages that another channel was asked to take, by channel and outcome.",
    ["kanal", "resultat"],
)
CHANNEL_OPEN: Final = Gauge(
    "fiks_channel_messages_open",
    "Messages that lie in a channel and are not closed: letters to print, for one.",
    ["kanal"],
)
