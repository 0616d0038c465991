"""The relay: empties the outbox onto the topics.

Rules:

1. One digisosId at a time is one task, which publishes its messages in order; many digisosId-er are under way at once.
2. A topic that refuses is held for a while, growing with each failure; the others flow. Then it is tried with one digisosId.
   While ``fiks.transport.v1`` refuses (that is, while Kafka is away) one digisosId at a time is tried in all.
3. Nothing is given up. A message that Kafka will never take stops its own digisosId and is shouted about; so does one that cannot
   be read, or whose package is not what it should be. When such a message has gone another way, what stood behind it leaves.
4. Memory is bounded: what waits stays on disk, and at most ``MAX_IN_FLIGHT_BYTES`` are under way.
5. Of several instances, each relays the buckets that it leases. Without a lease nothing is begun, and nothing removed.
6. A topic that is not the one we know takes nothing until a person has said so (``producers.topic_watch``).
7. What its receiver may no longer begin with is not published. The escalation takes it out of here, and it goes on another way.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.krasj import crash_point
from broker.log import get_logger
from broker.routing import TRANSPORT
from producers import metrics
from producers.holds import Holds
from producers.leases import SoleLeases
from producers.messages import sent_message
from producers.outbox import Backlog, Sent
from producers.outbox_rows import expires_of
from producers.picking import Bounds
from producers.relay_ports import Closed, Collaborators
from producers.sharing import bucket_of
from schemas.errors import (
    ContractError,
    CopyGoneError,
    CryptoError,
    PackageDamagedError,
    PackageMissingError,
    RecordTooLargeError,
    StoreError,
    TransportError,
)
from schemas.records import SOKNAD

if TYPE_CHECKING:
    from broker.clock import Clock
    from broker.ports import Publisher
    from broker.retry import Random
    from producers.leases import Fence, Leases
    from producers.outbox import Message, Outbox, Queued
    from schemas.errors import MeldingsformidlerError
    from schemas.names import DigisosId

MAX_IN_FLIGHT: Final = 256
STOP_GRACE_S: Final = 5.0
MAX_IN_FLIGHT_BYTES: Final = 16 * 1024 * 1024
BACKLOG_EVERY_S: Final = 2.0
REFILL: Final = 64
"""So much room there must be before a full relay looks for more: each look goes past all that is under way."""
RESCAN_S: Final = 5.0
"""So often the outbox is looked through from its beginning, whatever was found there before."""
STORE: Final = "utboks"
EXPIRED: Final = "frist-utlopt"


@dataclass(frozen=True, slots=True)
class _Work:
    """A digisosId under way: how many bytes, and for which topics."""

    size: int
    topics: frozenset[str]


class Relay:
    """Publishes what is in the outbox until told to stop.

    Args:
        outbox: Where messages come from.
        publisher: Where they go.
        clock: What the time is, for SENDT.
        leases: Which buckets are ours; all of them when not given.
        collaborators: What else may keep messages back.
        jitter: Spreads the waits.
    """

    def __init__(
        self,
        outbox: Outbox,
        publisher: Publisher,
        clock: Clock,
        *,
        leases: Leases | None = None,
        collaborators: Collaborators | None = None,
        jitter: Random = random.random,
    ) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._clock = clock
        self._leases = leases or SoleLeases()
        self._others = collaborators or Collaborators()
        self._topics: Holds[str] = Holds(jitter)
        self._packages: Holds[DigisosId] = Holds(jitter)
        self._damaged: dict[DigisosId, int] = {}
        self._expired: Holds[DigisosId] = Holds(jitter)
        self._store: Holds[str] = Holds(jitter)
        self._stuck: frozenset[int] = frozenset()
        self._under_way: dict[DigisosId, _Work] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = outbox.added
        self._backlog = Backlog(0, None)
        self._after = 0
        self._scanned: tuple[object, float] = (None, 0.0)

    def problem(self) -> str | None:
        """Return why messages do not leave, for ``/isready``; None while they do."""
        if len(self._store):
            return "utboksen kan ikke leses eller skrives"
        if (hold := self._topics.get(TRANSPORT)) is not None:
            age = round(asyncio.get_running_loop().time() - hold.since)
            return f"Kafka tar ikke imot ({hold.code}), nå i {age} s; søknader tas imot, {self._waiting()}"
        return None

    def notice(self) -> str | None:
        """Return what does not leave while everything else does, for ``/isready``."""
        if len(self._topics):
            return f"{len(self._topics)} emner tar ikke imot; {self._waiting()}"
        if len(self._packages):
            return (
                f"{len(self._packages)} søknader har en pakke som mangler, er skadet eller ikke kan forsegles på nytt"
            )
        if self._stuck:
            return f"{len(self._stuck)} meldinger vil Kafka aldri ta, eller de kan ikke leses"
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
                self._backlog = await self._outbox.backlog()
                self._forget(await self._outbox.gone(self._stuck | set(self._damaged.values())))
            except StoreError as error:
                get_logger().error("outbox_unreadable", exc_info=error)
            else:
                metrics.OUTBOX_MESSAGES.set(self._backlog.messages)
                metrics.OUTBOX_OLDEST_SECONDS.set(self._oldest_s())
            await asyncio.sleep(BACKLOG_EVERY_S)

    def _forget(self, gone: frozenset[int]) -> None:
        """Stop telling of messages that have gone another way (rule 3)."""
        if not gone:
            return
        self._stuck -= gone
        for digisos_id in [one for one, nr in self._damaged.items() if nr in gone]:
            del self._damaged[digisos_id]
            self._packages.clear(digisos_id)
        self._wake.set()

    def _oldest_s(self) -> float:
        oldest = self._backlog.oldest
        return max((self._clock() - oldest).total_seconds(), 0.0) if oldest else 0.0

    def _waiting(self) -> str:
        return f"{self._backlog.messages} meldinger venter i utboksen, den eldste i {round(self._oldest_s())} s"

    async def _fill(self, group: asyncio.TaskGroup) -> None:
        """Start what may be started."""
        bounds = self._bounds(asyncio.get_running_loop().time())
        if bounds is None:
            return
        try:
            waiting = await self._outbox.waiting(bounds)
        except StoreError as error:
            self._store_failed(error)
            return
        self._after = waiting.after
        for nr in waiting.unreadable:
            self._stuck |= {nr}
            self._wake.set()
            get_logger().critical("message_unreadable", nr=nr)
        if not waiting.runs:
            self._store.clear(STORE)
        owned = self._leases.buckets()
        for run in waiting.runs:
            bucket = bucket_of(run[0].message.digisos_id)
            if owned is None or bucket in owned:  # it may have gone while we read
                self._start(group, run, bucket)

    def _bounds(self, now: float) -> Bounds | None:
        """Return what may be started; None for nothing."""
        trial = self._topics.on_trial(now)
        busy_topics = {topic for work in self._under_way.values() for topic in work.topics}
        held = self._topics.closed(now) | (trial & busy_topics)
        most = 1 if self._topics.get(TRANSPORT) else MAX_IN_FLIGHT
        room = most - len(self._under_way)
        left = MAX_IN_FLIGHT_BYTES - sum(work.size for work in self._under_way.values())
        buckets = self._leases.buckets()
        shut = TRANSPORT in held or self._store.closed(now) or self._others.gate() is not None
        full = room < min(REFILL, most) or left < MAX_IN_FLIGHT_BYTES // 4
        if full or shut or (buckets is not None and not buckets):
            return None
        stuck = self._packages.closed(now) | self._expired.closed(now)
        return Bounds(
            # As it is before the outbox is read: what ends meanwhile still stands in what the reader sees.
            busy=frozenset(self._under_way),
            stuck=stuck,
            stuck_rows=self._stuck,
            held=Closed(held, self._others.topics),
            single=trial - held,
            buckets=buckets,
            max_runs=room,
            max_bytes=left,
            after=self._place(now, (held, buckets, stuck, self._stuck, self._others.topics.version)),
        )

    def _place(self, now: float, scene: object) -> int:
        """Return where to look from: the beginning when anything has opened or closed, and every now and then."""
        former, scanned = self._scanned
        if former != scene or now - scanned >= RESCAN_S:
            self._scanned = (scene, now)
            self._after = 0
        return self._after

    def _start(self, group: asyncio.TaskGroup, run: list[Queued], bucket: str) -> None:
        digisos_id = run[0].message.digisos_id
        size = sum(len(queued.message.outgoing.value or b"") for queued in run)
        self._under_way[digisos_id] = _Work(size, frozenset(queued.message.outgoing.topic for queued in run))
        task = group.create_task(self._deliver(digisos_id, run, bucket, self._leases.fence(bucket)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wait(self) -> None:
        """Wait until something was added or has ended, a hold is over, or it is time to look."""
        now = asyncio.get_running_loop().time()
        times = [holds.next_until(now) for holds in (self._topics, self._packages, self._expired, self._store)]
        if self._leases.poll_s is not None:
            times.append(now + self._leases.poll_s)
        # Also when nothing was found: whoever took something in may have gone before it could wake us.
        times.append(max(self._scanned[1], now - RESCAN_S / 2) + RESCAN_S)
        try:
            async with asyncio.timeout_at(min((moment for moment in times if moment is not None), default=None)):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _deliver(self, digisos_id: DigisosId, run: list[Queued], bucket: str, fence: Fence | None) -> None:
        try:
            with self._leases.working(bucket):
                while run:
                    run = await self._publish_run(run, fence)
        except StoreError as error:
            self._store_failed(error)
        finally:
            del self._under_way[digisos_id]
            self._wake.set()

    async def _publish_run(self, run: list[Queued], fence: Fence | None) -> list[Queued]:
        """Publish the messages in order as far as Kafka takes them; return those that this led to."""
        sent: list[Sent] = []
        for queued in run:
            begun = self._clock()  # the kommune may answer before we have seen Kafka's acknowledgement
            if not self._leases.holds(fence) or not await self._publish(queued):
                break
            sent.append(Sent(queued, sent_message(queued.message, begun) if queued.message.type == SOKNAD else None))
        if not sent:
            return []
        replaced = await self._outbox.replace(sent, fence)
        crash_point("producers.relay.after-replace")
        self._store.clear(STORE)
        if replaced is None or replaced.gone:
            metrics.MESSAGES_REPEATED.inc(len(sent) if replaced is None else replaced.gone)
            get_logger().warning("lease_lost", digisos_id=run[0].message.digisos_id, antall=len(sent))
        # Behind a message that was refused, the new ones wait for their turn like all others.
        return replaced.new if replaced is not None and len(sent) == len(run) else []

    async def _publish(self, queued: Queued) -> bool:
        message = queued.message
        topic = message.outgoing.topic
        try:
            if self._is_expired(message):
                return False
            if not (await self._others.sealing.current(queued) and await self._package_is_whole(queued)):
                return False
            crash_point("producers.relay.before-publish")
            position = await self._publisher.publish(message.outgoing)
            crash_point("producers.relay.after-publish")
        except (PackageDamagedError, PackageMissingError, CryptoError, CopyGoneError, ContractError) as error:
            self._package_failed(queued, error)
            return False
        except RecordTooLargeError as error:
            self._stuck |= {queued.nr}
            get_logger().critical(
                "message_unpublishable", digisos_id=message.digisos_id, type=message.type, topic=topic, exc_info=error
            )
            return False
        except TransportError as error:
            self._hold(topic, error)
            return False
        if self._topics.clear(topic):
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

    async def _package_is_whole(self, queued: Queued) -> bool:
        """Return whether the package may be told of; one file that cannot be read is no fault of the outbox (rule 3)."""
        try:
            await self._others.packages.check(queued.message)
        except (PackageDamagedError, PackageMissingError, StoreError) as error:
            self._package_failed(queued, error)
            return False
        self._packages.clear(queued.message.digisos_id)
        self._damaged.pop(queued.message.digisos_id, None)
        return True

    def _is_expired(self, message: Message) -> bool:
        """Return whether the receiver may no longer begin (rule 7); others of the same søknad wait for the escalation too."""
        expires = expires_of(message)
        if expires is None or self._clock() < expires:
            self._expired.clear(message.digisos_id)
            return False
        hold = self._expired.fail(message.digisos_id, EXPIRED, asyncio.get_running_loop().time())
        if hold is not None and hold.failures == 1:
            get_logger().warning("message_expired", digisos_id=message.digisos_id, melding_id=message.melding_id)
        return True

    def _hold(self, topic: str, error: TransportError) -> None:
        hold = self._topics.fail(topic, error.code, asyncio.get_running_loop().time())
        if hold is not None:
            get_logger().warning("topic_held", topic=topic, forsok=hold.failures, exc_info=error)

    def _package_failed(self, queued: Queued, error: MeldingsformidlerError) -> None:
        digisos_id = queued.message.digisos_id
        self._damaged[digisos_id] = queued.nr
        hold = self._packages.fail(digisos_id, error.code, asyncio.get_running_loop().time())
        if hold is not None and hold.failures == 1:
            get_logger().critical("package_unusable", digisos_id=digisos_id, exc_info=error)

    def _store_failed(self, error: StoreError) -> None:
        hold = self._store.fail(STORE, error.code, asyncio.get_running_loop().time())
        if hold is not None:
            get_logger().error("outbox_failed", forsok=hold.failures, exc_info=error)
