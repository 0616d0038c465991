"""Replay of a year: 600 000 søknader with AKSEPTERT, SENDT and a signed MOTTATT each, into an empty store.

A part of it is invented, signed and encoded for real, and rebuilt by the code of ``formidler status rebuild``: from memory at two
sizes, which shows that the time grows with the records and no faster, and a smaller part from a real Kafka. Reading is one
process's work and comes first; verifying, folding and storing is all cores'. The year is the sum, by the clock, and by the
processors' own time: the latter is what the machine needs when nobody else uses it.
"""

from __future__ import annotations

import asyncio
import io
import os
import resource
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from _replay import KOMMUNE_PARTITIONS, KOMMUNER, MemoryTail, Sample, make_sample
from _rows import Row

from broker.embedded.server import EmbeddedKafka
from broker.kafka.admin import KafkaAdmin
from broker.kafka.publisher import KafkaPublisher
from broker.kafka.subscriber import KafkaTail
from broker.log import configure_logging
from broker.record import Outgoing, TopicPartition
from broker.routing import TopicSpec, central_topics, kommune_topics
from kvittering.bulk_store import BulkStore
from kvittering.folding import Readers
from kvittering.rebuild import Progress, Rebuild
from schemas.names import Kommunenummer

if TYPE_CHECKING:
    from broker.kafka.settings import KafkaSettings
    from broker.ports import OpenTail

CORES: Final = os.cpu_count() or 1
YEAR: Final = 1_800_000
"""Records."""
GOAL_MIN: Final = 5.0
SMALL: Final = 15_000
LARGE: Final = 45_000
THROUGH_KAFKA: Final = 10_000
"""Søknader, three records each."""
LINEAR: Final = 1.2
"""Most that a record of the large sample may cost beside one of the small."""


def rows() -> list[Row]:
    """Return the rate, whether it is linear, what Kafka costs, and the year."""
    return asyncio.run(_measure())


@dataclass
class Run:
    """One rebuild: how long each step took, by the clock and in processor time, seconds each record."""

    read_s: float
    fold_s: float
    read_cpu_s: float
    fold_cpu_s: float

    @property
    def cpu_s(self) -> float:
        """Processor time of all steps."""
        return self.read_cpu_s + self.fold_cpu_s


async def _measure() -> list[Row]:
    configure_logging("benk", stream=io.StringIO())
    small, large = [await _from_memory(make_sample(size)) for size in (SMALL, LARGE)]
    kafka = await _from_kafka()
    by_clock = YEAR * (kafka.read_s + large.fold_s) / 60
    by_cpu = YEAR * (kafka.read_cpu_s + large.fold_cpu_s / CORES) / 60
    return [
        Row(f"gjenoppbygging, prosessortid per post, {LARGE} søknader mot {SMALL}", large.cpu_s * 1e6, small.cpu_s * 1e6,
            large.cpu_s / small.cpu_s, LINEAR, "lower", "µs"),
        Row("gjenoppbygging, lese en post fra Kafka mot å kontrollere, folde og lagre den", kafka.read_cpu_s * 1e6,
            large.fold_cpu_s * 1e6, kafka.read_cpu_s / large.fold_cpu_s, 1.0, "lower", "µs"),
        Row(f"gjenoppbygging av et år, etter prosessortid på {CORES} kjerner", by_cpu, 0, by_cpu, GOAL_MIN, "lower", "min"),
        Row(f"gjenoppbygging av et år, etter klokken ({1 / (kafka.read_s + large.fold_s):.0f} poster/s)", by_clock, 0, by_clock,
            GOAL_MIN, "lower", "min"),
    ]  # fmt: skip


async def _from_memory(sample: Sample) -> Run:
    def open_tail(_: Iterable[str], __: Mapping[TopicPartition, int]) -> object:
        return MemoryTail.open(sample)

    return await _rebuild(sample, open_tail)  # type: ignore[arg-type]  # a reader of the same shape


async def _from_kafka() -> Run:
    with tempfile.TemporaryDirectory(prefix="formidler-bench-") as folder, EmbeddedKafka(Path(folder)) as server:
        sample = make_sample(THROUGH_KAFKA, kommuner=[Kommunenummer(f"{9000 + nr}") for nr in range(KOMMUNER)])
        topics: list[TopicSpec] = list(central_topics())
        for entry in sample.entries:
            topics += kommune_topics(entry.kommunenummer, KOMMUNE_PARTITIONS)
        async with KafkaAdmin(server.admin) as admin:
            await admin.ensure_topics(topics)
        await _publish(sample, server.admin)

        def open_tail(names: Iterable[str], offsets: Mapping[TopicPartition, int]) -> KafkaTail:
            return KafkaTail(server.admin, names, offsets=offsets)

        return await _rebuild(sample, open_tail)


async def _publish(sample: Sample, settings: KafkaSettings) -> None:
    async with KafkaPublisher(settings) as publisher:
        for records in sample.records.values():
            for at in range(0, len(records), 5_000):
                part = records[at : at + 5_000]
                outcomes = await publisher.publish_all(Outgoing(r.topic, r.key, r.value, r.headers) for r in part)
                failed = [one for one in outcomes if isinstance(one, Exception)]
                if failed:
                    raise failed[0]


async def _rebuild(sample: Sample, open_tail: OpenTail) -> Run:
    with tempfile.TemporaryDirectory(prefix="formidler-bench-") as folder:
        spool = Path(folder, "poster")
        spool.mkdir()  # noqa: ASYNC240 - before anything is measured
        async with BulkStore(Path(folder, "ny.sqlite")) as store:
            readers = Readers(tuple(sample.entries), (), sample.topics)
            read_until: list[float] = []

            def note(progress: Progress) -> None:
                if progress.step == "leser":
                    read_until[:] = [_cpu_s()]

            one = Rebuild(store, kept=None, readers=readers, folder=spool, workers=CORES, report=note)
            started = _cpu_s()
            rebuilt = await one.run(open_tail, datetime.now(UTC))
            used, count = _cpu_s() - started, rebuilt.records
            if rebuilt.outcomes != {"MOTTATT": len(sample)}:
                raise RuntimeError(f"the sample came to {dict(rebuilt.outcomes)}")
            read_cpu = read_until[0] - started
            return Run(rebuilt.read_s / count, rebuilt.fold_s / count, read_cpu / count, (used - read_cpu) / count)


def _cpu_s() -> float:
    """Return the processor time of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
