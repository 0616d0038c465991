"""What a batch of records does to the store, within one transaction.

The rules are the store's (``store``); the fold is ``projection``'s. This module looks up, folds and writes down.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from broker.krasj import crash_point
from broker.record import TopicPartition
from broker.routing import STATUS
from broker.sql import Connection
from kvittering.dead_letters import dead_letter, refused_letter
from kvittering.facts import SoknadState
from kvittering.fristlager import FristerOf, default_frister, save_frister
from kvittering.projection import Projection, Refused, apply, fact_id, is_known, project
from kvittering.reading import as_error
from kvittering.rows import (
    KEEP_RAW,
    MOVE_ON,
    QUEUE,
    SAVE,
    incoming_of,
    queue_row,
    raw_row,
    soknad_row,
    status_message,
)
from kvittering.views import status_record
from schemas.codec import encode
from schemas.names import DigisosId

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from broker.record import Incoming, Outgoing
    from kvittering.reading import ReadRecord


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of one record.

    Attributes:
        read: The record.
        resultat: ``MOTTATT``, ``VENTER``, ``GJENTATT``, ``UNDERKJENT`` or ``LEST_FOR``.
        kode: Code of the error, or of what it waits for.
        before: What was shown before; None when the record took no effect.
        after: What is shown now; None when the record took no effect.
        refused: Codes of everything that was refused by this record, itself or earlier ones.
    """

    read: ReadRecord
    resultat: str
    kode: str | None = None
    before: Projection | None = None
    after: Projection | None = None
    refused: tuple[str, ...] = ()


@dataclass(slots=True)
class _Batch:
    """One transaction under way."""

    connection: Connection
    now: datetime
    offsets: dict[TopicPartition, int]
    frister_of: FristerOf
    shown: dict[DigisosId, Projection] = field(default_factory=dict["DigisosId", "Projection"])
    changed: set[DigisosId] = field(default_factory=set["DigisosId"])


def apply_batch(
    connection: Connection, records: Sequence[ReadRecord], now: datetime, frister_of: FristerOf = default_frister
) -> list[Applied]:
    """Take in records, each partition in order; return what came of each."""
    batch = _Batch(connection, now, read_offsets(connection), frister_of)
    applied = [_apply_one(batch, read) for read in records]
    for digisos_id in sorted(batch.changed):
        _save(batch, batch.shown[digisos_id])
    connection.executemany(MOVE_ON, [(*partition, offset) for partition, offset in batch.offsets.items()])
    crash_point("kvittering.apply.before-commit")
    return applied


def _apply_one(batch: _Batch, read: ReadRecord) -> Applied:
    record = read.record
    if record.offset < batch.offsets.get(record.topic_partition, 0):
        return Applied(read, "LEST_FOR")
    batch.offsets[record.topic_partition] = record.offset + 1
    if read.fact is None:
        return _refuse_unread(batch, read)
    before = _projection(batch, read)
    if read.error is not None and not is_known(before.state, read.fact):
        return _refuse_unread(batch, replace(read, fact=None))
    change = apply(before.state, read.fact, before.verdicts)
    _keep_raw(batch, read, change.outcome)
    for refused in change.refused:
        _refuse(batch, read, refused)
    codes = tuple(refused.error.code for refused in change.refused)
    if change.state is before.state:
        return Applied(read, change.outcome, codes[0] if change.outcome == "UNDERKJENT" else None, refused=codes)
    after = project(change.state, change.verdicts)
    batch.shown[after.state.digisos_id] = after
    batch.changed.add(after.state.digisos_id)
    waits_for = after.verdicts.waits.get(fact_id(read.fact))
    if change.outcome == "UNDERKJENT":
        return Applied(read, "UNDERKJENT", codes[0], before, after, codes)
    return Applied(read, "VENTER" if waits_for else "MOTTATT", waits_for, before, after, codes)


def _projection(batch: _Batch, read: ReadRecord) -> Projection:
    digisos_id = read.digisos_id
    if digisos_id is None:
        raise RuntimeError("a fact is always about a søknad")
    if digisos_id not in batch.shown:
        row = batch.connection.execute("SELECT tilstand FROM soknad WHERE digisos_id = ?", (digisos_id,)).fetchone()
        state = SoknadState(digisos_id=digisos_id) if row is None else SoknadState.from_json(row[0])
        batch.shown[digisos_id] = project(state)
    return batch.shown[digisos_id]


def _keep_raw(batch: _Batch, read: ReadRecord, outcome: str) -> None:
    batch.connection.execute(KEEP_RAW, raw_row(read, outcome))


def _refuse_unread(batch: _Batch, read: ReadRecord) -> Applied:
    error = as_error(read)
    _keep_raw(batch, read, "UNDERKJENT")
    letter = dead_letter(read.record, error, digisos_id=read.digisos_id, melding_id=None, now=batch.now)
    _queue(batch.connection, letter)
    return Applied(read, "UNDERKJENT", error.code, refused=(error.code,))


def _refuse(batch: _Batch, read: ReadRecord, refused: Refused) -> None:
    def first_record(of_fact: str) -> Incoming:
        return _first_record(batch.connection, read.digisos_id, of_fact)

    _queue(batch.connection, refused_letter(refused, read, first_record, batch.now))


def _first_record(connection: Connection, digisos_id: DigisosId | None, of_fact: str) -> Incoming:
    """Return the record that a fact which waited came with."""
    row = connection.execute(
        "SELECT * FROM innkommet WHERE digisos_id = ? AND fakta_id = ? ORDER BY nr LIMIT 1", (digisos_id, of_fact)
    ).fetchone()
    return incoming_of(row)


def _save(batch: _Batch, projection: Projection) -> None:
    """Write a søknad down, and queue its status if that is news."""
    connection, state = batch.connection, projection.state
    record = status_record(projection)
    value = None if record is None else encode(record)
    row = connection.execute("SELECT sist_status FROM soknad WHERE digisos_id = ?", (state.digisos_id,)).fetchone()
    connection.execute(SAVE, soknad_row(projection, value))
    save_frister(connection, projection, batch.frister_of(projection.kommunenummer))
    if record is not None and value is not None and (row is None or row[0] != value):
        outgoing = status_message(record, value)
        connection.execute("DELETE FROM utboks WHERE topic = ? AND nokkel = ?", (STATUS, outgoing.key))
        _queue(connection, outgoing)


def _queue(connection: Connection, outgoing: Outgoing) -> None:
    connection.execute(QUEUE, queue_row(outgoing))


def read_offsets(connection: Connection) -> dict[TopicPartition, int]:
    """Return where to read on, for each partition that was ever read."""
    rows = connection.execute("SELECT topic, partisjon, neste FROM posisjon")
    return {TopicPartition(row[0], row[1]): row[2] for row in rows}
