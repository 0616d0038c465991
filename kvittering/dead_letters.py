"""What becomes of a record that cannot be trusted: a dead letter on ``fiks.kvittering.v1.dlq``, byte for byte.

Its id is made from where the record lay, so that a rebuild from topics, which refuses the same records again, writes the same
dead letters again and not new ones.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

from broker.record import Attempt, Outgoing, dead_letter_headers, dead_letter_key, original
from broker.routing import KVITTERING_DLQ, parse_topic, process_group
from kvittering.projection import fact_id
from schemas.codec import encode
from schemas.names import DigisosId, MeldingId, Uuid
from schemas.records import DeadLetterRecord, Forsok

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.record import Incoming
    from kvittering.projection import Refused
    from kvittering.reading import ReadRecord
    from schemas.errors import MeldingsformidlerError

TRINN: Final = "KVITTERING"
_NAMESPACE: Final = UUID("5d0b3c0e-6f0c-4f5e-9a63-0f6f6a0f5b11")


def dead_letter(
    record: Incoming,
    error: MeldingsformidlerError,
    *,
    digisos_id: DigisosId | None,
    melding_id: MeldingId | None,
    now: datetime,
) -> Outgoing:
    """Return the dead letter that ``record`` becomes.

    Args:
        record: As it was read.
        error: Why it is refused; only its code travels.
        digisos_id: The søknad, where the record told it.
        melding_id: The message, where the record told it.
        now: Aware UTC time of the refusal.
    """
    letter = DeadLetterRecord(
        dead_letter_id=dead_letter_id(record),
        digisos_id=digisos_id,
        melding_id=melding_id,
        kommunenummer=parse_topic(record.topic).kommunenummer,
        kode=error.code,
        trinn=TRINN,
        tidspunkt=now,
        forsok=(Forsok(nr=1, tidspunkt=now, kode=error.code),),
        opprinnelig=original(record),
    )
    headers = dead_letter_headers(
        record, error=error, group=process_group("kvittering"), attempts=(Attempt(error.code, now),)
    )
    return Outgoing(KVITTERING_DLQ, dead_letter_key(record), encode(letter), headers)


def refused_letter(
    refused: Refused, read: ReadRecord, first_record: Callable[[str], Incoming], now: datetime
) -> Outgoing:
    """Return the dead letter of a fact that the fold refused: the one just read, or one that had waited.

    Args:
        refused: What the fold refused, and why.
        read: The record that made the fold refuse it.
        first_record: Finds the record that a fact came with first, by the fact's id.
        now: Aware UTC time of the refusal.
    """
    own = read.fact is not None and fact_id(read.fact) == refused.fact_id
    record = read.record if own else first_record(refused.fact_id)
    melding_id = read.melding_id if own else None
    return dead_letter(record, refused.error, digisos_id=read.digisos_id, melding_id=melding_id, now=now)


def dead_letter_id(record: Incoming) -> Uuid:
    """Return the dead letter's id, the same for the same place on the same topic."""
    return Uuid.of(uuid5(_NAMESPACE, f"{record.topic}/{record.partition}/{record.offset}"))
