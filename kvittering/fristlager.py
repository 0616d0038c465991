"""Deadlines in the status store: one row for each message that still waits, and what the watch has done about it.

Rules:

1. The rows follow from the facts (``frister.waiting``) and are written with them, in one transaction. They are few: what is done
   has none. Nobody ever looks through all søknader to find what is late.
2. What the watch decides is judged anew from the facts within the transaction that writes it down and puts it in the queue.
3. An event is queued once, also while its own echo from the topic has not come: ``tilbaketrekking`` remembers its id.
4. The deadlines that the rows were computed with stand in ``kommunefrist``. Where they differ from the katalog's, the kommune's
   rows are computed again; where they are missing, as after a rebuild, those of every søknad that is not delivered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from broker.krasj import crash_point
from broker.record import Outgoing, cloud_event_headers
from broker.routing import TRANSPORT
from kvittering.facts import SoknadState
from kvittering.frister import Frister, decide, waiting
from kvittering.projection import project
from kvittering.rows import QUEUE, SOURCE, Row, queue_row
from schemas.codec import encode
from schemas.names import DigisosId, Kommunenummer, MeldingId

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from broker.sql import Connection
    from kvittering.projection import Projection
    from schemas.records import TransportRecord

MIGRATION: Final = """
    CREATE TABLE frist (
        melding_id    TEXT PRIMARY KEY,
        digisos_id    TEXT NOT NULL,
        kommunenummer TEXT NOT NULL,
        kanal         TEXT NOT NULL,
        arsak         TEXT NOT NULL,
        kode          TEXT,
        akseptert_ms  INTEGER NOT NULL,
        forfall_ms    INTEGER NOT NULL,
        sjekk_ms      INTEGER
    ) STRICT;
    CREATE INDEX frist_digisos_id ON frist (digisos_id);
    CREATE INDEX frist_forfall ON frist (forfall_ms, kommunenummer, arsak);
    CREATE INDEX frist_sjekk ON frist (sjekk_ms, kommunenummer) WHERE sjekk_ms IS NOT NULL;
    CREATE INDEX frist_kommune ON frist (kommunenummer, sjekk_ms);
    CREATE TABLE tilbaketrekking (
        hendelse_id  TEXT PRIMARY KEY,
        digisos_id   TEXT NOT NULL,
        tidspunkt_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX tilbaketrekking_digisos_id ON tilbaketrekking (digisos_id);
    CREATE TABLE kommunefrist (
        kommunenummer TEXT PRIMARY KEY,
        bekreftet_s   INTEGER NOT NULL,
        mottatt_s     INTEGER NOT NULL,
        margin_s      INTEGER NOT NULL
    ) STRICT;
"""
"""SQL script; see ``store.MIGRATIONS``."""

TRANSPORT_EVENT: Final = "no.fiks.transport.v1"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
AT_A_TIME: Final = 200
"""How many søknader one transaction looks at: others wait for the database too."""

WRITE: Final = (
    "INSERT INTO frist"
    " (melding_id, digisos_id, kommunenummer, kanal, arsak, kode, akseptert_ms, forfall_ms, sjekk_ms)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (melding_id) DO NOTHING"
)

_LIST: Final = (
    "SELECT melding_id, digisos_id, kommunenummer, kanal, arsak, kode, akseptert_ms, forfall_ms FROM frist"
    " WHERE forfall_ms <= ?"
)

FristerOf: TypeAlias = Callable[[Kommunenummer | None], Frister]
"""Returns a kommune's deadlines as they are now."""


def default_frister(_: Kommunenummer | None) -> Frister:
    """Return the deadlines of whom nobody has said anything about."""
    return Frister()


@dataclass(frozen=True, slots=True)
class Frist:
    """A message that waits, as the list shows it.

    Attributes:
        arsak: See ``frister.Arsak``.
        forfall: From when it is too late.
    """

    melding_id: MeldingId
    digisos_id: DigisosId
    kommunenummer: Kommunenummer
    kanal: str
    arsak: str
    kode: str | None
    akseptert: datetime
    forfall: datetime


@dataclass(frozen=True, slots=True)
class Overdue:
    """How many messages are too late, by kommune and reason, and since when the one is that has been so the longest."""

    counts: Mapping[tuple[str, str], int]
    oldest: datetime | None


def frist_rows(projection: Projection, frister: Frister) -> list[Row]:
    """Return the rows of ``WRITE`` of one søknad."""
    return [
        (
            one.melding.melding_id,
            projection.state.digisos_id,
            one.melding.kommunenummer,
            one.kanal,
            one.arsak.value,
            one.kode,
            _ms(one.melding.akseptert),
            _ms(one.forfall),
            None if one.sjekk is None else _ms(one.sjekk),
        )
        for one in waiting(projection, frister)
    ]


def save_frister(connection: Connection, projection: Projection, frister: Frister) -> None:
    """Write a søknad's rows anew."""
    connection.execute("DELETE FROM frist WHERE digisos_id = ?", (projection.state.digisos_id,))
    rows = frist_rows(projection, frister)
    if rows:
        connection.executemany(WRITE, rows)


def forget_frister(connection: Connection, digisos_id: str) -> None:
    """Forget a søknad's rows, with the søknad."""
    connection.execute("DELETE FROM frist WHERE digisos_id = ?", (digisos_id,))
    connection.execute("DELETE FROM tilbaketrekking WHERE digisos_id = ?", (digisos_id,))


def due_kommuner(connection: Connection, now: datetime) -> frozenset[Kommunenummer]:
    """Return the kommuner with something for the watch to do."""
    rows = connection.execute("SELECT DISTINCT kommunenummer FROM frist WHERE sjekk_ms <= ?", (_ms(now),))
    return frozenset(Kommunenummer(row[0]) for row in rows)


def withdraw_due(
    connection: Connection, kommuner: Collection[Kommunenummer], frister_of: FristerOf, now: datetime
) -> list[TransportRecord]:
    """Withdraw what is due in these kommuner, at most ``AT_A_TIME`` søknader; return what was put in the queue.

    Call again until nothing is due: a row whose event has been queued is not due any more.
    """
    queued: list[TransportRecord] = []
    for digisos_id in _due_ids(connection, kommuner, now):
        projection = _project(connection, digisos_id)
        if projection is None:
            forget_frister(connection, digisos_id)
            continue
        frister = frister_of(projection.kommunenummer)
        save_frister(connection, projection, frister)
        for event in decide(projection, frister, now):
            connection.execute("UPDATE frist SET sjekk_ms = NULL WHERE melding_id = ?", (event.melding_id,))
            if _is_new(connection, event):
                connection.execute(QUEUE, queue_row(withdrawal_message(event)))
                queued.append(event)
    if queued:
        crash_point("kvittering.vakt.before-commit")
    return queued


def withdrawal_message(event: TransportRecord) -> Outgoing:
    """Return the record for ``fiks.transport.v1``."""
    headers = cloud_event_headers(
        event_id=event.hendelse_id,
        event_type=TRANSPORT_EVENT,
        source=SOURCE,
        subject=event.kommunenummer,
        time=event.tidspunkt,
    )
    return Outgoing(TRANSPORT, event.digisos_id.encode("ascii"), encode(event), headers)


def _due_ids(connection: Connection, kommuner: Collection[Kommunenummer], now: datetime) -> list[DigisosId]:
    found: dict[DigisosId, None] = {}
    for kommunenummer in sorted(kommuner):
        rows = connection.execute(
            "SELECT digisos_id FROM frist WHERE kommunenummer = ? AND sjekk_ms <= ? ORDER BY sjekk_ms LIMIT ?",
            (kommunenummer, _ms(now), AT_A_TIME - len(found)),
        )
        found |= dict.fromkeys(DigisosId(row[0]) for row in rows.fetchall())
        if len(found) >= AT_A_TIME:
            break
    return list(found)


def _is_new(connection: Connection, event: TransportRecord) -> bool:
    written = connection.execute(
        "INSERT INTO tilbaketrekking (hendelse_id, digisos_id, tidspunkt_ms) VALUES (?, ?, ?)"
        " ON CONFLICT (hendelse_id) DO NOTHING",
        (event.hendelse_id, event.digisos_id, _ms(event.tidspunkt)),
    )
    return written.rowcount == 1


def changed_kommuner(connection: Connection, now: Mapping[Kommunenummer, Frister]) -> dict[Kommunenummer, bool]:
    """Return the kommuner whose rows were computed with other deadlines, and whether there were any rows at all."""
    rows = connection.execute("SELECT kommunenummer, bekreftet_s, mottatt_s, margin_s FROM kommunefrist")
    known = {Kommunenummer(row[0]): (int(row[1]), int(row[2]), int(row[3])) for row in rows}
    return {knr: knr in known for knr, frister in now.items() if known.get(knr) != _seconds(frister)}


def kommunes_waiting(connection: Connection, kommunenummer: Kommunenummer) -> list[DigisosId]:
    """Return a kommune's søknader that have rows."""
    rows = connection.execute("SELECT DISTINCT digisos_id FROM frist WHERE kommunenummer = ?", (kommunenummer,))
    return [DigisosId(row[0]) for row in rows.fetchall()]


def undelivered(connection: Connection) -> list[DigisosId]:
    """Return the søknader that no fagsystem has, and those with rows, of every kommune."""
    rows = connection.execute("SELECT digisos_id FROM soknad WHERE levert = 0 UNION SELECT digisos_id FROM frist")
    return [DigisosId(row[0]) for row in rows.fetchall()]


def recompute(connection: Connection, ids: Iterable[DigisosId], frister_of: FristerOf) -> None:
    """Compute the rows of these søknader again."""
    for digisos_id in ids:
        projection = _project(connection, digisos_id)
        if projection is not None:
            save_frister(connection, projection, frister_of(projection.kommunenummer))


def note_frister(connection: Connection, frister: Mapping[Kommunenummer, Frister]) -> None:
    """Note which deadlines the rows of these kommuner were computed with."""
    connection.executemany(
        "INSERT INTO kommunefrist (kommunenummer, bekreftet_s, mottatt_s, margin_s) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (kommunenummer) DO UPDATE SET bekreftet_s = excluded.bekreftet_s,"
        " mottatt_s = excluded.mottatt_s, margin_s = excluded.margin_s",
        [(kommunenummer, *_seconds(one)) for kommunenummer, one in frister.items()],
    )


def list_frister(
    connection: Connection, before: datetime, *, kommunenummer: Kommunenummer | None, limit: int
) -> list[Frist]:
    """Return messages whose deadline is before a moment, who has waited longest first.

    Args:
        connection: Of the status store.
        before: ``now`` for what is too late; later for what is near.
        kommunenummer: Of this kommune alone.
        limit: At most so many.
    """
    where, values = ("", ()) if kommunenummer is None else (" AND kommunenummer = ?", (kommunenummer,))
    rows = connection.execute(
        f"{_LIST}{where} ORDER BY akseptert_ms, melding_id LIMIT ?",  # both forms are constants
        (_ms(before), *values, limit),
    )
    return [
        Frist(
            MeldingId(row[0]),
            DigisosId(row[1]),
            Kommunenummer(row[2]),
            str(row[3]),
            str(row[4]),
            None if row[5] is None else str(row[5]),
            _moment(row[6]),
            _moment(row[7]),
        )
        for row in rows.fetchall()
    ]


def overdue(connection: Connection, now: datetime) -> Overdue:
    """Return how many messages are too late."""
    rows = connection.execute(
        "SELECT kommunenummer, arsak, COUNT(*), MIN(forfall_ms) FROM frist WHERE forfall_ms <= ?"
        " GROUP BY kommunenummer, arsak",
        (_ms(now),),
    ).fetchall()
    oldest = min((int(row[3]) for row in rows), default=None)
    return Overdue(
        {(str(row[0]), str(row[1])): int(row[2]) for row in rows}, None if oldest is None else _moment(oldest)
    )


def _project(connection: Connection, digisos_id: DigisosId) -> Projection | None:
    row = connection.execute("SELECT tilstand FROM soknad WHERE digisos_id = ?", (digisos_id,)).fetchone()
    return None if row is None else project(SoknadState.from_json(row[0]))


def _seconds(frister: Frister) -> tuple[int, int, int]:
    bekreftet, mottatt, margin = frister.bekreftet, frister.mottatt, frister.margin
    return round(bekreftet.total_seconds()), round(mottatt.total_seconds()), round(margin.total_seconds())


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)  # cut, not rounded: nothing is due before its time


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
