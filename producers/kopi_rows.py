"""The sender's copies as rows: what is kept of each melding, in SQL for both databases.

``avsenderkopi`` says what was sent and what became of the copy, and is never deleted from. ``kopiinnhold`` has the wrapped
content key, and the package itself while that is small: its row is deleted when the copy is destroyed. ``forsegling`` has one row
for each time that the melding was sealed; number 0 is the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from crypto.key_wrap import WrappedKey
from schemas.names import DigisosId, DokumentlagerId, Kommunenummer, MeldingId, NavEksternRefId, NokkelId, Sha256, Uuid
from schemas.records import TRANSPORT_OMFORSEGLET, SoknadRecord, TransportRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.sql import Connection

MIGRATION: Final = """
    CREATE TABLE avsenderkopi (
        nr              INTEGER PRIMARY KEY AUTOINCREMENT,
        melding_id      TEXT NOT NULL UNIQUE,
        digisos_id      TEXT NOT NULL,
        kommunenummer   TEXT NOT NULL,
        kanal           TEXT NOT NULL,
        innsendt_ms     INTEGER NOT NULL,
        avsenderversjon TEXT,
        skjemaversjon   TEXT,
        nokkel_id       TEXT NOT NULL,
        soknad          TEXT NOT NULL,
        aksept          TEXT NOT NULL,
        omsendinger     INTEGER NOT NULL,
        omgang          TEXT,
        destruert_ms    INTEGER,
        kvittering_id   TEXT,
        arsak           TEXT
    ) STRICT;
    CREATE INDEX avsenderkopi_levende ON avsenderkopi (kommunenummer, nr) WHERE destruert_ms IS NULL;
    CREATE INDEX avsenderkopi_digisos_id ON avsenderkopi (digisos_id);
    CREATE TABLE kopiinnhold (
        melding_id TEXT PRIMARY KEY,
        kek_id     TEXT NOT NULL,
        innpakket  BLOB NOT NULL,
        pakke      BLOB
    ) STRICT;
    CREATE TABLE forsegling (
        melding_id       TEXT NOT NULL,
        nr               INTEGER NOT NULL,
        hendelse_id      TEXT NOT NULL,
        sha256           TEXT NOT NULL,
        nokkel_id        TEXT NOT NULL,
        kommunenummer    TEXT NOT NULL,
        dokumentlager_id TEXT UNIQUE,
        tidspunkt_ms     INTEGER NOT NULL,
        PRIMARY KEY (melding_id, nr)
    ) STRICT;
    CREATE TABLE lesestand (
        topic      TEXT NOT NULL,
        partisjon  INTEGER NOT NULL,
        neste      INTEGER NOT NULL,
        siste      TEXT NOT NULL,
        PRIMARY KEY (topic, partisjon)
    ) STRICT;
    CREATE TABLE revisjonskjede (
        aktor   TEXT PRIMARY KEY,
        forrige TEXT NOT NULL
    ) STRICT;
"""
"""SQL script; see ``producers.database``."""

_COLUMNS: Final = "nr, kanal, soknad, aksept, omsendinger, omgang, destruert_ms, kvittering_id, arsak"


@dataclass(frozen=True, slots=True)
class Kopi:
    """What is known of one melding that was sent, and of the sender's copy of it.

    Attributes:
        nr: Its place among all, in the order accepted.
        record: As it was last sealed, without its package.
        aksept: AKSEPTERT, as it was first published.
        kanal: The channel that has the melding now.
        omsendinger: How many times it was sent again.
        omgang: The latest run that sent it again.
        destruert: When the copy was destroyed; None while it is there.
        kvittering_id: What it was destroyed for.
        arsak: Why it was destroyed, when there was no kvittering.
    """

    nr: int
    record: SoknadRecord
    aksept: TransportRecord
    kanal: str
    omsendinger: int
    omgang: str | None
    destruert: datetime | None
    kvittering_id: Uuid | None
    arsak: str | None

    @property
    def melding_id(self) -> MeldingId:
        """The melding."""
        return self.record.melding_id

    @property
    def digisos_id(self) -> DigisosId:
        """Its søknad."""
        return self.record.digisos_id

    @property
    def kommunenummer(self) -> Kommunenummer:
        """Whom it was sent to."""
        return self.record.kommunenummer

    @property
    def nav_ekstern_ref_id(self) -> NavEksternRefId:
        """The sender's reference."""
        return self.record.nav_ekstern_ref_id

    @property
    def innsendt(self) -> datetime:
        """When it was accepted; aware UTC."""
        return self.record.innsendt

    @property
    def nokkel_id(self) -> NokkelId:
        """The certificate that it is sealed for now."""
        return self.record.nokkel_id

    @property
    def sha256(self) -> Sha256:
        """The digest of the package as it is sealed now."""
        return self.record.sha256


@dataclass(frozen=True, slots=True)
class Innhold:
    """What is destroyed with a copy: the wrapped key, and the package unless it is in the dokumentlager."""

    key: WrappedKey
    pakke: bytes | None


