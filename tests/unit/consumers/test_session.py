from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Self

import pytest
from patience import until
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from broker.delivery_messages import Limits
from broker.record import Incoming, TopicPartition
from broker.routing import dead_letter_topic, kvittering_topic, soknad_topic
from consumers.connectors.memory import MemoryConnector
from consumers.dedup import DedupStore
from consumers.delivering import Deliverer
from consumers.kvitteringer import Kvitteringer
from consumers.lookahead import Lookahead
from consumers.opening import Opener
from consumers.session import DeliverySession
from schemas.errors import (
    BrokerUnavailableError,
    ConfigurationError,
    FagsystemFailureError,
    FagsystemUnavailableError,
    PartitionLostError,
    TransportError,
)
from schemas.names import DigisosId, Kommunenummer

NUMBER = Kommunenummer("4601")
TOPIC = soknad_topic(NUMBER)
ZERO = TopicPartition(TOPIC, 0)


class FakeSubscriber:
    """Hands out what is put in, and notes commits, pauses and resumes."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[list[Incoming] | Exception] = asyncio.Queue()
        self.committed: dict[TopicPartition, int] = {}
        self.commit_errors: list[Exception] = []
        self.paused: set[TopicPartition] = set()
        self.flowing = asyncio.Event()
        self.listener: Any = None
        self.owned: frozenset[TopicPartition] = frozenset()

    def __call__(self, listener: Any) -> FakeSubscriber:
        self.listener = listener
        return self

    async def start(self) -> None:
        await self.assign(ZERO)

    async def assign(self, *partitions: TopicPartition) -> None:
        self.owned = frozenset(partitions)
        self.paused.clear()
        await self.listener.assigned(self.owned)

    async def revoke(self) -> None:
        gone, self.owned = self.owned, frozenset()
        if gone:
            await self.listener.revoked(gone)

    async def stop(self) -> None:
        await self.revoke()

    async def __aiter__(self) -> AsyncIterator[Sequence[Incoming]]:
        while True:
            batch = await self.batches.get()
            if isinstance(batch, Exception):
                raise batch
            await self.flowing.wait()
            yield batch

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        if self.commit_errors:
            raise self.commit_errors.pop(0)
        self.committed.update(offsets)

    def assignment(self) -> frozenset[TopicPartition]:
        return self.owned

    def pause(self, *partitions: TopicPartition) -> None:
        self.paused.update(partitions)
        self.flowing.clear()

    def resume(self, *partitions: TopicPartition) -> None:
        self.paused.difference_update(partitions)
        self.flowing.set()

    def partition_of(self, topic: str, key: bytes) -> int:
        _ = topic, key
        return 0

    async def positions(self) -> dict[TopicPartition, int]:
        return dict.fromkeys(self.owned, 0)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        raise NotImplementedError


class FakeRebuilder:
    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.calls = 0
        self.dead: frozenset[str] = frozenset()

    async def dead_keys(self) -> frozenset[str]:
        return self.dead

    async def catch_up(self) -> None:
        self.calls += 1
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)


class World:
    def __init__(self, session: DeliverySession, subscriber: FakeSubscriber, rebuilder: FakeRebuilder) -> None:
        self.session, self.subscriber, self.rebuilder = session, subscriber, rebuilder
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.session.run(self.subscriber))

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def world(
    *,
    opener: Opener,
    fagsystem: MemoryConnector,
    store: DedupStore,
    kvitteringer: Kvitteringer,
    publisher: Any,
    clock: Any,
) -> AsyncIterator[World]:
    deliverer = Deliverer(
        NUMBER,
        group="g",
        opener=opener,
        connector=fagsystem,
        store=store,
        kvitteringer=kvitteringer,
        publisher=publisher,
        clock=clock,
    )
    rebuilder = FakeRebuilder()
    session = DeliverySession(
        NUMBER,
        topic=TOPIC,
        deliverer=deliverer,
        kvitteringer=kvitteringer,
        rebuilder=rebuilder,
        limits=Limits(running=2),
        clock=clock,
        random=lambda: 0.0,
    )
    world = World(session, FakeSubscriber(), rebuilder)
    yield world
    if world.task is not None:
        await world.stop()


async def test_what_is_read_is_delivered_answered_and_committed(
    world: World, make_record: Any, incoming: Any, publisher: Any
) -> None:
    world.start()
    world.subscriber.batches.put_nowait([incoming(make_record(), offset=n) for n in range(5)])
    await until(lambda: world.subscriber.committed == {ZERO: 5})
    assert len(publisher.claims(kvittering_topic(NUMBER))) == 5


async def test_nothing_is_read_before_the_store_is_up_to_date(world: World) -> None:
    world.rebuilder.gate.clear()
    world.rebuilder.errors = [BrokerUnavailableError("x")]
    world.start()
    await until(lambda: world.rebuilder.calls == 1)
    assert world.subscriber.paused == {ZERO}
    world.rebuilder.gate.set()
    await until(lambda: not world.subscriber.paused)
    assert world.rebuilder.calls == 2


async def test_an_assignment_that_was_superseded_never_begins(world: World, make_record: Any, incoming: Any) -> None:
    world.rebuilder.gate.clear()
    with capture_logs() as lines:
        world.start()
        await until(lambda: world.rebuilder.calls == 1)
        await world.subscriber.revoke()
        await world.subscriber.assign(ZERO)
        await until(lambda: world.rebuilder.calls == 2)
        world.rebuilder.gate.set()
        world.subscriber.batches.put_nowait([incoming(make_record())])
        await until(lambda: world.subscriber.committed == {ZERO: 1})
    assert len([line for line in lines if line["event"] == "partitions_assigned"]) == 1


async def test_a_stop_lets_what_is_under_way_end_and_commits_it(
    world: World, make_record: Any, incoming: Any, fagsystem: MemoryConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()
    deliver = fagsystem.deliver

    async def slow(leveranse: Any) -> Any:
        entered.set()
        await leave.wait()
        return await deliver(leveranse)

    monkeypatch.setattr(fagsystem, "deliver", slow)
    world.start()
    world.subscriber.batches.put_nowait([incoming(make_record())])
    await entered.wait()
    stopping = asyncio.create_task(world.stop())
    await asyncio.sleep(0)
    leave.set()
    await stopping
    assert world.subscriber.committed == {ZERO: 1}


async def test_a_commit_that_fails_is_repeated_and_a_lost_partition_is_let_go(
    world: World, make_record: Any, incoming: Any
) -> None:
    world.subscriber.commit_errors = [BrokerUnavailableError("x"), PartitionLostError("x")]
    world.start()
    world.subscriber.batches.put_nowait([incoming(make_record())])
    await until(lambda: not world.subscriber.commit_errors)
    world.subscriber.batches.put_nowait([incoming(make_record(), offset=1)])
    await until(lambda: world.subscriber.committed == {ZERO: 2})


async def test_a_fagsystem_that_is_down_pauses_and_one_line_says_so(
    world: World, make_record: Any, incoming: Any, fagsystem: MemoryConnector
) -> None:
    fagsystem.down = FagsystemUnavailableError("nede")
    with capture_logs() as lines:
        world.start()
        await until(lambda: world.rebuilder.calls == 1 and not world.subscriber.paused)
        world.subscriber.batches.put_nowait([incoming(make_record())])
        await until(lambda: world.subscriber.paused == {ZERO})
        await until(lambda: any(line["event"] == "fagsystem_went_down" for line in lines))
    assert world.subscriber.committed == {}


async def test_a_canonical_line_has_ids_and_no_content(world: World, make_record: Any, incoming: Any) -> None:
    record = make_record()
    with capture_logs() as lines:
        world.start()
        world.subscriber.batches.put_nowait([incoming(record)])
        await until(lambda: world.subscriber.committed == {ZERO: 1})
    (line,) = [one for one in lines if one["event"] == "soknad_delivered"]
    assert line["melding_id"] == record.melding_id
    assert line["resultat"] == "MOTTATT"
    assert line["forsok"] == 1
    assert len(line["trace_id"]) == 32


async def test_a_broken_record_is_dead_lettered_with_a_line_of_its_own(
    world: World, incoming: Any, publisher: Any
) -> None:
    with capture_logs() as lines:
        world.start()
        world.subscriber.batches.put_nowait([incoming(b"junk", key=b"?")])
        await until(lambda: world.subscriber.committed == {ZERO: 1})
    assert len(publisher.on(dead_letter_topic(NUMBER))) == 1
    assert [one["kode"] for one in lines if one["event"] == "soknad_dead_lettered"] == ["kontrakt.ukjent-skjema"]


async def test_a_failure_is_logged_with_its_code_and_when_it_is_tried_again(
    world: World, make_record: Any, incoming: Any, fagsystem: MemoryConnector
) -> None:
    fagsystem.failures = [FagsystemFailureError("x")]
    with capture_logs() as lines:
        world.start()
        world.subscriber.batches.put_nowait([incoming(make_record())])
        await until(lambda: any(line["event"] == "delivery_postponed" for line in lines))
    (failed,) = [one for one in lines if one["event"] == "delivery_failed"]
    assert (failed["kode"], failed["resultat"]) == ("fagsystem.feil", "FEILET")


async def test_an_error_that_is_not_ours_sets_the_record_aside_and_the_next_one_flows(
    world: World, make_record: Any, incoming: Any, publisher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.delivery.delay", lambda *_: timedelta())
    poisoned, sound = make_record(), make_record()
    deliver = world.session._deliverer.deliver

    async def mistaken(job: Any, command: Any) -> Any:
        if job.melding_id == poisoned.melding_id:
            raise RecursionError("12345678901")
        return await deliver(job, command)

    monkeypatch.setattr(world.session._deliverer, "deliver", mistaken)
    with capture_logs() as lines:
        world.start()
        world.subscriber.batches.put_nowait([incoming(poisoned), incoming(sound, offset=1)])
        await until(lambda: world.subscriber.committed == {ZERO: 2})
    assert [one.kode for one in publisher.claims(kvittering_topic(NUMBER)) if one.status == "AVVIST"] == [
        "kontrakt.uventet"
    ]
    assert len(publisher.on(dead_letter_topic(NUMBER))) == 1
    loud = [line for line in lines if line["log_level"] == "critical"]
    assert {(line["event"], line["feiltype"]) for line in loud} == {("record_failed_unexpectedly", "RecursionError")}
    assert "test_session.py" in loud[0]["sted"]
    assert "12345678901" not in str(lines)


async def test_a_subscription_that_breaks_ends_the_session(world: World) -> None:
    world.start()
    world.subscriber.batches.put_nowait(BrokerUnavailableError("x"))
    assert world.task is not None
    with pytest.raises(ExceptionGroup) as raised:
        await world.task
    assert raised.group_contains(TransportError)
    assert not world.session.is_reading
    assert world.session.was_reading


async def test_a_record_that_is_done_is_let_go_of(world: World, make_record: Any, incoming: Any) -> None:
    world.start()
    world.subscriber.batches.put_nowait([incoming(b"junk", key=b"?"), incoming(make_record(), offset=1)])
    await until(lambda: world.subscriber.committed == {ZERO: 2})
    assert world.session._jobs == {}


async def test_what_ends_after_its_partition_went_does_not_disturb_the_same_record_read_again(
    world: World, make_record: Any, incoming: Any, publisher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.session.DRAIN_S", 0.01)
    gates = {"publish": asyncio.Event(), "deliver": asyncio.Event()}
    calls: list[str] = []
    publish, deliver = world.session._deliverer.publish, world.session._deliverer.deliver

    async def slow_publish(job: Any, command: Any) -> None:
        calls.append("publish")
        await gates["publish"].wait()
        await publish(job, command)

    async def slow_deliver(job: Any, command: Any) -> Any:
        calls.append("deliver")
        if calls.count("deliver") > 1:
            await gates["deliver"].wait()
        return await deliver(job, command)

    monkeypatch.setattr(world.session._deliverer, "publish", slow_publish)
    monkeypatch.setattr(world.session._deliverer, "deliver", slow_deliver)
    record = incoming(make_record())
    world.start()
    world.subscriber.batches.put_nowait([record])
    await until(lambda: calls == ["deliver", "publish"])
    await world.subscriber.revoke()
    await world.subscriber.assign(ZERO)
    world.subscriber.batches.put_nowait([record])
    await until(lambda: calls == ["deliver", "publish", "deliver"])
    gates["publish"].set()
    await until(lambda: bool(publisher.published))
    gates["deliver"].set()
    await until(lambda: world.subscriber.committed == {ZERO: 1})


async def test_what_waits_for_time_notices_a_leap_of_the_clock(
    *, world: World, make_record: Any, incoming: Any, fagsystem: MemoryConnector, clock: Any
) -> None:
    fagsystem.down = FagsystemUnavailableError("nede", retry_after=timedelta(minutes=10))
    world.start()
    world.subscriber.batches.put_nowait([incoming(make_record())])
    await until(lambda: world.subscriber.paused == {ZERO} and fagsystem.deliveries == 1)
    fagsystem.down = None
    clock.now += timedelta(days=1)
    await until(lambda: world.subscriber.committed == {ZERO: 1})


async def test_what_expires_while_the_fagsystem_is_down_is_answered_without_it(
    *, world: World, make_record: Any, incoming: Any, fagsystem: MemoryConnector, clock: Any, publisher: Any
) -> None:
    fagsystem.down = FagsystemUnavailableError("nede", retry_after=timedelta(minutes=10))
    world.start()
    record = make_record(gyldig_til=clock.now + timedelta(minutes=5))
    world.subscriber.batches.put_nowait([incoming(record)])
    await until(lambda: fagsystem.deliveries == 1)
    clock.now += timedelta(minutes=5)
    await until(lambda: world.subscriber.committed == {ZERO: 1})
    (claims,) = publisher.claims(kvittering_topic(NUMBER))
    assert (claims.status, claims.kode) == ("AVVIST", "levering.utlopt")
    assert fagsystem.deliveries == 1


class FakeTail:
    def __init__(self, *batches: list[Incoming]) -> None:
        self.batches = batches
        self.opened: list[Mapping[TopicPartition, int]] = []
        self.caught_up = asyncio.Event()
        self.first: Mapping[TopicPartition, int] = {}
        self.total = 0

    def __call__(self, topics: Any, positions: Mapping[TopicPartition, int]) -> FakeTail:
        assert list(topics) == [TOPIC]
        self.opened.append(positions)
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def __aiter__(self) -> AsyncIterator[Sequence[Incoming]]:
        for batch in self.batches:
            yield batch
        await asyncio.Event().wait()


def withdrawal_of(record: Any) -> Any:
    return record.model_copy(update={"type": "TILBAKEKALL", "pakke": None, "storrelse": 0})


async def test_while_the_fagsystem_is_down_a_withdrawal_further_on_is_found_and_heeded(
    *, world: World, make_record: Any, incoming: Any, fagsystem: MemoryConnector, publisher: Any, clock: Any
) -> None:
    fagsystem.down = FagsystemUnavailableError("nede", retry_after=timedelta(minutes=10))
    record, others = make_record(), [incoming(make_record(), offset=n) for n in range(1, 4)]
    itself = incoming(withdrawal_of(record), offset=4)
    tail = FakeTail(others, [incoming(b"junk", offset=9), itself])
    world.session._lookahead = Lookahead(NUMBER, topic=TOPIC, open_tail=tail)
    world.start()
    world.subscriber.batches.put_nowait([incoming(record)])
    await until(lambda: world.subscriber.committed == {ZERO: 1})
    assert tail.opened == [{ZERO: 0}]
    (claims,) = publisher.claims(kvittering_topic(NUMBER))
    assert (claims.melding_id, claims.kode) == (record.melding_id, "levering.tilbakekalt")
    fagsystem.down = None
    clock.now += timedelta(hours=1)
    world.subscriber.batches.put_nowait([*others, itself])
    await until(lambda: world.subscriber.committed == {ZERO: 5})
    assert record.melding_id not in fagsystem.soknader
    assert len(fagsystem.soknader) == 3


async def test_a_look_ahead_that_could_not_begin_is_tried_at_the_next_probe(
    *, world: World, make_record: Any, incoming: Any, fagsystem: MemoryConnector, clock: Any, monkeypatch: Any
) -> None:
    refused = asyncio.Event()
    positions = world.subscriber.positions

    async def refuse() -> dict[TopicPartition, int]:
        monkeypatch.setattr(world.subscriber, "positions", positions)
        refused.set()
        raise BrokerUnavailableError("x")

    monkeypatch.setattr(world.subscriber, "positions", refuse)
    fagsystem.down = FagsystemUnavailableError("nede", retry_after=timedelta(minutes=1))
    record = make_record()
    tail = FakeTail([incoming(withdrawal_of(record), offset=1)])
    world.session._lookahead = Lookahead(NUMBER, topic=TOPIC, open_tail=tail)
    world.start()
    world.subscriber.batches.put_nowait([incoming(record)])
    await refused.wait()
    clock.now += timedelta(minutes=2)
    await until(lambda: world.subscriber.committed == {ZERO: 1})
    assert tail.opened == [{ZERO: 0}]


async def test_keys_that_died_elsewhere_are_known_before_anything_is_delivered(
    world: World, make_record: Any, incoming: Any, fagsystem: MemoryConnector
) -> None:
    first, second = make_record(), make_record()
    world.start()
    world.subscriber.batches.put_nowait([incoming(first)])
    await until(lambda: world.subscriber.committed == {ZERO: 1})
    await world.subscriber.revoke()
    world.rebuilder.dead = frozenset({second.digisos_id})
    await world.subscriber.assign(ZERO)
    world.subscriber.batches.put_nowait([incoming(second, offset=1)])
    await until(lambda: world.subscriber.committed == {ZERO: 2})
    assert fagsystem.order == [first.melding_id]


async def test_a_delivery_that_outlives_its_partition_issues_nothing_and_is_asked_for_again(
    *, world: World, make_record: Any, incoming: Any, fagsystem: MemoryConnector, monkeypatch: Any, publisher: Any
) -> None:
    monkeypatch.setattr("consumers.session.DRAIN_S", 0.01)
    entered, leave, deliver = asyncio.Event(), asyncio.Event(), fagsystem.deliver

    async def slow(leveranse: Any) -> Any:
        svar = await deliver(leveranse)
        entered.set()
        await leave.wait()
        return svar

    monkeypatch.setattr(fagsystem, "deliver", slow)
    record = make_record()
    world.start()
    world.subscriber.batches.put_nowait([incoming(record)])
    await entered.wait()
    with capture_logs() as lines:
        await world.subscriber.revoke()
        leave.set()
        await until(lambda: any(line.get("kode") == "transport.partisjon-mistet" for line in lines))
    assert publisher.published == []
    await world.subscriber.assign(ZERO)
    world.subscriber.batches.put_nowait([incoming(record)])
    await until(lambda: world.subscriber.committed == {ZERO: 1})
    assert (fagsystem.deliveries, fagsystem.order) == (2, [record.melding_id])
    assert len(publisher.claims(kvittering_topic(NUMBER))) == 1


async def test_an_answer_that_cannot_be_published_is_repeated_and_seen(
    *, world: World, make_record: Any, incoming: Any, publisher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.delivery.delay", lambda *_: timedelta())
    stuck, gate = asyncio.Event(), asyncio.Event()
    publish = publisher.publish

    async def mistaken(outgoing: Any) -> Any:
        if gate.is_set():
            return await publish(outgoing)
        stuck.set()
        await asyncio.sleep(0)
        raise RecursionError("12345678901")

    monkeypatch.setattr(publisher, "publish", mistaken)
    world.start()
    world.subscriber.batches.put_nowait([incoming(make_record())])
    await until(lambda: "1 svar" in (world.session.problem() or ""))
    assert REGISTRY.get_sample_value("fiks_answers_stuck", {"kommunenummer": NUMBER}) == 1
    gate.set()
    await until(lambda: world.subscriber.committed == {ZERO: 1})
    assert world.session.problem() is None
    assert REGISTRY.get_sample_value("fiks_answers_stuck", {"kommunenummer": NUMBER}) == 0


async def test_a_kommune_whose_store_cannot_catch_up_is_not_ready_and_says_why(world: World) -> None:
    world.rebuilder.errors = [ConfigurationError("emnet er laget på nytt")]
    world.rebuilder.gate.clear()
    assert world.session.problem() == "leser ikke fra Kafka"
    world.start()
    await until(lambda: world.rebuilder.calls == 1)
    assert world.session.problem() == "leser inn kvitteringsemnet"
    world.rebuilder.gate.set()
    await until(lambda: "laget på nytt" in (world.session.problem() or ""))
    await until(lambda: world.session.problem() is None)


async def test_the_topic_is_read_once_more_when_nothing_of_a_former_owner_can_come_any_longer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.session.SECOND_LOOK_S", 0.01)
    world.start()
    await until(lambda: world.rebuilder.calls == 2)


async def test_a_session_owns_the_soknader_of_its_partitions_once_it_has_read_the_topic(world: World) -> None:
    case = DigisosId.new()
    world.rebuilder.gate.clear()
    assert not world.session.owns(case)
    world.start()
    await until(lambda: world.rebuilder.calls == 1)
    assert not world.session.owns(case)
    world.rebuilder.gate.set()
    await until(lambda: world.session.owns(case))
    await world.subscriber.revoke()
    assert not world.session.owns(case)
