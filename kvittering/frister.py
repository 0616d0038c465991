"""Deadlines: which messages still wait for their receiver, since when, why, and what is to be done when it takes too long. Pure.

Rules:

1. A message waits until the fagsystem has it, a letter with it is printed, or a person ended it. Until then it has a deadline
   and a reason, whatever its channel did.
2. Two deadlines, from acceptance: for the first answer (LEVERT or MOTTATT, which confirm; we write no event about it), and for
   MOTTATT. The first is what the sender stated with the message (``gyldigTil``), since connectors obey that one; the katalog
   may have changed meanwhile.
3. The watch acts a margin later: a receiver that began in time is done by then, and one that did not has refused.
4. It withdraws a channel from a message once, for good (the event's id says so), whatever restarts, replays or other instances
   do: also when a person opens the channel again. A rejection or a dead letter is not acted on before the deadline either: a
   redrive may still help.
5. Paper cannot be taken back: a letter that is late is told of, and never withdrawn.
6. The next channel's deadline counts from when it was given the message.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

from broker.clock import to_milliseconds
from kvittering.kanaler import ENDS, WITHDRAWS, withdrawals_of
from kvittering.lifecycle import AT_FAGSYSTEM, Soknadsstatus
from schemas.kvittering import AVVIST, GRAD_INGEN, LEVERT, MOTTATT
from schemas.names import Uuid
from schemas.records import (
    KANAL_PRINT,
    TRANSPORT_BEKREFTET,
    TRANSPORT_IKKE_SENDT,
    TRANSPORT_MAX_RETRIESAVBRUDD,
    TRANSPORT_SENDT,
    TRANSPORT_TTL_TIDSAVBRUDD,
    TransportRecord,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from kvittering.facts import Melding, SoknadState
    from kvittering.projection import MeldingStatus, Projection
    from schemas.kvittering import KvitteringClaims
    from schemas.names import MeldingId
    from schemas.records import KatalogRecord

_IDS: Final = UUID("5a0e6f5c-6f6b-5c55-9a3b-0d6c3c2f4f11")
"""Namespace of the watch's event ids."""
_CONFIRMS: Final = frozenset({LEVERT, MOTTATT})
_CLOSED: Final = AT_FAGSYSTEM | {Soknadsstatus.SENDT_PA_PAPIR}


@dataclass(frozen=True, slots=True)
class Frister:
    """One kommune's deadlines.

    Attributes:
        bekreftet: From acceptance to the first answer.
        mottatt: From acceptance to MOTTATT.
        margin: How long after a deadline the watch acts.
    """

    bekreftet: timedelta = timedelta(hours=24)
    mottatt: timedelta = timedelta(hours=48)
    margin: timedelta = timedelta(minutes=10)


class Arsak(StrEnum):
    """Why a message still waits."""

    IKKE_SENDT = "ikke-sendt"
    IKKE_BEKREFTET = "ikke-bekreftet"
    IKKE_MOTTATT = "ikke-mottatt"
    AVVIST = "avvist"
    DODT_BREV = "dodt-brev"
    KANAL_FEIL = "kanal-feil"


@dataclass(frozen=True, slots=True)
class Ventende:
    """A message that still waits.

    Attributes:
        melding: Which one.
        kanal: The channel that has it, or had it last.
        arsak: Why it is not done.
        kode: Code of a rejection, a dead letter or a channel's failure.
        forfall: From when it is too late.
        sjekk: When the watch withdraws it from ``kanal``; None when it has, or never does (rule 5).
    """

    melding: Melding
    kanal: str
    arsak: Arsak
    kode: str | None
    forfall: datetime
    sjekk: datetime | None


def frister_for(entry: KatalogRecord | None, defaults: Frister) -> Frister:
    """Return a kommune's deadlines: the katalog's where it says, otherwise ``defaults``."""
    if entry is None:
        return defaults
    bekreftet, mottatt = entry.frist_bekreftet_s, entry.frist_mottatt_s
    return Frister(
        bekreftet=defaults.bekreftet if bekreftet is None else timedelta(seconds=bekreftet),
        mottatt=defaults.mottatt if mottatt is None else timedelta(seconds=mottatt),
        margin=defaults.margin,
    )


def waiting(projection: Projection, frister: Frister) -> tuple[Ventende, ...]:
    """Return the messages of one søknad that still wait, in the order accepted (rule 1)."""
    left = [
        one.melding for nr, one in enumerate(projection.meldinger) if not _is_closed(one, projection, first=nr == 0)
    ]
    if not left:
        return ()  # nearly all søknader, nearly always
    ended = withdrawals_of(projection.state.transport).ended
    return tuple(_waiting(melding, projection, frister) for melding in left if melding.melding_id not in ended)


def decide(projection: Projection, frister: Frister, now: datetime) -> tuple[TransportRecord, ...]:
    """Return the withdrawals that are due at ``now``, for ``fiks.transport.v1``."""
    return tuple(
        _withdrawal(one, projection.state, now)
        for one in waiting(projection, frister)
        if one.sjekk is not None and one.sjekk <= now
    )


