"""The outbox: what was accepted and is not yet on its topics, and every reference that was ever accepted.

Rules:

1. A submission, its AKSEPTERT and its søknad are one transaction. When ``accept`` returns, they are on disk, and ``202`` may be
   given.
2. A ``navEksternRefId`` is taken once, for ever: the table ``innsending`` is never emptied, and its primary key decides between
   a hundred that come at once.
3. Messages of one digisosId leave in the order in which they came. A message leaves when it is known to be on its topic; until
   then it is published again, with the same ids.
4. A søknad's message leaves and its SENDT enters in one transaction: no SENDT without the søknad, no søknad without a SENDT, and
   never two, since what follows from a message enters only when that message was still there.
5. Of several instances, one that has lost the lease of a bucket removes nothing of it (``producers.leases``).

The database holds ciphertext, ids and a HMAC of the owner. Nothing here can be read by whoever steals the file.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from broker.krasj import crash_point
from producers.outbox_rows import ACTOR as ACTOR  # noqa: PLC0414 - offered here, with the outbox that they go through
from producers.outbox_rows import ACTS as ACTS  # noqa: PLC0414 - as above
from producers.outbox_rows import Message as Message  # noqa: PLC0414 - as above
from producers.outbox_rows import Queued as Queued  # noqa: PLC0414 - as above
from producers.outbox_rows import from_ms, insert_message, load_messages, to_ms
from producers.picking import pick
from schemas.names import DigisosId, DokumentlagerId, Eier, Kommunenummer, NavEksternRefId, Sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from broker.sql import Connection, Database
    from producers.intake import Accepted
    from producers.leases import Fence
    from producers.picking import Bounds

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

BUCKETS_MIGRATION: Final = """
    ALTER TABLE utboks ADD COLUMN botte TEXT NOT NULL DEFAULT '';
    UPDATE utboks SET botte = substr(digisos_id, 35, 2);
    CREATE INDEX utboks_botte ON utboks (botte, nr);
"""
"""Each message's bucket (``producers.sharing.bucket_of``)."""

_PACKAGES: Final = """
    SELECT dokumentlager_id FROM innsending WHERE dokumentlager_id IS NOT NULL
    UNION SELECT dokumentlager_id FROM forsegling WHERE dokumentlager_id IS NOT NULL
"""
_PACKAGE: Final = """
    SELECT kommunenummer, sha256 FROM innsending WHERE dokumentlager_id = ?
    UNION SELECT kommunenummer, sha256 FROM forsegling WHERE dokumentlager_id = ?
"""


