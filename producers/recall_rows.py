"""Recalls as rows: each governed act with its demand, and which meldinger were withdrawn.

The register that is asked is the sender's own (``producers.kopi_rows``), whose rows stay when a copy is destroyed: a søknad that
somebody has received is affected too, and told of as one that it is too late for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from producers.kopi_rows import Utvalg, from_ms, load, to_ms
from schemas.names import MeldingId, Sha256, Uuid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from broker.krav import Krav
    from broker.sql import Connection
    from producers.kopi_rows import Kopi

MIGRATION: Final = """
    CREATE TABLE tilbakekalling (
        id            TEXT PRIMARY KEY,
        handling      TEXT NOT NULL,
        utvalg        TEXT NOT NULL,
        digest        TEXT NOT NULL,
        antall        INTEGER NOT NULL,
        aktor         TEXT NOT NULL,
        begrunnelse   TEXT NOT NULL,
        krav          TEXT NOT NULL,
        tilstand      TEXT NOT NULL,
        godkjent_av   TEXT,
        tidspunkt_ms  INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE tilbakekalt (
        melding_id     TEXT PRIMARY KEY,
        tilbakekalling TEXT NOT NULL,
        tidspunkt_ms   INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX avsenderkopi_innsendt ON avsenderkopi (innsendt_ms);
"""
"""SQL script; see ``producers.database``."""

SIGNED_MIGRATION: Final = """
    CREATE TABLE tilbakekalling_melding (
        tilbakekalling TEXT NOT NULL,
        plass          INTEGER NOT NULL,
        melding_id     TEXT NOT NULL,
        PRIMARY KEY (tilbakekalling, plass)
    ) STRICT;
"""
"""The exact meldinger that an act was signed for: it is done to these and no others, whatever the question would find later."""

PAGE: Final = 500
FORESLATT: Final = "FORESLATT"
GODKJENT: Final = "GODKJENT"
UTFORT: Final = "UTFORT"
_COLUMNS: Final = "id, handling, utvalg, digest, antall, aktor, begrunnelse, krav, tilstand, godkjent_av, tidspunkt_ms"


@dataclass(frozen=True, slots=True)
class Side:
    """A page of what an act was signed for.

    Attributes:
        kopier: Meldinger that are as they were asked for still.
        endret: Those that are not: another channel has them, or they are sealed for another certificate.
        etter: Where the next page begins.
    """

    kopier: list[Kopi]
    endret: list[MeldingId]
    etter: int


@dataclass(frozen=True, slots=True)
class Tilbakekalling:
    """A recall.

    Attributes:
        id: Its id.
        handling: ``trekk`` or ``send``.
        utvalg: What it is for, as JSON.
        digest: Of the exact meldinger.
        antall: How many.
        aktor: Who demanded it.
        begrunnelse: Why.
        krav: The signed demand.
        tilstand: FORESLATT, GODKJENT or UTFORT.
        godkjent_av: Who approved, when it needed that.
        tidspunkt: When it was demanded.
    """

    id: Uuid
    handling: str
    utvalg: str
    digest: Sha256
    antall: int
    aktor: str
    begrunnelse: str
    krav: str
    tilstand: str
    godkjent_av: str | None
    tidspunkt: datetime


def highest(connection: Connection) -> int:
    """Return the place of the newest melding; 0 when there is none."""
    return int(connection.execute("SELECT COALESCE(max(nr), 0) FROM avsenderkopi").fetchone()[0])


def affected(connection: Connection, utvalg: Utvalg, *, til_nr: int, etter: int, antall: int = PAGE) -> list[Kopi]:
    """Return meldinger of the selection, destroyed copies too, in the order accepted, from behind place ``etter``."""
    where, values = utvalg.where()
    rows = connection.execute(
        f"SELECT melding_id FROM avsenderkopi WHERE nr > ? AND nr <= ?{where} ORDER BY nr LIMIT ?",  # noqa: S608 - no value is in it
        (etter, til_nr, *values, antall),
    ).fetchall()
    found = (load(connection, MeldingId(row[0])) for row in rows)
    return [kopi for kopi in found if kopi is not None]


def affected_ids(connection: Connection, utvalg: Utvalg, *, til_nr: int) -> Iterator[MeldingId]:
    """Return the ids of all meldinger of the selection, in the order accepted."""
    where, values = utvalg.where()
    sql = f"SELECT melding_id FROM avsenderkopi WHERE nr <= ?{where} ORDER BY nr"  # noqa: S608 - no value is in it
    return (MeldingId(row[0]) for row in connection.execute(sql, (til_nr, *values)).fetchall())


def keep_signed(connection: Connection, recall: Uuid, ids: Iterable[MeldingId]) -> None:
    """Note the exact meldinger that an act was signed for."""
    connection.executemany(
        "INSERT INTO tilbakekalling_melding (tilbakekalling, plass, melding_id) VALUES (?, ?, ?)"
        " ON CONFLICT (tilbakekalling, plass) DO NOTHING",
        [(recall, plass, melding_id) for plass, melding_id in enumerate(ids, 1)],
    )


def is_kept(connection: Connection, recall: Uuid) -> bool:
    """Return whether the meldinger of an act are noted; those of an older version's are not."""
    sql = "SELECT 1 FROM tilbakekalling_melding WHERE tilbakekalling = ? LIMIT 1"
    return connection.execute(sql, (recall,)).fetchone() is not None


def signed(connection: Connection, recall: Uuid, utvalg: Utvalg, *, etter: int, antall: int = PAGE) -> Side | None:
    """Return what an act was signed for, a page at a time from behind place ``etter``; None behind the last."""
    rows = connection.execute(
        "SELECT plass, melding_id FROM tilbakekalling_melding WHERE tilbakekalling = ? AND plass > ? ORDER BY plass LIMIT ?",
        (recall, etter, antall),
    ).fetchall()
    if not rows:
        return None
    ids = [MeldingId(row[1]) for row in rows]
    where, values = utvalg.where()
    marks = ", ".join("?" * len(ids))
    sql = f"SELECT melding_id FROM avsenderkopi WHERE melding_id IN ({marks}){where}"  # noqa: S608 - no value is in it
    still = {str(row[0]) for row in connection.execute(sql, (*ids, *values)).fetchall()}
    kopier = [kopi for one in ids if one in still and (kopi := load(connection, one)) is not None]
    return Side(kopier, [one for one in ids if one not in still], int(rows[-1][0]))


def done_alone(connection: Connection, aktor: str, since: datetime) -> set[MeldingId]:
    """Return the meldinger that the acts of one operator reached since a moment without anybody's approval."""
    rows = connection.execute(
        "SELECT DISTINCT m.melding_id FROM tilbakekalling_melding m JOIN tilbakekalling t ON t.id = m.tilbakekalling"
        " WHERE t.aktor = ? AND t.godkjent_av IS NULL AND t.tilstand <> ? AND t.tidspunkt_ms > ?",
        (aktor, FORESLATT, to_ms(since)),
    )
    return {MeldingId(row[0]) for row in rows.fetchall()}


def withdrawn(connection: Connection, melding_id: MeldingId) -> bool:
    """Return whether a melding was withdrawn before."""
    row = connection.execute("SELECT 1 FROM tilbakekalt WHERE melding_id = ?", (melding_id,)).fetchone()
    return row is not None


def note_withdrawn(connection: Connection, melding_id: MeldingId, recall: Uuid, now: datetime) -> None:
    """Note that a melding is withdrawn."""
    connection.execute("INSERT INTO tilbakekalt VALUES (?, ?, ?)", (melding_id, recall, to_ms(now)))


def add(connection: Connection, krav: Krav, token: str, tilstand: str, now: datetime) -> bool:
    """Note a demand; return False when its id was used before."""
    done = connection.execute(
        f"INSERT INTO tilbakekalling ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?)"  # noqa: S608 - a constant
        " ON CONFLICT (id) DO NOTHING",
        (
            krav.id,
            krav.handling,
            krav.utvalg,
            krav.digest,
            krav.antall,
            krav.aktor,
            krav.begrunnelse,
            token,
            tilstand,
            to_ms(now),
        ),
    )
    return done.rowcount == 1


def move(connection: Connection, recall: Uuid, tilstand: str, godkjent_av: str | None = None) -> None:
    """Let a recall have another state."""
    connection.execute(
        "UPDATE tilbakekalling SET tilstand = ?, godkjent_av = COALESCE(?, godkjent_av) WHERE id = ?",
        (tilstand, godkjent_av, recall),
    )


def get(connection: Connection, recall: Uuid) -> Tilbakekalling | None:
    """Return a recall, or None."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM tilbakekalling WHERE id = ?", (recall,)).fetchone()  # noqa: S608 - a constant
    return None if row is None else _recall(row)


def all_recalls(connection: Connection) -> list[Tilbakekalling]:
    """Return every recall, newest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM tilbakekalling ORDER BY tidspunkt_ms DESC, id"  # noqa: S608 - a constant
    ).fetchall()
    return [_recall(row) for row in rows]


def _recall(row: Any) -> Tilbakekalling:
    return Tilbakekalling(
        id=Uuid(row["id"]),
        handling=str(row["handling"]),
        utvalg=str(row["utvalg"]),
        digest=Sha256(row["digest"]),
        antall=int(row["antall"]),
        aktor=str(row["aktor"]),
        begrunnelse=str(row["begrunnelse"]),
        krav=str(row["krav"]),
        tilstand=str(row["tilstand"]),
        godkjent_av=None if row["godkjent_av"] is None else str(row["godkjent_av"]),
        tidspunkt=from_ms(row["tidspunkt_ms"]),
    )