@dataclass(frozen=True, slots=True)
class Utvalg:
    """Which copies are meant; None leaves a field free. Times are half open: from ``fra``, before ``til``."""

    kommunenummer: Kommunenummer | None = None
    meldinger: tuple[MeldingId, ...] = ()
    digisos_id: DigisosId | None = None
    kanal: str | None = None
    nokkel_id: NokkelId | None = None
    fra: datetime | None = None
    til: datetime | None = None
    avsenderversjon: str | None = None
    skjemaversjon: str | None = None

    def where(self) -> tuple[str, list[Any]]:
        """Return the condition as SQL, beginning with AND unless it is empty, and its values."""
        wanted = (
            ("kommunenummer = ?", self.kommunenummer),
            ("digisos_id = ?", self.digisos_id),
            ("kanal = ?", self.kanal),
            ("nokkel_id = ?", self.nokkel_id),
            ("innsendt_ms >= ?", None if self.fra is None else to_ms(self.fra)),
            ("innsendt_ms < ?", None if self.til is None else to_ms(self.til)),
            ("avsenderversjon = ?", self.avsenderversjon),
            ("skjemaversjon = ?", self.skjemaversjon),
        )
        terms = [term for term, value in wanted if value is not None]
        values: list[Any] = [value for _, value in wanted if value is not None]
        if self.meldinger:
            terms.append(f"melding_id IN ({', '.join('?' * len(self.meldinger))})")
            values += self.meldinger
        return "".join(f" AND {term}" for term in terms), values


def insert(connection: Connection, soknad: SoknadRecord, aksept: TransportRecord, key: WrappedKey) -> None:
    """Keep a copy of what is being accepted."""
    connection.execute(
        "INSERT INTO avsenderkopi (melding_id, digisos_id, kommunenummer, kanal, innsendt_ms, avsenderversjon, skjemaversjon,"
        " nokkel_id, soknad, aksept, omsendinger) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
        (
            soknad.melding_id,
            soknad.digisos_id,
            soknad.kommunenummer,
            aksept.kanal,
            to_ms(soknad.innsendt),
            soknad.avsenderversjon,
            soknad.skjemaversjon,
            soknad.nokkel_id,
            _soknad_json(soknad),
            aksept.model_dump_json(by_alias=True),
        ),
    )
    connection.execute(
        "INSERT INTO kopiinnhold VALUES (?, ?, ?, ?)", (soknad.melding_id, key.kek_id, key.data, soknad.pakke)
    )
    _insert_sealing(connection, soknad, aksept.hendelse_id, 0, soknad.innsendt)


def replace_sealing(connection: Connection, soknad: SoknadRecord, omforseglet: TransportRecord) -> None:
    """Take over a package that was sealed again, in place of the former."""
    nr = connection.execute("SELECT max(nr) + 1 FROM forsegling WHERE melding_id = ?", (soknad.melding_id,)).fetchone()[
        0
    ]
    _insert_sealing(connection, soknad, omforseglet.hendelse_id, int(nr), omforseglet.tidspunkt)
    connection.execute(
        "UPDATE avsenderkopi SET nokkel_id = ?, soknad = ? WHERE melding_id = ?",
        (soknad.nokkel_id, _soknad_json(soknad), soknad.melding_id),
    )
    connection.execute("UPDATE kopiinnhold SET pakke = ? WHERE melding_id = ?", (soknad.pakke, soknad.melding_id))


