"""The connector's memory: every kvittering that it has issued, which keys are dead, and how far topics were read.

It makes a repeat answerable with the *original* kvittering, byte for byte, and a chain continue where it ended.

Rules:

1. A kvittering is here, on disk, before it is published.
2. One chain for each søknad, in the order of ``nr``; two writers cannot make a fork, nor answer a melding twice, since reading
   what there is and adding to it is one transaction. Between processes the topic decides (``consumers.chain_rows``).
3. What is lost with the disk is rebuilt from the kvittering topic (``consumers.rebuild``) before anything is delivered.
4. A dead letter's kvittering has grad INGEN, a fagsystem's rejection has not: this is how a rebuild tells them apart.
5. Nothing here is ever deleted but what is displaced from its chain: a repeat is known for as long as the database lives. After
   a lost disk it is known for as long as the kvittering topic keeps it, much longer than a søknad stays on its topic; a dead
   letter that is redriven after that has the fagsystem's own idempotency key alone.
6. A trace of every melding_id is in memory, about 60 bytes each: no trace means new, and a trace means ask the disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from broker.krasj import crash_point
from broker.record import TopicPartition
from broker.sql import Connection, Database, open_database
from broker.topic_identity import TopicIdentity
from consumers import chain_rows
from consumers.chain_rows import COLUMNS, issued_rows
from consumers.issued import Issued, claims_of, is_behind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from types import TracebackType

    from consumers.issued import Sign, Unless
    from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256, Uuid


MIGRATIONS: Final = (
    """
    CREATE TABLE kvittering (
        kvittering_id TEXT PRIMARY KEY,
        kommunenummer TEXT NOT NULL,
        digisos_id TEXT NOT NULL,
        nr INTEGER NOT NULL,
        melding_id TEXT,
        sha256 TEXT NOT NULL,
        status TEXT NOT NULL,
        grad TEXT NOT NULL,
        jws TEXT NOT NULL,
        published INTEGER NOT NULL DEFAULT 0,
        UNIQUE (kommunenummer, digisos_id, nr)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX kvittering_melding ON kvittering (melding_id);
    CREATE INDEX kvittering_unpublished ON kvittering (kommunenummer) WHERE published = 0;
    CREATE TABLE dead_key (
        kommunenummer TEXT NOT NULL,
        record_key TEXT NOT NULL,
        PRIMARY KEY (kommunenummer, record_key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE sak (
        kommunenummer TEXT NOT NULL,
        digisos_id TEXT NOT NULL,
        PRIMARY KEY (kommunenummer, digisos_id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE position (
        topic TEXT NOT NULL,
        partition INTEGER NOT NULL,
        next INTEGER NOT NULL,
        PRIMARY KEY (topic, partition)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE state (
        kommunenummer TEXT NOT NULL,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (kommunenummer, name)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE kvittering ADD COLUMN kode TEXT;
    CREATE TABLE displaced (
        kvittering_id TEXT PRIMARY KEY,
        kommunenummer TEXT NOT NULL,
        jws TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE topic (
        name TEXT PRIMARY KEY,
        topic_id TEXT,
        partitions INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
)

_MARK: Final = "UPDATE kvittering SET published = 1 WHERE kvittering_id = ? AND published = 0"
_REACH: Final = """
    INSERT INTO position (topic, partition, next) VALUES (?, ?, ?)
    ON CONFLICT (topic, partition) DO UPDATE SET next = excluded.next
"""
_PUT: Final = """
    INSERT INTO state (kommunenummer, name, value) VALUES (?, ?, ?)
    ON CONFLICT (kommunenummer, name) DO UPDATE SET value = excluded.value
"""


class DedupStore:
    """The local store. Use as an asynchronous context manager, or call ``open`` and ``close``.

    Args:
        place: Its SQLite file, or ``postgresql://…``; one connector process owns it.
    """

    def __init__(self, place: str | Path) -> None:
        self._database = open_database(place, MIGRATIONS)
        self._known: set[int] = set()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the database; see ``Database.open``."""
        await self._database.open()
        query = "SELECT DISTINCT melding_id FROM kvittering WHERE melding_id IS NOT NULL"
        self._known = await self._database.read(lambda db: {_trace(row[0]) for row in db.execute(query)})

    async def close(self) -> None:
        """Close the database."""
        await self._database.close()

    async def of_melding(self, melding_id: MeldingId) -> tuple[Issued, ...]:
        """Return the melding's kvitteringer, oldest first.

        Most meldinger are new, which is known without a look at the disk (rule 6).
        """
        if _trace(melding_id) not in self._known:
            return ()
        return await self._database.read(lambda db: chain_rows.of_melding(db, melding_id))

    async def of_unreadable(self, digisos_id: DigisosId, sha256: Sha256) -> tuple[Issued, ...]:
        """Return the kvitteringer of a record that could not be read, oldest first."""
        query = (
            f"SELECT {COLUMNS} FROM kvittering"  # noqa: S608 - a constant
            " WHERE digisos_id = ? AND sha256 = ? AND melding_id IS NULL ORDER BY nr"
        )
        return await self._database.read(lambda db: issued_rows(db.execute(query, (digisos_id, sha256))))

    async def unpublished(self, kommunenummer: Kommunenummer) -> tuple[Issued, ...]:
        """Return what is not known to be on its topic, in the order in which it was issued."""
        query = (
            f"SELECT {COLUMNS} FROM kvittering"  # noqa: S608 - a constant
            " WHERE kommunenummer = ? AND published = 0 ORDER BY digisos_id, nr"
        )
        return await self._database.read(lambda db: issued_rows(db.execute(query, (kommunenummer,))))

    async def issue(
        self,
        kommunenummer: Kommunenummer,
        digisos_id: DigisosId,
        sign: Sign,
        *,
        dead_key: str | None = None,
        unless: Unless | None = None,
    ) -> Issued:
        """Add a kvittering to the søknad's chain, unless there is one already; durable when this returns.

        Args:
            kommunenummer: The kommune.
            digisos_id: The søknad.
            sign: Called once, in the store's own thread, with the chain's next number and its head's digest; not at all when
                there is one already.
            dead_key: A key that dies with this kvittering, in the same transaction.
            unless: A melding, and which of its kvitteringer to return instead of adding one; judged in the same transaction.

        Raises:
            StoreError: Nothing was issued.
        """

        def add(db: Connection) -> Issued:
            issued = chain_rows.add_link(db, kommunenummer, digisos_id, sign, unless)
            crash_point("consumers.dedup.before-commit")
            if dead_key is not None:
                chain_rows.bury(db, kommunenummer, dead_key)
            self._remember(issued)  # here, since the write is made although its caller may be cancelled
            return issued

        return await self._database.write(add)

    async def take_over(self, kvitteringer: Sequence[Issued], reached: TopicPartition, next_offset: int) -> None:
        """Take over kvitteringer that were found on the topic, in its order, up to this place; known ones are published, then."""

        def add(db: Connection) -> None:
            for each in kvitteringer:
                chain_rows.take_link(db, each)
            for kommunenummer, digisos_id in {(each.kommunenummer, each.digisos_id) for each in kvitteringer}:
                chain_rows.judge_key(db, kommunenummer, digisos_id)
            db.execute(_REACH, (*reached, next_offset))
            self._remember(*kvitteringer)

        await self._database.write(add)

    async def displaced(self, kommunenummer: Kommunenummer) -> tuple[Issued, ...]:
        """Return what lost its place in a chain and has not been issued again, in its former order."""
        query = "SELECT jws FROM displaced WHERE kommunenummer = ?"
        rows = await self._database.read(lambda db: db.execute(query, (kommunenummer,)).fetchall())
        found = (Issued.of(claims_of(row["jws"]), row["jws"]) for row in rows)
        return tuple(sorted(found, key=lambda each: (each.digisos_id, each.nr)))

    async def forget_displaced(self, kvittering_id: Uuid) -> None:
        """Note that what it said has a place in the chain again."""
        query = "DELETE FROM displaced WHERE kvittering_id = ?"
        await self._database.write(lambda db: db.execute(query, (kvittering_id,)))

    def _remember(self, *kvitteringer: Issued) -> None:
        self._known.update(_trace(each.melding_id) for each in kvitteringer if each.melding_id is not None)

    async def mark_published(self, kvitteringer: Iterable[Uuid]) -> None:
        """Note that these are on their topic."""
        ids = [(each,) for each in kvitteringer]
        await self._database.write(lambda db: db.executemany(_MARK, ids))

    async def positions(self, topic: str) -> dict[TopicPartition, int]:
        """Return the offset up to which each partition of the topic was taken over; none before the first time."""
        query = "SELECT partition, next FROM position WHERE topic = ?"
        rows = await self._database.read(lambda db: db.execute(query, (topic,)).fetchall())
        return {TopicPartition(topic, int(row["partition"])): int(row["next"]) for row in rows}

    async def known_topics(self) -> dict[str, TopicIdentity]:
        """Return what each topic was when it was first seen, or accepted."""
        query = "SELECT name, topic_id, partitions FROM topic"
        rows = await self._database.read(lambda db: db.execute(query).fetchall())
        return {str(row["name"]): TopicIdentity(row["topic_id"], int(row["partitions"])) for row in rows}

    async def remember_topic(self, topic: str, identity: TopicIdentity) -> None:
        """Note what a topic is."""
        row = (topic, identity.topic_id, identity.partitions)
        statement = "INSERT INTO topic (name, topic_id, partitions) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        await self._database.write(lambda db: db.execute(statement, row))

    async def forget_topic(self, topic: str) -> bool:
        """Forget what a topic was and how far it was read; return whether it was known."""

        def forget(db: Connection) -> bool:
            db.execute("DELETE FROM position WHERE topic = ?", (topic,))
            return db.execute("DELETE FROM topic WHERE name = ?", (topic,)).rowcount > 0

        return await self._database.write(forget)

    async def dead_keys(self, kommunenummer: Kommunenummer) -> frozenset[str]:
        """Return the keys with a dead letter that nobody has redriven."""
        query = "SELECT record_key FROM dead_key WHERE kommunenummer = ?"
        return await self._database.read(
            lambda db: frozenset(str(row["record_key"]) for row in db.execute(query, (kommunenummer,)))
        )

    async def add_dead_key(self, kommunenummer: Kommunenummer, key: str) -> None:
        """Note that a key is dead, when there is no kvittering to go with it."""
        await self._database.write(lambda db: chain_rows.bury(db, kommunenummer, key))

    async def judge_key(self, kommunenummer: Kommunenummer, digisos_id: DigisosId) -> bool:
        """Find out, after a redriven melding was answered, whether the søknad's key is dead; remember and return it."""
        return await self._database.write(lambda db: chain_rows.judge_key(db, kommunenummer, digisos_id))

    async def is_behind(
        self, kommunenummer: Kommunenummer, digisos_id: DigisosId, melding_id: MeldingId, *, past: bool = False
    ) -> bool:
        """Return whether a redriven melding must wait for an earlier one of its søknad (``consumers.issued``, rule 3)."""
        return await self._database.read(
            lambda db: is_behind(chain_rows.chain_of(db, kommunenummer, digisos_id), melding_id, past=past)
        )

    async def has_case(self, kommunenummer: Kommunenummer, digisos_id: DigisosId) -> bool:
        """Return whether a case update was published before."""
        query = "SELECT 1 FROM sak WHERE kommunenummer = ? AND digisos_id = ?"
        return await self._database.read(
            lambda db: db.execute(query, (kommunenummer, digisos_id)).fetchone() is not None
        )

    async def add_case(self, kommunenummer: Kommunenummer, digisos_id: DigisosId) -> None:
        """Note that a case update was published."""
        await self._database.write(
            lambda db: db.execute(
                "INSERT INTO sak (kommunenummer, digisos_id) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (kommunenummer, digisos_id),
            )
        )

    def state(self, kommunenummer: Kommunenummer) -> StoredState:
        """Return the connector's own texts for this kommune."""
        return StoredState(self._database, kommunenummer)


class StoredState:
    """``ConnectorState`` in the local store."""

    def __init__(self, database: Database, kommunenummer: Kommunenummer) -> None:
        self._database = database
        self._kommunenummer = kommunenummer

    async def get(self, name: str) -> str | None:
        """Return what was put under ``name``, or None."""
        query = "SELECT value FROM state WHERE kommunenummer = ? AND name = ?"
        row = await self._database.read(lambda db: db.execute(query, (self._kommunenummer, name)).fetchone())
        return None if row is None else str(row["value"])

    async def put(self, name: str, value: str) -> None:
        """Keep ``value``; durable when it returns."""
        await self._database.write(lambda db: db.execute(_PUT, (self._kommunenummer, name, value)))


def _trace(melding_id: str) -> int:
    """Return 60 of a melding's 122 random bits: enough to tell that it is new, small enough to keep for all."""
    return int(melding_id[-12:] + melding_id[:3], 16)
