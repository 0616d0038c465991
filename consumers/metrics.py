"""What a connector process counts, with the names that dashboards and alerts use.

``kommunenummer`` is a label of gauges alone: 357 values are affordable there, not times every result.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from broker.metrics import DEAD_LETTERS as DEAD_LETTERS  # noqa: PLC0414  # offered here like the others

DELIVERIES: Final = Counter(
    "fiks_deliveries_total", "Attempts to deliver a søknad, by what came of them.", ["resultat"]
)
DELIVERY_SECONDS: Final = Histogram("fiks_delivery_duration_seconds", "From read to answered, one attempt.")
PACKAGE_WARNINGS: Final = Counter(
    "fiks_package_warnings_total", "Packages that only a setting let through, by what is wrong with them.", ["avvik"]
)
EVENTS: Final = Counter("fiks_connector_events_total", "Later answers and case updates.", ["type", "resultat"])
OPEN_RECORDS: Final = Gauge("fiks_delivery_open_records", "Records read and not done.", ["kommunenummer"])
FAGSYSTEM_UP: Final = Gauge("fiks_fagsystem_up", "1 when the kommune's fagsystem answers.", ["kommunenummer"])
STUCK_ANSWERS: Final = Gauge(
    "fiks_answers_stuck",
    "Answers that cannot be published for a reason that does not pass by itself; repeated for ever.",
    ["kommunenummer"],
)
