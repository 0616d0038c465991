"""The loop around the delivery core, for as long as one subscription to Kafka lasts.

Every event and every command passes through ``_feed``; everything that happens to a søknad is logged here, once per attempt.

Rules:

1. Partitions that are assigned stay paused until the local store knows what is on the kvittering topic (``consumers.rebuild``).
2. Commands are carried out in tasks; results come back as events. An error that is not ours is logged, loudly, with its place,
   and counts against its record alone; the others flow.
3. Commits are coalesced: the newest offset of each partition, one request at a time.
4. Before partitions go, nothing new starts, and what is under way gets some seconds to end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from broker.delivery import Delivery
from broker.delivery_messages import (
    Assigned,
    Commit,
    DeadLetter,
    DeadLettered,
    Deliver,
    Draining,
    Due,
    FagsystemDown,
    FagsystemUp,
    Failed,
    KvitteringPublished,
    Pause,
    PublishKvittering,
    Received,
    Resume,
    Retry,
    Revoked,
)
from broker.krasj import crash_point
from broker.log import get_logger
from broker.ports import Subscriber
from broker.record import TopicPartition
from broker.retry import ALWAYS, Random, delay
from consumers import metrics
from consumers.delivering import Job, unexpected
from schemas.errors import MeldingsformidlerError, PartitionLostError, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from broker.clock import Clock
    from broker.delivery_messages import Command, Event, Limits, Ticket
    from broker.ports import RebalanceListener
    from broker.record import Incoming
    from consumers.delivering import Deliverer
    from consumers.kvitteringer import Kvitteringer
    from consumers.rebuild import Rebuilder
    from schemas.names import Kommunenummer

DRAIN_S: Final = 5.0
"""How long deliveries that are out may take to end before their partition goes; well under the session time-out."""


class Subscription(Subscriber, Protocol):
    """A ``Subscriber`` that is started and stopped."""

    async def start(self) -> None:
        """Join the group."""
        ...

    async def stop(self) -> None:
        """Tell the listener that all partitions are revoked, and leave the group. May be called twice."""
        ...


Work = Deliver | DeadLetter | PublishKvittering


class DeliverySession:
    """One kommune's deliveries during one subscription; also the subscription's ``RebalanceListener``.

    Args:
        kommunenummer: The kommune.
        topic: Its søknad topic.
        deliverer: Carries out commands.
        kvitteringer: Has what a former process left unpublished.
        rebuilder: Brings the local store up to date.
        dead_keys: From the local store.
        limits: How much may be open.
        clock: What the time is.
        random: Spreads retries.
    """

    def __init__(
        self,
        kommunenummer: Kommunenummer,
        *,
        topic: str,
        deliverer: Deliverer,
        kvitteringer: Kvitteringer,
        rebuilder: Rebuilder,
        dead_keys: Iterable[str],
        limits: Limits,
        clock: Clock,
        random: Random,
    ) -> None:
        self._kommunenummer = kommunenummer
        self._topic = topic
        self._deliverer = deliverer
        self._kvitteringer = kvitteringer
        self._rebuilder = rebuilder
        self._clock = clock
        self._random = random
        self._core = Delivery(random=random, limits=limits, dead_keys=dead_keys)
        self._jobs: dict[tuple[int, int], Job] = {}
        self._assignments = 0
        self._offsets: dict[TopicPartition, int] = {}
        self._commit_wanted = asyncio.Event()
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._timer: asyncio.TimerHandle | None = None
        self.is_reading = False
        """Whether the subscription is there."""
        self.was_reading = False
        """Whether it ever was."""
        self._log = get_logger().bind(kommunenummer=kommunenummer)
        self._up = metrics.FAGSYSTEM_UP.labels(kommunenummer=kommunenummer)
        self._open = metrics.OPEN_RECORDS.labels(kommunenummer=kommunenummer)
        self._up.set(1)

    async def run(self, make_subscriber: Callable[[RebalanceListener], Subscription]) -> None:
        """Subscribe, and deliver until cancelled; what is under way then gets some seconds to end.

        Args:
            make_subscriber: Makes the subscription, not started, with this session as its listener.

        Raises:
            TransportError: The subscription is over; begin a new session.
        """
        self._subscriber = make_subscriber(self)
        try:
            async with asyncio.TaskGroup() as self._tasks:
                committing = self._tasks.create_task(self._commit_forever())
                try:
                    await self._subscriber.start()
                    self.is_reading = self.was_reading = True
                    async for batch in self._subscriber:
                        for incoming in batch:
                            self._receive(incoming)
                finally:
                    self.is_reading = False
                    await self._subscriber.stop()  # revokes, and so drains
                    committing.cancel()
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def drain(self) -> None:
        """Start nothing more, and return when what is under way has ended, or after some seconds."""
        self._feed(Draining())
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._idle.wait()
        except TimeoutError:
            self._log.warning("deliveries_abandoned", antall=self._running)
        await self._commit_now()

    # What the subscriber tells.

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Partitions are about to go."""
        await self.drain()
        numbers = frozenset(one.partition for one in partitions)
        self._assignments += 1
        self._feed(Revoked(numbers))
        self._jobs = {place: job for place, job in self._jobs.items() if place[0] not in numbers}
        self._offsets = {place: offset for place, offset in self._offsets.items() if place not in partitions}

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Partitions have come; they stay paused until the store is up to date."""
        self._subscriber.pause(*partitions)
        self._assignments += 1
        numbers = frozenset(one.partition for one in partitions)
        self._tasks.create_task(self._begin(numbers, self._assignments))

    async def _begin(self, partitions: frozenset[int], assignment: int) -> None:
        failures = 0
        while True:
            try:
                await self._rebuilder.catch_up()
                crash_point("consumers.session.caught-up")
                await self._kvitteringer.load()
                await self._kvitteringer.publish_left()
                break
            except MeldingsformidlerError as error:
                failures += 1
                wait = delay(ALWAYS, failures, self._random).total_seconds()
                self._log.warning("store_not_up_to_date", vent_s=round(wait, 1), exc_info=error)
                await asyncio.sleep(wait)
        if assignment == self._assignments:
            self._log.info("partitions_assigned", topic=self._topic, antall=len(partitions))
            self._subscriber.resume(*self._places(partitions))
            self._feed(Assigned(partitions))

    def _receive(self, incoming: Incoming) -> None:
        job = Job.of(incoming, self._kommunenummer)
        self._jobs[incoming.partition, incoming.offset] = job
        urgent = job.record is not None and job.record.hastegrad == "NODHJELP"
        self._feed(
            Received(
                incoming.partition,
                incoming.offset,
                job.key,
                size=len(incoming.value),
                urgent=urgent,
                redriven=job.redrives > 0,
                error=job.error,
            )
        )

    # Events in, commands out.

    def _feed(self, event: Event) -> None:
        for command in self._core.handle(event, self._clock()):
            self._obey(command)
        self._open.set(self._core.open_records)
        self._set_timer()

    def _obey(self, command: Command) -> None:
        match command:
            case Deliver() | DeadLetter() | PublishKvittering():
                self._running += 1
                self._idle.clear()
                self._tasks.create_task(self._carry_out(command))
            case Commit(partition, offset):
                self._offsets[TopicPartition(self._topic, partition)] = offset
                self._commit_wanted.set()
            case Pause(partitions):
                self._subscriber.pause(*self._places(partitions))
            case Resume(partitions):
                self._subscriber.resume(*self._places(partitions))
            case Retry(ticket, at, error, attempts):
                self._tell_retry(ticket, (at - self._clock()).total_seconds(), error, attempts)
            case FagsystemDown(probe_at, error):
                self._up.set(0)
                wait = (probe_at - self._clock()).total_seconds()
                self._log.warning("fagsystem_went_down", vent_s=round(wait, 1), exc_info=error)
            case FagsystemUp():
                self._up.set(1)
                self._log.info("fagsystem_came_back")

    async def _carry_out(self, command: Work) -> None:
        job = self._jobs.get((command.ticket.partition, command.ticket.offset))
        if job is None:
            raise RuntimeError("a command for a record that was never received")
        began = asyncio.get_running_loop().time()
        try:
            try:
                event = await self._work(job, command)
            except MeldingsformidlerError as error:
                event = Failed(command.ticket, error)
            except Exception as error:  # noqa: BLE001 - a record must never stop the others (rule 2)
                event = Failed(command.ticket, unexpected(error, job.incoming))
            self._tell(job, command, event, asyncio.get_running_loop().time() - began)
            if _ends(event):
                self._let_go(job)
            self._feed(event)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def _work(self, job: Job, command: Work) -> Event:
        match command:
            case Deliver():
                return await self._deliverer.deliver(job, command)
            case DeadLetter():
                return await self._deliverer.dead_letter(job, command)
            case PublishKvittering():
                await self._deliverer.publish(job, command)
                return KvitteringPublished(command.ticket)

    def _let_go(self, job: Job) -> None:
        """Forget a record that is done, but not the same one read again by a later assignment."""
        place = job.incoming.partition, job.incoming.offset
        if self._jobs.get(place) is job:
            del self._jobs[place]

    def _tell(self, job: Job, command: Work, event: Event, duration_s: float) -> None:
        """Write the canonical line of one attempt, and count it. Publishing has no line of its own unless it fails."""
        failed = event.error if isinstance(event, Failed) else None
        if isinstance(command, PublishKvittering) and failed is None:
            return
        if isinstance(command, Deliver):
            metrics.DELIVERY_SECONDS.observe(duration_s)
            metrics.DELIVERIES.labels(resultat="FEILET" if failed else job.resultat).inc()
        if isinstance(command, DeadLetter) and failed is None:
            metrics.DEAD_LETTERS.labels(kode=command.error.code).inc()
        record = job.record
        done = "soknad_dead_lettered" if isinstance(command, DeadLetter) else "soknad_delivered"
        level = self._log.warning if failed or isinstance(command, DeadLetter) else self._log.info
        level(
            "delivery_failed" if failed else done,
            digisos_id=job.digisos_id,
            melding_id=job.melding_id,
            type=record.type if record else None,
            hastegrad=record.hastegrad if record else None,
            partition=job.incoming.partition,
            offset=job.incoming.offset,
            resultat="FEILET" if failed else job.resultat,
            kode=failed.code if failed else command.error.code if isinstance(command, DeadLetter) else None,
            forsok=command.attempt if isinstance(command, Deliver) else None,
            storrelse=record.storrelse if record else len(job.incoming.value),
            trace_id=job.traceparent.split("-")[1],
            varighet_ms=round(duration_s * 1000, 1),
        )

    def _tell_retry(self, ticket: Ticket, wait_s: float, error: MeldingsformidlerError, attempts: int) -> None:
        self._log.info(
            "delivery_postponed",
            partition=ticket.partition,
            offset=ticket.offset,
            kode=error.code,
            forsok=attempts,
            vent_s=round(wait_s, 1),
        )

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._core.next_due
        if due is not None:
            wait = max(0.0, (due - self._clock()).total_seconds())
            self._timer = asyncio.get_running_loop().call_later(wait, self._feed, Due())

    # Commits.

    async def _commit_forever(self) -> None:
        failures = 0
        while True:
            await self._commit_wanted.wait()
            if await self._commit_now():
                failures = 0
                continue
            failures += 1
            await asyncio.sleep(delay(ALWAYS, failures, self._random).total_seconds())

    async def _commit_now(self) -> bool:
        """Commit what there is; whether it worked, or need not be tried again."""
        offsets, self._offsets = self._offsets, {}
        self._commit_wanted.clear()
        if not offsets:
            return True
        try:
            crash_point("consumers.session.before-commit")
            await self._subscriber.commit(offsets)
            crash_point("consumers.session.after-commit")
        except PartitionLostError:
            return True  # whoever has it now reads the records again, and finds them answered
        except TransportError as error:
            self._offsets = offsets | self._offsets
            self._commit_wanted.set()
            self._log.warning("commit_failed", exc_info=error)
            return False
        return True

    def _places(self, partitions: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in sorted(partitions)]


def _ends(event: Event) -> bool:
    return isinstance(event, KvitteringPublished) or (isinstance(event, DeadLettered) and not event.answerable)
