from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.record import TopicPartition
from broker.routing import KVITTERING_DLQ, STATUS, TRANSPORT, hendelse_topic, kvittering_topic
from kvittering import rebuild as module
from kvittering.bulk_store import BulkStore
from kvittering.chain import verify_ledd
from kvittering.comparing import Comparison, compare
from kvittering.folding import Readers
from kvittering.rebuild import Progress, Rebuild, Rebuilt
from kvittering.store import StatusStore
from schemas.codec import decode
from schemas.errors import BrokerUnavailableError
from schemas.names import Sha256
from schemas.records import DeadLetterRecord, StatusRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from pathlib import Path

    from broker.record import Incoming


class Topics:
    """Topics in memory, read as Kafka would give them."""

    def __init__(self, records: Iterable[Incoming], error: Exception | None = None) -> None:
        self.records = list(records)
        self.error = error
        self.total = len(self.records)
        self.first: dict[TopicPartition, int] = {}
        self.caught_up = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[list[Incoming]]:
        for at in range(0, len(self.records), 7):
            yield self.records[at : at + 7]
        if self.error is not None:
            raise self.error
        self.caught_up.set()
        await asyncio.Event().wait()

    @asynccontextmanager
    async def open(self, topics: Iterable[str], offsets: Mapping[TopicPartition, int]) -> AsyncIterator[Topics]:
        assert TRANSPORT in topics
        assert offsets == {}
        yield self


class Bench:
    """Rebuilds into files of one folder."""

    def __init__(self, kit: Any, folder: Path, *issuers: Any) -> None:
        self.kit = kit
        self.folder = folder
        self.told: list[Progress] = []
        topics = [TRANSPORT]
        for issuer in issuers:
            topics += [kvittering_topic(issuer.kommunenummer), hendelse_topic(issuer.kommunenummer)]
        self.readers = Readers(tuple(issuer.entry() for issuer in issuers), (), tuple(topics))
        self._runs = 0

    async def rebuild(self, name: str, topics: Topics, *, beside: str | None = None, workers: int = 0) -> Rebuilt:
        self._runs += 1
        spool = self.folder / f"spool-{self._runs}"
        spool.mkdir()
        async with BulkStore(self.folder / name) as store:
            kept = None if beside is None else BulkStore(self.folder / beside, read_only=True)
            if kept is None:
                return await self._run(store, None, spool, topics, workers)
            async with kept:
                return await self._run(store, kept, spool, topics, workers)

    async def _run(
        self, store: BulkStore, kept: BulkStore | None, spool: Path, topics: Topics, workers: int
    ) -> Rebuilt:
        one = Rebuild(store, kept=kept, readers=self.readers, folder=spool, workers=workers, report=self.told.append)
        result = await one.run(topics.open, self.kit.now)
        assert os.listdir(spool) == []  # noqa: PTH208 - an asynchronous test may not use Path's
        return result

    async def live(self, name: str, records: Iterable[Incoming], *issuers: Any, batch: int = 3) -> None:
        """Take the records in as the running process does."""
        read = [self.kit.read(record, *issuers) for record in records]
        async with StatusStore(self.folder / name) as store:
            for at in range(0, len(read), batch):
                await store.apply(read[at : at + batch], self.kit.now)

    async def equal(self, one: str, other: str) -> None:
        result = Comparison()
        async with (
            BulkStore(self.folder / one, read_only=True) as left,
            BulkStore(self.folder / other, read_only=True) as right,
        ):
            assert [each async for each in compare(left, right, result)] == []
            assert await left.offsets() == await right.offsets()
        assert result.under_way == 0

    async def queue(self, name: str) -> list[tuple[str, str]]:
        """Return topic and status or code of all that a store has yet to publish."""
        async with BulkStore(self.folder / name, read_only=True) as store:
            rows: list[Any] = await store.queued()
        found = []
        for topic, _, value, _ in rows:
            one: Any = decode(StatusRecord if topic == STATUS else DeadLetterRecord, bytes(value))
            found.append((topic, one.status if topic == STATUS else one.kode))
        return sorted(found)

    async def published(self, name: str) -> None:
        async with StatusStore(self.folder / name) as store:
            await store.published([one.nr for one in await store.pending(1000)])


@pytest.fixture
def bench(kit: Any, oslo: Any, bergen: Any, tmp_path: Path) -> Bench:
    return Bench(kit, tmp_path, oslo, bergen)


def day(kit: Any, oslo: Any, bergen: Any) -> list[Incoming]:
    """Return a day with everything in it: answers early and late, repeats, forks, strangers, and rot."""
    log, records = kit.log(), []
    for _ in range(4):
        soknad = kit.soknad()
        first, second = oslo.issue(soknad, "LEVERT"), oslo.issue(soknad)
        records += [log.transport(soknad.transport("AKSEPTERT")), log.kvittering(second), log.kvittering(first)]
        records += [log.transport(soknad.transport("SENDT", 1)), log.kvittering(first)]
    odd = kit.soknad()
    wrong = oslo.issue(odd, sha256=Sha256.of(b"en annen pakke"))
    records += [log.kvittering(bergen.issue(odd)), log.transport(odd.transport("AKSEPTERT")), log.kvittering(wrong)]
    records += [log.kvittering(oslo.issue(kit.soknad())), log.put(kvittering_topic(kit.oslo), "x", b"rot")]
    records += [log.kvittering(bergen.issue(kit.soknad(), kommunenummer=kit.oslo, utsteder=oslo.name))]
    late = {"timestamp_ms": int((oslo.certificate.not_valid_after_utc + timedelta(days=9)).timestamp() * 1000)}
    stolen = oslo.claims(soknad := kit.soknad())
    records += [replace(log.kvittering(verify_ledd(oslo.sign(stolen), [oslo.certificate])), **late)]
    records += [replace(log.put(records[1].topic, records[1].key, records[1].value), **late)]  # a repeat
    return [*records, log.transport(soknad.transport("AKSEPTERT"))]


