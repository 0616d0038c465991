"""The events of an escalation, for ``fiks.transport.v1``. Pure.

An event's id follows from what it says, so that two instances, or one that repeats itself after a crash, say it once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

from broker.clock import to_milliseconds
from producers.messages import transport_message
from schemas.names import Uuid
from schemas.records import KANAL_KAFKA, TRANSPORT_BEKREFTET, TRANSPORT_IKKE_SENDT, TRANSPORT_SENDT, TransportRecord

if TYPE_CHECKING:
    from datetime import datetime

    from producers.eskalering_rows import Eskalering, Expired
    from producers.outbox_rows import Message

KANAL_MANGLER: Final = "kanal-mangler"
"""The katalog names a channel that nobody has built."""
INGEN_KANAL: Final = "ingen-kanal"
"""There is no channel left."""
KOPI_BORTE: Final = "kopi-borte"
"""The sender's copy is gone, and no receiver has vouched for the message."""
FRIST_UTLOPT: Final = "frist-utlopt"
"""The deadline passed while the message lay in the outbox."""

_IDS: Final = UUID("0d4f9a0e-8a6a-5f8e-9d0e-2f7b61c1a0d7")


def event(row: Eskalering | Expired, kind: str, kanal: str, now: datetime, kode: str | None = None) -> TransportRecord:
    """Return what happened to a message on a channel."""
    return TransportRecord(
        hendelse_id=Uuid.of(uuid5(_IDS, f"{row.melding_id}/{kind}/{kanal}/{kode or ''}")),
        melding_id=row.melding_id,
        digisos_id=row.digisos_id,
        kommunenummer=row.kommunenummer,
        type=kind,
        kanal=kanal,
        tidspunkt=to_milliseconds(now),
        nav_ekstern_ref_id=row.nav_ekstern_ref_id,
        kode=kode,
    )


def not_sent(row: Eskalering | Expired, kanal: str, kode: str, now: datetime) -> Message:
    """Return IKKE_SENDT: the channel did not get the message, and why."""
    return transport_message(event(row, TRANSPORT_IKKE_SENDT, kanal, now, kode), None)


def sent(row: Eskalering, kanal: str, now: datetime) -> Message:
    """Return SENDT: the channel has the message."""
    return transport_message(event(row, TRANSPORT_SENDT, kanal, now), None)


def confirmed(row: Eskalering, now: datetime) -> Message:
    """Return BEKREFTET: the channel that the message was withdrawn from has answered after all, and nobody else has it."""
    return transport_message(event(row, TRANSPORT_BEKREFTET, row.fra_kanal, now), None)


def expired_in_outbox(row: Expired, now: datetime) -> Message:
    """Return IKKE_SENDT of a søknad that never left the outbox."""
    return not_sent(row, KANAL_KAFKA, FRIST_UTLOPT, now)
