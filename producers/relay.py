"""The relay: empties the outbox onto the topics.

Rules:

1. One digisosId at a time is one task, which publishes its messages in order; many digisosId-er are under way at once.
2. A topic that refuses is held for a while, growing with each failure; the others flow. While ``fiks.transport.v1`` refuses
   (that is, while Kafka is away) one digisosId at a time is tried.
3. Nothing is given up. A message that Kafka will never take stops its own digisosId and is shouted about.
4. Memory is bounded: what waits stays on disk, and at most ``MAX_IN_FLIGHT_BYTES`` are under way.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from broker.krasj import crash_point
from broker.log import get_logger
from broker.retry import Course, Rule, delay
from broker.routing import TRANSPORT
from producers import metrics
from producers.messages import sent_message
from schemas.errors import RecordTooLargeError, StoreError, TransportError
from schemas.names import DigisosId
from schemas.records import SOKNAD

if TYPE_CHECKING:
    from broker.clock import Clock
    from broker.ports import Publisher
    from broker.retry import Random
    from producers.outbox import Message, Outbox, Queued
    from schemas.errors import MeldingsformidlerError

MAX_IN_FLIGHT: Final = 256
STOP_GRACE_S: Final = 5.0
MAX_IN_FLIGHT_BYTES: Final = 16 * 1024 * 1024
BACKLOG_EVERY_S: Final = 2.0
HOLD: Final = Rule(Course.WAIT, first=timedelta(seconds=0.25), ceiling=timedelta(seconds=30))


@dataclass(slots=True)
class _Hold:
    """A topic that refuses.

    Attributes:
        failures: How many times in a row.
        until: When to try again, in the loop's time.
        code: Of the last error.
    """

    failures: int
    until: float
    code: str


class Relay:
    """Publishes what is in the outbox until told to stop.

    Args:
        outbox: Where messages come from.
        publisher: Where they go.
        clock: What the time is, for SENDT.
        jitter: Spreads the waits.
    """

    def __init__(self, outbox: Outbox, publisher: Publisher, clock: Clock, *, jitter: Random = random.random) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._clock = clock
        self._jitter = jitter
        self._holds: dict[str, _Hold] = {}
        self._stuck: set[DigisosId] = set()
        self._under_way: dict[DigisosId, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._store_hold: _Hold | None = None
        self._wake = outbox.added

    def problem(self) -> str | None:
        """Return why messages do not leave, for ``/isready``; None while they do."""
        if self._store_hold is not None:
            return "utboksen kan ikke leses eller skrives"
        if (hold := self._holds.get(TRANSPORT)) is not None:
            return f"Kafka tar ikke imot ({hold.code}); søknader tas imot og ligger i utboksen"
        if self._holds:
            return f"{len(self._holds)} emner tar ikke imot; meldingene ligger i utboksen"
        if self._stuck:
            return f"{len(self._stuck)} søknader har en melding som Kafka aldri vil ta"
        return None

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until ``stop`` is set, then let what is under way end, for at most ``STOP_GRACE_S``."""
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(self._wake_at(stop))
            reporting = group.create_task(self._report())
            try:
                while not stop.is_set():
                    self._wake.clear()
                    await self._fill(group)
                    await self._wait()
                if self._tasks:
                    await asyncio.wait(self._tasks, timeout=STOP_GRACE_S)
            finally:
                # What is cancelled stays in the outbox and is published again after the next start.
                for task in (reporting, stopping, *self._tasks):
                    task.cancel()

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    async def _report(self) -> None:
        while True:
            try:
                backlog = await self._outbox.backlog()
            except StoreError as error:
                get_logger().error("outbox_unreadable", exc_info=error)
            else:
                age = (self._clock() - backlog.oldest).total_seconds() if backlog.oldest else 0.0
                metrics.OUTBOX_MESSAGES.set(backlog.messages)
                metrics.OUTBOX_OLDEST_SECONDS.set(max(age, 0.0))
            await asyncio.sleep(BACKLOG_EVERY_S)

    async def _fill(self, group: asyncio.TaskGroup) -> None:
        """Start what may be started."""
        now = asyncio.get_running_loop().time()
        held = [topic for topic, hold in self._holds.items() if hold.until > now]
        most = 1 if TRANSPORT in self._holds else MAX_IN_FLIGHT
        room = most - len(self._under_way)
        left = MAX_IN_FLIGHT_BYTES - sum(self._under_way.values())
        waiting_for_store = self._store_hold is not None and self._store_hold.until > now
        if room <= 0 or left <= 0 or TRANSPORT in held or waiting_for_store:
            return
        busy = [*self._under_way, *self._stuck]
        try:
            runs = await self._outbox.waiting(busy=busy, held=held, max_runs=room, max_bytes=left)
        except StoreError as error:
            self._store_failed(error)
            return
        if not runs:
            self._store_hold = None
        for run in runs:
            digisos_id = run[0].message.digisos_id
            self._under_way[digisos_id] = sum(len(queued.message.outgoing.value or b"") for queued in run)
            task = group.create_task(self._deliver(digisos_id, run))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _wait(self) -> None:
        """Wait until something was added or has ended, or a hold is over."""
        now = asyncio.get_running_loop().time()
        holds = [*self._holds.values(), *([self._store_hold] if self._store_hold else [])]
        try:
            async with asyncio.timeout(min((hold.until - now for hold in holds if hold.until > now), default=None)):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _deliver(self, digisos_id: DigisosId, run: list[Queued]) -> None:
        try:
            while run:
                run = await self._publish_run(run)
        except StoreError as error:
            self._store_failed(error)
        finally:
            del self._under_way[digisos_id]
            self._wake.set()

    async def _publish_run(self, run: list[Queued]) -> list[Queued]:
        """Publish the messages in order as far as Kafka takes them; return those that this led to."""
        sent: list[Queued] = []
        led_to: list[Message] = []
        for queued in run:
            begun = self._clock()  # the kommune may answer before we have seen Kafka's acknowledgement
            if not await self._publish(queued):
                break
            sent.append(queued)
            if queued.message.type == SOKNAD:
                led_to.append(sent_message(queued.message, begun))
        new = await self._outbox.replace(sent, led_to) if sent else []
        crash_point("producers.relay.after-replace")
        self._store_hold = None
        # Behind a message that was refused, the new ones wait for their turn like all others.
        return new if len(sent) == len(run) else []

    async def _publish(self, queued: Queued) -> bool:
        message = queued.message
        topic = message.outgoing.topic
        try:
            crash_point("producers.relay.before-publish")
            position = await self._publisher.publish(message.outgoing)
            crash_point("producers.relay.after-publish")
        except RecordTooLargeError as error:
            self._stuck.add(message.digisos_id)
            get_logger().critical(
                "message_unpublishable", digisos_id=message.digisos_id, type=message.type, topic=topic, exc_info=error
            )
            return False
        except TransportError as error:
            self._hold(topic, error)
            return False
        if self._holds.pop(topic, None) is not None:
            get_logger().info("topic_resumed", topic=topic)
        metrics.MESSAGES_PUBLISHED.labels(type=message.type).inc()
        get_logger().info(
            "message_published",
            digisos_id=message.digisos_id,
            melding_id=message.melding_id,
            kommunenummer=message.kommunenummer,
            type=message.type,
            topic=topic,
            partition=position.partition,
            offset=position.offset,
            alder_s=round((self._clock() - message.queued).total_seconds(), 3),
        )
        return True

    def _hold(self, topic: str, error: TransportError) -> None:
        hold = self._longer(self._holds.get(topic), error)
        if hold is not None:
            self._holds[topic] = hold
            get_logger().warning("topic_held", topic=topic, forsok=hold.failures, exc_info=error)

    def _store_failed(self, error: StoreError) -> None:
        hold = self._longer(self._store_hold, error)
        if hold is not None:
            self._store_hold = hold
            get_logger().error("outbox_failed", forsok=hold.failures, exc_info=error)

    def _longer(self, former: _Hold | None, error: MeldingsformidlerError) -> _Hold | None:
        """Return the next hold, or None while the former lasts: others that were under way say the same thing."""
        now = asyncio.get_running_loop().time()
        if former is not None and former.until > now:
            return None
        failures = former.failures + 1 if former else 1
        return _Hold(failures, now + delay(HOLD, failures, self._jitter).total_seconds(), error.code)
