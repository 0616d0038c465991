"""The connector's memory: every kvittering that it has issued, which keys are dead, and how far topics were read.

It makes a repeat answerable with the *original* kvittering, byte for byte, and a chain continue where it ended.

Rules:

1. A kvittering is here, on disk, before it is published.
2. One chain for each søknad, in the order of ``nr``; two writers cannot make a fork, nor answer a melding twice, since reading
   what there is and adding to it is one transaction.
3. What is lost with the disk is rebuilt from the kvittering topic (``consumers.rebuild``) before anything is delivered.
4. A dead letter's kvittering has grad INGEN, a fagsystem's rejection has not: this is how a rebuild tells them apart.
5. A trace of every melding_id is in memory, about 60 bytes each: no trace means new, and a trace means ask the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from broker.krasj import crash_point
from broker.record import TopicPartition
from broker.sql import Connection, Database, Row, open_database
from schemas.kvittering import AVVIST, GRAD_INGEN, LEVERT, KvitteringClaims
from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256, Uuid

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from types import TracebackType


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
)

_COLUMNS: Final = "kvittering_id, kommunenummer, digisos_id, nr, melding_id, sha256, status, grad, jws"
_INSERT: Final = f"INSERT INTO kvittering ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)"  # noqa: S608 - constants
_TAKE_OVER: Final = f"""
    INSERT INTO kvittering ({_COLUMNS}, published) VALUES (?,?,?,?,?,?,?,?,?,1) ON CONFLICT DO NOTHING
"""  # noqa: S608 - constants
_OF_MELDING: Final = f"SELECT {_COLUMNS} FROM kvittering WHERE melding_id = ? ORDER BY nr"  # noqa: S608 - a constant
_MARK: Final = "UPDATE kvittering SET published = 1 WHERE kvittering_id = ?"
_BURY: Final = "INSERT INTO dead_key (kommunenummer, record_key) VALUES (?, ?) ON CONFLICT DO NOTHING"
_REVIVE: Final = "DELETE FROM dead_key WHERE kommunenummer = ? AND record_key = ?"
_REACH: Final = """
    INSERT INTO position (topic, partition, next) VALUES (?, ?, ?)
    ON CONFLICT (topic, partition) DO UPDATE SET next = excluded.next
"""
_PUT: Final = """
    INSERT INTO state (kommunenummer, name, value) VALUES (?, ?, ?)
    ON CONFLICT (kommunenummer, name) DO UPDATE SET value = excluded.value
"""
_UNDELIVERED: Final = """
    SELECT 1 FROM kvittering AS dead
    WHERE dead.kommunenummer = ? AND dead.digisos_id = ? AND dead.status = 'AVVIST' AND dead.grad = 'INGEN'
    AND NOT EXISTS (
        SELECT 1 FROM kvittering AS answer
        WHERE answer.melding_id = dead.melding_id AND NOT (answer.status = 'AVVIST' AND answer.grad = 'INGEN')
    )
