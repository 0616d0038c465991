from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from patience import until
from structlog.testing import capture_logs

from broker.record import RecordPosition
from broker.routing import kvittering_topic
from kvittering import outbox as module
from kvittering.outbox import OutboxPublisher
from kvittering.store import StatusStore
from schemas.codec import decode
from schemas.errors import BrokerUnavailableError, RecordTooLargeError
from schemas.records import DeadLetterRecord, StatusRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from broker.record import Outgoing
    from schemas.errors import TransportError


class Kafka:
    """Takes records, but for those of keys that are refused."""

    def __init__(self) -> None:
        self.taken: list[Outgoing] = []
        self.refused: set[bytes] = set()
        self.refuse_first = 0
        self.too_large: set[bytes] = set()

    async def publish_all(self, batch: Iterable[Outgoing]) -> list[RecordPosition | TransportError]:
        outcomes: list[RecordPosition | TransportError] = []
        for one in batch:
            if one.key in self.too_large:
                outcomes.append(RecordTooLargeError("for stor"))
            elif one.key in self.refused or self.refuse_first:
                self.refuse_first = max(self.refuse_first - 1, 0)
                outcomes.append(BrokerUnavailableError("borte"))
            else:
                self.taken.append(one)
                outcomes.append(RecordPosition(one.topic, 0, len(self.taken)))
        return outcomes


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[StatusStore]:
    async with StatusStore(tmp_path / "k.sqlite") as opened:
        yield opened


async def accept(kit: Any, store: StatusStore, count: int) -> list[Any]:
    log, soknader = kit.log(), [kit.soknad() for _ in range(count)]
    await store.apply([kit.read(log.transport(one.transport("AKSEPTERT"))) for one in soknader], kit.now)
    return soknader


async def test_what_kafka_has_is_taken_off_the_queue(kit: Any, store: StatusStore) -> None:
    (soknad,) = await accept(kit, store, 1)
    kafka = Kafka()
    publisher = OutboxPublisher(store, kafka, asyncio.Event())  # type: ignore[arg-type]  # a publisher in memory
    assert await publisher.publish_once() == 1
    assert await publisher.publish_once() == 0
    assert publisher.problem() is None
    (sent,) = kafka.taken
    assert decode(StatusRecord, sent.value).digisos_id == soknad.digisos_id


async def test_what_kafka_refuses_stays_and_the_rest_goes(kit: Any, store: StatusStore) -> None:
    stuck, free = await accept(kit, store, 2)
    kafka = Kafka()
    kafka.refused.add(stuck.digisos_id.encode())
    publisher = OutboxPublisher(store, kafka, asyncio.Event())  # type: ignore[arg-type]  # a publisher in memory
    await publisher.publish_once()
    assert publisher.problem() == "Kafka: transport.megler-utilgjengelig"
    assert [one.key for one in kafka.taken] == [free.digisos_id.encode()]
    assert [one.outgoing.key for one in await store.pending(10)] == [stuck.digisos_id.encode()]
    kafka.refused.clear()
    await publisher.publish_once()
    assert publisher.problem() is None
    assert await store.pending(10) == []


async def test_what_went_out_behind_a_refused_record_of_the_same_key_goes_out_again(
    kit: Any, oslo: Any, store: StatusStore
) -> None:
    log, topic = kit.log(), kvittering_topic(kit.oslo)
    await store.apply([kit.read(log.put(topic, "x", value), oslo) for value in (b"1", b"2")], kit.now)
    kafka = Kafka()
    kafka.refuse_first = 1
    publisher = OutboxPublisher(store, kafka, asyncio.Event())  # type: ignore[arg-type]  # a publisher in memory
    await publisher.publish_once()
    await publisher.publish_once()
    offsets = [decode(DeadLetterRecord, one.value).opprinnelig.offset for one in kafka.taken]
    assert offsets == [1, 0, 1]
    assert await store.pending(10) == []


async def test_it_wakes_when_there_is_more_and_tries_again_after_an_outage(
    kit: Any, store: StatusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    kafka, stored = Kafka(), asyncio.Event()
    kafka.refuse_first = 2
    publisher = OutboxPublisher(store, kafka, stored)  # type: ignore[arg-type]  # a publisher in memory
    task = asyncio.create_task(publisher.run())
    try:
        (soknad,) = await accept(kit, store, 1)
        stored.set()
        await until(lambda: kafka.taken)
        await until(lambda: publisher.problem() is None)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [one.key for one in kafka.taken] == [soknad.digisos_id.encode()]
    assert kafka.refuse_first == 0


async def test_what_kafka_never_takes_is_set_aside_kept_and_counted_and_holds_up_nobody(
    kit: Any, store: StatusStore
) -> None:
    large, free = await accept(kit, store, 2)
    kafka = Kafka()
    kafka.too_large.add(large.digisos_id.encode())
    publisher = OutboxPublisher(store, kafka, asyncio.Event())  # type: ignore[arg-type]  # a publisher in memory
    with capture_logs() as logs:
        await publisher.publish_once()
    assert publisher.problem() is None
    assert [one.key for one in kafka.taken] == [free.digisos_id.encode()]
    assert await publisher.publish_once() == 0
    figures = await store.figures()
    assert (figures.unpublished, figures.set_aside) == (0, 1)
    (line,) = logs
    assert (line["event"], line["log_level"], line["kode"]) == ("record_set_aside", "critical", "transport.for-stor")


async def test_nothing_goes_out_before_everything_has_been_read_once(
    kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, stored, kafka = asyncio.Event(), asyncio.Event(), Kafka()
    async with StatusStore(tmp_path / "k.sqlite") as store:
        await store.apply([kit.read(kit.log().transport(kit.soknad().transport("AKSEPTERT")))], kit.now)
        looked = asyncio.Event()
        real = store.pending

        async def pending(limit: int) -> Any:
            looked.set()
            return await real(limit)

        monkeypatch.setattr(store, "pending", pending)
        task = asyncio.create_task(OutboxPublisher(store, kafka, stored, begin=begin).run())
        await asyncio.sleep(0)  # it has run as far as it can
        assert not looked.is_set()
        begin.set()
        async with asyncio.timeout(5):
            while not kafka.taken:  # noqa: ASYNC110 - the fake has no event
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
