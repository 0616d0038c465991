"""Governed acts: what one operator may do alone, and what another must approve. Decided from records, without IO.

An act on more than ``Register.grense`` objects becomes a *forslag*: a signed record of the revisjon with the digest of the exact
selection. Another operator approves it with a signed record of their own, and the act is carried out on exactly that selection.

Rules:

1. An approval counts when it is signed by a registered operator who is not the proposer, and the proposal's own signature holds.
2. It is for one digest. When the selection is another by then, nothing is done, and the text says so.
3. A proposal that was carried out to its end, or withdrawn, is not carried out again. One that was interrupted goes on.
4. A proposal is old after ``VALID_FOR``.
5. What an operator did without another's approval within ``ALONE_FOR`` counts against the limit together with what they do now:
   each object once. Dead letters and recalls are counted each for itself.

Who can get around it is said in ``broker.operatorer``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

from broker.revisjonskontroll import Act, operator_problem, signature_problem
from schemas.errors import ApprovalError, InvalidNameError, SelectionChangedError
from schemas.names import Sha256, Uuid

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping
    from datetime import datetime

    from broker.operator_register import Register

FORESLATT: Final = "forslag.foreslatt"
GODKJENT: Final = "forslag.godkjent"
TRUKKET: Final = "forslag.trukket"
UTFORT: Final = "forslag.utfort"

VALID_FOR: Final = timedelta(days=7)
ALONE_FOR: Final = timedelta(hours=24)
"""For how long what an operator did alone counts against the limit: many small acts are one large one."""

Tilstand = Literal["FORESLATT", "GODKJENT", "UTFORT", "TRUKKET"]
_STATES: Final[dict[str, Tilstand]] = {GODKJENT: "GODKJENT", TRUKKET: "TRUKKET", UTFORT: "UTFORT"}
_ENDED: Final = frozenset({"UTFORT", "TRUKKET"})


@dataclass(frozen=True, slots=True)
class Forslag:
    """A proposal as it stands.

    Attributes:
        id: Its id.
        handling: What is to be done, for example ``dlq.gjenkjor``.
        utvalg: To what, as JSON in the act's own terms.
        digest: Of the exact selection.
        antall: How many objects.
        act: The record that proposed it.
        tilstand: Where it is.
        godkjent_av: The actor who approved, if somebody has.
    """

    id: Uuid
    handling: str
    utvalg: str
    digest: Sha256
    antall: int
    act: Act
    tilstand: Tilstand = "FORESLATT"
    godkjent_av: str | None = None

    @property
    def foreslatt_av(self) -> str:
        """The actor who proposed it."""
        return self.act.record.aktor

    @property
    def tidspunkt(self) -> datetime:
        """When it was proposed."""
        return self.act.record.tidspunkt


def selection_digest(handling: str, objekter: Iterable[str]) -> Sha256:
    """Return the digest of a selection: of what is to be done, and to what, whatever the order it is listed in."""
    digest = hashlib.sha256(handling.encode())
    for objekt in sorted(set(objekter)):
        digest.update(b"\n" + objekt.encode())
    return Sha256(digest.hexdigest())


def needs_approval(antall: int, register: Register) -> bool:
    """Return whether ``antall`` objects are more than one operator may reach alone."""
    return antall > register.grense


def proposal_details(handling: str, utvalg: str, digest: Sha256, antall: int) -> dict[str, str]:
    """Return the details of the record that proposes an act; its object is the proposal's new id."""
    return {"handling": handling, "utvalg": utvalg, "digest": digest, "antall": str(antall)}


def proposals(acts: Iterable[Act]) -> dict[Uuid, Forslag]:
    """Return every proposal in the revisjon, by id, as it stands after these acts (in the topic's order).

    Records that do not have a proposal's form are passed over: they cannot be approved.
    """
    found: dict[Uuid, Forslag] = {}
    for act in acts:
        record = act.record
        if record.handling == FORESLATT:
            forslag = _read(act)
            if forslag is not None:
                found.setdefault(forslag.id, forslag)
        elif record.handling in _STATES and (known := _named(record.objekt, found)) is not None:
            found[known.id] = _moved(known, act)
    return found


