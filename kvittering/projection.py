"""The fold: facts in, one søknad's status, history and verdicts out. No IO, no clock.

``apply`` takes in one more fact; ``project`` computes what all facts together mean. Both are pure, so the same topics give
the same answer however often, and in whatever interleaving, they are read (invariant 8).

Rules:

1. A fact that was there before is a repeat, known by its id: no event at all.
2. A fact that is refused leaves the state as it was, or is taken out of it if it had waited there. The one exception is a
   link with the wrong digest, which keeps its place in its issuer's chain and counts for nothing else.
3. A søknad belongs to the kommune of its first AKSEPTERT. Before that is known, what others say about it waits.
4. What waits is bounded for each issuer, so that nobody fills a søknad's state: one more is refused.
5. The history is ordered by when things happened, by their own clocks; ties by source and by each source's order.
6. What comes from a channel after the message was withdrawn from it (``kanaler``) stands in the history, marked as late, and has
   no other effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from kvittering.chain import VENTER_SOKNAD, Verdicts, connect, judge
from kvittering.facts import Fact, Ledd, Sakshendelse, SoknadState
from kvittering.kanaler import ENDS, withdrawals_of
from kvittering.lifecycle import (
    AT_FAGSYSTEM,
    FAILURES,
    OVERCOMES,
    Soknadsstatus,
    follow,
    sak_input,
    svar_input,
    transport_input,
)
from schemas.errors import ChainError, MismatchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from kvittering.facts import Melding
    from kvittering.kanaler import Withdrawals
    from kvittering.lifecycle import Input
    from schemas.errors import MeldingsformidlerError
    from schemas.names import Eier, Kommunenummer, MeldingId, NavEksternRefId
    from schemas.records import TransportRecord

Kilde = Literal["transport", "kvittering", "sak"]
MAX_WAITING: Final = 200
"""Most kvitteringer, and most hendelser, of one issuer that wait for one søknad."""
_LANES: Final[Mapping[Kilde, int]] = {"transport": 0, "kvittering": 1, "sak": 2}


class Refused(NamedTuple):
    """A fact that never counts: its id (see ``fact_id``) and why."""

    fact_id: str
    error: MeldingsformidlerError


@dataclass(frozen=True, slots=True)
class Change:
    """What came of one fact.

    Attributes:
        state: The state afterwards.
        outcome: ``MOTTATT``, ``GJENTATT`` or ``UNDERKJENT``: what became of the fact itself.
        refused: The fact, or earlier ones that this one proved wrong.
        verdicts: Those of ``state``, where they are known already.
    """

    state: SoknadState
    outcome: Literal["MOTTATT", "GJENTATT", "UNDERKJENT"]
    refused: tuple[Refused, ...] = ()
    verdicts: Verdicts | None = None


@dataclass(frozen=True, slots=True)
class Innslag:
    """A line of the history; ``for_sent`` says that it came too late to count (rule 6)."""

    tidspunkt: datetime
    type: Kilde
    verdi: str
    kanal: str | None = None
    kode: str | None = None
    utsteder: str | None = None
    melding_id: MeldingId | None = None
    for_sent: bool = False


@dataclass(frozen=True, slots=True)
class MeldingStatus:
    """How far one message has come, and the code of its latest failure while that is not overcome."""

    melding: Melding
    status: Soknadsstatus | None
    kode: str | None


@dataclass(frozen=True, slots=True)
class Projection:
    """What the facts about one søknad mean.

    Attributes:
        status: What the citizen is shown; None before anybody has told us of the søknad.
        oppdatert: When that status began.
        kode: Code of the latest failure of a message that is still on its way.
        mottatt: When the fagsystem first said that it has the søknad.
        historikk: By time.
        meldinger: The søknad first, then its ettersendelser.
        verdicts: What came of each fact.
    """

    state: SoknadState
    status: Soknadsstatus | None
    oppdatert: datetime | None
    kode: str | None
    mottatt: datetime | None
    historikk: tuple[Innslag, ...]
    meldinger: tuple[MeldingStatus, ...]
    verdicts: Verdicts

    @property
    def soknad(self) -> Melding | None:
        """The søknad's own message; None until it is known."""
        return self.meldinger[0].melding if self.meldinger else None

    @property
    def kommunenummer(self) -> Kommunenummer | None:
        """The kommune that it was sent to."""
        return self.soknad.kommunenummer if self.soknad else None

    @property
    def nav_ekstern_ref_id(self) -> NavEksternRefId | None:
        """The sender's own id."""
        return self.soknad.nav_ekstern_ref_id if self.soknad else None

    @property
    def eier(self) -> Eier | None:
        """Whose it is."""
        return self.soknad.eier if self.soknad else None

    @property
    def levert_fagsystem(self) -> bool:
        """Whether the fagsystem has it: then the sender may forget its own copy."""
        return self.status in AT_FAGSYSTEM


def fact_id(fact: Fact) -> str:
    """Return what makes two facts the same: the id of the event, or the digest of the signed kvittering."""
    if isinstance(fact, Ledd):
        return fact.digest
    return fact.melding_id if isinstance(fact, Sakshendelse) else fact.hendelse_id


