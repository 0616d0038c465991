"""What a redrive would do, decided: which letters go, in which order, and which are held and why. No IO.

Rules:

1. One line for each kommune and key: what goes, goes in the line's order, and nothing passes an earlier one that stays. Of a
   letter that is chosen, everything that waits behind it goes after it, in order.
2. A letter is held when there is nothing to send (stripped), when it says that it is another kommune's, when no connector may
   deliver it any more (expired), when it is parked, or when the loop guard has it; the latter two go with ``tving``. So is
   everything behind it.
3. One that was sent again and has not been answered goes once more only when it is named by its id, with ``tving``.
4. What an operator has closed for good stops nobody: the ones behind it go past it (``forbi``).
5. Lines with nødhjelp first, then those that have waited longest.
6. The waves of a plan have at most one letter of each line, and a line's letters in order: a wave goes out when the former one
   is known to be on its topic.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import AwareDatetime

from broker.dlq.state import LOKKEVERN, OPERATOR, UNDELIVERED, Sak, line_of
from broker.styring import selection_digest
from schemas.model import WireModel
from schemas.names import Kommunenummer, Sha256, Uuid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.dlq.letters import Letter
    from broker.dlq.state import Dodebrev

HANDLING: Final = "dlq.gjenkjor"

STRIPPET: Final = "strippet"
UTLOPT: Final = "utlopt"
PARKERT: Final = "parkert"
VENTER: Final = "venter"
FREMMED: Final = "fremmed"
UBESVART: Final = "ubesvart"


class Utvalg(WireModel):
    """Which letters an act is for; what is not said does not limit.

    Attributes:
        brev: These letters, by any id that they have had.
        kommuner: Of these kommuner.
        koder: With these error codes.
        skjemaer: Whose original was written by these schemas, for example ``soknad:2``.
        fra: Died at this moment or later, by the connector's clock.
        til: Died before this moment.
        tving: Parked ones too.
        for_ms: Only letters that Kafka took before this, milliseconds since 1970: a proposal does not grow.
    """

    brev: tuple[Uuid, ...] = ()
    kommuner: tuple[Kommunenummer, ...] = ()
    koder: tuple[str, ...] = ()
    skjemaer: tuple[str, ...] = ()
    fra: AwareDatetime | None = None
    til: AwareDatetime | None = None
    tving: bool = False
    for_ms: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it chooses everything."""
        return not (self.brev or self.kommuner or self.koder or self.skjemaer or self.fra or self.til)

    def to_json(self) -> str:
        """Return it as it stands in the revisjon: what does not limit is left out."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True)

    def sees(self, sak: Sak) -> bool:
        """Return whether the sak was there when the selection was made."""
        return self.for_ms is None or sak.newest.at_ms < self.for_ms

    def names(self, sak: Sak) -> bool:
        """Return whether the sak is named by an id."""
        return any(letter.id in self.brev for letter in sak.brev)

    def matches(self, sak: Sak) -> bool:
        """Return whether the sak is one of those asked for."""
        letter = sak.newest
        return (
            (not self.brev or self.names(sak))
            and (not self.kommuner or letter.kommunenummer in self.kommuner)
            and (not self.koder or letter.kode in self.koder)
            and (not self.skjemaer or letter.skjema in self.skjemaer)
            and (self.fra is None or letter.tidspunkt >= self.fra)
            and (self.til is None or letter.tidspunkt < self.til)
            and self.sees(sak)
        )


@dataclass(frozen=True, slots=True)
class Steg:
    """A letter that goes.

    Attributes:
        sak: What it belongs to; its newest letter goes.
        medfulgt: It was not asked for, and goes because it waits behind one that was.
        forbi: An operator has closed one before it, which it goes past.
    """

    sak: Sak
    medfulgt: bool = False
    forbi: bool = False

    @property
    def letter(self) -> Letter:
        """The letter."""
        return self.sak.newest

    @property
    def runde(self) -> int:
        """Which time it is sent again, from 1."""
        return self.letter.gjenkjoringer + 1


@dataclass(frozen=True, slots=True)
class Holdt:
    """A letter that was asked for, or would have followed, and stays: why, and behind which one if it is that."""

    sak: Sak
    grunn: str
    bak: Uuid | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a redrive does.

    Attributes:
        steg: What goes, by line, in order.
        holdt: What stays.
    """

    steg: tuple[Steg, ...]
    holdt: tuple[Holdt, ...]

    def digest(self, ferdige: Iterable[Uuid] = ()) -> Sha256:
        """Return the digest of the selection; ``ferdige`` are letters of it that went before an interruption."""
        return selection_digest(HANDLING, [*(one.letter.id for one in self.steg), *ferdige])


