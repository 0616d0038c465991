"""Whether a kommune's topics are the ones that this connector has read before; nothing is delivered from another.

Rules:

1. A topic is remembered in the local store by Kafka's own id and its number of partitions when it is first seen
   (``broker.topic_identity``), and judged each time that partitions come.
2. A søknad topic made again may hold what was delivered before, or lack what was not; a kvittering topic made again lacks what
   the chains continue from; another number of partitions breaks the order. Which of these it is, a person knows: the kommune's
   partitions stay paused, ``/isready`` says why, and the others are served.
3. Accepting a topic forgets what it was and how far it was read. Kvitteringer are never forgotten: what comes again is a repeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from broker.topic_identity import Verdict, explain, judge
from schemas.errors import TopicChangedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.topic_identity import TopicIdentity
    from consumers.dedup import DedupStore

ACCEPT_COMMAND: Final = "formidler connector godta-emne --config konnektor.yaml"


class Identities(Protocol):
    """What Kafka says that topics are; see ``KafkaIdentities``."""

    async def seen(self, topics: Iterable[str]) -> Mapping[str, TopicIdentity]:
        """Return those that are there and that we may see."""
        ...


class TopicGuard:
    """Works for one kommune.

    Args:
        topics: What it reads.
        identities: Asks Kafka.
        store: Remembers.
    """

    def __init__(self, topics: Iterable[str], *, identities: Identities, store: DedupStore) -> None:
        self._topics = tuple(topics)
        self._identities = identities
        self._store = store

    async def check(self) -> None:
        """Return when all topics are what they were; one that is seen for the first time is remembered.

        Raises:
            TopicChangedError: One is not, and a person must say what to do (rule 2).
            TransportError: Kafka does not answer.
            StoreError: The store does not.
        """
        seen = await self._identities.seen(self._topics)
        known = await self._store.known_topics()
        for topic in self._topics:
            expected, found = known.get(topic), seen.get(topic)
            verdict = judge(expected, found)
            if not verdict.harmless:
                raise TopicChangedError(explain(verdict, topic, expected, found, command=ACCEPT_COMMAND))
            if verdict is Verdict.NEW and found is not None:
                await self._store.remember_topic(topic, found)
