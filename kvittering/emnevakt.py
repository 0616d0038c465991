"""Whether the topics that are read are the ones that were read before; what is another is not read further.

Rules:

1. A topic that was deleted and made again, that has another number of partitions, that ends before what was read of it, or that
   no longer has the records that come next, is stopped: its records are passed over, ``/isready`` and the log say what happened
   and which command takes it over (``formidler status godta-emner``). All other topics are read on.
2. It is looked at before a topic is opened and every ``CHECK_EVERY_S`` while it is read: Kafka's client reads a topic that was
   made again as if nothing had happened.
3. A topic that is not there is not stopped: it may be on its way. When it comes back it is judged.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from broker.log import get_logger
from broker.topic_identity import TopicIdentity, Verdict, explain, judge
from kvittering import emner, metrics
from kvittering.rows import begin_at
from schemas.errors import StoreError, TransportError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from broker.record import TopicPartition
    from kvittering.store import StatusStore

CHECK_EVERY_S: Final = 15.0
COMMAND: Final = "formidler status godta-emner --topic"


class TopicGuard:
    """Judges topics, and remembers what it judged.

    Args:
        store: Remembers what the topics were.
        seen: Asks Kafka what they are.
    """

    def __init__(
        self, store: StatusStore, seen: Callable[[Iterable[str]], Awaitable[Mapping[str, TopicIdentity]]]
    ) -> None:
        self._store = store
        self._seen = seen
        self._stopped: dict[str, str] = {}
        self._new: set[str] = set()

    @property
    def stopped(self) -> Mapping[str, str]:
        """The topics that are not read further, and why in words for a person."""
        return self._stopped

    def problem(self) -> str | None:
        """Return what is wrong with the first of them, for ``/isready``."""
        if not self._stopped:
            return None
        first, *others = sorted(self._stopped)
        return self._stopped[first] + (f" (og {len(others)} emner til)" if others else "")

    async def readable(self, topics: frozenset[str]) -> frozenset[str]:
        """Judge ``topics`` as they are now; return those that may be read.

        Raises:
            TransportError: Kafka does not answer.
            StoreError: What they were cannot be read, or what they are cannot be written down.
        """
        seen = await self._seen(topics)
        before = await self._store.read(emner.known)
        new: dict[str, TopicIdentity] = {}
        wrong: dict[str, str] = {}
        for topic, identity in seen.items():
            known = before.get(topic)
            if known is not None and known.avvik is not None:
                wrong[topic] = known.avvik
                continue
            expected = None if known is None else known.identity
            verdict = judge(expected, identity)
            if verdict is Verdict.NEW:
                new[topic] = identity
            elif not verdict.harmless:
                wrong[topic] = explain(verdict, topic, expected, identity, command=COMMAND)
        if new:
            await self._store.write(lambda connection: emner.remember(connection, new))
            self._new |= new.keys()
        await self.stop(wrong)
        return topics.difference(self._stopped)

    async def stop(self, reasons: Mapping[str, str]) -> None:
        """Read these topics no further; why is told once, and kept for whoever accepts them."""
        new = {topic: why for topic, why in reasons.items() if topic not in self._stopped}
        if not new:
            return
        self._stopped |= new
        metrics.TOPICS_STOPPED.set(len(self._stopped))
        for topic, why in sorted(new.items()):
            get_logger().critical("topic_stopped", topic=topic, avvik=why)
        await self._store.write(lambda connection: emner.note(connection, new))

    async def check_holes(
        self, offsets: Mapping[TopicPartition, int], first: Mapping[TopicPartition, int]
    ) -> frozenset[str]:
        """Stop the topics whose next records are gone already; return their names.

        A topic that was just seen for the first time begins where it begins: that is written down, so that what goes missing
        from then on shows.

        Args:
            offsets: Where to read on.
            first: The first offset that each partition still has.
        """
        unread = {one: start for one, start in first.items() if one not in offsets and one.topic in self._new}
        if unread:
            await self._store.write(lambda connection: begin_at(connection, unread))
            self._new -= {partition.topic for partition in unread}
        holes = {
            partition.topic: (
                f"{partition.topic} har ikke lenger det som kommer etter {offsets.get(partition, 0)}, men begynner på {start}: "
                f"umulig å bygge opp igjen herfra; hent en nyere kopi av lageret, eller `{COMMAND} {partition.topic}`"
            )
            for partition, start in first.items()
            if partition not in unread and start > offsets.get(partition, 0)
        }
        await self.stop(holes)
        return frozenset(holes)

    async def rewound(self, partition: TopicPartition, expected: int, got: int) -> None:
        """Stop a topic that gives records again which came before what was read of it."""
        topic = partition.topic
        why = (
            f"{topic} ga post {got} etter at det var lest til {expected}: er det laget på nytt? Se docs/drift.md, deretter "
            f"`{COMMAND} {topic}`"
        )
        await self.stop({topic: why})

    async def watch(self, topics: Callable[[], frozenset[str]]) -> None:
        """Judge ``topics()`` now and then, until cancelled; while Kafka or the store is away nothing is judged."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            try:
                await self.readable(topics())
            except (TransportError, StoreError) as error:
                get_logger().info("topics_not_judged", exc_info=error)
