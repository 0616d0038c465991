from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from patience import until

from broker.record import Outgoing, RecordPosition
from producers import holds as holds_module
from producers import relay as relay_module
from producers.eskalering import MARGIN, Eskalerer
from producers.forsegling import Forsegler
from producers.messages import transport_message
from producers.outbox_rows import insert_message
from producers.packages import Packages
from producers.queueing import withdraw
from producers.relay import Relay
from producers.relay_ports import Collaborators
from schemas.codec import decode
from schemas.errors import AccessDeniedError, BrokerUnavailableError, RecordTooLargeError, StoreError, TransportError
from schemas.names import Uuid
from schemas.records import SoknadRecord, TransportRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

TRANSPORT = "fiks.transport.v1"
SOKNAD = "fiks.0301.soknad.v1"


class Topics:
    """A publisher in memory that can be told to refuse."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []
        self.tried = 0
        self.refuse: Callable[[Outgoing], TransportError | None] = lambda _: None

    async def publish(self, outgoing: Outgoing) -> RecordPosition:
        self.tried += 1
        await asyncio.sleep(0)
        error = self.refuse(outgoing)
        if error is not None:
            raise error
        self.records.append(outgoing)
        return RecordPosition(outgoing.topic, 0, len(self.records))

    def types(self) -> list[str]:
        return [
            decode(TransportRecord, record.value or b"").type if record.topic == TRANSPORT else "SOKNAD"
            for record in self.records
        ]

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(condition)


@asynccontextmanager
async def running(world: Any, topics: Any, **options: Any) -> AsyncIterator[Relay]:
    relay = Relay(world.outbox, topics, world.clock, jitter=lambda: 0.0, **options)
    stop = asyncio.Event()
    task = asyncio.create_task(relay.run(stop))
    try:
        yield relay
    finally:
        stop.set()
        await task


@pytest.fixture(autouse=True)
def short_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    hold = holds_module.HOLD
    first = hold.first / 10
    monkeypatch.setattr(holds_module, "HOLD", type(hold)(hold.course, first=first, ceiling=first * 4))


async def test_a_soknad_leaves_as_aksept_soknad_and_sent_in_this_order(world: Any, sending: Any) -> None:
    topics = Topics()
    async with running(world, topics):
        digisos_id = (await world.post(sending)).json()
        await topics.until(lambda: len(topics.records) == 3)
    assert topics.types() == ["AKSEPTERT", "SOKNAD", "SENDT"]
    assert [record.topic for record in topics.records] == [TRANSPORT, SOKNAD, TRANSPORT]
    assert {record.key for record in topics.records} == {digisos_id.encode()}
    assert await world.queued() == []
    soknad = decode(SoknadRecord, topics.records[1].value or b"")
    sent = decode(TransportRecord, topics.records[2].value or b"")
    assert (sent.melding_id, sent.nav_ekstern_ref_id) == (soknad.melding_id, "ref-1")
    traces = {dict(record.headers)["traceparent"].split(b"-")[1] for record in topics.records[1:]}
    assert len(traces) == 1


async def test_sent_is_when_the_soknad_was_put_on_its_topic_since_the_kommune_may_answer_before_kafka_does(
    world: Any, sending: Any
) -> None:
    topics = Topics()
    put = world.clock()

    def slow_acknowledgement(outgoing: Outgoing) -> None:
        if outgoing.topic == SOKNAD:
            world.now += timedelta(seconds=30)

    topics.refuse = slow_acknowledgement
    async with running(world, topics):
        await world.post(sending)
        await topics.until(lambda: len(topics.records) == 3)
    assert decode(TransportRecord, topics.records[2].value or b"").tidspunkt == put


async def test_what_waits_is_published_after_a_restart_with_the_same_ids(world: Any, sending: Any) -> None:
    await world.post(sending)
    waiting = [queued.message.outgoing for queued in await world.queued()]
    topics = Topics()
    async with running(world, topics):
        await topics.until(lambda: len(topics.records) == 3)
    assert topics.records[:2] == waiting


async def test_an_outage_is_waited_out_with_one_attempt_at_a_time(world: Any, keys: Any, make_sending: Any) -> None:
    topics = Topics()
    topics.refuse = lambda _: BrokerUnavailableError("Kafka svarer ikke")
    for nr in range(20):
        await world.post(make_sending(seed=nr, encrypt_for=keys.mottak), path=f"0301/ref-{nr}")
    async with running(world, topics) as relay:
        await topics.until(lambda: topics.tried >= 24)
        assert "Kafka tar ikke imot" in (relay.problem() or "")
        assert topics.tried < 30
        topics.refuse = lambda _: None
        await topics.until(lambda: len(topics.records) == 60)
        assert relay.problem() is None
    assert topics.types().count("SENDT") == 20


async def test_a_topic_that_refuses_holds_nobody_else_back(world: Any, keys: Any, make_sending: Any) -> None:
    world.katalog.put(world.katalog.get("0301").model_copy(update={"kommunenummer": "4601"}))
    topics = Topics()
    topics.refuse = lambda record: AccessDeniedError("nei") if record.topic == SOKNAD else None
    await world.post(make_sending(seed=1, encrypt_for=keys.mottak), path="0301/oslo")
    await world.post(make_sending(seed=2, encrypt_for=keys.mottak, kommunenummer="4601"), path="4601/bergen")
    async with running(world, topics) as relay:
        await topics.until(lambda: topics.types().count("SENDT") == 1)
        assert "1 emner" in (relay.notice() or "")
        assert relay.problem() is None
        async with asyncio.timeout(10):
            while [queued.message.kommunenummer for queued in await world.queued()] != ["0301"]:
                pass  # each round waits for the database's own thread
        topics.refuse = lambda _: None
        await topics.until(lambda: topics.types().count("SENDT") == 2)
    assert topics.types().count("AKSEPTERT") == 2


async def test_a_message_that_can_never_be_published_stops_its_own_soknad_alone(
    world: Any, keys: Any, make_sending: Any
) -> None:
    topics = Topics()
    await world.post(make_sending(seed=1, encrypt_for=keys.mottak), path="0301/stor")
    first = (await world.queued())[0].message.digisos_id.encode()
    await world.post(make_sending(seed=2, encrypt_for=keys.mottak), path="0301/liten")
    topics.refuse = lambda record: (
        RecordTooLargeError("for stor") if (record.key, record.topic) == (first, SOKNAD) else None
    )
    with structlog.testing.capture_logs() as logs:
        async with running(world, topics) as relay:
            await topics.until(lambda: topics.types().count("SENDT") == 1)
            assert "aldri" in (relay.notice() or "")
            assert relay.problem() is None
    assert [log["log_level"] for log in logs if log["event"] == "message_unpublishable"] == ["critical"]


async def test_when_a_message_that_can_never_be_published_has_gone_another_way_what_follows_it_leaves(
    world: Any, sending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "BACKLOG_EVERY_S", 0.01)
    topics = Topics()
    topics.refuse = lambda record: RecordTooLargeError("for stor") if record.topic == SOKNAD else None
    await world.post(sending)
    _, queued = await world.queued()
    async with running(world, topics) as relay:
        await topics.until(lambda: "aldri" in (relay.notice() or ""))
        await world.database.write(lambda connection: withdraw(connection, queued.message.melding_id))
        await topics.until(lambda: relay.notice() is None)
        event = decode(TransportRecord, topics.records[0].value or b"")
        follows = transport_message(event.model_copy(update={"hendelse_id": Uuid.new()}), None)
        await world.database.write(lambda connection: insert_message(connection, follows))
        world.outbox.added.set()
        await topics.until(lambda: topics.types() == ["AKSEPTERT", "AKSEPTERT"])
    assert await world.queued() == []


@pytest.mark.parametrize(
    "damage",
    [
        {"verdi": b"\0", "headere": "[]"},
        {"headere": '[["fiks_nokkel_id", "x"]]'},
        {"headere": '[["fiks_gyldig_til", "x"]]'},
        {"headere": "[["},
        {"melding_id": "x"},
    ],
    ids=["verdi", "nokkel", "frist", "headere", "melding_id"],
)
async def test_a_row_that_cannot_be_read_holds_its_own_soknad_alone_with_one_alarm(
    world: Any, keys: Any, make_sending: Any, damage: dict[str, Any]
) -> None:
    topics = Topics()
    await world.post(make_sending(seed=1, encrypt_for=keys.mottak), path="0301/skadet")
    _, queued = await world.queued()
    change = f"UPDATE utboks SET {', '.join(f'{name} = ?' for name in damage)} WHERE nr = ?"
    await world.database.write(lambda connection: connection.execute(change, (*damage.values(), queued.nr)).rowcount)
    await world.post(make_sending(seed=2, encrypt_for=keys.mottak), path="0301/hel")
    sealing = Forsegler(world.katalog, world.kopier, world.clock)
    sealing.refresh()
    collaborators = Collaborators(sealing=sealing, packages=Packages(world.dokumentlager))
    with structlog.testing.capture_logs() as logs:
        async with running(world, topics, collaborators=collaborators) as relay:
            await topics.until(lambda: topics.types().count("SENDT") == 1 and relay.notice() is not None)
            assert relay.problem() is None
    assert topics.types().count("SOKNAD") == 1
    assert len([log for log in logs if log["log_level"] == "critical"]) == 1


async def test_an_outbox_that_cannot_be_written_repeats_itself_and_loses_nothing(
    world: Any, sending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = Topics()
    real, fail = world.outbox.replace, 2

    async def replace(*arguments: Any) -> Any:
        nonlocal fail
        if fail:
            fail -= 1
            raise StoreError("disken er full")
        return await real(*arguments)

    monkeypatch.setattr(world.outbox, "replace", replace)
    async with running(world, topics) as relay:
        await world.post(sending)
        await topics.until(lambda: "SENDT" in topics.types())
        assert relay.problem() is None
    assert topics.types() == ["AKSEPTERT", "SOKNAD"] * 3 + ["SENDT"]
    assert await world.queued() == []


async def test_stopping_lets_what_is_under_way_end(world: Any, sending: Any) -> None:
    topics = Topics()
    await world.post(sending)
    async with running(world, topics):
        await topics.until(lambda: topics.tried > 0)
    assert topics.types() == ["AKSEPTERT", "SOKNAD", "SENDT"]


async def test_each_published_message_has_its_line(world: Any, sending: Any) -> None:
    topics = Topics()
    with structlog.testing.capture_logs() as logs:
        async with running(world, topics):
            await world.post(sending)
            await topics.until(lambda: len(topics.records) == 3)
    lines = [log for log in logs if log["event"] == "message_published"]
    assert [line["type"] for line in lines] == ["AKSEPTERT", "SOKNAD", "SENDT"]
    assert sending.fodselsnummer not in str(logs)


async def test_what_its_receiver_may_no_longer_begin_with_is_not_published_and_its_escalation_goes_out(
    world: Any, keys: Any, make_sending: Any
) -> None:
    topics = Topics()
    first = make_sending(seed=1, encrypt_for=keys.mottak)
    await world.post(first)
    world.now += timedelta(hours=24)
    async with running(world, topics):
        await topics.until(lambda: topics.types() == ["AKSEPTERT"])
        await world.post(make_sending(seed=2, encrypt_for=keys.mottak), path="0301/ref-2")
        await topics.until(lambda: len(topics.records) == 4)
        assert topics.types().count("SOKNAD") == 1  # the other's, who is in time
        world.now += MARGIN
        eskalerer = Eskalerer(
            kopier=world.kopier, katalog=world.katalog, kanaler=(), clock=world.clock, added=world.outbox.added
        )
        await eskalerer.look()
        await topics.until(lambda: len(topics.records) == 7)
    codes = [decode(TransportRecord, record.value or b"").kode for record in topics.records[4:]]
    assert codes == ["frist-utlopt", "kanal-mangler", "ingen-kanal"]
    assert await world.queued() == []
