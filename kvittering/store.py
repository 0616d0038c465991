"""The status store: what was read, what it means, and how far we have read, in one transaction.

Rules:

1. A batch is one transaction: its raw records, the søknader they change, the records that must go out and the next offsets.
   So each record takes effect once, whatever crashes, and the offsets are the store's, never a consumer group's.
2. ``innkommet`` only grows. A place (topic, partition, offset) that is there already, or that lies before the partition's next
   offset, is a replay and takes no effect.
3. What must be published is written down here first and taken away when Kafka has it. A newer status takes the place of an
   older one that has not gone out. What Kafka never takes is set aside: kept, and in nobody's way.
4. Nothing in here is clear text from a søknad: packages lie as they came, sealed.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Final, Self

import orjson

from broker.krasj import crash_point
from broker.record import Incoming, Outgoing, TopicPartition, cloud_event_headers
from broker.routing import STATUS
from broker.sqlite import Database
from kvittering.dead_letters import dead_letter
from kvittering.facts import SoknadState
from kvittering.lifecycle import AT_FAGSYSTEM
from kvittering.projection import Projection, Refused, apply, fact_id, project
from kvittering.views import status_record
from schemas.codec import encode
from schemas.names import DigisosId, Uuid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from broker.record import Headers
    from kvittering.reading import ReadRecord
    from schemas.names import Eier

MIGRATIONS: Final = (
    files("kvittering").joinpath("store.sql").read_text("utf-8"),
    # Code of the error that says that Kafka never takes this record; null for those that are on their way.
    "ALTER TABLE utboks ADD COLUMN satt_til_side TEXT;",
)
STATUS_EVENT: Final = "no.fiks.status.v1"
SOURCE: Final = "/kvittering"
_DELIVERED: Final = tuple(sorted(status.value for status in AT_FAGSYSTEM))


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of one record.

    Attributes:
        read: The record.
        resultat: ``MOTTATT``, ``VENTER``, ``GJENTATT``, ``UNDERKJENT`` or ``LEST_FOR``.
        kode: Code of the error, or of what it waits for.
        before: What was shown before; None when the record took no effect.
        after: What is shown now; None when the record took no effect.
        refused: Codes of everything that was refused by this record, itself or earlier ones.
    """

    read: ReadRecord
    resultat: str
    kode: str | None = None
    before: Projection | None = None
    after: Projection | None = None
    refused: tuple[str, ...] = ()


@dataclass(slots=True)
class _Batch:
    """One transaction under way."""

    connection: sqlite3.Connection
    now: datetime
    offsets: dict[TopicPartition, int]
    shown: dict[DigisosId, Projection] = field(default_factory=dict["DigisosId", "Projection"])
    changed: set[DigisosId] = field(default_factory=set["DigisosId"])


@dataclass(frozen=True, slots=True)
class Pending:
    """A record that must go out, and its number in the queue."""

    nr: int
    outgoing: Outgoing


