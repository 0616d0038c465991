"""The outbox: what was accepted and is not yet on its topics, and every reference that was ever accepted.

Rules:

1. A submission, its AKSEPTERT and its søknad are one transaction. When ``accept`` returns, they are on disk, and ``202`` may be
   given.
2. A ``navEksternRefId`` is taken once, for ever: the table ``innsending`` is never emptied, and its primary key decides between
   a hundred that come at once.
3. Messages of one digisosId leave in the order in which they came. A message leaves when it is known to be on its topic; until
   then it is published again, with the same ids.
4. A søknad's message leaves and its SENDT enters in one transaction: no SENDT without the søknad, no søknad without a SENDT.

The database holds ciphertext, ids and a HMAC of the owner. Nothing here can be read by whoever steals the file.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import orjson

from broker.krasj import crash_point
from broker.record import Outgoing
from schemas.names import DigisosId, DokumentlagerId, Eier, Kommunenummer, MeldingId, NavEksternRefId, Sha256

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from broker.record import Headers
    from broker.sql import Connection, Database
    from producers.intake import Accepted

MIGRATIONS: Final = (
    """
    CREATE TABLE innsending (
        nav_ekstern_ref_id TEXT PRIMARY KEY,
        digisos_id         TEXT NOT NULL,
        melding_id         TEXT NOT NULL UNIQUE,
        kommunenummer      TEXT NOT NULL,
        eier               TEXT NOT NULL,
        sha256             TEXT NOT NULL,
        dokumentlager_id   TEXT UNIQUE,
        innsendt_ms        INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE utboks (
        nr                 INTEGER PRIMARY KEY AUTOINCREMENT,
        digisos_id         TEXT NOT NULL,
        melding_id         TEXT NOT NULL,
        kommunenummer      TEXT NOT NULL,
        nav_ekstern_ref_id TEXT NOT NULL,
        type               TEXT NOT NULL,
        topic              TEXT NOT NULL,
        lagt_ms            INTEGER NOT NULL,
        storrelse          INTEGER NOT NULL,
        headere            TEXT NOT NULL,
        verdi              BLOB NOT NULL
    ) STRICT;
    CREATE INDEX utboks_digisos_id ON utboks (digisos_id);
    """,
)
"""SQL scripts; only ever added to."""

_PAGE: Final = 500
"""How many messages are looked at together, in search of what may be published."""
_WAITING: Final = f"SELECT nr, digisos_id, topic, storrelse FROM utboks WHERE nr > ? ORDER BY nr LIMIT {_PAGE}"  # noqa: S608 - a constant
_INSERT: Final = """
    INSERT INTO utboks
        (digisos_id, melding_id, kommunenummer, nav_ekstern_ref_id, type, topic, lagt_ms, storrelse, headere, verdi)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    RETURNING nr
"""


@dataclass(frozen=True, slots=True)
class Message:
    """A message for a topic, and what its SENDT needs to know.

    Attributes:
        type: AKSEPTERT, SOKNAD or SENDT.
        outgoing: The record as it is published, the same each time.
        queued: When it came; aware UTC.
    """

    digisos_id: DigisosId
    melding_id: MeldingId
    kommunenummer: Kommunenummer
    nav_ekstern_ref_id: NavEksternRefId
    type: str
    outgoing: Outgoing
    queued: datetime


@dataclass(frozen=True, slots=True)
class Queued:
    """A message in the outbox; ``nr`` is its place."""

    nr: int
    message: Message


@dataclass(frozen=True, slots=True)
class Registered:
    """A submission that was accepted before."""

    digisos_id: DigisosId
    eier: Eier


@dataclass(frozen=True, slots=True)
class StoredPackage:
    """A package in the dokumentlager: whose it is, and the SHA-256 of its bytes."""

    kommunenummer: Kommunenummer
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much waits: messages, and since when the oldest does (None when there is none)."""

    messages: int
    oldest: datetime | None


class Outbox:
    """The outbox in one database.

    Args:
        database: Opened with ``producers.database.MIGRATIONS``.

    Attributes:
        added: Set whenever a message was added; whoever waits for it clears it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.added = asyncio.Event()

    async def find(self, nav_ekstern_ref_id: NavEksternRefId) -> Registered | None:
        """Return the submission that has taken this reference, if any.

        Raises:
            StoreError: The database cannot be read.
        """
        return await self._database.read(lambda connection: _find(connection, nav_ekstern_ref_id))

    async def accept(self, accepted: Accepted, messages: Sequence[Message]) -> Registered | None:
        """Take a submission and its messages over, durably, unless its reference is taken.

        Returns:
            None when it is ours from now on; otherwise the submission that had the reference.

        Raises:
            StoreError: It cannot be stored, and nothing of it is.
        """

        def write(connection: Connection) -> Registered | None:
            if not _register(connection, accepted):
                return _find(connection, accepted.soknad.nav_ekstern_ref_id)
            for message in messages:
                _insert(connection, message)
            crash_point("producers.outbox.before-commit")
            return None

        former = await self._database.write(write)
        crash_point("producers.outbox.after-commit")
        if former is None:
            self.added.set()
        return former

    async def waiting(
        self, *, busy: Collection[DigisosId], held: Collection[str], max_runs: int, max_bytes: int
    ) -> list[list[Queued]]:
        """Return what may be published now: for each digisosId its messages in order, the oldest digisosId first.

        Args:
            busy: Left out, with all that they have.
            held: Topics that take nothing now. A message for one stops those behind it.
            max_runs: Most digisosId-er.
            max_bytes: Stop when this much is gathered; the first one is returned whatever its size.

        Raises:
            StoreError: The database cannot be read.
        """

        def read(connection: Connection) -> list[list[Queued]]:
            chosen = _choose(connection, busy, held, max_runs, max_bytes)
            return [[_load(connection, nr) for nr in run] for run in chosen]

        return await self._database.read(read)

    async def replace(self, sent: Iterable[Queued], new: Iterable[Message] = ()) -> list[Queued]:
        """Remove messages that are on their topics, and add what follows from that, in one transaction.

        Returns:
            The new ones, with their places.

        Raises:
            StoreError: Nothing was changed.
        """
        numbers, messages = [(queued.nr,) for queued in sent], tuple(new)

        def write(connection: Connection) -> list[Queued]:
            connection.executemany("DELETE FROM utboks WHERE nr = ?", numbers)
            queued = [Queued(_insert(connection, message), message) for message in messages]
            crash_point("producers.outbox.in-replace")
            return queued

        return await self._database.write(write)

    async def backlog(self) -> Backlog:
        """Return how much waits.

        Raises:
            StoreError: The database cannot be read.
        """
        count, oldest = await self._database.read(
            lambda connection: connection.execute(
                "SELECT count(*), (SELECT lagt_ms FROM utboks ORDER BY nr LIMIT 1) FROM utboks"
            ).fetchone()
        )
        return Backlog(int(count), None if oldest is None else _moment(oldest))

    async def packages(self) -> frozenset[DokumentlagerId]:
        """Return every package in the dokumentlager that a submission refers to.

        Raises:
            StoreError: The database cannot be read.
        """

        def read(connection: Connection) -> frozenset[DokumentlagerId]:
            ids = connection.execute("SELECT dokumentlager_id FROM innsending WHERE dokumentlager_id IS NOT NULL")
            return frozenset(DokumentlagerId(row[0]) for row in ids)

        return await self._database.read(read)

    async def package(self, dokumentlager_id: DokumentlagerId) -> StoredPackage | None:
        """Return what is known of a package in the dokumentlager, or None when no submission refers to it.

        Raises:
            StoreError: The database cannot be read.
        """
        row = await self._database.read(
            lambda connection: connection.execute(
                "SELECT kommunenummer, sha256 FROM innsending WHERE dokumentlager_id = ?", (dokumentlager_id,)
            ).fetchone()
        )
        return None if row is None else StoredPackage(Kommunenummer(row[0]), Sha256(row[1]))


def _find(connection: Connection, nav_ekstern_ref_id: NavEksternRefId) -> Registered | None:
    row = connection.execute(
        "SELECT digisos_id, eier FROM innsending WHERE nav_ekstern_ref_id = ?", (nav_ekstern_ref_id,)
    ).fetchone()
    return None if row is None else Registered(DigisosId(row[0]), Eier(row[1]))


def _register(connection: Connection, accepted: Accepted) -> bool:
    """Take the reference; return False when it is taken."""
    soknad = accepted.soknad
    cursor = connection.execute(
        "INSERT INTO innsending VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (nav_ekstern_ref_id) DO NOTHING",
        (
            soknad.nav_ekstern_ref_id,
            soknad.digisos_id,
            soknad.melding_id,
            soknad.kommunenummer,
            accepted.transport.eier,
            soknad.sha256,
            soknad.dokumentlager_id,
            _milliseconds(soknad.innsendt),
        ),
    )
    return cursor.rowcount == 1


def _insert(connection: Connection, message: Message) -> int:
    outgoing = message.outgoing
    value = outgoing.value or b""  # nothing that we send is a tombstone
    cursor = connection.execute(
        _INSERT,
        (
            message.digisos_id,
            message.melding_id,
            message.kommunenummer,
            message.nav_ekstern_ref_id,
            message.type,
            outgoing.topic,
            _milliseconds(message.queued),
            len(value),
            json.dumps([(name, value.decode()) for name, value in outgoing.headers]),
            value,
        ),
    )
    return int(cursor.fetchone()[0])


def _choose(
    connection: Connection, busy: Collection[DigisosId], held: Collection[str], max_runs: int, max_bytes: int
) -> list[list[int]]:
    """Return the places of what may be published, by digisosId; looks at no value."""
    runs: dict[str, list[int]] = {}
    blocked: set[str] = set()
    size = 0
    for nr, digisos_id, topic, storrelse in _in_order(connection):
        if digisos_id in busy or digisos_id in blocked:
            continue
        if topic in held:
            blocked.add(digisos_id)
            continue
        if (digisos_id not in runs and len(runs) >= max_runs) or (runs and size + storrelse > max_bytes):
            break
        runs.setdefault(digisos_id, []).append(nr)
        size += storrelse
    return list(runs.values())


def _in_order(connection: Connection) -> Iterator[tuple[int, str, str, int]]:
    """Go through the outbox from its oldest message, a page at a time: a driver may fetch all that a statement finds."""
    last = 0
    while page := connection.execute(_WAITING, (last,)).fetchall():
        for row in page:
            yield tuple(row)
        last = page[-1][0]


def _load(connection: Connection, nr: int) -> Queued:
    row = connection.execute("SELECT * FROM utboks WHERE nr = ?", (nr,)).fetchone()
    digisos_id = DigisosId(row["digisos_id"])
    headers: Headers = tuple((name, value.encode()) for name, value in orjson.loads(row["headere"]))
    return Queued(
        nr,
        Message(
            digisos_id=digisos_id,
            melding_id=MeldingId(row["melding_id"]),
            kommunenummer=Kommunenummer(row["kommunenummer"]),
            nav_ekstern_ref_id=NavEksternRefId(row["nav_ekstern_ref_id"]),
            type=row["type"],
            outgoing=Outgoing(row["topic"], digisos_id.encode(), row["verdi"], headers),
            queued=_moment(row["lagt_ms"]),
        ),
    )


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
