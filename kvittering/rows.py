"""The rows of the status store: their SQL, and how records and projections become them.

One place for all who write the store: record by record (``taking_in``) and whole søknader at a time (``bulk``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

import orjson

from broker.record import Incoming, Outgoing, cloud_event_headers
from broker.routing import STATUS
from kvittering.projection import fact_id
from schemas.names import Uuid

if TYPE_CHECKING:
    from broker.record import Headers, TopicPartition
    from broker.sql.ports import Connection
    from kvittering.projection import Projection
    from kvittering.reading import ReadRecord
    from schemas.records import StatusRecord

Row: TypeAlias = tuple[object, ...]
"""Parameters of one statement."""

FORMER: Final = "#"
"""Between the name of a topic that was deleted and made again and a number, on the records that came from the former one."""

STATUS_EVENT: Final = "no.fiks.status.v1"
SOURCE: Final = "/kvittering"

KEEP_RAW: Final = (
    "INSERT INTO innkommet"
    " (topic, partisjon, posisjon, digisos_id, fakta_id, tidsstempel_ms, nokkel, verdi, headere, utfall)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (topic, partisjon, posisjon) DO NOTHING"
)
SAVE: Final = (
    "INSERT INTO soknad"
    " (digisos_id, eier, kommunenummer, status, akseptert_ms, levert, venter, tilstand, sist_status)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (digisos_id) DO UPDATE SET eier = excluded.eier, kommunenummer = excluded.kommunenummer,"
    " status = excluded.status, akseptert_ms = excluded.akseptert_ms, levert = excluded.levert,"
    " venter = excluded.venter, tilstand = excluded.tilstand, sist_status = excluded.sist_status"
)
QUEUE: Final = "INSERT INTO utboks (topic, nokkel, verdi, headere) VALUES (?, ?, ?, ?)"
MOVE_ON: Final = (
    "INSERT INTO posisjon (topic, partisjon, neste) VALUES (?, ?, ?)"
    " ON CONFLICT (topic, partisjon) DO UPDATE SET neste = excluded.neste"
)


def raw_row(read: ReadRecord, outcome: str) -> Row:
    """Return the row of ``KEEP_RAW``.

    Args:
        read: A record, and what came of reading it.
        outcome: ``MOTTATT``, ``GJENTATT`` or ``UNDERKJENT``.
    """
    record = read.record
    return (
        record.topic,
        record.partition,
        record.offset,
        read.digisos_id,
        None if read.fact is None else fact_id(read.fact),
        record.timestamp_ms,
        record.key,
        record.value,
        headers_json(record.headers),
        outcome,
    )


def soknad_row(projection: Projection, status_value: bytes | None) -> Row:
    """Return the row of ``SAVE``; ``status_value`` is the encoded status record, if there is one."""
    return (
        projection.state.digisos_id,
        projection.eier,
        projection.kommunenummer,
        projection.status,
        int(projection.soknad.akseptert.timestamp() * 1000) if projection.soknad else None,
        int(projection.levert_fagsystem),
        len(projection.verdicts.waits),
        projection.state.to_json(),
        status_value,
    )


def status_message(record: StatusRecord, value: bytes) -> Outgoing:
    """Return the record for ``fiks.status.v1``; ``value`` is ``record``, encoded."""
    headers = cloud_event_headers(
        event_id=Uuid.new(),
        event_type=STATUS_EVENT,
        source=SOURCE,
        subject=record.kommunenummer,
        time=record.oppdatert,
    )
    return Outgoing(STATUS, record.digisos_id.encode("ascii"), value, headers)


def queue_row(outgoing: Outgoing) -> Row:
    """Return the row of ``QUEUE``; a tombstone is kept as an empty value, which no record of ours has."""
    return (outgoing.topic, outgoing.key, outgoing.value or b"", headers_json(outgoing.headers))


def incoming_of(row: Mapping[str, object]) -> Incoming:
    """Return the record that a row of ``innkommet`` keeps."""
    return Incoming(
        topic=str(row["topic"]).partition(FORMER)[0],
        partition=int(str(row["partisjon"])),
        offset=int(str(row["posisjon"])),
        timestamp_ms=int(str(row["tidsstempel_ms"])),
        key=bytes(row["nokkel"]),  # type: ignore[call-overload]  # a row has no types
        value=bytes(row["verdi"]),  # type: ignore[call-overload]  # a row has no types
        headers=headers_of(str(row["headere"])),
    )


def headers_json(headers: Headers) -> str:
    """Return the headers as JSON: ``[[name, value as latin-1], …]``."""
    return orjson.dumps([(name, value.decode("latin-1")) for name, value in headers]).decode()


def headers_of(text: str) -> Headers:
    """Return what ``headers_json`` wrote."""
    return tuple((name, value.encode("latin-1")) for name, value in orjson.loads(text))


def begin_at(connection: Connection, offsets: Mapping[TopicPartition, int]) -> None:
    """Write down where to read on, within a transaction."""
    connection.executemany(MOVE_ON, [(*partition, offset) for partition, offset in offsets.items()])
