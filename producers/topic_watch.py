"""Watches whether the topics that we write are the ones that we know: ``broker.topic_identity``, with a memory in our database.

Rules:

1. A topic takes nothing until it has been looked at, and nothing after it was deleted, deleted and made again, or given another
   number of partitions. What waits for it stays in the outbox; all other topics flow.
2. What is seen the first time is remembered, if the katalog agrees about the partitions.
3. A person lets us go on: ``accept`` forgets what was remembered, and the next look remembers anew.
4. While Kafka does not answer, what was found last counts: nothing can be published anyway.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from broker.log import get_logger
from broker.routing import TRANSPORT, parse_topic, soknad_topic
from broker.topic_identity import TopicIdentity, Verdict, explain, judge
from producers import metrics
from schemas.errors import InvalidNameError, StoreError, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from broker.katalog import Katalog
    from broker.sql import Connection, Database

MIGRATION: Final = """
    CREATE TABLE emne (
        emne       TEXT PRIMARY KEY,
        emne_id    TEXT,
        partisjoner INTEGER NOT NULL
    ) STRICT;
"""

ACCEPT_COMMAND: Final = "formidler utboks godta-emne"
LOOK_S: Final = 30.0
"""How often topics that are as they should be are looked at."""
SOON_S: Final = 2.0
"""How often while one of them is not, or is new to us."""
TURN_S: Final = 0.5
"""How often it is seen to whether there is a topic that has not been looked at."""


class Identities(Protocol):
    """Says what topics are now."""

    async def seen(self, topics: Iterable[str]) -> dict[str, TopicIdentity]:
        """Return those of ``topics`` that are there and that we may see.

        Raises:
            TransportError: Nobody answers.
        """
        ...


class TopicWatch:
    """A ``producers.relay_ports.TopicGate``.

    Args:
        database: Opened with ``MIGRATION`` among its migrations.
        identities: Asks Kafka.
        katalog: Says which kommuner there are, and how many partitions theirs have.
        opened: Called when a topic has opened.

    Attributes:
        version: Another number whenever a topic has opened or closed.
    """

    def __init__(
        self, database: Database, identities: Identities, katalog: Katalog, opened: Callable[[], None]
    ) -> None:
        self._database = database
        self._identities = identities
        self._katalog = katalog
        self._opened = opened
        self._verdicts: dict[str, Verdict] = {}
        self._why: dict[str, str] = {}
        self._asked: set[str] = set()
        self.version = 0

    def closed(self, topic: str) -> bool:
        """Return whether nothing may be published there. May be called from any thread."""
        verdict = self._verdicts.get(topic)
        if verdict is not None:
            return not verdict.harmless
        if topic == TRANSPORT or _is_soknad(topic):
            self._asked.add(topic)  # a kommune that has left the katalog may still have something in the outbox
            return True
        return False

    def problem(self) -> str | None:
        """Return which topics are not the ones we know, for ``/isready``."""
        if not self._verdicts:
            return "Kafka-emnene er ikke sett etter ennå"
        if not self._why:
            return None
        more = f" (og {len(self._why) - 1} emner til)" if len(self._why) > 1 else ""
        worst = min(self._why, key=lambda name: (self._verdicts[name] is Verdict.MISSING, name))
        return f"{self._why[worst]}{more}"

    def verdicts(self) -> dict[str, tuple[str, str | None]]:
        """Return each topic's verdict, and what to do about it."""
        return {name: (verdict.value, self._why.get(name)) for name, verdict in sorted(self._verdicts.items())}

    async def accept(self, topic: str, also: Callable[[Connection], None] = lambda _: None) -> Verdict:
        """Take the topic as it is now for the one that we know, by a person's word, and return the new verdict.

        Args:
            topic: Its name.
            also: Written in the same transaction.

        Raises:
            StoreError: It cannot be remembered.
            TransportError: Kafka does not answer.
        """

        def write(connection: Connection) -> None:
            connection.execute("DELETE FROM emne WHERE emne = ?", (topic,))
            also(connection)

        await self._database.write(write)
        self._asked.add(topic)
        await self.look()
        return self._verdicts.get(topic, Verdict.MISSING)

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            if loop.time() >= due or not self._topics() <= self._verdicts.keys():
                try:
                    await self.look()
                except (TransportError, StoreError) as error:
                    get_logger().warning("topics_not_seen", exc_info=error)
                    await asyncio.sleep(SOON_S)
                due = loop.time() + (SOON_S if self._why else LOOK_S)
            await asyncio.sleep(TURN_S)

    async def look(self) -> None:
        """Look at all topics once.

        Raises:
            TransportError: Kafka does not answer.
            StoreError: What is remembered cannot be read or written.
        """
        topics = self._topics()
        seen = await self._identities.seen(topics)
        expected = await self._database.read(_remembered)
        agreed = {soknad_topic(entry.kommunenummer): entry.partisjoner for entry in self._katalog.all()}
        verdicts = {name: judge(expected.get(name), seen.get(name), agreed=agreed.get(name)) for name in topics}
        new = {name: seen[name] for name, verdict in verdicts.items() if verdict is Verdict.NEW}
        if new:
            await self._database.write(lambda connection: _remember(connection, new))
        self._why = {
            name: explain(
                verdict,
                name,
                expected.get(name) or _agreed(agreed.get(name)),
                seen.get(name),
                command=ACCEPT_COMMAND,
            )
            for name, verdict in verdicts.items()
            if not verdict.harmless
        }
        self._take(verdicts)

    def _topics(self) -> frozenset[str]:
        return frozenset({TRANSPORT, *self._asked, *(soknad_topic(one.kommunenummer) for one in self._katalog.all())})

    def _take(self, verdicts: Mapping[str, Verdict]) -> None:
        former, self._verdicts = self._verdicts, dict(verdicts)
        metrics.TOPICS_CLOSED.set(len(self._why))
        for name, verdict in verdicts.items():
            if not verdict.harmless and former.get(name) is not verdict:
                get_logger().critical("topic_closed", topic=name, resultat=verdict.value)
        was = {name for name, verdict in former.items() if verdict.harmless}
        now = {name for name, verdict in verdicts.items() if verdict.harmless}
        if was != now:
            self.version += 1
        if now - was:
            self._opened()


def _is_soknad(topic: str) -> bool:
    try:
        return parse_topic(topic).kind == "soknad"
    except InvalidNameError:
        return False


def _agreed(partitions: int | None) -> TopicIdentity | None:
    return None if partitions is None else TopicIdentity(None, partitions)


def _remembered(connection: Connection) -> dict[str, TopicIdentity]:
    rows = connection.execute("SELECT emne, emne_id, partisjoner FROM emne").fetchall()
    return {row[0]: TopicIdentity(row[1], int(row[2])) for row in rows}


def _remember(connection: Connection, topics: Mapping[str, TopicIdentity]) -> None:
    connection.executemany(
        "INSERT INTO emne (emne, emne_id, partisjoner) VALUES (?, ?, ?) ON CONFLICT (emne) DO NOTHING",
        [(name, one.topic_id, one.partitions) for name, one in topics.items()],
    )
