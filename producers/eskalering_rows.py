"""Escalations as rows: which message was withdrawn from which channel, and what has become of it since.

One row for each message and channel that it was withdrawn from, for good: the primary key is what makes the effect happen once,
however often the withdrawal is read. ``VENTER`` is to be given to the next channel, ``SENDT`` lies there and is not closed,
``TILBAKE`` is to be taken out of there since a person ended it; the others are done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from broker.record import TopicPartition
from schemas.names import DigisosId, Kommunenummer, MeldingId, NavEksternRefId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.sql import Connection
    from schemas.records import TransportRecord

MIGRATION: Final = """
    CREATE TABLE eskalering (
        melding_id         TEXT NOT NULL,
        fra_kanal          TEXT NOT NULL,
        digisos_id         TEXT NOT NULL,
        kommunenummer      TEXT NOT NULL,
        nav_ekstern_ref_id TEXT NOT NULL,
        tilstand           TEXT NOT NULL,
        til_kanal          TEXT,
        forsok             INTEGER NOT NULL,
        neste_ms           INTEGER NOT NULL,
        PRIMARY KEY (melding_id, fra_kanal)
    ) STRICT;
    CREATE INDEX eskalering_tilstand ON eskalering (tilstand, neste_ms);
    CREATE TABLE eskalering_lest (
        topic     TEXT NOT NULL,
        partisjon INTEGER NOT NULL,
        neste     INTEGER NOT NULL,
        PRIMARY KEY (topic, partisjon)
    ) STRICT;
"""
"""SQL script; see ``producers.database``."""

EXPIRY_MIGRATION: Final = """
    ALTER TABLE utboks ADD COLUMN utloper_ms INTEGER;
    CREATE INDEX utboks_utloper ON utboks (utloper_ms) WHERE utloper_ms IS NOT NULL;
"""
"""When a queued søknad's receiver may no longer begin; null for everything else in the outbox."""

ENDED_MIGRATION: Final = """
    CREATE TABLE eskalering_avsluttet (
        melding_id   TEXT PRIMARY KEY,
        tidspunkt_ms INTEGER NOT NULL
    ) STRICT;
"""
"""What a person ended, whether or not a channel was to have it then: a withdrawal may be read after it."""

AT_A_TIME: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS: Final = (
    "melding_id, fra_kanal, digisos_id, kommunenummer, nav_ekstern_ref_id, tilstand, til_kanal, forsok, neste_ms"
)


class Tilstand(StrEnum):
    """Where an escalation stands."""

    VENTER = "VENTER"
    SENDT = "SENDT"
    TILBAKE = "TILBAKE"
    LUKKET = "LUKKET"
    """The channel's closing receipt has come."""
    VIDERE = "VIDERE"
    """The channel could not take it; another row goes on from there."""
    INGEN_KANAL = "INGEN_KANAL"
    UNODVENDIG = "UNODVENDIG"
    """The former channel had answered after all."""
    AVSLUTTET = "AVSLUTTET"
    """A person ended it, or there is nothing left to send."""


@dataclass(frozen=True, slots=True)
class Eskalering:
    """A row; see the module."""

    melding_id: MeldingId
    fra_kanal: str
    digisos_id: DigisosId
    kommunenummer: Kommunenummer
    nav_ekstern_ref_id: NavEksternRefId
    tilstand: Tilstand
    til_kanal: str | None
    forsok: int
    neste_ms: int


@dataclass(frozen=True, slots=True)
class Expired:
    """A søknad that lies in the outbox though its receiver may no longer begin."""

    nr: int
    melding_id: MeldingId
    digisos_id: DigisosId
    kommunenummer: Kommunenummer
    nav_ekstern_ref_id: NavEksternRefId


def insert(
    connection: Connection, event: TransportRecord | Eskalering | Expired, fra_kanal: str, now: datetime
) -> bool:
    """Note that a message was withdrawn from a channel; return False when that was noted before, or a person ended it."""
    ended = connection.execute("SELECT 1 FROM eskalering_avsluttet WHERE melding_id = ?", (event.melding_id,))
    if ended.fetchone() is not None:
        return False
    done = connection.execute(
        "INSERT INTO eskalering"
        " (melding_id, fra_kanal, digisos_id, kommunenummer, nav_ekstern_ref_id, tilstand, forsok, neste_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, 0, ?) ON CONFLICT (melding_id, fra_kanal) DO NOTHING",
        (
            event.melding_id,
            fra_kanal,
            event.digisos_id,
            event.kommunenummer,
            event.nav_ekstern_ref_id,
            Tilstand.VENTER,
            to_ms(now),
        ),
    )
    return done.rowcount == 1


def end(connection: Connection, melding_id: MeldingId, now: datetime) -> None:
    """Note that a person ended a message, for what is read after it too.

    It is to be taken out of the channel that has it, or got it before a crash.
    """
    connection.execute(
        "INSERT INTO eskalering_avsluttet (melding_id, tidspunkt_ms) VALUES (?, ?) ON CONFLICT (melding_id) DO NOTHING",
        (melding_id, to_ms(now)),
    )
    connection.execute(
        "UPDATE eskalering SET tilstand = ?, neste_ms = ? WHERE melding_id = ? AND tilstand IN (?, ?, ?)",
        (Tilstand.TILBAKE, to_ms(now), melding_id, Tilstand.VENTER, Tilstand.INGEN_KANAL, Tilstand.SENDT),
    )


