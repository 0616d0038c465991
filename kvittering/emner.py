"""What the store remembers of the topics that it was read from, and how a person lets go of a former one.

Rules:

1. A topic is remembered by Kafka's own id and its number of partitions (``broker.topic_identity``) when it is first seen.
2. What is wrong with a topic is written down too, and holds until somebody accepts it: whoever does needs no Kafka to know what
   there is to accept.
3. Accepting a topic forgets how far it was read and what it was; the next start remembers it as it is then and reads it from its
   first record. Every fact stays: facts are known by their ids, so what comes again is a repeat. The records of the former topic
   are kept under a name of their own, since the new one uses the same places again.
4. A topic that is gone may mean that all are, ``fiks.status.v1`` too: every status is published once more, for those who read
   that topic. Where it was not lost, they have it already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.routing import STATUS
from broker.topic_identity import TopicIdentity
from kvittering.rows import FORMER, QUEUE, queue_row, status_message
from schemas.codec import decode
from schemas.records import StatusRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.sql import Connection

MIGRATION: Final = """
-- What each topic was when it was first seen.
CREATE TABLE emne (
    topic TEXT PRIMARY KEY,
    emne_id TEXT,                       -- Kafka's own id; null when the cluster gives none
    partisjoner INTEGER NOT NULL,
    avvik TEXT                          -- why it is not read any more; null for a topic that is
);
"""
_AFTER_FORMER: Final = chr(ord(FORMER) + 1)


@dataclass(frozen=True, slots=True)
class Emne:
    """A topic as it is remembered.

    Attributes:
        identity: What it was when it was first seen.
        avvik: Why it is not read any more, in words for a person; None for one that is.
    """

    identity: TopicIdentity
    avvik: str | None


def known(connection: Connection) -> dict[str, Emne]:
    """Return every topic that is remembered, by name."""
    rows = connection.execute("SELECT topic, emne_id, partisjoner, avvik FROM emne")
    return {str(row[0]): Emne(TopicIdentity(row[1], int(row[2])), row[3]) for row in rows}


def remember(connection: Connection, seen: Mapping[str, TopicIdentity]) -> None:
    """Write down topics that were not known before."""
    connection.executemany(
        "INSERT INTO emne (topic, emne_id, partisjoner) VALUES (?, ?, ?) ON CONFLICT (topic) DO NOTHING",
        [(topic, identity.topic_id, identity.partitions) for topic, identity in seen.items()],
    )


def note(connection: Connection, avvik: Mapping[str, str]) -> None:
    """Write down why topics are not read any more; one that was never seen gets a place too."""
    connection.executemany(
        "INSERT INTO emne (topic, partisjoner, avvik) VALUES (?, 0, ?) ON CONFLICT (topic) DO UPDATE SET avvik = excluded.avvik",
        list(avvik.items()),
    )


def accept(connection: Connection, topics: Iterable[str]) -> None:
    """Let go of what these topics were, and of how far they were read (rule 3), and publish all statuses again (rule 4)."""
    gone = list(topics)
    for topic in gone:
        former = connection.execute(
            "SELECT COUNT(DISTINCT topic) FROM innkommet WHERE topic >= ? AND topic < ?",
            (topic + FORMER, topic + _AFTER_FORMER),
        ).fetchone()[0]
        connection.execute("UPDATE innkommet SET topic = ? WHERE topic = ?", (f"{topic}{FORMER}{former + 1}", topic))
        connection.execute("DELETE FROM posisjon WHERE topic = ?", (topic,))
        connection.execute("DELETE FROM emne WHERE topic = ?", (topic,))
    if gone:
        _queue_statuses(connection)


def _queue_statuses(connection: Connection) -> None:
    connection.execute("DELETE FROM utboks WHERE topic = ? AND satt_til_side IS NULL", (STATUS,))
    rows = connection.execute("SELECT sist_status FROM soknad WHERE sist_status IS NOT NULL ORDER BY digisos_id")
    values = [bytes(row[0]) for row in rows.fetchall()]
    connection.executemany(QUEUE, (queue_row(status_message(decode(StatusRecord, value), value)) for value in values))