async def test_a_rebuild_comes_to_what_the_running_process_came_to(
    kit: Any, oslo: Any, bergen: Any, bench: Bench
) -> None:
    records = day(kit, oslo, bergen)
    await bench.live("kjorer", records, oslo, bergen)
    result = await bench.rebuild("ny", Topics(records))
    await bench.equal("kjorer", "ny")
    assert (result.records, result.soknader) == (len(records), 7)
    assert result.outcomes == {"MOTTATT": 20, "GJENTATT": 5, "UNDERKJENT": 4}


async def test_workers_in_processes_of_their_own_come_to_the_same(
    kit: Any, oslo: Any, bergen: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL", 0)
    monkeypatch.setattr("kvittering.buckets.RECORDS_EACH", 5)
    records = day(kit, oslo, bergen)
    await bench.rebuild("en", Topics(records))
    await bench.rebuild("to", Topics(records), workers=2)
    await bench.equal("en", "to")
    assert await bench.queue("en") == await bench.queue("to")


async def test_without_a_running_store_everything_is_published_again_with_the_same_ids(
    kit: Any, oslo: Any, bergen: Any, bench: Bench
) -> None:
    records = day(kit, oslo, bergen)
    await bench.live("kjorer", records, oslo, bergen)
    await bench.rebuild("ny", Topics(records))
    assert await bench.queue("ny") == await bench.queue("kjorer")
    letters = [kode for topic, kode in await bench.queue("ny") if topic == KVITTERING_DLQ]
    signatur = ["kvittering.signatur"] * 2
    assert sorted(letters) == ["kontrakt.avvik", "kontrakt.avvik", "kontrakt.ukjent-skjema", *signatur]


async def test_beside_a_running_store_only_what_it_has_not_published_goes_out(
    kit: Any, oslo: Any, bergen: Any, bench: Bench
) -> None:
    records, soknad = day(kit, oslo, bergen), kit.soknad()
    await bench.live("kjorer", records, oslo, bergen)
    await bench.rebuild("ny", Topics(records), beside="kjorer")
    assert await bench.queue("ny") == await bench.queue("kjorer")  # its queue is taken over as it is
    await bench.published("kjorer")
    await bench.rebuild("ny 2", Topics(records), beside="kjorer")
    assert await bench.queue("ny 2") == []
    log = kit.log()
    log.ends = {(record.topic, record.partition): record.offset + 1 for record in records}
    later = [log.transport(soknad.transport("AKSEPTERT")), log.put(kvittering_topic(kit.oslo), "x", b"mer rot")]
    await bench.rebuild("ny 3", Topics([*records, *later]), beside="kjorer")
    assert await bench.queue("ny 3") == [(KVITTERING_DLQ, "kontrakt.ukjent-skjema"), (STATUS, "AKSEPTERT")]


async def test_a_status_that_the_running_store_has_queued_gives_way_to_a_newer_one(
    kit: Any, oslo: Any, bench: Bench
) -> None:
    soknad, log = kit.soknad(), kit.log()
    records = [log.transport(soknad.transport("AKSEPTERT")), log.kvittering(oslo.issue(soknad))]
    await bench.live("kjorer", records[:1], oslo)
    await bench.rebuild("ny", Topics(records), beside="kjorer")
    assert await bench.queue("ny") == [(STATUS, "MOTTATT")]


async def test_a_rebuild_that_kafka_interrupts_leaves_no_offsets(
    kit: Any, oslo: Any, bergen: Any, bench: Bench
) -> None:
    topics = Topics(day(kit, oslo, bergen), BrokerUnavailableError("borte"))
    with pytest.raises(BrokerUnavailableError):
        await bench.rebuild("ny", topics)
    async with BulkStore(bench.folder / "ny") as store:
        assert await store.is_empty()


async def test_it_tells_how_far_it_has_come_and_which_topics_are_cut(
    kit: Any, oslo: Any, bergen: Any, bench: Bench
) -> None:
    topics = Topics(day(kit, oslo, bergen))
    topics.first = {TopicPartition(TRANSPORT, 0): 5, TopicPartition(kvittering_topic(kit.oslo), 0): 0}
    result = await bench.rebuild("ny", topics)
    assert result.cut == {TRANSPORT}
    count = len(topics.records)
    assert {one.step: (one.done, one.total) for one in bench.told} == {
        "leser": (count, count),
        "folder": (count, count),
    }


def test_what_is_left_is_told_by_the_rate_so_far() -> None:
    assert Progress("leser", 100, 300, per_s=50.0).left_s == 4.0
    assert Progress("leser", 0, 300, per_s=0.0).left_s == 0.0


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_live_in_any_interleaving_and_a_rebuild_in_another_are_equal(
    kit: Any, oslo: Any, bergen: Any, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    bench = Bench(kit, tmp_path_factory.mktemp("b"), oslo, bergen)
    records = day(kit, oslo, bergen)

    def shuffled() -> list[Incoming]:
        lanes: dict[str, list[Incoming]] = {}
        for record in records:
            lanes.setdefault(record.topic, []).append(record)
        order: list[Incoming] = []
        while any(lanes.values()):
            order.append(lanes[data.draw(st.sampled_from(sorted(name for name in lanes if lanes[name])))].pop(0))
        return order

    await bench.live("kjorer", shuffled(), oslo, bergen, batch=data.draw(st.integers(1, 9)))
    await bench.rebuild("ny", Topics(shuffled()))
    await bench.equal("kjorer", "ny")