def counting(acts: Iterable[Act], register: Register) -> list[Act]:
    """Return the acts without those that would move a proposal and that no operator has signed."""
    return [act for act in acts if act.record.handling not in _STATES or operator_problem(act, register) is None]


def carried_out(acts: Iterable[Act], forslag: Forslag, handling: str, register: Register) -> set[Uuid]:
    """Return the objects that an interrupted run of the proposal got done with, as operators have signed for."""
    return {
        Uuid(act.record.objekt)
        for act in acts
        if act.record.handling == handling
        and act.record.detaljer.get("forslag") == forslag.id
        and operator_problem(act, register) is None
    }


def done_alone(acts: Iterable[Act], aktor: str, handlinger: Container[str], since: datetime) -> set[str]:
    """Return the objects that an operator has acted on since a moment, by Kafka's time, without another's approval."""
    return {
        act.record.objekt
        for act in acts
        if act.record.aktor == aktor
        and act.record.handling in handlinger
        and "forslag" not in act.record.detaljer
        and act.at_ms >= to_ms(since)
    }


def to_ms(moment: datetime) -> int:
    """Return a moment as Kafka has it: milliseconds since 1970."""
    return round(moment.timestamp() * 1000)


def check_approval(forslag: Forslag, aktor: str, register: Register, now: datetime) -> None:
    """Check that ``aktor`` may approve the proposal now; call it before the approval is written.

    Raises:
        ApprovalError: They may not; the text says why (rules 1, 3 and 4).
    """
    if forslag.tilstand in _ENDED:
        raise ApprovalError(f"forslaget er allerede {forslag.tilstand.lower()}")
    if now - forslag.tidspunkt > VALID_FOR:
        raise ApprovalError(f"forslaget er mer enn {VALID_FOR.days} dager gammelt; foreslå det på nytt")
    if aktor == forslag.foreslatt_av:
        raise ApprovalError("den som foreslo kan ikke godkjenne; en annen operatør må gjøre det")
    problem = signature_problem(forslag.act, register)
    if problem is not None or register.of_actor(forslag.foreslatt_av) is None:
        raise ApprovalError(f"forslaget er ikke gyldig signert: {problem.tekst if problem else 'ikke en operatør'}")
    entry = register.of_actor(aktor)
    if entry is None or not entry.is_active(now):
        raise ApprovalError("den som godkjenner er ikke en operatør nå")


def check_selection(forslag: Forslag, objekter: Iterable[str]) -> None:
    """Check that what would be done now is what was proposed (rule 2).

    Raises:
        SelectionChangedError: It is not.
    """
    now = set(objekter)
    if selection_digest(forslag.handling, now) != forslag.digest:
        raise SelectionChangedError(
            f"utvalget er endret siden forslaget: det var {forslag.antall}, og er {len(now)} nå, eller andre enn da. "
            "Ingenting er gjort; se på det på nytt, og lag et nytt forslag"
        )


def _read(act: Act) -> Forslag | None:
    details: Mapping[str, str] = act.record.detaljer
    try:
        return Forslag(
            id=Uuid(act.record.objekt),
            handling=details["handling"],
            utvalg=details["utvalg"],
            digest=Sha256(details["digest"]),
            antall=int(details["antall"]),
            act=act,
        )
    except (InvalidNameError, KeyError, ValueError):
        return None


def _named(objekt: str, found: Mapping[Uuid, Forslag]) -> Forslag | None:
    try:
        return found.get(Uuid(objekt))
    except InvalidNameError:
        return None


def _moved(forslag: Forslag, act: Act) -> Forslag:
    if forslag.tilstand in _ENDED:
        return forslag
    state = _STATES[act.record.handling]
    approver = act.record.aktor if act.record.handling == GODKJENT else forslag.godkjent_av
    return replace(forslag, tilstand=state, godkjent_av=approver)
