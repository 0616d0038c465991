"""How long what lies on topics is kept, and which records of theirs are over age.

Rules:

1. Kafka deletes by its own ``retention.ms``, segment by segment, by its own time stamps. What is over age by a topic's setting
   but lies in a segment that is still open, or is over age only by a local set-up's virtual time, is deleted by
   ``formidler oppbevaring kjor``, which ``formidler up`` also does by itself.
2. A record is as old as the younger of two times: when Kafka appended it, and what its sender says (``ce_time``). So nobody
   makes a record old by a false time, or young by one that lies ahead, and a record from virtual time is not deleted early.
3. Only from the beginning of a partition: what lies behind a record that is kept is kept.
4. Compacted topics, and those that are kept for ever, are never touched: there a tombstone removes a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from pydantic import AwareDatetime, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from broker.durations import Duration
from broker.record import header
from broker.routing import KVITTERING_RETENTION, REVISJON_RETENTION, SOKNAD_RETENTION, Retention

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.record import Incoming
    from broker.routing import TopicSpec

_MOMENT: Final[TypeAdapter[datetime]] = TypeAdapter(AwareDatetime)


class RetentionSettings(BaseSettings):
    """How long topics keep what is on them; read from ``FORMIDLER_OPPBEVARING_*``, as durations like ``90d``.

    Attributes:
        soknad: Sealed søknader, and refused kvitteringer. Never less than the watch's longest deadline.
        kvittering: Kvitteringer, case updates and transport events: as long as a citizen may look, and a margin.
        revisjon: The audit trail.
    """

    model_config = SettingsConfigDict(env_prefix="FORMIDLER_OPPBEVARING_", frozen=True)

    soknad: Duration = SOKNAD_RETENTION
    kvittering: Duration = KVITTERING_RETENTION
    revisjon: Duration = REVISJON_RETENTION

    def retention(self) -> Retention:
        """Return it as ``broker.routing`` takes it."""
        return Retention(self.soknad, self.kvittering, self.revisjon)


@dataclass(frozen=True, slots=True)
class Cutoff:
    """What is older than ``before`` may go from ``topic``; ``now`` is the time that this was asked at."""

    topic: str
    before: datetime
    now: datetime


def cutoffs(specs: Iterable[TopicSpec], now: datetime) -> tuple[Cutoff, ...]:
    """Return from when on each topic's records are kept; topics that keep everything are left out."""
    found: list[Cutoff] = []
    for spec in specs:
        milliseconds = int(spec.config.get("retention.ms", "-1"))
        if milliseconds >= 0 and spec.config.get("cleanup.policy") == "delete":
            found.append(Cutoff(spec.name, now - timedelta(milliseconds=milliseconds), now))
    return tuple(found)


def own_time(record: Incoming, now: datetime) -> datetime:
    """Return when ``record`` was made, at the latest (rule 2), as aware UTC. A stated time that lies ahead counts for nothing."""
    appended = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
    said = header(record.headers, "ce_time")
    if said is None:
        return appended
    try:
        stated = _MOMENT.validate_python(said.decode("ascii")).astimezone(UTC)
    except (ValidationError, UnicodeDecodeError, OverflowError):
        return appended
    return max(appended, stated) if stated <= now else appended
