"""The relay under leases, closed topics, damaged packages and a closed gate."""

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
from producers.leases import SQLITE_NOW, SqlLeases
from producers.packages import Packages
from producers.picking import Bounds
from producers.queueing import withdraw
from producers.relay import Relay
from producers.relay_ports import BothGates, Collaborators, OpenTopics
from schemas.codec import decode
from schemas.errors import AccessDeniedError, BrokerUnavailableError, StoreError, TransportError
from schemas.records import TransportRecord

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from producers.outbox import Waiting

TRANSPORT = "fiks.transport.v1"
OSLO = "fiks.0301.soknad.v1"


class Topics:
    """A publisher in memory that can be told to refuse, or to wait."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []
        self.tried: list[Outgoing] = []
        self.refuse: Callable[[Outgoing], TransportError | None] = lambda _: None
        self.go = asyncio.Event()
        self.go.set()

    async def publish(self, outgoing: Outgoing) -> RecordPosition:
        self.tried.append(outgoing)
        await self.go.wait()
        if (error := self.refuse(outgoing)) is not None:
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

    async def stay_untried(self) -> None:
        """See over many rounds of the relay that nothing is published."""
        for _ in range(20):
            await asyncio.sleep(0.005)
            assert self.tried == []


class Gate:
    """A gate over topics that a test opens and closes."""

    def __init__(self, *closed: str) -> None:
        self.names = set(closed)
        self.version = 0

    def closed(self, topic: str) -> bool:
        return topic in self.names

    def open(self, topic: str) -> None:
        self.names.discard(topic)
        self.version += 1


@asynccontextmanager
async def running(world: Any, topics: Any, **options: Any) -> AsyncGenerator[Relay]:
    relay = Relay(world.outbox, topics, world.clock, jitter=lambda: 0.0, **options)
    stop = asyncio.Event()
    task = asyncio.create_task(relay.run(stop))
    try:
        yield relay
    finally:
        stop.set()
        await task


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    hold = holds_module.HOLD
    first = hold.first / 10
    monkeypatch.setattr(holds_module, "HOLD", type(hold)(hold.course, first=first, ceiling=first * 4))
    monkeypatch.setattr(relay_module, "RESCAN_S", 0.05)
    monkeypatch.setattr(SqlLeases, "poll_s", 0.02)


async def post(world: Any, make_sending: Any, *refs: str, **options: Any) -> list[str]:
    return [
        (await world.post(make_sending(seed=nr, encrypt_for=world.keys.mottak, **options), path=f"0301/{ref}")).json()
        for nr, ref in enumerate(refs)
    ]


async def test_without_a_lease_nothing_leaves_and_with_one_everything_does(world: Any, make_sending: Any) -> None:
    leases = SqlLeases(world.database, SQLITE_NOW, world.outbox.added)
    topics = Topics()
    async with running(world, topics, leases=leases):
        await post(world, make_sending, "a", "b")
        await topics.stay_untried()
        await leases.beat()
        await topics.until(lambda: topics.types().count("SENDT") == 2)
    assert await world.queued() == []


async def test_two_instances_over_one_outbox_publish_each_message_once(world: Any, make_sending: Any) -> None:
    topics = Topics()
    both = [SqlLeases(world.database, SQLITE_NOW, world.outbox.added, instance=name) for name in "ab"]
    for _ in range(3):
        for leases in both:
            await leases.beat()
    assert [len(leases.buckets() or ()) for leases in both] == [128, 128]
    async with running(world, topics, leases=both[0]), running(world, topics, leases=both[1]):
        ids = await post(world, make_sending, *[f"ref-{nr}" for nr in range(20)])
        await topics.until(lambda: topics.types().count("SENDT") == 20)
    assert len(topics.records) == 60
    for digisos_id in ids:
        mine = [
            one for one, record in zip(topics.types(), topics.records, strict=True) if record.key == digisos_id.encode()
        ]
        assert mine == ["AKSEPTERT", "SOKNAD", "SENDT"]


async def test_one_whose_lease_is_taken_while_it_publishes_removes_nothing_and_begins_nothing(
    world: Any, make_sending: Any
) -> None:
    topics = Topics()
    now = [1000.0]
    zombie = SqlLeases(world.database, SQLITE_NOW, world.outbox.added, instance="a", elapsed=lambda: now[0])
    await zombie.beat()
    topics.go.clear()
    with structlog.testing.capture_logs() as logs:
        async with running(world, topics, leases=zombie):
            await post(world, make_sending, "a")
            await topics.until(lambda: len(topics.tried) == 1)
            await world.database.write(
                lambda c: c.execute("UPDATE leie SET instans = 'b', symbol = symbol + 1").rowcount
            )
            now[0] += 60
            topics.go.set()
            await topics.until(lambda: len(topics.records) == 1)
    assert [record.topic for record in topics.tried] == [TRANSPORT]  # and not the søknad
    assert len(await world.queued()) == 2
    assert [log["event"] for log in logs if log["event"] == "lease_lost"] == ["lease_lost"]


async def test_a_closed_topic_holds_its_kommune_alone_until_it_opens(world: Any, keys: Any, make_sending: Any) -> None:
    world.katalog.put(world.katalog.get("0301").model_copy(update={"kommunenummer": "4601"}))
    gate, topics = Gate(OSLO), Topics()
    collaborators = Collaborators(topics=BothGates(OpenTopics(), gate))
    async with running(world, topics, collaborators=collaborators):
        await post(world, make_sending, "oslo")
        bergen = make_sending(seed=5, encrypt_for=keys.mottak, kommunenummer="4601")
        await world.post(bergen, path="4601/bergen")
        await topics.until(lambda: topics.types().count("SENDT") == 1)
        assert OSLO not in {record.topic for record in topics.tried}
        gate.open(OSLO)
        world.outbox.added.set()
        await topics.until(lambda: topics.types().count("SENDT") == 2)


async def test_behind_a_closed_gate_nothing_leaves(world: Any, make_sending: Any) -> None:
    problem: list[str | None] = ["databasen er gammel"]
    topics = Topics()
    async with running(world, topics, collaborators=Collaborators(gate=lambda: problem[0])):
        await post(world, make_sending, "a")
        await topics.stay_untried()
        problem[0] = None
        world.outbox.added.set()
        await topics.until(lambda: topics.types().count("SENDT") == 1)


async def test_a_topic_that_refused_is_tried_with_one_soknad_at_a_time(world: Any, make_sending: Any) -> None:
    topics = Topics()
    topics.refuse = lambda record: AccessDeniedError("nei") if record.topic == OSLO else None
    await post(world, make_sending, *[f"ref-{nr}" for nr in range(12)])
    async with running(world, topics) as relay:
        await topics.until(lambda: topics.types().count("AKSEPTERT") == 12)
        before = len([record for record in topics.tried if record.topic == OSLO])
        await topics.until(lambda: len([record for record in topics.tried if record.topic == OSLO]) >= before + 3)
        tried = [record.key for record in topics.tried if record.topic == OSLO][before:]
        assert len(set(tried)) == 1  # the oldest, again and again
        assert "1 emner" in (relay.notice() or "")
        topics.refuse = lambda _: None
        await topics.until(lambda: topics.types().count("SENDT") == 12)
        assert relay.notice() is None


async def test_a_damaged_package_stops_its_own_soknad_with_one_alarm_until_it_is_whole(
    world: Any, make_sending: Any
) -> None:
    topics = Topics()
    await post(world, make_sending, "stor", sizes=(1_000_000, 3000, 2500))
    (path,) = world.stored_files()
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    await post(world, make_sending, "liten")
    with structlog.testing.capture_logs() as logs:
        async with running(world, topics, collaborators=Collaborators(packages=Packages(world.dokumentlager))) as relay:
            await topics.until(lambda: topics.types().count("SENDT") == 1)
            assert "skadet" in (relay.notice() or "")
            path.write_bytes(whole)
            await topics.until(lambda: topics.types().count("SENDT") == 2)
            assert relay.notice() is None
    assert [log["log_level"] for log in logs if log["event"] == "package_unusable"] == ["critical"]


async def test_a_damaged_package_that_has_gone_another_way_is_told_of_no_more(
    world: Any, make_sending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "BACKLOG_EVERY_S", 0.01)
    topics = Topics()
    await post(world, make_sending, "stor", sizes=(1_000_000, 3000, 2500))
    (path,) = world.stored_files()
    path.write_bytes(b"skadet")
    _, queued = await world.queued()
    async with running(world, topics, collaborators=Collaborators(packages=Packages(world.dokumentlager))) as relay:
        await topics.until(lambda: "skadet" in (relay.notice() or ""))
        await world.database.write(lambda connection: withdraw(connection, queued.message.melding_id))
        await topics.until(lambda: relay.notice() is None)


class OneUnreadable(Packages):
    """One file that cannot be read: a bad sector, or another owner's."""

    async def check_stored(self, *_: Any, **__: Any) -> None:
        raise StoreError("dokumentlageret kan ikke skrives eller leses (Input/output error)")


