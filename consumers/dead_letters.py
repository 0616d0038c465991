"""A record that cannot be delivered, as the dead letter that it becomes.

Its id follows from where the record lay, so that a dead letter that is written twice, because of a crash in between, is seen to
be one.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

from broker.record import original
from schemas.errors import (
    BehindDeadLetterError,
    ContractError,
    CryptoError,
    FagsystemFailureError,
    InvalidDocumentError,
    MismatchError,
    TransportError,
    UnexpectedRecordError,
)
from schemas.names import Sha256, Uuid
from schemas.records import DeadLetterRecord, Forsok

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.record import Attempt, Incoming
    from schemas.errors import MeldingsformidlerError
    from schemas.names import DigisosId, Kommunenummer
    from schemas.records import SoknadRecord

TRINN_KO: Final = "KO"
TRINN_DEKODING: Final = "DEKODING"
TRINN_HENTING: Final = "HENTING"
TRINN_APNING: Final = "APNING"
TRINN_KONTROLL: Final = "KONTROLL"
TRINN_OVERLEVERING: Final = "OVERLEVERING"

VERDI_HEADER: Final = "fiks_verdi"
"""On a stripped dead letter: ``sha256:<hex>;<n> bytes`` of the value that did not fit."""
MAX_KEY_BYTES: Final = 1024
"""A longer key is no søknad's; a stripped dead letter has its digest instead."""

_NAMESPACE: Final = UUID("6f1d6c1e-6a8b-4b53-9d3c-6a3b0f6f5b5e")

_TRINN: Final = (
    (BehindDeadLetterError, TRINN_KO),
    (UnexpectedRecordError, TRINN_KONTROLL),
    (TransportError, TRINN_HENTING),
    (FagsystemFailureError, TRINN_OVERLEVERING),
    (InvalidDocumentError, TRINN_KONTROLL),
    (MismatchError, TRINN_KONTROLL),
    (CryptoError, TRINN_APNING),
    (ContractError, TRINN_DEKODING),
)


def dead_letter(
    incoming: Incoming,
    *,
    record: SoknadRecord | None,
    digisos_id: DigisosId | None,
    kommunenummer: Kommunenummer,
    error: MeldingsformidlerError,
    attempts: Sequence[Attempt],
    redrives: int,
    now: datetime,
) -> DeadLetterRecord:
    """Return the dead letter.

    Args:
        incoming: The record, which travels along byte for byte.
        record: Decoded, if it could be.
        digisos_id: The søknad, if it is known.
        kommunenummer: Whose topic it lay on.
        error: Why; only its code travels.
        attempts: Every attempt, oldest first.
        redrives: How many times it has been redriven before.
        now: Aware UTC.
    """
    place = f"{incoming.topic}/{incoming.partition}/{incoming.offset}/{incoming.timestamp_ms}"
    return DeadLetterRecord(
        dead_letter_id=Uuid.of(uuid5(_NAMESPACE, place)),
        digisos_id=digisos_id,
        melding_id=record.melding_id if record else None,
        kommunenummer=kommunenummer,
        kode=error.code,
        trinn=trinn(error),
        tidspunkt=now,
        forsok=tuple(Forsok(nr=nr, tidspunkt=one.at, kode=one.code) for nr, one in enumerate(attempts, 1)),
        gjenkjoringer=redrives,
        opprinnelig=original(incoming),
    )


def stripped(incoming: Incoming) -> Incoming:
    """Return the record without all that can be large: its value, its headers, and a key that no søknad has."""
    described = _described(incoming.value)
    key = incoming.key if len(incoming.key) <= MAX_KEY_BYTES else _described(incoming.key)
    return replace(incoming, key=key, value=b"", headers=((VERDI_HEADER, described),))


def _described(data: bytes) -> bytes:
    return f"sha256:{Sha256.of(data)};{len(data)} bytes".encode()


def trinn(error: MeldingsformidlerError) -> str:
    """Return the step at which a delivery ended: the first row of the table that fits."""
    return next((step for kind, step in _TRINN if isinstance(error, kind)), TRINN_OVERLEVERING)
