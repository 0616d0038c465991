"""Where in the outbox a melding stands that is sealed or sent again: before the later meldinger of its søknad, never behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from producers.outbox_rows import insert_message
from schemas.records import SOKNAD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.sql import Connection
    from producers.outbox_rows import Message
    from schemas.names import MeldingId

_COLUMNS: Final = (
    "digisos_id, melding_id, kommunenummer, nav_ekstern_ref_id, type, topic, lagt_ms, storrelse, headere, verdi,"
    " botte, utloper_ms"
)
_MOVE: Final = f"INSERT INTO utboks ({_COLUMNS}) SELECT {_COLUMNS} FROM utboks WHERE nr = ?"  # noqa: S608 - constants
_WAITING: Final = """
    SELECT u.nr AS nr, u.melding_id AS melding_id, u.type AS type, k.nr AS plass
    FROM utboks u LEFT JOIN avsenderkopi k ON k.melding_id = u.melding_id
    WHERE u.digisos_id = ? ORDER BY u.nr
"""


def put_in_place(connection: Connection, messages: Sequence[Message]) -> None:
    """Put a melding's messages in the outbox, in place of those of the same types that wait, before what came later.

    Whatever waits of later meldinger of the same søknad moves behind them, in its order.

    Args:
        connection: Of a transaction of the caller's.
        messages: All of one melding, in order; at least one.
    """
    first = messages[0]
    types = {message.type for message in messages}
    rows = connection.execute(_WAITING, (first.digisos_id,)).fetchall()
    own = _place(connection, first.melding_id)
    replaced = [row["nr"] for row in rows if row["melding_id"] == first.melding_id and row["type"] in types]
    later = [row["nr"] for row in rows if row["plass"] is not None and own is not None and row["plass"] > own]
    connection.executemany("DELETE FROM utboks WHERE nr = ?", [(nr,) for nr in replaced])
    for message in messages:
        insert_message(connection, message)
    for nr in later:
        connection.execute(_MOVE, (nr,))
        connection.execute("DELETE FROM utboks WHERE nr = ?", (nr,))


def withdraw(connection: Connection, melding_id: MeldingId) -> bool:
    """Take a melding out of the outbox that another channel has taken over; return whether it was still there."""
    return connection.execute("DELETE FROM utboks WHERE melding_id = ? AND type = ?", (melding_id, SOKNAD)).rowcount > 0


def waits(connection: Connection, melding_id: MeldingId, kind: str) -> bool:
    """Return whether a melding has a message of this type in the outbox."""
    row = connection.execute(
        "SELECT 1 FROM utboks WHERE melding_id = ? AND type = ? LIMIT 1", (melding_id, kind)
    ).fetchone()
    return row is not None


def _place(connection: Connection, melding_id: MeldingId) -> int | None:
    row = connection.execute("SELECT nr FROM avsenderkopi WHERE melding_id = ?", (melding_id,)).fetchone()
    return None if row is None else int(row[0])
