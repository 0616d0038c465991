"""How long the citizen waits for a new status, at 100 søknader a second, and how long the event loop stands still.

1. From the call of ``Producer.submit`` here until MOTTATT is committed in the status store of a ``kvittering`` process, by way
   of a connector process (``python -m consumers``, RSA-3072, its fagsystem in memory), all through one real Kafka; against two
   bare produce-consume round trips through the same Kafka at the same rate. Arrivals are on a fixed schedule, so that one who
   waits is not forgiven (no coordinated omission). Each slice gives a 99th percentile; the row shows the medians of these, in
   slices that take turns. The machine should have nothing else to do: the four processes ask for well over a core between them,
   and where that is not to be had the row shows a queue.
2. The longest pause of the event loop while it takes in as many søknader as it can. The goal is an amount, so the row judges the
   pause itself; its floor is the longest pause of a loop with nothing to do, in turns with it. Threads that hold the interpreter
   and whatever else runs on the machine are in the pause too; the last row is what the loop itself worked in one pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from _rows import Row, medians, print_table
from _sender import (
    DEADLINE_S,
    Cluster,
    all_kommuner,
    cluster,
    connector_environment,
    kvittering_environment,
    make_katalog,
    publish_katalog,
    running_sender,
    scratch,
    sending_to,
    write_keys,
)
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from broker.kafka.admin import KafkaAdmin
from broker.routing import TopicSpec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from _sender import Sender

    from broker.kafka.settings import KafkaSettings
    from schemas.names import DigisosId

KOMMUNER = all_kommuner()[:6]
PER_SECOND = 100
SLICE = 300
SLICES = 4
FLOOR_TOPICS = ("bench.en.v1", "bench.to.v1")
FLOOR_BYTES = 13_000
GOAL = 4.0

PAUSE_SLICES = 5
PAUSE_SLICE = 250
PAUSE_AT_ONCE = 32
PAUSE_GOAL_MS = 20.0
BEAT_S = 0.001


def rows() -> list[Row]:
    """Measure; takes about 45 seconds."""
    return asyncio.run(_rows())


async def _rows() -> list[Row]:
    async with (
        scratch() as folder,
        cluster(KOMMUNER, folder) as kafka,
        running_sender(kafka.producers, make_katalog(KOMMUNER), folder) as sender,
    ):
        return [await _latency_row(kafka, sender, folder), *await _pause_rows(sender)]


async def _latency_row(kafka: Cluster, sender: Sender, folder: Path) -> Row:
    await publish_katalog(kafka.admin, KOMMUNER)
    write_keys(KOMMUNER, folder)
    kvittering = kafka.kvittering.environment() | kvittering_environment(KOMMUNER, folder)
    connector = kafka.connector.environment() | connector_environment(KOMMUNER, folder)
    async with (
        Watcher.running(kvittering, status="MOTTATT") as watcher,
        child("-m", "consumers", environment=connector),
        RoundTrips.running(kafka.admin) as bare,
    ):

        async def ours(nr: int) -> float:
            called = time.monotonic()
            digisos_id = await sender.submit(sending_to(KOMMUNER[nr % len(KOMMUNER)]))
            return await watcher.seen(digisos_id) - called

        await _at_rate(ours, PER_SECOND)
        await _at_rate(bare.twice, PER_SECOND)
        figures: tuple[list[float], list[float]] = [], []
        for _ in range(SLICES):
            for arm, call in enumerate((ours, bare.twice)):
                figures[arm].append(_p99_ms(await _at_rate(call, SLICE)))
    mine, floor = medians(figures)
    name = f"innsending til MOTTATT synlig, p99 ved {PER_SECOND}/s, mot to bare rundturer"
    return Row(name, mine, floor, mine / floor, GOAL, "lower", "ms")


async def _at_rate(call: Callable[[int], Awaitable[float]], count: int) -> list[float]:
    """Call ``count`` times on schedule, whether or not former calls have returned; return what they return."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        calls: list[asyncio.Task[float]] = []
        for nr in range(count):
            await asyncio.sleep(max(start + nr / PER_SECOND - loop.time(), 0))
            calls.append(tasks.create_task(_awaited(call, nr)))
    return [one.result() for one in calls]


async def _awaited(call: Callable[[int], Awaitable[float]], nr: int) -> float:
    return await call(nr)


def _p99_ms(seconds: Sequence[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)] * 1000