def _is_closed(one: MeldingStatus, projection: Projection, *, first: bool) -> bool:
    return one.status in _CLOSED or (first and projection.status in _CLOSED)


def _waiting(melding: Melding, projection: Projection, frister: Frister) -> Ventende:
    place = _place_of(melding, projection.state)
    answers = _answers(melding.melding_id, place.kanal, projection)
    arsak, kode = _reason(place, answers)
    if any(answer.status in _CONFIRMS for answer in answers):
        forfall = max(place.begun + frister.mottatt, place.valid_until or place.begun)
    else:
        forfall = place.valid_until or place.begun + frister.bekreftet
    acts = place.over is None and place.kanal != KANAL_PRINT and not _was_withdrawn(melding, place, projection.state)
    return Ventende(melding, place.kanal, arsak, kode, forfall, forfall + frister.margin if acts else None)


def _was_withdrawn(melding: Melding, place: _Place, state: SoknadState) -> bool:
    written = withdrawal_id(melding.melding_id, place.kanal)
    return any(record.hendelse_id == written for record in state.transport)


@dataclass(slots=True)
class _Place:
    """Where a message is.

    Attributes:
        begun: From when its deadlines count.
        sent: Whether the channel was given it.
        valid_until: Until when the receiver may begin; None when nobody stated it.
        over: The event that ended the channel's turn.
    """

    kanal: str
    begun: datetime
    sent: bool = False
    valid_until: datetime | None = None
    over: TransportRecord | None = None


def _place_of(melding: Melding, state: SoknadState) -> _Place:
    """Follow a message through its channels, by time: two writers' clocks decide, as for everything that is late."""
    records = [one for one in state.transport if one.melding_id == melding.melding_id]
    place = _Place(records[0].kanal, melding.akseptert)
    for record in sorted(records, key=lambda one: one.tidspunkt):
        if record.type in {TRANSPORT_SENDT, TRANSPORT_BEKREFTET}:
            _give(place, record)
        elif record.type == TRANSPORT_IKKE_SENDT or (record.type in WITHDRAWS and record.kanal == place.kanal):
            place.kanal, place.over = record.kanal, record  # a withdrawal from a channel that is past means nothing
        if record.gyldig_til is not None and record.type not in ENDS:
            place.valid_until = max(record.gyldig_til, place.valid_until or record.gyldig_til)
    return place


def _give(place: _Place, record: TransportRecord) -> None:
    """Let the channel of ``record`` have its turn; the first channel's deadlines go on from acceptance (rule 6)."""
    if record.kanal != place.kanal:
        place.kanal, place.begun, place.valid_until = record.kanal, record.tidspunkt, None
    elif place.over is not None:
        place.begun, place.valid_until = record.tidspunkt, None
    place.sent, place.over = True, None


def _answers(melding_id: MeldingId, kanal: str, projection: Projection) -> list[KvitteringClaims]:
    """Return what the channel answered in time, the latest last."""
    withdrawals = withdrawals_of(projection.state.transport)
    first = projection.meldinger[0].melding.melding_id
    found = [
        claims
        for claims in (ledd.claims for ledd in projection.verdicts.holds)
        if (claims.melding_id or first) == melding_id
        and claims.kanal == kanal
        and not withdrawals.is_late(melding_id, kanal, claims.tidspunkt)
    ]
    return sorted(found, key=lambda claims: claims.tidspunkt)


def _reason(place: _Place, answers: Sequence[KvitteringClaims]) -> tuple[Arsak, str | None]:
    last = answers[-1] if answers else None
    if place.over is not None and place.over.type == TRANSPORT_IKKE_SENDT:
        return Arsak.KANAL_FEIL, place.over.kode
    if last is not None and last.status == AVVIST:
        return Arsak.DODT_BREV if last.grad == GRAD_INGEN else Arsak.AVVIST, last.kode
    if last is not None and last.status in _CONFIRMS:
        return Arsak.IKKE_MOTTATT, None
    return (Arsak.IKKE_BEKREFTET if place.sent or last is not None else Arsak.IKKE_SENDT), None


def _withdrawal(one: Ventende, state: SoknadState, now: datetime) -> TransportRecord:
    failed = one.arsak in {Arsak.AVVIST, Arsak.DODT_BREV}
    return TransportRecord(
        hendelse_id=withdrawal_id(one.melding.melding_id, one.kanal),
        melding_id=one.melding.melding_id,
        digisos_id=state.digisos_id,
        kommunenummer=one.melding.kommunenummer,
        type=TRANSPORT_MAX_RETRIESAVBRUDD if failed else TRANSPORT_TTL_TIDSAVBRUDD,
        kanal=one.kanal,
        tidspunkt=to_milliseconds(now),
        nav_ekstern_ref_id=one.melding.nav_ekstern_ref_id,
        kode=one.kode or one.arsak.value,
    )


def withdrawal_id(melding_id: MeldingId, kanal: str) -> Uuid:
    """Return the id of the withdrawal of a message from a channel: one for each, whoever finds that it is due (rule 4)."""
    return Uuid.of(uuid5(_IDS, f"{melding_id}/{kanal}"))