def plan_redrive(brev: Dodebrev, utvalg: Utvalg) -> Plan:
    """Return what ``utvalg`` means for the letters as they stand."""
    lines: dict[tuple[Kommunenummer, bytes], list[Sak]] = {}
    for sak in brev.saker:
        lines.setdefault(line_of(sak.first), []).append(sak)
    planned = [_plan_line(line, utvalg) for line in lines.values()]
    going = sorted((steg for steg, _ in planned if steg), key=_urgency)
    return Plan(tuple(itertools.chain.from_iterable(going)), tuple(held for _, some in planned for held in some))


def choose(brev: Dodebrev, utvalg: Utvalg, handling: str) -> tuple[Uuid, ...]:
    """Return the letters that ``dlq.park``, ``dlq.lukk`` or ``dlq.apne`` would be written on: those asked for, no followers."""
    states = {"dlq.park": {"APEN"}, "dlq.apne": {"PARKERT"}}.get(handling, UNDELIVERED | {"GJENKJORT"})
    return tuple(sak.id for sak in brev.saker if sak.tilstand in states and utvalg.matches(sak))


class Waves:
    """The waves of a plan, one after the other, for a sender that may fail on a letter.

    Args:
        steps: The plan's steps.
        size: Most letters in a wave, at least 1.
    """

    def __init__(self, steps: Iterable[Steg], size: int) -> None:
        grouped = itertools.groupby(steps, key=lambda step: line_of(step.letter))
        self._lines = [list(group) for _, group in grouped]
        self._size = max(size, 1)

    def next(self) -> list[Steg]:
        """Return the next wave; empty when nothing is left."""
        wave = [line.pop(0) for line in self._lines[: self._size]]
        self._lines = [line for line in self._lines if line]
        return wave

    def stop(self, step: Steg) -> list[Steg]:
        """Give up what is left of a line, because ``step`` of it did not go; return what that is."""
        line = next((one for one in self._lines if line_of(one[0].letter) == line_of(step.letter)), None)
        if line is None:
            return []
        self._lines.remove(line)
        return line

    @property
    def left(self) -> int:
        """How many steps are left."""
        return sum(len(line) for line in self._lines)


def _urgency(steps: list[Steg]) -> tuple[bool, int]:
    return not any(step.letter.is_urgent for step in steps), steps[0].sak.first.at_ms


def _plan_line(line: list[Sak], utvalg: Utvalg) -> tuple[list[Steg], list[Holdt]]:
    steps: list[Steg] = []
    held: list[Holdt] = []
    stopped: Sak | None = None
    past = False
    for sak in line:
        asked = utvalg.matches(sak)
        if sak.tilstand == "LUKKET":
            past = past or sak.arsak == OPERATOR
            continue
        if sak.tilstand == "GJENKJORT" and not (asked and utvalg.names(sak) and utvalg.tving):
            if asked and utvalg.names(sak):
                held.append(Holdt(sak, UBESVART))
            continue
        if not utvalg.sees(sak) or not (asked or steps):
            stopped = stopped or sak
            continue
        reason = VENTER if stopped is not None else _why_not(sak, utvalg)
        if reason is None:
            steps.append(Steg(sak, medfulgt=not asked, forbi=past))
            continue
        held.append(Holdt(sak, reason, stopped.id if stopped is not None else None))
        stopped = stopped or sak
    return steps, held


def _why_not(sak: Sak, utvalg: Utvalg) -> str | None:
    if sak.newest.fremmed:
        return FREMMED
    if sak.newest.is_stripped:
        return STRIPPET
    if sak.tilstand == "UTLOPT":
        return UTLOPT
    if sak.tilstand == "PARKERT" and not utvalg.tving:
        return LOKKEVERN if sak.arsak == LOKKEVERN else PARKERT
    return None