@asynccontextmanager
async def child(
    *arguments: str, environment: dict[str, str], stdout: int = asyncio.subprocess.DEVNULL
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run Python in another process for as long as the context lasts; that it ends by itself is an error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=stdout, env=os.environ | environment
    )

    async def fail_when_it_ends() -> None:
        raise RuntimeError(f"{' '.join(arguments[:2])} ended with {await process.wait()}")

    try:
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(fail_when_it_ends())
            yield process
            waiting.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Watcher:
    """A ``kvittering`` process, and when it showed a status of each søknad first."""

    def __init__(self, status: str) -> None:
        self._status = status
        self._seen: dict[str, asyncio.Future[float]] = {}

    @classmethod
    @asynccontextmanager
    async def running(cls, environment: dict[str, str], *, status: str) -> AsyncGenerator[Watcher]:
        watcher = cls(status)
        script = str(Path(__file__).with_name("_watched_kvittering.py"))
        async with (
            child(script, environment=environment, stdout=asyncio.subprocess.PIPE) as process,
            asyncio.TaskGroup() as tasks,
        ):
            reading = tasks.create_task(watcher._read(process))
            yield watcher
            reading.cancel()

    async def seen(self, digisos_id: DigisosId) -> float:
        """Wait until the status was visible; return when that was, in seconds of ``time.monotonic``."""
        return await self._future(digisos_id)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            raise RuntimeError("no pipe")
        async for line in process.stdout:
            digisos_id, status, nanoseconds = line.decode().split()
            future = self._future(digisos_id)
            if status == self._status and not future.done():
                future.set_result(int(nanoseconds) / 1e9)

    def _future(self, digisos_id: str) -> asyncio.Future[float]:
        if digisos_id not in self._seen:
            self._seen[digisos_id] = asyncio.get_running_loop().create_future()
        return self._seen[digisos_id]


class RoundTrips:
    """The floor: aiokafka alone, idempotent and ``acks=all`` as ours, one record at a time there and back again."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._arrived: dict[tuple[str, bytes], asyncio.Event] = {}
        self._value = os.urandom(FLOOR_BYTES)

    @classmethod
    @asynccontextmanager
    async def running(cls, kafka: KafkaSettings) -> AsyncGenerator[RoundTrips]:
        async with KafkaAdmin(kafka) as admin:
            await admin.ensure_topics(TopicSpec(name, 1) for name in FLOOR_TOPICS)
        producer = AIOKafkaProducer(**kafka.connection(), acks="all", enable_idempotence=True)
        consumer = AIOKafkaConsumer(*FLOOR_TOPICS, **kafka.connection(), auto_offset_reset="earliest")
        async with AsyncExitStack() as stack:
            for client in (producer, consumer):
                await client.start()
                stack.push_async_callback(client.stop)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            trips = cls(producer)
            reading = tasks.create_task(trips._read(consumer))
            yield trips
            reading.cancel()

    async def twice(self, _: int) -> float:
        """Go there and back twice; return the seconds that it took."""
        key, started = os.urandom(16), time.monotonic()
        for topic in FLOOR_TOPICS:
            arrived = self._arrived[topic, key] = asyncio.Event()
            await self._producer.send(topic, self._value, key=key)
            await arrived.wait()
        return time.monotonic() - started

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    self._arrived.pop((record.topic, record.key or b"")).set()


@dataclass(frozen=True)
class Pause:
    """How long a loop once let a ready task wait, and how long it worked itself meanwhile; milliseconds."""

    wait: float
    work: float


async def _pause_rows(sender: Sender) -> list[Row]:
    sendings = [sending_to(KOMMUNER[nr % len(KOMMUNER)]) for nr in range(PAUSE_SLICE)]
    busy: list[Pause] = []
    idle: list[Pause] = []
    for _ in range(PAUSE_SLICES):
        started = time.monotonic()
        busy.append(await _longest_pause(sender.submit_all(sendings, at_once=PAUSE_AT_ONCE)))
        idle.append(await _longest_pause(asyncio.sleep(time.monotonic() - started)))
    return [
        _pause_row("hendelsesløkkens lengste pause under full last, ms", busy, idle, lambda pause: pause.wait),
        _pause_row("  av dette løkkens eget arbeid (CPU), ms", busy, idle, lambda pause: pause.work),
    ]


def _pause_row(name: str, busy: Sequence[Pause], idle: Sequence[Pause], of: Callable[[Pause], float]) -> Row:
    ours, floor = median(map(of, busy)), median(map(of, idle))
    return Row(name, ours, floor, ours, PAUSE_GOAL_MS, "lower", "ms")


async def _longest_pause(work: Awaitable[object]) -> Pause:
    """Return the longest wait and the longest work of the loop between two beats, while ``work`` was done."""
    waits, works = [0.0], [0.0]

    async def beat() -> None:
        while True:
            moment, worked = time.monotonic(), time.thread_time()
            await asyncio.sleep(BEAT_S)
            waits.append(time.monotonic() - moment - BEAT_S)
            works.append(time.thread_time() - worked)

    beating = asyncio.create_task(beat())
    try:
        await work
    finally:
        beating.cancel()
    return Pause(max(waits) * 1000, max(works) * 1000)


if __name__ == "__main__":
    print_table(rows())