class StatusStore:
    """Keeps every søknad's state in one SQLite file (0600). Use as an asynchronous context manager.

    Args:
        path: The database file.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, MIGRATIONS)

    async def __aenter__(self) -> Self:
        await self._database.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._database.close()

    async def apply(self, batch: Sequence[ReadRecord], now: datetime) -> list[Applied]:
        """Take in a batch; return what came of each record when all of it is durable.

        Args:
            batch: As read, each partition in order.
            now: Aware UTC, for dead letters.

        Raises:
            StoreError: Nothing of the batch is kept; read it again.
        """
        return await self._database.write(lambda connection: _apply(connection, batch, now))

    async def offsets(self) -> dict[TopicPartition, int]:
        """Return where to read on, for each partition that was ever read."""
        return await self._database.read(_offsets)

    async def state(self, digisos_id: DigisosId, eier: Eier | None = None) -> SoknadState | None:
        """Return what is known about a søknad; None when it is unknown, or not ``eier``'s when that is given."""

        def query(connection: sqlite3.Connection) -> SoknadState | None:
            where = "digisos_id = ?" + ("" if eier is None else " AND eier = ?")
            arguments = (digisos_id,) if eier is None else (digisos_id, eier)
            row = connection.execute(
                f"SELECT tilstand FROM soknad WHERE {where}",  # noqa: S608 - both forms are constants
                arguments,
            ).fetchone()
            return None if row is None else SoknadState.from_json(row[0])

        return await self._database.read(query)

    async def owned_by(self, eier: Eier) -> list[SoknadState]:
        """Return an owner's søknader, newest first."""

        def query(connection: sqlite3.Connection) -> list[SoknadState]:
            rows = connection.execute(
                "SELECT tilstand FROM soknad WHERE eier = ? ORDER BY akseptert_ms DESC, digisos_id", (eier,)
            )
            return [SoknadState.from_json(row[0]) for row in rows]

        return await self._database.read(query)

    async def all_states(self) -> list[SoknadState]:
        """Return every søknad's state, by id: for comparing with a rebuild."""

        def query(connection: sqlite3.Connection) -> list[SoknadState]:
            rows = connection.execute("SELECT tilstand FROM soknad ORDER BY digisos_id")
            return [SoknadState.from_json(row[0]) for row in rows]

        return await self._database.read(query)

    async def delivered(self, ids: Iterable[DigisosId]) -> dict[DigisosId, bool]:
        """Return whether the fagsystem has each søknad; one that is unknown is not delivered."""
        wanted = tuple(ids)

        def query(connection: sqlite3.Connection) -> dict[DigisosId, bool]:
            found = {
                digisos_id: row[0] in _DELIVERED
                for digisos_id in wanted
                if (
                    row := connection.execute(
                        "SELECT status FROM soknad WHERE digisos_id = ?", (digisos_id,)
                    ).fetchone()
                )
            }
            return {digisos_id: found.get(digisos_id, False) for digisos_id in wanted}

        return await self._database.read(query)

    async def pending(self, limit: int) -> list[Pending]:
        """Return the oldest records that must go out."""

        def query(connection: sqlite3.Connection) -> list[Pending]:
            rows = connection.execute("SELECT * FROM utboks WHERE satt_til_side IS NULL ORDER BY nr LIMIT ?", (limit,))
            return [
                Pending(row["nr"], Outgoing(row["topic"], row["nokkel"], row["verdi"], _headers(row["headere"])))
                for row in rows
            ]

        return await self._database.read(query)

    async def published(self, numbers: Iterable[int]) -> None:
        """Take away what Kafka has acknowledged."""
        rows = [(nr,) for nr in numbers]
        await self._database.write(lambda connection: connection.executemany("DELETE FROM utboks WHERE nr = ?", rows))

    async def set_aside(self, numbers: Iterable[int], code: str) -> None:
        """Keep what Kafka never takes, and try it no more."""
        rows = [(code, nr) for nr in numbers]
        await self._database.write(
            lambda connection: connection.executemany("UPDATE utboks SET satt_til_side = ? WHERE nr = ?", rows)
        )

    async def figures(self) -> Figures:
        """Return the numbers that are watched."""

        def query(connection: sqlite3.Connection) -> Figures:
            oldest = connection.execute("SELECT MIN(akseptert_ms) FROM soknad WHERE NOT levert AND eier IS NOT NULL")
            waiting = connection.execute("SELECT COALESCE(SUM(venter), 0) FROM soknad WHERE venter > 0")
            queued, aside = connection.execute("SELECT COUNT(*), COUNT(satt_til_side) FROM utboks").fetchone()
            return Figures(oldest.fetchone()[0], int(waiting.fetchone()[0]), int(queued - aside), int(aside))

        return await self._database.read(query)


@dataclass(frozen=True, slots=True)
class Figures:
    """Numbers that are watched.

    Attributes:
        oldest_unacknowledged_ms: When the oldest søknad that no fagsystem has answered for was accepted, since 1970 UTC.
        waiting: How many facts wait for a søknad or an earlier link.
        unpublished: How many records wait in the queue to be published.
        set_aside: How many records lie in the queue that Kafka never takes.
    """

    oldest_unacknowledged_ms: int | None
    waiting: int
    unpublished: int
    set_aside: int


def _apply(connection: sqlite3.Connection, records: Sequence[ReadRecord], now: datetime) -> list[Applied]:
    batch = _Batch(connection, now, _offsets(connection))
    applied = [_apply_one(batch, read) for read in records]
    for digisos_id in sorted(batch.changed):
        _save(batch, batch.shown[digisos_id])
    connection.executemany(
        "INSERT INTO posisjon (topic, partisjon, neste) VALUES (?, ?, ?)"
        " ON CONFLICT (topic, partisjon) DO UPDATE SET neste = excluded.neste",
        [(*partition, offset) for partition, offset in batch.offsets.items()],
    )
    crash_point("kvittering.apply.before-commit")
    return applied


def _apply_one(batch: _Batch, read: ReadRecord) -> Applied:
    record = read.record
    if record.offset < batch.offsets.get(record.topic_partition, 0):
        return Applied(read, "LEST_FOR")
    batch.offsets[record.topic_partition] = record.offset + 1
    if read.fact is None:
        return _refuse_unread(batch, read)
    before = _projection(batch, read)
    change = apply(before.state, read.fact, before.verdicts)
    _keep_raw(batch, read, change.outcome)
    for refused in change.refused:
        _refuse(batch, read, refused)
    codes = tuple(refused.error.code for refused in change.refused)
    if change.state is before.state:
        return Applied(read, change.outcome, codes[0] if change.outcome == "UNDERKJENT" else None, refused=codes)
    after = project(change.state, change.verdicts)
    batch.shown[after.state.digisos_id] = after
    batch.changed.add(after.state.digisos_id)
    waits_for = after.verdicts.waits.get(fact_id(read.fact))
    if change.outcome == "UNDERKJENT":
        return Applied(read, "UNDERKJENT", codes[0], before, after, codes)
    return Applied(read, "VENTER" if waits_for else "MOTTATT", waits_for, before, after, codes)


