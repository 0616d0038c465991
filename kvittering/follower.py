"""Which topics are read, and from where: those of the katalog, from where the store left off.

Rules:

1. A kommune that is new in the katalog is followed from then on. One that is taken out is still followed, since its
   kvitteringer may be late.
2. Where to read is the store's to say (``StatusStore.offsets``), so nothing is committed to Kafka.
3. A topic that is not the one that was read before is not read further (``emnevakt``): we refuse to guess, and the others go on.
4. One kommune's topics never hold up another's. When the kommuner's topics cannot be opened though Kafka is there, they are
   halved until what is in the way stands alone; it is tried again for ever, is shown in a metric, and keeps nobody from
   being ready.
5. What the store has to publish waits until everything has been read once (``caught_up``): a store that was restored from a
   backup would otherwise publish statuses that are older than those that a portal has read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NoReturn

from broker.log import get_logger
from broker.routing import TRANSPORT, hendelse_topic, kvittering_topic, parse_topic
from kvittering import metrics
from kvittering.emnevakt import COMMAND
from schemas.errors import StoreError, TopicShorterError, TransportError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from broker.katalog import Katalog
    from broker.ports import OpenTail, Tail
    from broker.record import Incoming, TopicPartition
    from kvittering.applier import Applier
    from kvittering.emnevakt import TopicGuard
    from kvittering.store import StatusStore
    from schemas.names import Kommunenummer

RETRY_S: Final = 1.0
LOOK_S: Final = 0.05
CENTRAL: Final = frozenset([TRANSPORT])


class Follower:
    """Reads the topics of the katalog into an ``Applier``.

    Args:
        katalog: Which kommuner there are.
        changed: Set when the katalog has changed.
        open_tail: Opens a reader of these topics from these offsets on.
        store: Knows the offsets.
        applier: Takes the records in.
        guard: Judges the topics.

    Attributes:
        caught_up: Set when all that can be read has been read once; stays set.
    """

    def __init__(
        self,
        *,
        katalog: Katalog,
        changed: asyncio.Event,
        open_tail: OpenTail,
        store: StatusStore,
        applier: Applier,
        guard: TopicGuard,
    ) -> None:
        self._katalog = katalog
        self._changed = changed
        self._open_tail = open_tail
        self._store = store
        self._applier = applier
        self._guard = guard
        self.caught_up = asyncio.Event()
        self._problems: dict[frozenset[str], str] = {frozenset(): "venter på katalogen"}
        self._alone: set[frozenset[str]] = set()
        self._tails: dict[frozenset[str], Tail] = {}
        self._central_is_open = asyncio.Event()

    def problem(self) -> str | None:
        """Return why the status is not up to date, for ``/isready``."""
        return next(iter(self._problems.values()), None) or self._guard.problem()

    async def run(self, katalog_ready: asyncio.Event) -> None:
        """Follow the central topic, every kommune's topics, and those that come, until cancelled.

        Args:
            katalog_ready: Nothing is read before it is set: a kvittering from a kommune that we do not know would look forged.
        """
        await katalog_ready.wait()
        followed: frozenset[str] = CENTRAL
        async with asyncio.TaskGroup() as tasks:
            self._begin(tasks, CENTRAL)
            self._settle(frozenset())
            tasks.create_task(self._guard.watch(lambda: followed))
            while True:
                self._changed.clear()
                new = topics_of(self._katalog) - followed
                if new:
                    followed |= new
                    self._begin(tasks, new)
                await self._changed.wait()

    async def up_to_date(self, kommuner: Collection[Kommunenummer], within_s: float) -> frozenset[Kommunenummer]:
        """Return those of whom everything that lay on their topics and the central one when asked has been taken in.

        This is how whoever acts on silence knows that it is silence: a broker that is away is not.

        Args:
            kommuner: Whom it is about.
            within_s: How long to wait for what is still being read.
        """
        wanted = {knr: {kvittering_topic(knr), hendelse_topic(knr)} for knr in kommuner}
        asked = {
            topics: tail
            for topics, tail in self._tails.items()
            if topics == CENTRAL or topics & set().union(*wanted.values())
        }
        read = await asyncio.gather(*(_is_read(tail, topics, within_s) for topics, tail in asked.items()))
        known = frozenset[str]().union(*(topics for topics, done in zip(asked, read, strict=True) if done))
        known = known.difference(self._guard.stopped)
        return frozenset(knr for knr, topics in wanted.items() if CENTRAL | topics <= known)

    def _begin(self, tasks: asyncio.TaskGroup, topics: frozenset[str]) -> None:
        self._problems[topics] = "emnene er ikke lest ferdig"
        tasks.create_task(self._follow(tasks, topics))

    async def _follow(self, tasks: asyncio.TaskGroup, topics: frozenset[str]) -> None:
        if topics != CENTRAL:
            await self._central_is_open.wait()
        while True:
            try:
                await self._read(topics)
            except TransportError as error:
                get_logger().warning("topics_unavailable", antall=len(topics), vent_s=RETRY_S, exc_info=error)
                halves = halve(topics) if self._central_is_open.is_set() else ()
                for half in halves:
                    self._begin(tasks, half)
                if halves:
                    del self._problems[topics]
                    return
                self._note_unreachable(topics, error)
            except TopicShorterError as error:
                await self._stop(error)
                continue
            except StoreError as error:  # the disk may be full for a while: what is open stays open, and we wait
                get_logger().warning("offsets_not_read", antall=len(topics), vent_s=RETRY_S, exc_info=error)
                self._problems[topics] = f"lageret: {error.code}"
            await asyncio.sleep(RETRY_S)

    async def _stop(self, error: TopicShorterError) -> None:
        """Stop topics that end before what was read of them; the store that says so may be away itself."""
        reasons = {topic: f"{error}; se docs/drift.md, deretter `{COMMAND} {topic}`" for topic in error.topics}
        try:
            await self._guard.stop(reasons)
        except StoreError as failure:
            get_logger().warning("topics_not_noted", antall=len(reasons), exc_info=failure)

    async def _read(self, topics: frozenset[str]) -> None:
        readable = await self._guard.readable(topics)
        if not readable:
            await self._rest(topics)
        offsets = await self._store.offsets()
        async with self._open_tail(readable, offsets) as tail:
            if await self._guard.check_holes(offsets, tail.first):
                return
            self._note_opened(topics)
            self._tails[readable] = tail
            # Not a task group: it would wrap the reader's error in a group, and the caller needs to see it.
            waiting = asyncio.create_task(self._note_when(tail.caught_up, topics))
            try:
                async for batch in tail:
                    await self._take(batch, offsets)
            finally:
                waiting.cancel()
                del self._tails[readable]
                if topics == CENTRAL:
                    self._central_is_open.clear()

    async def _rest(self, topics: frozenset[str]) -> NoReturn:
        """Leave topics that are all stopped alone; the others are read on."""
        self._note_opened(topics)
        self._settle(topics)
        await asyncio.Event().wait()
        raise RuntimeError("nothing ends this wait but its cancellation")

    async def _take(self, batch: Sequence[Incoming], offsets: dict[TopicPartition, int]) -> None:
        """Hand a batch on, but for the records of topics that are stopped; ``offsets`` follow."""
        for record in batch:
            partition = record.topic_partition
            expected = offsets.get(partition, 0)
            if record.offset < expected:
                await self._guard.rewound(partition, expected, record.offset)
            offsets[partition] = max(record.offset + 1, expected)
        kept = [record for record in batch if record.topic not in self._guard.stopped]
        if kept:
            await self._applier.handle(kept)

    def _note_opened(self, topics: frozenset[str]) -> None:
        self._alone.discard(topics)
        metrics.UNREACHABLE.set(len(self._alone))
        if topics == CENTRAL:
            self._central_is_open.set()

    def _note_unreachable(self, topics: frozenset[str], error: TransportError) -> None:
        if topics == CENTRAL:
            self._problems[topics] = f"Kafka: {error.code}"
            return
        self._alone.add(topics)
        metrics.UNREACHABLE.set(len(self._alone))
        if self._central_is_open.is_set():
            self._settle(topics)  # rule 4: the others are served

    async def _note_when(self, caught_up: asyncio.Event, topics: frozenset[str]) -> None:
        await caught_up.wait()
        self._settle(topics)
        get_logger().info("topics_caught_up", antall=len(topics))

    def _settle(self, topics: frozenset[str]) -> None:
        """Note that nothing of these is left to read, or that it cannot be."""
        self._problems.pop(topics, None)
        if not self._problems:
            self.caught_up.set()


async def _is_read(tail: Tail, topics: frozenset[str], within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            ends = await tail.ends(topics)
            while not await tail.has_read(ends):  # noqa: ASYNC110 - the reader has no event for each offset
                await asyncio.sleep(LOOK_S)
    except (TransportError, TimeoutError):
        return False
    return True


def topics_of(katalog: Katalog) -> frozenset[str]:
    """Return every topic that is followed."""
    kommuner = [entry.kommunenummer for entry in katalog.all()]
    return CENTRAL.union(map(kvittering_topic, kommuner), map(hendelse_topic, kommuner))


def halve(topics: frozenset[str]) -> tuple[frozenset[str], ...]:
    """Return the topics as two halves, whole kommuner in each; nothing when they are one kommune's."""
    kommuner = sorted({str(parse_topic(topic).kommunenummer) for topic in topics})
    if len(kommuner) == 1:
        return ()
    first = set(kommuner[: len(kommuner) // 2])
    half = frozenset(topic for topic in topics if str(parse_topic(topic).kommunenummer) in first)
    return half, topics - half
