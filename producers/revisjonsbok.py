"""What the sender's processes do that must be accounted for: acts for ``fiks.revisjon.v1``, by way of the outbox.

The act and what it tells of are one transaction. All instances are one actor, ``producers``, whose chain is kept in their common
database; the acts leave the outbox in the order of the chain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.revisjon_records import digest_of, new_record, revisjon_outgoing
from producers.outbox_rows import ACTOR, ACTS, Message, insert_message
from schemas.names import Kommunenummer, MeldingId, NavEksternRefId, Sha256, Uuid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from broker.sql import Connection

REVISJON: Final = "REVISJON"
NOBODYS: Final = Kommunenummer("0000")
"""The outbox wants a kommune for each message; an act is no kommune's."""
_SOURCE: Final = "/producers"


def write_act(
    connection: Connection,
    handling: str,
    objekt: str,
    *,
    detaljer: Mapping[str, str],
    now: datetime,
    begrunnelse: str | None = None,
) -> None:
    """Put an act in the outbox, chained to the former one.

    Args:
        connection: Of the transaction that the act tells of.
        handling: What was done, as words with dots.
        objekt: To what: a melding, a run, or a topic.
        detaljer: Facts for machines: ids, digests, numbers.
        now: Aware UTC.
        begrunnelse: Why, in a person's words.

    Raises:
        AuditError: A text may not stand in the revisjon.
    """
    row = connection.execute("SELECT forrige FROM revisjonskjede WHERE aktor = ?", (ACTOR,)).fetchone()
    forrige = None if row is None else Sha256(row[0])
    record = new_record(ACTOR, handling, objekt, now=now, forrige=forrige, begrunnelse=begrunnelse, detaljer=detaljer)
    outgoing = revisjon_outgoing(record, source=_SOURCE)
    connection.execute(
        "INSERT INTO revisjonskjede VALUES (?, ?) ON CONFLICT (aktor) DO UPDATE SET forrige = excluded.forrige",
        (ACTOR, digest_of(outgoing)),
    )
    insert_message(
        connection,
        Message(
            digisos_id=ACTS,
            melding_id=MeldingId(objekt) if isinstance(objekt, Uuid) else MeldingId.new(),
            kommunenummer=NOBODYS,
            nav_ekstern_ref_id=NavEksternRefId("revisjon"),
            type=REVISJON,
            outgoing=outgoing,
            queued=now,
        ),
    )
