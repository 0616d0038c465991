"""Withdrawing one melding: how far it has come, and what takes it back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

from broker.clock import to_milliseconds
from producers import kopi_rows, queueing, recall_rows
from producers.messages import soknad_message, transport_message
from producers.outbox_rows import insert_message
from producers.revisjonsbok import write_act
from schemas.names import Uuid
from schemas.records import SOKNAD, TILBAKEKALL, TRANSPORT_TILBAKEKALT

if TYPE_CHECKING:
    from datetime import datetime

    from broker.sql import Connection
    from producers.kopi_rows import Kopi
    from producers.outbox_rows import Message
    from schemas.records import SoknadRecord

MOTTATT: Final = "MOTTATT"
TILBAKEKALT: Final = "TILBAKEKALT"
I_UTBOKSEN: Final = "I_UTBOKSEN"
SENDT: Final = "SENDT"
TRUKKET: Final = "TRUKKET"
"""It is withdrawn now; whether that was in time shows in its status."""

_IDS: Final = UUID("b3f0a8de-7f0b-4f52-9a55-0a5a3f1c7d21")


def stand(connection: Connection, kopi: Kopi) -> str:
    """Return how far a melding has come, as the sender's register knows it.

    MOTTATT: somebody vouches for it. I_UTBOKSEN: it has not left. TILBAKEKALT: it was withdrawn. SENDT: a channel has it.
    Otherwise the word for why its copy was destroyed, in capitals: UTSKREVET, UTLOPT.
    """
    if kopi.destruert is not None:
        return MOTTATT if kopi.arsak is None else kopi.arsak.upper()
    if recall_rows.withdrawn(connection, kopi.melding_id):
        return TILBAKEKALT
    return I_UTBOKSEN if queueing.waits(connection, kopi.melding_id, SOKNAD) else SENDT


def withdraw_in(connection: Connection, kopi: Kopi, recall: Uuid, now: datetime) -> str:
    """Withdraw a melding within a transaction, if it is not too late; return what became of it.

    What waits in the outbox is taken out, and withdrawn on its topic all the same: it may be on its way there now.
    """
    present = kopi_rows.load(connection, kopi.melding_id) or kopi
    where = stand(connection, present)
    if where not in {SENDT, I_UTBOKSEN}:
        return where
    queueing.withdraw(connection, kopi.melding_id)
    recall_rows.note_withdrawn(connection, kopi.melding_id, recall, now)
    for message in withdrawal(present, now):
        insert_message(connection, message)
    details = {"tilbakekalling": str(recall), "kommunenummer": str(present.kommunenummer), "stand": where}
    write_act(connection, "tilbakekalling.trukket", kopi.melding_id, detaljer=details, now=now)
    return TRUKKET


def withdrawal(kopi: Kopi, now: datetime) -> tuple[Message, Message]:
    """Return what withdraws a melding: TILBAKEKALT for whoever follows it, and TILBAKEKALL for the kommune's connector."""
    record: SoknadRecord = kopi.record.model_copy(
        update={"type": TILBAKEKALL, "pakke": None, "dokumentlager_id": None, "storrelse": 0, "gyldig_til": None}
    )
    told = kopi.aksept.model_copy(
        update={
            "hendelse_id": Uuid.of(uuid5(_IDS, f"{kopi.melding_id}/{TRANSPORT_TILBAKEKALT}")),
            "type": TRANSPORT_TILBAKEKALT,
            "kanal": kopi.kanal,
            "tidspunkt": to_milliseconds(now),
            "eier": None,
            "sha256": None,
            "kode": None,
        }
    )
    return transport_message(told, None), withdrawal_message(record, now)


def withdrawal_message(record: SoknadRecord, now: datetime) -> Message:
    """Return the TILBAKEKALL as a message of its own type: it is no søknad, and no SENDT follows it."""
    return replace(soknad_message(record, None, queued=now), type=TILBAKEKALL)