def load(connection: Connection, melding_id: MeldingId) -> Kopi | None:
    """Return what is known of a melding."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM avsenderkopi WHERE melding_id = ?",  # noqa: S608 - a constant
        (melding_id,),
    ).fetchone()
    return None if row is None else _kopi(row)


def alive(connection: Connection, utvalg: Utvalg, *, etter: int, antall: int) -> list[Kopi]:
    """Return copies that are not destroyed, in the order accepted, from behind place ``etter``."""
    where, values = utvalg.where()
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM avsenderkopi WHERE destruert_ms IS NULL AND nr > ?{where} ORDER BY nr LIMIT ?",  # noqa: S608 - no value is in it
        (etter, *values, antall),
    ).fetchall()
    return [_kopi(row) for row in rows]


def count_alive(connection: Connection, utvalg: Utvalg) -> int:
    """Return how many copies there are that are not destroyed."""
    where, values = utvalg.where()
    return int(
        connection.execute(
            f"SELECT count(*) FROM avsenderkopi WHERE destruert_ms IS NULL{where}",  # noqa: S608 - no value is in it
            values,
        ).fetchone()[0]
    )


def content(connection: Connection, melding_id: MeldingId) -> Innhold | None:
    """Return what a copy consists of, or None when it is destroyed."""
    row = connection.execute(
        "SELECT kek_id, innpakket, pakke FROM kopiinnhold WHERE melding_id = ?", (melding_id,)
    ).fetchone()
    if row is None:
        return None
    pakke = row["pakke"]
    return Innhold(WrappedKey(row["kek_id"], bytes(row["innpakket"])), None if pakke is None else bytes(pakke))


def sealings(connection: Connection, melding_id: MeldingId) -> dict[Sha256, Uuid]:
    """Return the digest of every package that the melding was sent as, oldest first, with the event that told of it."""
    rows = connection.execute(
        "SELECT sha256, hendelse_id FROM forsegling WHERE melding_id = ? ORDER BY nr", (melding_id,)
    ).fetchall()
    return {Sha256(row[0]): Uuid(row[1]) for row in rows}


def resealed_events(connection: Connection, kopi: Kopi) -> list[TransportRecord]:
    """Return every OMFORSEGLET of a melding, each as it was first published."""
    rows = connection.execute(
        "SELECT hendelse_id, sha256, tidspunkt_ms FROM forsegling WHERE melding_id = ? AND nr > 0 ORDER BY nr",
        (kopi.melding_id,),
    ).fetchall()
    return [
        omforseglet(kopi.aksept, Uuid(row["hendelse_id"]), Sha256(row["sha256"]), from_ms(row["tidspunkt_ms"]))
        for row in rows
    ]


def omforseglet(aksept: TransportRecord, hendelse_id: Uuid, sha256: Sha256, now: datetime) -> TransportRecord:
    """Return the event that a melding's package has another digest from now on."""
    return aksept.model_copy(
        update={
            "hendelse_id": hendelse_id,
            "type": TRANSPORT_OMFORSEGLET,
            "tidspunkt": now,
            "sha256": sha256,
            "eier": None,
            "kode": None,
        }
    )


def mark_sent(connection: Connection, melding_ids: Sequence[MeldingId], omgang: str) -> None:
    """Note that meldinger were sent again in a run."""
    connection.executemany(
        "UPDATE avsenderkopi SET omsendinger = omsendinger + 1, omgang = ? WHERE melding_id = ?",
        [(omgang, melding_id) for melding_id in melding_ids],
    )


def _insert_sealing(connection: Connection, soknad: SoknadRecord, event: Uuid, nr: int, when: datetime) -> None:
    connection.execute(
        "INSERT INTO forsegling VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            soknad.melding_id,
            nr,
            event,
            soknad.sha256,
            soknad.nokkel_id,
            soknad.kommunenummer,
            soknad.dokumentlager_id,
            to_ms(when),
        ),
    )


def _kopi(row: Any) -> Kopi:
    destruert, kvittering_id = row["destruert_ms"], row["kvittering_id"]
    return Kopi(
        nr=row["nr"],
        record=SoknadRecord.model_validate_json(row["soknad"]),
        aksept=TransportRecord.model_validate_json(row["aksept"]),
        kanal=row["kanal"],
        omsendinger=row["omsendinger"],
        omgang=row["omgang"],
        destruert=None if destruert is None else from_ms(destruert),
        kvittering_id=None if kvittering_id is None else Uuid(kvittering_id),
        arsak=row["arsak"],
    )


def _soknad_json(soknad: SoknadRecord) -> str:
    return soknad.model_dump_json(by_alias=True, exclude={"pakke"})


def to_ms(moment: datetime) -> int:
    """Return a moment as milliseconds since 1970."""
    return round(moment.timestamp() * 1000)


def from_ms(milliseconds: int) -> datetime:
    """Return the moment, aware UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def destroy(
    connection: Connection,
    melding_id: MeldingId,
    *,
    now: datetime,
    kvittering_id: Uuid | None,
    arsak: str | None,
) -> None:
    """Delete what a copy consists of, and note why. SQLite overwrites what is deleted (``secure_delete``)."""
    connection.execute("DELETE FROM kopiinnhold WHERE melding_id = ?", (melding_id,))
    connection.execute(
        "UPDATE avsenderkopi SET destruert_ms = ?, kvittering_id = ?, arsak = ? WHERE melding_id = ?",
        (to_ms(now), kvittering_id, arsak, melding_id),
    )


def removable(connection: Connection, before: datetime, antall: int) -> list[DokumentlagerId]:
    """Return packages in the dokumentlager whose copies were destroyed before a moment."""
    rows = connection.execute(
        "SELECT f.dokumentlager_id FROM forsegling f JOIN avsenderkopi k ON k.melding_id = f.melding_id"
        " WHERE f.dokumentlager_id IS NOT NULL AND k.destruert_ms < ? LIMIT ?",
        (to_ms(before), antall),
    ).fetchall()
    return [DokumentlagerId(row[0]) for row in rows]


def forget_package(connection: Connection, dokumentlager_id: DokumentlagerId) -> None:
    """Note that a package is no longer in the dokumentlager."""
    connection.execute("UPDATE forsegling SET dokumentlager_id = NULL WHERE dokumentlager_id = ?", (dokumentlager_id,))
    connection.execute("UPDATE innsending SET dokumentlager_id = NULL WHERE dokumentlager_id = ?", (dokumentlager_id,))
