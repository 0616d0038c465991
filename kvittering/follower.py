"""Which topics are read, and from where: those of the katalog, from where the store left off.

Rules:

1. A kommune that is new in the katalog is followed from then on. One that is taken out is still followed, since its
   kvitteringer may be late.
2. Where to read is the store's to say (``StatusStore.offsets``), so nothing is committed to Kafka.
3. A topic that is shorter than what was read from it is not the same topic: we refuse to guess, and stop.
4. One kommune's topics never hold up another's. When the kommuner's topics cannot be opened though Kafka is there, they are
   halved until what is in the way stands alone; it is tried again for ever, is shown in a metric, and keeps nobody from
   being ready.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from broker.log import get_logger
from broker.routing import TRANSPORT, hendelse_topic, kvittering_topic, parse_topic
from kvittering import metrics
from schemas.errors import StoreError, TransportError

if TYPE_CHECKING:
    from collections.abc import Collection

    from broker.katalog import Katalog
    from broker.ports import OpenTail, Tail
    from kvittering.applier import Applier
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
    """

    def __init__(
        self, *, katalog: Katalog, changed: asyncio.Event, open_tail: OpenTail, store: StatusStore, applier: Applier
    ) -> None:
        self._katalog = katalog
        self._changed = changed
        self._open_tail = open_tail
        self._store = store
        self._applier = applier
        self._problems: dict[frozenset[str], str] = {frozenset(): "venter på katalogen"}
        self._alone: set[frozenset[str]] = set()
        self._tails: dict[frozenset[str], Tail] = {}
        self._central_is_open = asyncio.Event()

    def problem(self) -> str | None:
        """Return why the status is not up to date, for ``/isready``."""
        return next(iter(self._problems.values()), None)

    async def run(self, katalog_ready: asyncio.Event) -> None:
        """Follow the central topic, every kommune's topics, and those that come, until cancelled.

        Args:
            katalog_ready: Nothing is read before it is set: a kvittering from a kommune that we do not know would look forged.

        Raises:
            ExceptionGroup: Of a ConfigurationError, by rule 3.
        """
        await katalog_ready.wait()
        followed: frozenset[str] = CENTRAL
        async with asyncio.TaskGroup() as tasks:
            self._begin(tasks, CENTRAL)
            self._problems.pop(frozenset())
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
            except StoreError as error:  # the disk may be full for a while: what is open stays open, and we wait
                get_logger().warning("offsets_not_read", antall=len(topics), vent_s=RETRY_S, exc_info=error)
                self._problems[topics] = f"lageret: {error.code}"
            await asyncio.sleep(RETRY_S)

    async def _read(self, topics: frozenset[str]) -> None:
        offsets = await self._store.offsets()
        async with self._open_tail(topics, offsets) as tail:
            self._note_opened(topics)
            self._tails[topics] = tail
            # Not a task group: it would wrap the reader's error in a group, and the caller needs to see it.
            waiting = asyncio.create_task(self._note_when(tail.caught_up, topics))
            try:
                async for batch in tail:
                    await self._applier.handle(batch)
            finally:
                waiting.cancel()
                del self._tails[topics]
                if topics == CENTRAL:
                    self._central_is_open.clear()

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
            self._problems.pop(topics, None)  # rule 4: the others are served

    async def _note_when(self, caught_up: asyncio.Event, topics: frozenset[str]) -> None:
        await caught_up.wait()
        self._problems.pop(topics, None)
        get_logger().info("topics_caught_up", antall=len(topics))


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