def _projection(batch: _Batch, read: ReadRecord) -> Projection:
    digisos_id = read.digisos_id
    if digisos_id is None:
        raise RuntimeError("a fact is always about a søknad")
    if digisos_id not in batch.shown:
        row = batch.connection.execute("SELECT tilstand FROM soknad WHERE digisos_id = ?", (digisos_id,)).fetchone()
        state = SoknadState(digisos_id=digisos_id) if row is None else SoknadState.from_json(row[0])
        batch.shown[digisos_id] = project(state)
    return batch.shown[digisos_id]


def _keep_raw(batch: _Batch, read: ReadRecord, outcome: str) -> None:
    record = read.record
    batch.connection.execute(
        "INSERT OR IGNORE INTO innkommet"
        " (topic, partisjon, posisjon, digisos_id, fakta_id, tidsstempel_ms, nokkel, verdi, headere, utfall)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.topic,
            record.partition,
            record.offset,
            read.digisos_id,
            None if read.fact is None else fact_id(read.fact),
            record.timestamp_ms,
            record.key,
            record.value,
            _headers_json(record.headers),
            outcome,
        ),
    )


def _refuse_unread(batch: _Batch, read: ReadRecord) -> Applied:
    if read.error is None:
        raise RuntimeError("a record without a fact has an error")
    _keep_raw(batch, read, "UNDERKJENT")
    letter = dead_letter(read.record, read.error, digisos_id=read.digisos_id, melding_id=None, now=batch.now)
    _queue(batch.connection, letter)
    return Applied(read, "UNDERKJENT", read.error.code, refused=(read.error.code,))


def _refuse(batch: _Batch, read: ReadRecord, refused: Refused) -> None:
    """Write the dead letter of a fact, which is the one just read or one that had waited."""
    own = read.fact is not None and fact_id(read.fact) == refused.fact_id
    record = read.record if own else _first_record(batch.connection, read.digisos_id, refused.fact_id)
    letter = dead_letter(
        record, refused.error, digisos_id=read.digisos_id, melding_id=read.melding_id if own else None, now=batch.now
    )
    _queue(batch.connection, letter)


def _first_record(connection: sqlite3.Connection, digisos_id: DigisosId | None, of_fact: str) -> Incoming:
    """Return the record that a fact which waited came with."""
    row = connection.execute(
        "SELECT * FROM innkommet WHERE digisos_id = ? AND fakta_id = ? ORDER BY nr LIMIT 1", (digisos_id, of_fact)
    ).fetchone()
    return _incoming(row)


def _save(batch: _Batch, projection: Projection) -> None:
    """Write a søknad down, and queue its status if that is news."""
    connection, state = batch.connection, projection.state
    record = status_record(projection)
    value = None if record is None else encode(record)
    row = connection.execute("SELECT sist_status FROM soknad WHERE digisos_id = ?", (state.digisos_id,)).fetchone()
    connection.execute(
        "INSERT OR REPLACE INTO soknad"
        " (digisos_id, eier, kommunenummer, status, akseptert_ms, levert, venter, tilstand, sist_status)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            state.digisos_id,
            projection.eier,
            projection.kommunenummer,
            projection.status,
            int(projection.soknad.akseptert.timestamp() * 1000) if projection.soknad else None,
            projection.levert_fagsystem,
            len(projection.verdicts.waits),
            state.to_json(),
            value,
        ),
    )
    if record is not None and value is not None and (row is None or row[0] != value):
        key = state.digisos_id.encode("ascii")
        connection.execute("DELETE FROM utboks WHERE topic = ? AND nokkel = ?", (STATUS, key))
        headers = cloud_event_headers(
            event_id=Uuid.new(),
            event_type=STATUS_EVENT,
            source=SOURCE,
            subject=record.kommunenummer,
            time=record.oppdatert,
        )
        _queue(connection, Outgoing(STATUS, key, value, headers))


def _queue(connection: sqlite3.Connection, outgoing: Outgoing) -> None:
    connection.execute(
        "INSERT INTO utboks (topic, nokkel, verdi, headere) VALUES (?, ?, ?, ?)",
        (outgoing.topic, outgoing.key, outgoing.value, _headers_json(outgoing.headers)),
    )


def _offsets(connection: sqlite3.Connection) -> dict[TopicPartition, int]:
    rows = connection.execute("SELECT topic, partisjon, neste FROM posisjon")
    return {TopicPartition(row[0], row[1]): row[2] for row in rows}


def _incoming(row: Mapping[str, object] | sqlite3.Row) -> Incoming:
    return Incoming(
        topic=str(row["topic"]),
        partition=int(str(row["partisjon"])),
        offset=int(str(row["posisjon"])),
        timestamp_ms=int(str(row["tidsstempel_ms"])),
        key=bytes(row["nokkel"]),  # type: ignore[arg-type]  # sqlite3.Row has no types
        value=bytes(row["verdi"]),  # type: ignore[arg-type]  # sqlite3.Row has no types
        headers=_headers(str(row["headere"])),
    )


def _headers_json(headers: Headers) -> str:
    return orjson.dumps([(name, value.decode("latin-1")) for name, value in headers]).decode()


def _headers(text: str) -> Headers:
    return tuple((name, value.encode("latin-1")) for name, value in orjson.loads(text))
