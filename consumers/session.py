"""The loop around the delivery core, for as long as one subscription to Kafka lasts.

Every event and every command passes through ``_feed``; everything that happens to a søknad is logged once per attempt
(``consumers.delivery_log``).

Rules:

1. Partitions that are assigned stay paused until the local store knows what is on the kvittering topic (``consumers.rebuild``);
   they are *ours* from then on, until they are revoked. What ends after that leaves nothing behind.
2. Commands are carried out in tasks; results come back as events. An error that is not ours is logged, loudly, with its place,
   and counts against its record alone; the others flow.
3. Before partitions go, nothing new starts, and what is under way gets some seconds to end.
4. A kvittering that the former owner had on its way may come to the topic after we have read it. So the topic is read once more
   when its time is out, and what lost its place to such a one is issued again (``consumers.kvitteringer``, rule 4).
5. Time is the clock's, and the clock may leap forward: what waits for time is looked at again every second.
6. While the fagsystem is down and nothing is read, withdrawals further on are looked for (``consumers.lookahead``).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

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
    Withdraw,
)
from broker.krasj import crash_point
from broker.record import TopicPartition
from broker.retry import ALWAYS, Random, delay
from consumers.committing import Committer
from consumers.delivery_log import DeliveryLog, Work
from consumers.job import Job, unexpected
from schemas.errors import MeldingsformidlerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from broker.clock import Clock
    from broker.delivery_messages import Command, Event, Limits
    from broker.ports import RebalanceListener
    from broker.record import Incoming
    from consumers.delivering import Deliverer
    from consumers.kvitteringer import Kvitteringer
    from consumers.lookahead import Lookahead
    from consumers.rebuild import Rebuilder
    from consumers.subscription import Subscription
    from schemas.names import DigisosId, Kommunenummer

T = TypeVar("T")

DRAIN_S: Final = 5.0
"""How long deliveries that are out may take to end before their partition goes; well under the session time-out."""
SECOND_LOOK_S: Final = 45.0
"""After this time nothing that a former owner had on its way can come to the topic any more: more than a publication may last."""
LEAP_S: Final = 1.0
"""How soon a leap of the clock is noticed."""


class DeliverySession:
    """One kommune's deliveries during one subscription; also the subscription's ``RebalanceListener``.

    Args:
        kommunenummer: The kommune.
        topic: Its søknad topic.
        deliverer: Carries out commands.
        kvitteringer: Has what a former process left unpublished.
        rebuilder: Brings the local store up to date, and knows its dead keys.
        lookahead: Looks for withdrawals; None looks for none.
        limits: How much may be open.
        clock: What the time is.
        random: Spreads retries.
        on_assigned: Called when partitions have become ours.
    """

    def __init__(
        self,
        kommunenummer: Kommunenummer,
        *,
        topic: str,
        deliverer: Deliverer,
        kvitteringer: Kvitteringer,
        rebuilder: Rebuilder,
        lookahead: Lookahead | None = None,
        limits: Limits,
        clock: Clock,
        random: Random,
        on_assigned: Callable[[], None] = lambda: None,
    ) -> None:
        self._kommunenummer = kommunenummer
        self._topic = topic
        self._deliverer = deliverer
        self._kvitteringer = kvitteringer
        self._rebuilder = rebuilder
        self._lookahead = lookahead
        self._clock = clock
        self._random = random
        self._on_assigned = on_assigned
        self._core = Delivery(random=random, limits=limits)
        self._jobs: dict[tuple[int, int], Job] = {}
        self._assignments = 0
        self._moved = asyncio.Event()
        self._ours: set[int] = set()
        self._committer = Committer(kommunenummer, random)
        self._background: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._timer: asyncio.TimerHandle | None = None
        self._behind: str | None = None
        self.is_reading = False
        """Whether the subscription is there."""
        self.was_reading = False
        """Whether it ever was."""
        self._tell = DeliveryLog(kommunenummer)
        self._log = self._tell.log

    def problem(self) -> str | None:
        """Return why the kommune is not served as it should be, None when all is well."""
        if not self.is_reading:
            return "leser ikke fra Kafka"
        if self._tell.stuck:
            return f"{self._tell.stuck} svar kan ikke publiseres; se loggen (delivery_failed)"
        return self._behind

    def owns(self, digisos_id: DigisosId) -> bool:
        """Return whether this process is the one that answers for the søknad."""
        return self.is_reading and self._subscriber.partition_of(self._topic, digisos_id.encode("ascii")) in self._ours

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
                self._in_background(self._committer.run(self._subscriber))
                try:
                    await self._subscriber.start()
                    self.is_reading = self.was_reading = True
                    async for batch in self._subscriber:
                        for incoming in batch:
                            self._receive(incoming)
                finally:
                    self.is_reading = False
                    await self._subscriber.stop()  # revokes, and so drains
                    for task in self._background:
                        task.cancel()
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
        await self._committer.commit_now(self._subscriber)

    # What the subscriber tells.

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Partitions are about to go."""
        self._look_ahead(wanted=False)
        await self.drain()
        numbers = frozenset(one.partition for one in partitions)
        self._assignments += 1
        self._moved.set()
        self._ours -= numbers
        self._feed(Revoked(numbers))
        self._tell.gone(numbers)
        self._jobs = {place: job for place, job in self._jobs.items() if place[0] not in numbers}
        self._committer.forget(partitions)

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Partitions have come; they stay paused until the store is up to date."""
        self._subscriber.pause(*partitions)
        self._assignments += 1
        self._behind = "leser inn kvitteringsemnet"
        numbers = frozenset(one.partition for one in partitions)
        self._moved = asyncio.Event()
        self._in_background(self._begin(numbers, self._assignments, self._moved))

    async def _begin(self, partitions: frozenset[int], assignment: int, moved: asyncio.Event) -> None:
        async def learn() -> None:
            await self._rebuilder.catch_up()
            if assignment == self._assignments:
                self._ours |= partitions
                crash_point("consumers.session.caught-up")
                await self._kvitteringer.reconcile(self.owns)

        await self._until_done(learn)
        dead_keys = await self._until_done(self._rebuilder.dead_keys)
        if assignment != self._assignments:
            return
        self._behind = None
        self._log.info("partitions_assigned", topic=self._topic, antall=len(partitions))
        self._subscriber.resume(*self._places(partitions))
        self._feed(Assigned(partitions, dead_keys))
        self._look_ahead(wanted=self._core.is_down)
        self._on_assigned()
        with suppress(TimeoutError):
            async with asyncio.timeout(SECOND_LOOK_S):
                await moved.wait()
                return
        await self._until_done(learn)
        self._behind = None

    async def _until_done(self, work: Callable[[], Awaitable[T]]) -> T:
        failures = 0
        while True:
            try:
                result = await work()
            except MeldingsformidlerError as error:
                failures += 1
                wait = delay(ALWAYS, failures, self._random).total_seconds()
                self._behind = f"lageret er ikke à jour med kvitteringsemnet: {error}"
                self._log.warning("store_not_up_to_date", vent_s=round(wait, 1), exc_info=error)
                await asyncio.sleep(wait)
            else:
                return result

    def _receive(self, incoming: Incoming) -> None:
        partition = incoming.partition
        job = Job.of(incoming, self._kommunenummer)
        job.is_ours = lambda: partition in self._ours
        self._jobs[partition, incoming.offset] = job
        record = job.record
        self._feed(
            Received(
                partition,
                incoming.offset,
                job.key,
                size=job.held_bytes,
                urgent=record is not None and record.hastegrad == "NODHJELP",
                redriven=job.redrives > 0,
                error=job.error,
                melding=job.melding_id,
                expires=record.gyldig_til if record else None,
                withdraws=job.withdraws,
            )
        )

    # Events in, commands out.

    def _feed(self, event: Event) -> None:
        for command in self._core.handle(event, self._clock()):
            self._obey(command)
        self._tell.opened(self._core.open_records)
        self._set_timer()

    def _obey(self, command: Command) -> None:
        match command:
            case Deliver() | Withdraw() | DeadLetter() | PublishKvittering():
                self._running += 1
                self._idle.clear()
                self._tasks.create_task(self._carry_out(command))
            case Commit(partition, offset):
                self._committer.want(TopicPartition(self._topic, partition), offset)
            case Pause(partitions):
                self._subscriber.pause(*self._places(partitions))
            case Resume(partitions):
                self._subscriber.resume(*self._places(partitions))
            case Retry():
                self._tell.postponed(command, (command.at - self._clock()).total_seconds())
            case FagsystemDown(probe_at, error):
                self._tell.went_down((probe_at - self._clock()).total_seconds(), error)
                self._look_ahead(wanted=True)
            case FagsystemUp():
                self._tell.came_back()
                self._look_ahead(wanted=False)

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
            self._tell.tell(job, command, event, asyncio.get_running_loop().time() - began)
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
            case Withdraw():
                return await self._deliverer.withdraw(job, command)
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

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._core.next_due
        if due is not None:
            wait = max(0.0, (due - self._clock()).total_seconds())
            self._timer = asyncio.get_running_loop().call_later(min(wait, LEAP_S), self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        due = self._core.next_due
        if due is not None and due <= self._clock():
            self._feed(Due())
        else:
            self._set_timer()

    # Beside the deliveries.

    def _look_ahead(self, *, wanted: bool) -> None:
        is_looking = self._looking is not None and not self._looking.done()
        if wanted and not is_looking and self._lookahead is not None:
            self._looking = self._in_background(self._find_withdrawals(self._lookahead))
        elif not wanted and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    async def _find_withdrawals(self, lookahead: Lookahead) -> None:
        try:
            positions = await self._subscriber.positions()
        except MeldingsformidlerError as error:
            self._log.warning("lookahead_broke", exc_info=error)
        else:
            await lookahead.run(positions, self._feed)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._tasks.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def _places(self, partitions: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in sorted(partitions)]


def _ends(event: Event) -> bool:
    return isinstance(event, KvitteringPublished) or (isinstance(event, DeadLettered) and not event.answerable)