async def test_a_package_that_cannot_be_read_stops_its_own_soknad_alone(world: Any, make_sending: Any) -> None:
    topics = Topics()
    await post(world, make_sending, "stor", sizes=(1_000_000, 3000, 2500))
    packages = OneUnreadable(world.dokumentlager)
    async with running(world, topics, collaborators=Collaborators(packages=packages)) as relay:
        await topics.until(lambda: relay.notice() is not None)
        assert relay.problem() is None
        await post(world, make_sending, "liten")
        await topics.until(lambda: topics.types().count("SENDT") == 1)


async def test_what_was_taken_in_by_somebody_who_went_before_waking_the_relay_leaves_all_the_same(
    world: Any, make_sending: Any
) -> None:
    topics = Topics()
    async with running(world, topics):
        await topics.stay_untried()
        world.outbox.added = asyncio.Event()  # nobody listens to this one
        await post(world, make_sending, "a")
        await topics.until(lambda: topics.types().count("SENDT") == 1)


async def test_what_ends_while_the_outbox_is_read_is_not_taken_from_what_the_reader_sees(
    world: Any, make_sending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = Topics()
    topics.go.clear()
    asked: list[Bounds] = []
    waiting = world.outbox.waiting

    async def look(bounds: Bounds) -> Waiting:
        asked.append(bounds)
        found: Waiting = await waiting(bounds)
        return found

    monkeypatch.setattr(world.outbox, "waiting", look)
    (first,) = await post(world, make_sending, "a")
    async with running(world, topics):
        await topics.until(lambda: len(topics.tried) == 1)
        await topics.until(lambda: any(first in bounds.busy for bounds in asked))
        busy = next(bounds.busy for bounds in asked if first in bounds.busy)
        topics.go.set()
        await topics.until(lambda: topics.types().count("SENDT") == 1)
    assert first in busy


async def test_an_outage_is_told_with_how_long_and_how_much_waits(
    world: Any, make_sending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "BACKLOG_EVERY_S", 0.01)
    topics = Topics()
    topics.refuse = lambda _: BrokerUnavailableError("Kafka svarer ikke")
    async with running(world, topics) as relay:
        await post(world, make_sending, "a", "b")
        world.now += timedelta(seconds=90)
        await topics.until(lambda: "4 meldinger venter i utboksen, den eldste i 90 s" in (relay.problem() or ""))
        assert "søknader tas imot" in (relay.problem() or "")
        topics.refuse = lambda _: None
        await topics.until(lambda: topics.types().count("SENDT") == 2)
        assert relay.problem() is None