def is_known(state: SoknadState, fact: Fact) -> bool:
    """Return whether the fact was there before, so that it is a repeat."""
    new_id = fact_id(fact)
    return any(fact_id(one) == new_id for one in _lane(state, fact))


def apply(state: SoknadState, fact: Fact, known: Verdicts | None = None) -> Change:
    """Return the state with one more fact, and what that fact shows to be wrong.

    Args:
        state: What is known so far; ``SoknadState(digisos_id=…)`` for a søknad that is new.
        fact: A transport record, or a kvittering or hendelse whose signature holds (``chain.read_ledd``, ``hendelser``).
        known: The verdicts of ``state``, if the caller has them.
    """
    new_id = fact_id(fact)
    if is_known(state, fact):
        return Change(state, "GJENTATT")
    before = (known or judge_all(state)).refused
    grown = _append(state, fact)
    verdicts = judge_all(grown)
    if new_id in verdicts.waits and _waiting_with(fact, grown, verdicts) > MAX_WAITING:
        return Change(
            state, "UNDERKJENT", (Refused(new_id, ChainError(f"mer enn {MAX_WAITING} venter alt fra samme utsteder")),)
        )
    refused = tuple(Refused(one, error) for one, error in verdicts.refused.items() if one not in before)
    kept = _without_refused(grown, verdicts)
    if new_id not in verdicts.refused:
        return Change(kept, "MOTTATT", refused, verdicts if kept is grown else None)
    return Change(state if kept == state else kept, "UNDERKJENT", refused)


def _waiting_with(fact: Fact, state: SoknadState, verdicts: Verdicts) -> int:
    """Return how many facts of the same kind and issuer wait, ``fact`` among them."""
    issuer = _issuer(fact)
    return sum(fact_id(one) in verdicts.waits and _issuer(one) == issuer for one in _lane(state, fact))


def _issuer(fact: Fact) -> tuple[Kommunenummer, str]:
    if isinstance(fact, Ledd):
        return fact.claims.kommunenummer, fact.claims.utsteder
    return fact.kommunenummer, fact.avsender if isinstance(fact, Sakshendelse) else ""


def judge_all(state: SoknadState) -> Verdicts:
    """Return what each kvittering and hendelse of the søknad is worth."""
    meldinger = state.meldinger()
    verdicts = judge(state.kvitteringer, meldinger)
    soknad = next(iter(meldinger.values()), None)
    waits, refused = dict(verdicts.waits), dict(verdicts.refused)
    for hendelse in state.hendelser:
        if soknad is None:
            waits[hendelse.melding_id] = VENTER_SOKNAD
        elif hendelse.kommunenummer != soknad.kommunenummer:
            refused[hendelse.melding_id] = MismatchError("hendelsen er fra en annen kommune enn den søknaden gikk til")
    return Verdicts(verdicts.holds, waits, refused)


def project(state: SoknadState, known: Verdicts | None = None) -> Projection:
    """Return what the facts mean; ``known`` are the verdicts of ``state``, if the caller has them.

    The three sources are folded one after the other, transport first. By rule 6 of ``lifecycle`` any other interleaving
    would end in the same status.
    """
    verdicts = known or judge_all(state)
    meldinger = state.meldinger()
    first = next(iter(meldinger), None)
    valid = tuple(h for h in state.hendelser if h.melding_id not in verdicts.refused and first is not None)
    withdrawals = withdrawals_of(state.transport)
    steps = {melding_id: _steps_of(melding_id, state, verdicts, first, withdrawals) for melding_id in meldinger}
    own = [*steps[first], *_case_steps(valid)] if first is not None else []
    status, oppdatert, mottatt = _fold(own)
    statuses = tuple(
        _melding_status(
            melding, steps[melding.melding_id], at_fagsystem=melding.melding_id == first and mottatt is not None
        )
        for melding in meldinger.values()
    )
    return Projection(
        state=state,
        status=status,
        oppdatert=oppdatert,
        kode=_latest_code(statuses, steps),
        mottatt=mottatt,
        historikk=_history(state, verdicts, valid, first, withdrawals),
        meldinger=statuses,
        verdicts=verdicts,
    )


class _Step(NamedTuple):
    """A fact as the table sees it, with what the operators' code is made of."""

    tidspunkt: datetime
    lane: int
    input: Input | None
    kode: str | None


def _steps_of(
    melding_id: MeldingId, state: SoknadState, verdicts: Verdicts, first: MeldingId | None, withdrawals: Withdrawals
) -> list[_Step]:
    """Return the steps of one message: its transport, then the kvitteringer that answer it; without what is late."""
    steps = [
        _Step(r.tidspunkt, _LANES["transport"], transport_input(r.type), r.kode or r.type)
        for r in state.transport
        if r.melding_id == melding_id and not _ended(r, withdrawals)
    ]
    steps += [
        _Step(c.tidspunkt, _LANES["kvittering"], svar_input(c.status), c.kode or c.status)
        for c in (ledd.claims for ledd in verdicts.holds)
        if (c.melding_id or first) == melding_id  # an unreadable record is answered without meldingId
        and not withdrawals.is_late(melding_id, c.kanal, c.tidspunkt)
    ]
    return steps