def due(connection: Connection, tilstand: Tilstand, now: datetime) -> list[Eskalering]:
    """Return what is to be done now, the longest overdue first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM eskalering WHERE tilstand = ? AND neste_ms <= ? ORDER BY neste_ms LIMIT ?",  # noqa: S608 - a constant
        (tilstand, to_ms(now), AT_A_TIME),
    )
    return [_eskalering(row) for row in rows.fetchall()]


def sent_to(connection: Connection, kanal: str, after: str) -> list[Eskalering]:
    """Return a page of what lies in a channel and is not closed, by message, from behind ``after``."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM eskalering WHERE tilstand = ? AND til_kanal = ? AND melding_id > ?"  # noqa: S608 - a constant
        " ORDER BY melding_id LIMIT ?",
        (Tilstand.SENDT, kanal, after, AT_A_TIME),
    )
    return [_eskalering(row) for row in rows.fetchall()]


def claim(connection: Connection, row: Eskalering, until: datetime) -> bool:
    """Take a row for this instance until a moment; return False when another has it, or it has changed."""
    done = connection.execute(
        "UPDATE eskalering SET neste_ms = ? WHERE melding_id = ? AND fra_kanal = ? AND tilstand = ? AND neste_ms = ?",
        (to_ms(until), row.melding_id, row.fra_kanal, row.tilstand, row.neste_ms),
    )
    return done.rowcount == 1


def moved(row: Eskalering, tilstand: Tilstand) -> Eskalering:
    """Return the row as it is in another state."""
    return replace(row, tilstand=tilstand)


def move(connection: Connection, row: Eskalering, tilstand: Tilstand, til_kanal: str | None = None) -> bool:
    """Let a row that waits have another state; return False when it does not wait any more."""
    done = connection.execute(
        "UPDATE eskalering SET tilstand = ?, til_kanal = COALESCE(?, til_kanal)"
        " WHERE melding_id = ? AND fra_kanal = ? AND tilstand = ?",
        (tilstand, til_kanal, row.melding_id, row.fra_kanal, row.tilstand),
    )
    return done.rowcount == 1


def is_ended(connection: Connection, row: Eskalering) -> bool:
    """Return whether a person has ended the message since the row was read."""
    found = connection.execute(
        "SELECT tilstand FROM eskalering WHERE melding_id = ? AND fra_kanal = ?", (row.melding_id, row.fra_kanal)
    ).fetchone()
    return found is not None and found[0] in {Tilstand.TILBAKE, Tilstand.AVSLUTTET}


def postpone(connection: Connection, row: Eskalering, forsok: int, until: datetime) -> None:
    """Note an attempt that failed, and when to try again."""
    connection.execute(
        "UPDATE eskalering SET forsok = ?, neste_ms = ? WHERE melding_id = ? AND fra_kanal = ? AND tilstand = ?",
        (forsok, to_ms(until), row.melding_id, row.fra_kanal, row.tilstand),
    )


def expired(connection: Connection, now: datetime, margin: timedelta) -> list[Expired]:
    """Return søknader in the outbox whose receivers may not begin since ``margin`` ago."""
    rows = connection.execute(
        "SELECT nr, melding_id, digisos_id, kommunenummer, nav_ekstern_ref_id FROM utboks"
        " WHERE utloper_ms <= ? ORDER BY utloper_ms LIMIT ?",
        (to_ms(now - margin), AT_A_TIME),
    )
    return [
        Expired(int(row[0]), MeldingId(row[1]), DigisosId(row[2]), Kommunenummer(row[3]), NavEksternRefId(row[4]))
        for row in rows.fetchall()
    ]


def take_from_outbox(connection: Connection, melding_id: MeldingId) -> int:
    """Take a message's søknad out of the outbox, if it is there still; return how many rows that were."""
    return connection.execute(
        "DELETE FROM utboks WHERE melding_id = ? AND utloper_ms IS NOT NULL", (melding_id,)
    ).rowcount


def offsets(connection: Connection) -> dict[TopicPartition, int]:
    """Return where to read on."""
    rows = connection.execute("SELECT topic, partisjon, neste FROM eskalering_lest")
    return {TopicPartition(str(row[0]), int(row[1])): int(row[2]) for row in rows.fetchall()}


def note_offsets(connection: Connection, read: Mapping[TopicPartition, int]) -> None:
    """Note how far was read; never backwards, for another instance may be ahead."""
    connection.executemany(
        "INSERT INTO eskalering_lest (topic, partisjon, neste) VALUES (?, ?, ?)"
        " ON CONFLICT (topic, partisjon) DO UPDATE SET neste = excluded.neste"
        " WHERE eskalering_lest.neste < excluded.neste",
        [(*partition, offset) for partition, offset in read.items()],
    )


def forget_offsets(connection: Connection) -> None:
    """Forget how far was read: the topic is another one."""
    connection.execute("DELETE FROM eskalering_lest")


def _eskalering(row: Any) -> Eskalering:
    return Eskalering(
        MeldingId(row[0]),
        str(row[1]),
        DigisosId(row[2]),
        Kommunenummer(row[3]),
        NavEksternRefId(row[4]),
        Tilstand(row[5]),
        None if row[6] is None else str(row[6]),
        int(row[7]),
        int(row[8]),
    )


def to_ms(moment: datetime) -> int:
    """Return a moment as the rows have it, cut and not rounded: nothing is due before its time."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)