"""


@dataclass(frozen=True, slots=True)
class Issued:
    """A kvittering as it was signed. Its ``jws`` never changes."""

    kvittering_id: Uuid
    kommunenummer: Kommunenummer
    digisos_id: DigisosId
    nr: int
    melding_id: MeldingId | None
    sha256: Sha256
    status: str
    grad: str
    jws: str

    @classmethod
    def of(cls, claims: KvitteringClaims, jws: str) -> Self:
        """Return the kvittering with these claims."""
        return cls(
            claims.kvittering_id,
            claims.kommunenummer,
            claims.digisos_id,
            claims.nr,
            claims.melding_id,
            claims.sha256,
            claims.status,
            claims.grad,
            jws,
        )

    @property
    def is_dead_letter(self) -> bool:
        """Whether it says that we gave up, and not that the fagsystem answered."""
        return self.status == AVVIST and self.grad == GRAD_INGEN

    @property
    def is_final(self) -> bool:
        """Whether the fagsystem has said its last word about the melding."""
        return self.status != LEVERT and not self.is_dead_letter

    def row(self) -> tuple[str | int | None, ...]:
        """Return the values of the columns."""
        return (
            self.kvittering_id,
            self.kommunenummer,
            self.digisos_id,
            self.nr,
            self.melding_id,
            self.sha256,
            self.status,
            self.grad,
            self.jws,
        )


Sign = Callable[[int, Sha256 | None], tuple[KvitteringClaims, str]]
"""Makes a kvittering from its number in the chain and the digest of the former one."""

Unless = tuple[MeldingId, Callable[[Issued], bool]]
"""A melding, and what tells that it needs no further kvittering."""


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

        Most meldinger are new, which is known without a look at the disk (rule 5).
        """
        if _trace(melding_id) not in self._known:
            return ()
        return await self._database.read(lambda db: _issued(db.execute(_OF_MELDING, (melding_id,))))

    async def of_unreadable(self, digisos_id: DigisosId, sha256: Sha256) -> tuple[Issued, ...]:
        """Return the kvitteringer of a record that could not be read, oldest first."""
        query = (
            f"SELECT {_COLUMNS} FROM kvittering"  # noqa: S608 - a constant
            " WHERE digisos_id = ? AND sha256 = ? AND melding_id IS NULL ORDER BY nr"
        )
        return await self._database.read(lambda db: _issued(db.execute(query, (digisos_id, sha256))))

    async def unpublished(self, kommunenummer: Kommunenummer) -> tuple[Issued, ...]:
        """Return what is not known to be on its topic, in the order in which it was issued."""
        query = (
            f"SELECT {_COLUMNS} FROM kvittering"  # noqa: S608 - a constant
            " WHERE kommunenummer = ? AND published = 0 ORDER BY digisos_id, nr"
        )
        return await self._database.read(lambda db: _issued(db.execute(query, (kommunenummer,))))

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
            if unless is not None and (there := _there(db, *unless)) is not None:
                return there
            head = db.execute(
                "SELECT nr, jws FROM kvittering WHERE kommunenummer = ? AND digisos_id = ? ORDER BY nr DESC LIMIT 1",
                (kommunenummer, digisos_id),
            ).fetchone()
            nr, former = (1, None) if head is None else (head["nr"] + 1, Sha256.of(head["jws"].encode("ascii")))
            issued = Issued.of(*sign(nr, former))
            db.execute(_INSERT, issued.row())
            crash_point("consumers.dedup.before-commit")
            if dead_key is not None:
                db.execute(_BURY, (kommunenummer, dead_key))
            return issued

        issued = await self._database.write(add)
        self._remember(issued)
        return issued

    async def take_over(self, kvitteringer: Sequence[Issued], reached: TopicPartition, next_offset: int) -> None:
        """Take over kvitteringer that were found on the topic, up to this place; known ones are published, then."""

        def add(db: Connection) -> None:
            db.executemany(
                _TAKE_OVER,
                [each.row() for each in kvitteringer],
            )
            db.executemany(_MARK, [(each.kvittering_id,) for each in kvitteringer])
            for kommunenummer, digisos_id in {(each.kommunenummer, each.digisos_id) for each in kvitteringer}:
                _judge_key(db, kommunenummer, digisos_id)
            db.execute(_REACH, (*reached, next_offset))

        await self._database.write(add)
        self._remember(*kvitteringer)

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

    async def dead_keys(self, kommunenummer: Kommunenummer) -> frozenset[str]:
        """Return the keys with a dead letter that nobody has redriven."""
        query = "SELECT record_key FROM dead_key WHERE kommunenummer = ?"
        return await self._database.read(
            lambda db: frozenset(str(row["record_key"]) for row in db.execute(query, (kommunenummer,)))
        )

    async def add_dead_key(self, kommunenummer: Kommunenummer, key: str) -> None:
        """Note that a key is dead, when there is no kvittering to go with it."""
        await self._database.write(lambda db: db.execute(_BURY, (kommunenummer, key)))

    async def judge_key(self, kommunenummer: Kommunenummer, digisos_id: DigisosId) -> bool:
        """Find out, after a redriven melding was answered, whether the søknad's key is dead; remember and return it."""
        return await self._database.write(lambda db: _judge_key(db, kommunenummer, digisos_id))

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


def _there(db: Connection, melding_id: MeldingId, is_enough: Callable[[Issued], bool]) -> Issued | None:
    return next((each for each in _issued(db.execute(_OF_MELDING, (melding_id,))) if is_enough(each)), None)


def _judge_key(db: Connection, kommunenummer: str, digisos_id: str) -> bool:
    """A key is dead while a melding of it was dead-lettered and never answered by the fagsystem."""
    dead = db.execute(_UNDELIVERED, (kommunenummer, digisos_id)).fetchone() is not None
    db.execute(_BURY if dead else _REVIVE, (kommunenummer, digisos_id))
    return dead


def _issued(rows: Iterable[Row]) -> tuple[Issued, ...]:
    return tuple(
        Issued(
            Uuid(row["kvittering_id"]),
            Kommunenummer(row["kommunenummer"]),
            DigisosId(row["digisos_id"]),
            int(row["nr"]),
            MeldingId(row["melding_id"]) if row["melding_id"] is not None else None,
            Sha256(row["sha256"]),
            str(row["status"]),
            str(row["grad"]),
            str(row["jws"]),
        )
        for row in rows
    )
