"""The rows of a søknad's chain, within a transaction of somebody else's.

What stands on the kvittering topic is the chain. A kvittering of our own with a number that the topic has for another one is
*displaced*: it was issued by a process that had lost the partition without knowing, or lost a race on the way to the topic. It
leaves the chain and waits to be issued again, with the next number, unless what came instead says the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.log import get_logger
from consumers.issued import Issued, claims_of, is_dead
from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256, Uuid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.sql import Connection, Row
    from consumers.issued import Sign, Unless

SEEN: Final = 2
"""``published`` of a row that was read back from the topic. 1 is what Kafka has acknowledged, 0 what it may not have."""

COLUMNS: Final = "kvittering_id, kommunenummer, digisos_id, nr, melding_id, sha256, status, grad, jws, kode"
_INSERT: Final = f"INSERT INTO kvittering ({COLUMNS}, published) VALUES (?,?,?,?,?,?,?,?,?,?,?)"  # noqa: S608 - constants
_CHAIN: Final = f"SELECT {COLUMNS} FROM kvittering WHERE kommunenummer = ? AND digisos_id = ? ORDER BY nr"  # noqa: S608 - constants
_AT: Final = (
    "SELECT kvittering_id, jws, published FROM kvittering WHERE kommunenummer = ? AND digisos_id = ? AND nr = ?"
)
_HEAD: Final = "SELECT nr, jws FROM kvittering WHERE kommunenummer = ? AND digisos_id = ? ORDER BY nr DESC LIMIT 1"
_OF_MELDING: Final = f"SELECT {COLUMNS} FROM kvittering WHERE melding_id = ? ORDER BY nr"  # noqa: S608 - constants
_SEE: Final = "UPDATE kvittering SET published = 2 WHERE kvittering_id = ?"
_DISPLACE: Final = f"""
    DELETE FROM kvittering WHERE kommunenummer = ? AND digisos_id = ? AND nr >= ? AND published <> 2 RETURNING {COLUMNS}
"""  # noqa: S608 - constants
_KEEP: Final = """
    INSERT INTO displaced (kvittering_id, kommunenummer, jws) VALUES (?, ?, ?) ON CONFLICT DO NOTHING
"""
_BURY: Final = "INSERT INTO dead_key (kommunenummer, record_key) VALUES (?, ?) ON CONFLICT DO NOTHING"
_REVIVE: Final = "DELETE FROM dead_key WHERE kommunenummer = ? AND record_key = ?"


def issued_rows(rows: Iterable[Row]) -> tuple[Issued, ...]:
    """Return the kvitteringer in rows of ``COLUMNS``."""
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
            None if row["kode"] is None else str(row["kode"]),
        )
        for row in rows
    )


def chain_of(db: Connection, kommunenummer: str, digisos_id: str) -> tuple[Issued, ...]:
    """Return a søknad's chain in order."""
    return issued_rows(db.execute(_CHAIN, (kommunenummer, digisos_id)))


def of_melding(db: Connection, melding_id: MeldingId) -> tuple[Issued, ...]:
    """Return a melding's kvitteringer, oldest first."""
    return issued_rows(db.execute(_OF_MELDING, (melding_id,)))


def add_link(
    db: Connection, kommunenummer: Kommunenummer, digisos_id: DigisosId, sign: Sign, unless: Unless | None
) -> Issued:
    """Add the next link, unless the melding has one that is enough; the key is judged with it."""
    if unless is not None:
        melding_id, is_enough = unless
        there = next((each for each in of_melding(db, melding_id) if is_enough(each)), None)
        if there is not None:
            return there
    head = db.execute(_HEAD, (kommunenummer, digisos_id)).fetchone()
    nr, former = (1, None) if head is None else (head["nr"] + 1, Sha256.of(head["jws"].encode("ascii")))
    issued = Issued.of(*sign(nr, former))
    db.execute(_INSERT, (*issued.row(), 0))
    if nr > 1 or not issued.is_from_fagsystem:
        judge_key(db, kommunenummer, digisos_id)
    return issued


def take_link(db: Connection, link: Issued) -> None:
    """Put a link that was found on the topic in its place; what holds the place and is not known to be there is displaced."""
    place = (link.kommunenummer, link.digisos_id, link.nr)
    there = db.execute(_AT, place).fetchone()
    if there is not None and there["kvittering_id"] == link.kvittering_id:
        db.execute(_SEE, (link.kvittering_id,))
        return
    if (there is not None and int(there["published"]) == SEEN) or not _continues(db, link):
        _tell("kvittering_fork_passed_over", link)  # the first on the topic has the place, and its branch is the chain
        return
    for displaced in issued_rows(db.execute(_DISPLACE, place).fetchall()):
        db.execute(_KEEP, (displaced.kvittering_id, displaced.kommunenummer, displaced.jws))
        _tell("kvittering_displaced", displaced)
    db.execute(_INSERT, (*link.row(), SEEN))


def _continues(db: Connection, link: Issued) -> bool:
    """Whether the link names the one before it, as far as that is known."""
    if link.nr == 1:
        return True
    former = db.execute(_AT, (link.kommunenummer, link.digisos_id, link.nr - 1)).fetchone()
    return former is None or claims_of(link.jws).forrige == Sha256.of(former["jws"].encode("ascii"))


def judge_key(db: Connection, kommunenummer: str, digisos_id: str) -> bool:
    """Find out whether the søknad's key is dead; remember and return it."""
    dead = is_dead(chain_of(db, kommunenummer, digisos_id))
    db.execute(_BURY if dead else _REVIVE, (kommunenummer, digisos_id))
    return dead


def bury(db: Connection, kommunenummer: str, key: str) -> None:
    """Note that a key is dead."""
    db.execute(_BURY, (kommunenummer, key))


def _tell(event: str, link: Issued) -> None:
    get_logger().warning(
        event,
        kommunenummer=link.kommunenummer,
        digisos_id=link.digisos_id,
        melding_id=link.melding_id,
        kvittering_id=link.kvittering_id,
        nr=link.nr,
        status=link.status,
    )
