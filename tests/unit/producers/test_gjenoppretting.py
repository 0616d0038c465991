from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from prometheus_client import REGISTRY

from broker.record import Incoming, TopicPartition
from broker.sql.sqlite import SqliteDatabase
from producers import metrics
from producers.database import MIGRATIONS
from producers.gjenoppretting import Progress, Register, State
from producers.outbox import Outbox
from producers.packages import Packages
from schemas.codec import decode, encode
from schemas.errors import BrokerUnavailableError, ConfigurationError
from schemas.names import NavEksternRefId
from schemas.records import TransportRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from pathlib import Path

TRANSPORT = "fiks.transport.v1"


class Topic:
    """The transport topic in memory, one partition; ``away`` fails the next so many opens."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.away = 0
        self.opened_at: list[int] = []
        self.added = asyncio.Event()

    def add(self, *values: bytes) -> None:
        self.values += values
        self.added.set()

    @asynccontextmanager
    async def open(self, topics: Iterable[str], offsets: Mapping[TopicPartition, int]) -> AsyncIterator[Tail]:
        assert list(topics) == [TRANSPORT]
        if self.away:
            self.away -= 1
            raise BrokerUnavailableError("borte")
        start = offsets.get(TopicPartition(TRANSPORT, 0), 0)
        if start > len(self.values):
            raise ConfigurationError("emnet slutter før")
        self.opened_at.append(start)
        yield Tail(self, start)


class Tail:
    def __init__(self, topic: Topic, start: int) -> None:
        self.caught_up = asyncio.Event()
        self._topic = topic
        self._next = start
        self._end = len(topic.values)

    async def __aiter__(self) -> AsyncIterator[list[Incoming]]:
        while True:
            if self._next >= self._end:
                self.caught_up.set()
            batch = self._topic.values[self._next : self._next + 2]
            if not batch:
                self._topic.added.clear()
                await self._topic.added.wait()
                continue
            first, self._next = self._next, self._next + len(batch)
            yield [Incoming(TRANSPORT, 0, first + nr, 0, b"k", value) for nr, value in enumerate(batch)]


async def aksepterts(world: Any) -> list[bytes]:
    return [q.message.outgoing.value for q in await world.queued() if q.message.type == "AKSEPTERT"]


@asynccontextmanager
async def running(register: Register) -> AsyncIterator[None]:
    task = asyncio.create_task(register.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(register: Register, state: State) -> None:
    async with asyncio.timeout(10):
        while register.problem() != (state.value or None):  # noqa: ASYNC110 - polls what has no event
            await asyncio.sleep(0.005)


@pytest.fixture
def topic() -> Topic:
    return Topic()


@pytest.fixture
async def backup(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    """A database of before everything."""
    async with SqliteDatabase(tmp_path / "gammel.sqlite", MIGRATIONS) as database:
        yield database


async def send(world: Any, make_sending: Any, *refs: str, **options: Any) -> None:
    for nr, ref in enumerate(refs, 1):
        sending = make_sending(seed=nr, encrypt_for=world.keys.mottak, **options)
        assert (await world.post(sending, path=f"0301/{ref}")).status_code == 202


async def test_a_database_that_knows_everything_on_the_topic_is_level(
    world: Any, make_sending: Any, topic: Topic
) -> None:
    await send(world, make_sending, "a", "b", "c")
    topic.add(b"uleselig", *await aksepterts(world))
    opened: list[int] = []
    register = Register(world.database, topic.open, lambda: opened.append(1))
    assert register.problem() == State.CHECKING.value
    async with running(register):
        await until(register, State.LEVEL)
    assert opened == [1]


async def test_an_outage_at_the_start_is_waited_out(world: Any, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producers.gjenoppretting.FIRST_WAIT_S", 0.01)
    topic.away = 2
    register = Register(world.database, topic.open, lambda: None)
    async with running(register):
        await until(register, State.LEVEL)


async def test_how_far_was_read_is_kept_so_that_the_next_start_reads_on_from_there(
    world: Any, make_sending: Any, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.gjenoppretting.KEEP_EVERY_S", 0.01)
    await send(world, make_sending, "a", "b", "c")
    topic.add(*await aksepterts(world))
    register = Register(world.database, topic.open, lambda: None)
    async with running(register):
        await until(register, State.LEVEL)
        async with asyncio.timeout(10):
            while not (  # noqa: ASYNC110 - polls what has no event
                rows := await world.database.read(lambda c: c.execute("SELECT neste FROM transport_lest").fetchall())
            ):
                await asyncio.sleep(0.01)
    assert [row[0] for row in rows] == [3]
    again = Register(world.database, topic.open, lambda: None)
    async with running(again):
        await until(again, State.LEVEL)
    assert topic.opened_at == [0, 3]


async def test_an_old_database_stops_everything_until_its_references_have_been_read_back(
    world: Any, make_sending: Any, topic: Topic, backup: SqliteDatabase
) -> None:
    await send(world, make_sending, "a", "b", "c")
    topic.add(*await aksepterts(world))
    register = Register(backup, topic.open, lambda: None)
    with structlog.testing.capture_logs() as logs:
        async with running(register):
            await until(register, State.BEHIND)
            steps = [step async for step in register.restore(Packages(world.dokumentlager), ())]
            await until(register, State.LEVEL)
    assert "formidler utboks gjenopprett" in State.BEHIND.value
    assert [log["log_level"] for log in logs if log["event"] == "register_behind"] == ["critical"]
    assert steps[-1] == Progress(read=3, restored=3, done=True)
    for ref in "abc":
        here, there = [await box.find(NavEksternRefId(ref)) for box in (world.outbox, Outbox(backup))]
        assert here == there
        assert here is not None
    again = [step async for step in register.restore(Packages(world.dokumentlager), ())]
    assert again[-1] == Progress(done=True)  # nothing left to read: the offsets came along


async def test_reading_back_again_from_the_beginning_changes_nothing(
    world: Any, make_sending: Any, topic: Topic
) -> None:
    await send(world, make_sending, "a", "b")
    topic.add(*await aksepterts(world))
    register = Register(world.database, topic.open, lambda: None)
    steps = [step async for step in register.restore(Packages(world.dokumentlager), ())]
    assert steps[-1] == Progress(read=2, done=True)


async def test_a_reference_that_is_another_soknads_here_stays_and_is_counted(
    world: Any, make_sending: Any, topic: Topic, backup: SqliteDatabase
) -> None:
    await send(world, make_sending, "a")
    (value,) = await aksepterts(world)
    record = decode(TransportRecord, value)
    other = record.model_copy(update={"melding_id": record.digisos_id, "digisos_id": record.melding_id})
    topic.add(value, encode(other))
    register = Register(backup, topic.open, lambda: None)
    steps = [step async for step in register.restore(Packages(world.dokumentlager), ())]
    assert (steps[-1].restored, steps[-1].conflicts) == (1, 1)
    found = await Outbox(backup).find(NavEksternRefId("a"))
    assert found is not None
    assert found.digisos_id == record.digisos_id


async def test_a_large_package_that_nothing_referred_to_is_found_again_by_its_digest(
    world: Any, make_sending: Any, topic: Topic, backup: SqliteDatabase
) -> None:
    await send(world, make_sending, "liten")
    await send(world, make_sending, "stor", sizes=(1_000_000, 3000, 2500))
    topic.add(*await aksepterts(world))
    register = Register(backup, topic.open, lambda: None)
    metrics.PACKAGES_UNKNOWN.set(1)
    steps = [step async for step in register.restore(Packages(world.dokumentlager), ())]
    assert (steps[-1].restored, steps[-1].packages) == (2, 1)
    assert REGISTRY.get_sample_value("fiks_packages_unknown") == 0
    assert await Outbox(backup).packages() == await world.outbox.packages()
    (package,) = await world.outbox.packages()
    assert await Outbox(backup).package(package) == await world.outbox.package(package)


async def test_reading_back_that_kafka_breaks_off_says_so_and_can_be_done_again(
    world: Any, make_sending: Any, topic: Topic, backup: SqliteDatabase
) -> None:
    await send(world, make_sending, "a")
    topic.add(*await aksepterts(world))
    topic.away = 1
    register = Register(backup, topic.open, lambda: None)
    with pytest.raises(BrokerUnavailableError):
        _ = [step async for step in register.restore(Packages(world.dokumentlager), ())]
    steps = [step async for step in register.restore(Packages(world.dokumentlager), ())]
    assert steps[-1].restored == 1


async def test_a_topic_that_ends_before_our_offsets_is_another_until_a_person_says_otherwise(
    world: Any, topic: Topic
) -> None:
    await world.database.write(lambda c: c.execute("INSERT INTO transport_lest VALUES (0, 99)").rowcount)
    register = Register(world.database, topic.open, lambda: None)
    async with running(register):
        await until(register, State.OTHER_TOPIC)
        await register.forget()
        await until(register, State.LEVEL)


async def test_one_that_appears_while_the_process_runs_closes_the_door_too(
    world: Any, make_sending: Any, topic: Topic, backup: SqliteDatabase
) -> None:
    register = Register(backup, topic.open, lambda: None)
    async with running(register):
        await until(register, State.LEVEL)
        await send(world, make_sending, "a")
        topic.add(*await aksepterts(world))
        await until(register, State.BEHIND)


async def test_while_the_database_is_behind_nothing_is_taken_in(world: Any, sending: Any) -> None:
    world.producer._closed = lambda: State.BEHIND.value
    answer = await world.post(sending)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "300")
    assert "eldre enn det som er mottatt" in answer.json()["message"]
    assert answer.json()["errorCode"] == "innsending.avvist.gjenoppretting"
    assert await world.queued() == []
