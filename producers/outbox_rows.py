"""The outbox's rows: messages as they are written and as they come back."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import orjson

from broker.record import GYLDIG_TIL_HEADER, Outgoing, header
from producers.sharing import bucket_of
from schemas.errors import ContractError
from schemas.names import DigisosId, Kommunenummer, MeldingId, NavEksternRefId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.record import Headers
    from broker.sql import Connection, Row

ACTOR: Final = "producers"
"""Who acts, in the revisjon."""
ACTS: Final = DigisosId("00000000-0000-4000-8000-000000000000")
"""Stands in a søknad's place for acts on their way to the revisjon: they leave in one order, and have their actor as key."""


_INSERT: Final = """
    INSERT INTO utboks
        (digisos_id, melding_id, kommunenummer, nav_ekstern_ref_id, type, topic, lagt_ms, storrelse, headere, verdi,
         botte, utloper_ms)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    RETURNING nr
"""
_LOADED_TOGETHER: Final = 500


@dataclass(frozen=True, slots=True)
class Message:
    """A message for a topic, and what its SENDT needs to know.

    Attributes:
        type: AKSEPTERT, SOKNAD or SENDT.
        outgoing: The record as it is published, the same each time.
        queued: When it came; aware UTC.
    """

    digisos_id: DigisosId
    melding_id: MeldingId
    kommunenummer: Kommunenummer
    nav_ekstern_ref_id: NavEksternRefId
    type: str
    outgoing: Outgoing
    queued: datetime


@dataclass(frozen=True, slots=True)
class Queued:
    """A message in the outbox; ``nr`` is its place."""

    nr: int
    message: Message


def insert_message(connection: Connection, message: Message) -> int:
    """Put a message last in the outbox, in a transaction of the caller's, and return its place."""
    outgoing = message.outgoing
    value = outgoing.value or b""  # nothing that we send is a tombstone
    cursor = connection.execute(
        _INSERT,
        (
            message.digisos_id,
            message.melding_id,
            message.kommunenummer,
            message.nav_ekstern_ref_id,
            message.type,
            outgoing.topic,
            to_ms(message.queued),
            len(value),
            json.dumps([(name, value.decode()) for name, value in outgoing.headers]),
            value,
            bucket_of(message.digisos_id),
            None if (expires := expires_of(message)) is None else to_ms(expires),
        ),
    )
    return int(cursor.fetchone()[0])


def expires_of(message: Message) -> datetime | None:
    """Return until when the receiver of a message may begin, as its header says; None for ever.

    Raises:
        ContractError: The header is no time.
    """
    stated = header(message.outgoing.headers, GYLDIG_TIL_HEADER)
    try:
        return None if stated is None else datetime.fromisoformat(stated.decode())
    except ValueError:
        raise ContractError("meldingens frist i utboksen kan ikke leses") from None


def load_messages(connection: Connection, numbers: Sequence[int]) -> dict[int, Queued]:
    """Return messages by their places; one whose row is damaged is left out, for it concerns nobody else."""
    found: dict[int, Queued] = {}
    for start in range(0, len(numbers), _LOADED_TOGETHER):
        some = numbers[start : start + _LOADED_TOGETHER]
        sql = f"SELECT * FROM utboks WHERE nr IN ({', '.join('?' * len(some))})"  # noqa: S608 - places for values
        for row in connection.execute(sql, some):
            with suppress(ContractError, ValueError):  # a name, a number or JSON that is none
                found[row["nr"]] = _queued(row)
    return found


def _queued(row: Row) -> Queued:
    digisos_id = DigisosId(row["digisos_id"])
    headers: Headers = tuple((name, value.encode()) for name, value in orjson.loads(row["headere"]))
    return Queued(
        row["nr"],
        Message(
            digisos_id=digisos_id,
            melding_id=MeldingId(row["melding_id"]),
            kommunenummer=Kommunenummer(row["kommunenummer"]),
            nav_ekstern_ref_id=NavEksternRefId(row["nav_ekstern_ref_id"]),
            type=row["type"],
            outgoing=Outgoing(row["topic"], _key(digisos_id), row["verdi"], headers),
            queued=from_ms(row["lagt_ms"]),
        ),
    )


def _key(digisos_id: DigisosId) -> bytes:
    return ACTOR.encode() if digisos_id == ACTS else digisos_id.encode()


def to_ms(moment: datetime) -> int:
    """Return a moment as the rows have it."""
    return round(moment.timestamp() * 1000)


def from_ms(milliseconds: int) -> datetime:
    """Return the moment that a row has."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
