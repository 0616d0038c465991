"""Folding whole søknader at a time: all records of some søknader in, the rows of the status store out. No IO.

What a record is worth and what facts mean is decided where the live path decides it (``reading``, ``projection``); only the
bookkeeping differs: a søknad is looked up, projected and written once and not once for each record, and søknader are
independent of each other, so that they can be shared between processes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from kvittering.dead_letters import dead_letter, refused_letter
from kvittering.facts import SoknadState
from kvittering.frister import Frister
from kvittering.fristlager import frist_rows
from kvittering.projection import apply, fact_id, is_known, project
from kvittering.reading import as_error, read_record, soknad_with_facts
from kvittering.rows import Row, queue_row, raw_row, soknad_row, status_message
from kvittering.views import status_record
from schemas.codec import encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from broker.record import Incoming, Outgoing
    from crypto.keys import KeyRing
    from kvittering.chain import Konnektor, Verdicts
    from kvittering.reading import ReadRecord
    from schemas.names import Kommunenummer


class Letter(NamedTuple):
    """A dead letter's row, and the place of the record whose reading gave it."""

    topic: str
    partition: int
    offset: int
    row: Row


class StatusNews(NamedTuple):
    """A status record's row, and the value that is compared with what was queued before."""

    digisos_id: str
    value: bytes
    row: Row


@dataclass(slots=True)
class Folded:
    """Rows of the status store (``rows``), and how many records came to what."""

    raw: list[Row] = field(default_factory=list[Row])
    soknader: list[Row] = field(default_factory=list[Row])
    letters: list[Letter] = field(default_factory=list[Letter])
    statuses: list[StatusNews] = field(default_factory=list[StatusNews])
    frister: list[Row] = field(default_factory=list[Row])
    outcomes: Counter[str] = field(default_factory=Counter[str])


def fold_all(
    records: Iterable[Incoming], *, konnektorer: Mapping[Kommunenummer, Konnektor], keys: KeyRing, now: datetime
) -> Folded:
    """Return the rows that ``records`` become.

    Args:
        records: Every record of some søknader, each søknad's in the order in which they were read.
        konnektorer: Who may sign, by kommune.
        keys: The innsyn keys.
        now: Aware UTC, for dead letters.

    Raises:
        MeldingsformidlerError: Only one that is ``retriable``.
    """
    folded = Folded()
    by_key: dict[bytes, list[Incoming]] = {}
    for record in records:
        by_key.setdefault(record.key, []).append(record)
    for of_one in by_key.values():
        reads: list[ReadRecord] = []
        for record in of_one:
            read = read_record(record, konnektorer=konnektorer, keys=keys)
            if read.fact is None:
                _refuse(folded, read, now)
            else:
                reads.append(read)
        if reads:
            _fold_one(folded, reads, now)
    return folded


def _refuse(folded: Folded, read: ReadRecord, now: datetime) -> None:
    folded.raw.append(raw_row(read, "UNDERKJENT"))
    folded.outcomes["UNDERKJENT"] += 1
    letter = dead_letter(read.record, as_error(read), digisos_id=read.digisos_id, melding_id=None, now=now)
    _keep_letter(folded, read, letter)


def _keep_letter(folded: Folded, read: ReadRecord, letter: Outgoing) -> None:
    record = read.record
    folded.letters.append(Letter(record.topic, record.partition, record.offset, queue_row(letter)))


def _fold_one(folded: Folded, reads: list[ReadRecord], now: datetime) -> None:
    """Apply a søknad's facts one by one, as the live path does, and project what they come to once."""
    state = SoknadState(digisos_id=soknad_with_facts(reads[0]))
    verdicts: Verdicts | None = None
    first: dict[str, Incoming] = {}
    for read in reads:
        if read.fact is None:
            raise RuntimeError("a record without a fact is refused before the fold")
        if read.error is not None and not is_known(state, read.fact):
            _refuse(folded, replace(read, fact=None), now)
            continue
        first.setdefault(fact_id(read.fact), read.record)
        change = apply(state, read.fact, verdicts)
        folded.raw.append(raw_row(read, change.outcome))
        folded.outcomes[change.outcome] += 1
        for refused in change.refused:
            _keep_letter(folded, read, refused_letter(refused, read, first.__getitem__, now))
        if change.state is not state:
            state, verdicts = change.state, change.verdicts
    if not (state.transport or state.kvitteringer or state.hendelser):
        return  # nothing that was said about it counts: the live path keeps no row of it either
    projection = project(state, verdicts)
    record = status_record(projection)
    value = None if record is None else encode(record)
    folded.soknader.append(soknad_row(projection, value))
    folded.frister += frist_rows(projection, Frister())  # the watch computes them again by the katalog when it begins
    if record is not None and value is not None:
        folded.statuses.append(StatusNews(state.digisos_id, value, queue_row(status_message(record, value))))