_TOGETHER: Final = 500


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that is on its topic.

    Attributes:
        queued: As it was in the outbox.
        then: What enters the outbox when it leaves.
    """

    queued: Queued
    then: Message | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What may be published.

    Attributes:
        runs: For each digisosId its messages in order, the oldest digisosId first.
        after: For the next round's ``Bounds``, as long as no topic opens again.
        unreadable: Places of messages whose rows are damaged; what stands behind one is in no run.
    """

    runs: list[list[Queued]]
    after: int
    unreadable: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Replaced:
    """What came of taking messages out of the outbox.

    Attributes:
        new: What entered, with its places.
        gone: How many were not there any more: another instance had published and removed them.
    """

    new: list[Queued]
    gone: int


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

    async def accept(
        self, accepted: Accepted, messages: Sequence[Message], keep: Callable[[Connection], None] | None = None
    ) -> Registered | None:
        """Take a submission and its messages over, durably, unless its reference is taken.

        Args:
            accepted: The submission.
            messages: What it puts in the outbox.
            keep: Keeps the sender's copy, in the same transaction.

        Returns:
            None when it is ours from now on; otherwise the submission that had the reference.

        Raises:
            StoreError: It cannot be stored, and nothing of it is.
        """

        def write(connection: Connection) -> Registered | None:
            if not _register(connection, accepted):
                return _find(connection, accepted.soknad.nav_ekstern_ref_id)
            for message in messages:
                insert_message(connection, message)
            if keep is not None:
                keep(connection)
            crash_point("producers.outbox.before-commit")
            return None

        former = await self._database.write(write)
        crash_point("producers.outbox.after-commit")
        if former is None:
            self.added.set()
        return former

    async def waiting(self, bounds: Bounds) -> Waiting:
        """Return what may be published now.

        Raises:
            StoreError: The database cannot be read.
        """

        def read(connection: Connection) -> Waiting:
            picked = pick(connection, bounds)
            loaded = load_messages(connection, [nr for run in picked.runs for nr in run])
            runs = [[loaded[nr] for nr in takewhile(loaded.__contains__, run)] for run in picked.runs]
            missing = tuple(nr for run in picked.runs for nr in run if nr not in loaded)
            return Waiting([run for run in runs if run], picked.after, missing)

        return await self._database.read(read)

    async def replace(self, sent: Sequence[Sent], fence: Fence | None = None) -> Replaced | None:
        """Remove messages that are on their topics, and add what follows from that, in one transaction.

        Args:
            sent: All of one bucket.
            fence: The lease under which they were published; None where there are no leases.

        Returns:
            None when the lease is another's: nothing was changed.

        Raises:
            StoreError: Nothing was changed.
        """

        def write(connection: Connection) -> Replaced | None:
            if fence is not None and not _lasts(connection, fence):
                return None
            new: list[Queued] = []
            gone = 0
            for one in sent:
                if connection.execute("DELETE FROM utboks WHERE nr = ?", (one.queued.nr,)).rowcount == 0:
                    gone += 1
                elif one.then is not None:
                    new.append(Queued(insert_message(connection, one.then), one.then))
            crash_point("producers.outbox.in-replace")
            return Replaced(new, gone)

        return await self._database.write(write)

    async def add(self, write: Callable[[Connection], None]) -> None:
        """Run what puts messages in, in a transaction of its own, and wake whoever empties the outbox.

        Raises:
            StoreError: Nothing was changed.
        """
        await self._database.write(write)
        self.added.set()

    async def gone(self, numbers: Collection[int]) -> frozenset[int]:
        """Return the places of ``numbers`` where there is nothing any more.

        Raises:
            StoreError: The database cannot be read.
        """
        if not numbers:
            return frozenset()
        asked = sorted(numbers)

        def read(connection: Connection) -> frozenset[int]:
            there: set[int] = set()
            for start in range(0, len(asked), _TOGETHER):
                some = asked[start : start + _TOGETHER]
                rows = connection.execute(f"SELECT nr FROM utboks WHERE nr IN ({', '.join('?' * len(some))})", some)  # noqa: S608 - places for values
                there.update(int(row[0]) for row in rows)
            return frozenset(asked) - there

        return await self._database.read(read)

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
        return Backlog(int(count), None if oldest is None else from_ms(oldest))

    async def newest(self) -> datetime | None:
        """Return when the newest message came that waits, or the newest submission; None when there is none.

        Raises:
            StoreError: The database cannot be read.
        """
        found = await self._database.read(
            lambda connection: connection.execute(
                "SELECT max(m) FROM (SELECT max(lagt_ms) AS m FROM utboks"
                " UNION ALL SELECT max(innsendt_ms) AS m FROM innsending) AS begge"
            ).fetchone()[0]
        )
        return None if found is None else from_ms(found)

    async def packages(self) -> frozenset[DokumentlagerId]:
        """Return every package in the dokumentlager that a submission refers to.

        Raises:
            StoreError: The database cannot be read.
        """

        def read(connection: Connection) -> frozenset[DokumentlagerId]:
            ids = connection.execute(_PACKAGES)
            return frozenset(DokumentlagerId(row[0]) for row in ids)

        return await self._database.read(read)

    async def package(self, dokumentlager_id: DokumentlagerId) -> StoredPackage | None:
        """Return what is known of a package in the dokumentlager, or None when no submission refers to it.

        Raises:
            StoreError: The database cannot be read.
        """
        row = await self._database.read(
            lambda connection: connection.execute(_PACKAGE, (dokumentlager_id, dokumentlager_id)).fetchone()
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
            to_ms(soknad.innsendt),
        ),
    )
    return cursor.rowcount == 1


def _lasts(connection: Connection, fence: Fence) -> bool:
    """Return whether the lease is still the instance's, by its number; whether its time is out only its successor decides."""
    row = connection.execute("SELECT instans, symbol FROM leie WHERE botte = ?", (fence.bucket,)).fetchone()
    return row is not None and (row[0], row[1]) == (fence.instance, fence.token)