def _ended(record: TransportRecord, withdrawals: Withdrawals) -> bool:
    """Return whether a transport event is from after a person ended the message."""
    return record.type not in ENDS and withdrawals.is_ended(record.melding_id, record.tidspunkt)


def _case_steps(hendelser: tuple[Sakshendelse, ...]) -> list[_Step]:
    """Return the one step that the latest digisos-soker.json is; each replaces all before it, if it says a status at all."""
    for hendelse in reversed(hendelser):
        if (shown := sak_input(hendelse.vist)) is not None:
            return [_Step(hendelse.shown_since(), _LANES["sak"], shown, None)]
    return []


def _fold(steps: Iterable[_Step]) -> tuple[Soknadsstatus | None, datetime | None, datetime | None]:
    """Return the status, when it began, and when the fagsystem first had the søknad."""
    status: Soknadsstatus | None = None
    began: datetime | None = None
    mottatt: datetime | None = None
    for step in steps:
        following = follow(status, step.input)
        if following is not status:
            status, began = following, step.tidspunkt
        if mottatt is None and status in AT_FAGSYSTEM:
            mottatt = step.tidspunkt
    return status, began, mottatt


def _melding_status(melding: Melding, steps: list[_Step], *, at_fagsystem: bool) -> MeldingStatus:
    status, _, mottatt = _fold(steps)
    arrived = at_fagsystem or mottatt is not None
    last = None if arrived else _last_answer(steps)
    return MeldingStatus(melding, status, last.kode if last and last.input in FAILURES else None)


def _last_answer(steps: list[_Step]) -> _Step | None:
    """Return the latest failure, or what overcame it; a SENDT is no answer, and may carry a later time than its own answer."""
    answers = [step for step in steps if step.input in FAILURES or step.input in OVERCOMES]
    answers.reverse()  # of two at the same moment max returns the first, and the one that came last should count
    return max(answers, key=lambda step: (step.tidspunkt, step.lane), default=None)


def _latest_code(statuses: tuple[MeldingStatus, ...], steps: Mapping[MeldingId, list[_Step]]) -> str | None:
    failing = [
        (last.tidspunkt, one.kode)
        for one in statuses
        if one.kode is not None and (last := _last_answer(steps[one.melding.melding_id])) is not None
    ]
    return max(failing)[1] if failing else None


def _history(
    state: SoknadState,
    verdicts: Verdicts,
    hendelser: tuple[Sakshendelse, ...],
    first: MeldingId | None,
    withdrawals: Withdrawals,
) -> tuple[Innslag, ...]:
    lines = [
        Innslag(r.tidspunkt, "transport", r.type, r.kanal, r.kode, None, r.melding_id, _ended(r, withdrawals))
        for r in state.transport
    ]
    for claims in (ledd.claims for ledd in verdicts.holds):
        about = claims.melding_id or first
        late = about is not None and withdrawals.is_late(about, claims.kanal, claims.tidspunkt)
        lines.append(
            Innslag(
                claims.tidspunkt,
                "kvittering",
                claims.status,
                claims.kanal,
                claims.kode,
                claims.utsteder,
                claims.melding_id,
                late,
            )
        )
    if hendelser:
        latest = hendelser[-1]
        lines += [Innslag(s.tidspunkt, "sak", s.status, utsteder=latest.avsender) for s in latest.statuser]
    return tuple(sorted(lines, key=lambda line: (line.tidspunkt, _LANES[line.type])))


def _lane(state: SoknadState, fact: Fact) -> tuple[Fact, ...]:
    if isinstance(fact, Ledd):
        return state.kvitteringer
    return state.hendelser if isinstance(fact, Sakshendelse) else state.transport


def _append(state: SoknadState, fact: Fact) -> SoknadState:
    if isinstance(fact, Ledd):
        return state.model_copy(update={"kvitteringer": (*state.kvitteringer, fact)})
    if isinstance(fact, Sakshendelse):
        return state.model_copy(update={"hendelser": (*state.hendelser, fact)})
    return state.model_copy(update={"transport": (*state.transport, fact)})


def _without_refused(state: SoknadState, verdicts: Verdicts) -> SoknadState:
    """Take out what is refused, but for links that their issuer's chain goes on through (rule 2)."""
    if not verdicts.refused:
        return state
    kommuner = {melding.kommunenummer for melding in state.meldinger().values()}
    broken = connect(state.kvitteringer).broken
    links = tuple(
        ledd
        for ledd in state.kvitteringer
        if ledd.digest not in verdicts.refused or (ledd.digest not in broken and ledd.claims.kommunenummer in kommuner)
    )
    hendelser = tuple(h for h in state.hendelser if h.melding_id not in verdicts.refused)
    return state.model_copy(update={"kvitteringer": links, "hendelser": hendelser})
