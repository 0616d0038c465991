"""How the dead letters stand: a pure fold over letters, acts of the revisjon and answers of the fagsystem.

Rules:

1. Letters of one melding, over all its rounds, are one *sak*: the newest letter is what it is judged by. One that could not be
   read is known again by the letter that it was sent again from. A kommune's letters and answers are about its own meldinger,
   whatever ids they name: a connector writes both.
2. LUKKET: the fagsystem has answered for the melding after its newest letter, or an operator closed it.
   UTLOPT: no connector may begin its hand-over any more; the next channel has it.
   GJENKJORT: the newest letter was sent again, and nothing has been heard since.
   PARKERT: an operator set it aside, or it has been sent again ``maks_runder`` times (the loop guard).
   APEN: anything else.
3. Order is that of the dead-letter topic, where a søknad's letters lie in one partition, each sak at the place of its *first*
   letter. What comes later of the same key waits behind the nearest earlier sak that is APEN, PARKERT or UTLOPT.
4. "After" is by Kafka's own time stamps, which one clock gives; an answer repeated byte for byte has an old time in it.
5. The order in which acts and answers are handed in changes nothing, but for acts on one letter: the last one counts. The same
   bytes once more are no act more.
6. Acts are operators' only, and one counts if its signature holds by the register that is at hand. One that does not moves
   nothing, and is told of: who can write to the topic cannot close a letter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from broker.revisjonskontroll import operator_problem
from schemas.errors import InvalidNameError
from schemas.names import Kommunenummer, MeldingId, Uuid

if TYPE_CHECKING:
    from datetime import datetime

    from broker.dlq.letters import Letter
    from broker.operator_register import Register
    from broker.revisjonskontroll import Act
    from schemas.names import Sha256

GJENKJORT: Final = "dlq.gjenkjort"
PARKERT: Final = "dlq.parkert"
APNET: Final = "dlq.apnet"
LUKKET: Final = "dlq.lukket"
ACTS: Final = frozenset({GJENKJORT, PARKERT, APNET, LUKKET})

Tilstand = Literal["APEN", "GJENKJORT", "PARKERT", "UTLOPT", "LUKKET"]
UNDELIVERED: Final = frozenset({"APEN", "PARKERT", "UTLOPT"})

BESVART: Final = "besvart"
OPERATOR: Final = "operator"
LOKKEVERN: Final = "lokkevern"

Answers = Mapping[tuple[Kommunenummer, MeldingId], int]
"""When Kafka took a kommune's latest answer for a melding; a dead letter's own kvittering is none."""


@dataclass(frozen=True, slots=True)
class Tvil:
    """An act that does not count, and why, in words for people."""

    act: Act
    tekst: str


@dataclass(frozen=True, slots=True)
class Sak:
    """One melding that died, and how it stands.

    Attributes:
        brev: Its letters, oldest first.
        tilstand: See rule 2.
        arsak: Why it is PARKERT or LUKKET: ``operator``, ``lokkevern`` or ``besvart``.
        bak: The sak that it waits behind (rule 3).
        venter: Those that wait behind it, in order.
        handlinger: Acts on its letters that count, in the topic's order.
        uten_virkning: Those that do not (rule 6).
    """

    brev: tuple[Letter, ...]
    tilstand: Tilstand
    arsak: str | None
    bak: Uuid | None
    venter: tuple[Uuid, ...]
    handlinger: tuple[Act, ...]
    uten_virkning: tuple[Tvil, ...] = ()

    @property
    def first(self) -> Letter:
        """The letter that it first died as."""
        return self.brev[0]

    @property
    def newest(self) -> Letter:
        """The letter that it is judged by."""
        return self.brev[-1]

    @property
    def id(self) -> Uuid:
        """The newest letter's id."""
        return self.newest.id

    @property
    def attempts(self) -> int:
        """How many attempts were made in all rounds."""
        return sum(len(letter.forsok) for letter in self.brev)

    @property
    def is_undelivered(self) -> bool:
        """Whether what comes later of its key must wait."""
        return self.tilstand in UNDELIVERED


@dataclass(frozen=True)
class Dodebrev:
    """All dead letters as they stand.

    Attributes:
        saker: In the order of their topics.
        uleselige: How many records could not be read, by kommune.
    """

    saker: tuple[Sak, ...]
    uleselige: Mapping[Kommunenummer, int]

    def find(self, brev: Uuid) -> Sak | None:
        """Return the sak that has this letter, an older one too, or None."""
        return next((sak for sak in self.saker if any(letter.id == brev for letter in sak.brev)), None)

    def line(self, sak: Sak) -> tuple[Sak, ...]:
        """Return all saker of the same key and kommune, in order."""
        return tuple(one for one in self.saker if line_of(one.first) == line_of(sak.first))


def line_of(letter: Letter) -> tuple[Kommunenummer, bytes]:
    """Return what a letter stands in line in: its kommune and key."""
    return letter.kommunenummer, letter.key


def fold(
    letters: Iterable[Letter],
    acts: Iterable[Act],
    answers: Answers,
    *,
    now: datetime,
    register: Register,
    uleselige: Mapping[Kommunenummer, int] | None = None,
) -> Dodebrev:
    """Return how the dead letters stand.

    Args:
        letters: In order for each partition; the same letter twice counts once.
        acts: Of the revisjon, in the topic's order.
        answers: The fagsystem's.
        now: Aware UTC.
        register: Who the operators are and were, and how many times a letter is sent again before the loop guard holds it.
        uleselige: Records that are no letters, by kommune.
    """
    groups = _group(letters)
    done, doubtful = _weighed(acts, {letter.id for group in groups for letter in group}, register)
    judged = [_judge(group, done, answers, now, register.maks_runder) for group in groups]
    return Dodebrev(_lined_up(groups, judged, done, doubtful), dict(uleselige or {}))


def _weighed(
    acts: Iterable[Act], letters: Container[Uuid], register: Register
) -> tuple[dict[Uuid, list[Act]], dict[Uuid, list[Tvil]]]:
    """Return the acts on each letter that count, and those that do not (rules 5 and 6)."""
    done: dict[Uuid, list[Act]] = defaultdict(list)
    doubtful: dict[Uuid, list[Tvil]] = defaultdict(list)
    seen: set[Sha256] = set()
    for act in sorted(acts, key=lambda one: one.offset):
        named = _uuid(act.record.objekt) if act.record.handling in ACTS else None
        if named is None or named not in letters or act.digest in seen:
            continue
        seen.add(act.digest)
        problem = operator_problem(act, register)
        if problem is None:
            done[named].append(act)
        else:
            doubtful[named].append(Tvil(act, problem.tekst))
    return done, doubtful


def _group(letters: Iterable[Letter]) -> list[list[Letter]]:
    """Put the letters of each melding together (rule 1), in the order in which the first of each came."""
    groups: list[list[Letter]] = []
    by_letter: dict[tuple[Kommunenummer, Uuid], list[Letter]] = {}
    by_melding: dict[tuple[Kommunenummer, MeldingId], list[Letter]] = {}
    for letter in letters:
        kommune = letter.kommunenummer
        if (kommune, letter.id) in by_letter:
            continue  # written twice, because of a crash in between
        group = by_letter.get((kommune, letter.sent_again_from)) if letter.sent_again_from else None
        if group is None and letter.melding_id is not None:
            group = by_melding.get((kommune, letter.melding_id))
        if group is None:
            started: list[Letter] = []
            group = started
            groups.append(group)
        group.append(letter)
        by_letter[kommune, letter.id] = group
        if letter.melding_id is not None:
            by_melding.setdefault((kommune, letter.melding_id), group)
    return groups


def _judge(
    group: list[Letter], done: Mapping[Uuid, list[Act]], answers: Answers, now: datetime, maks_runder: int
) -> tuple[Tilstand, str | None]:
    newest = group[-1]
    answered = max(
        (
            answers.get((letter.kommunenummer, letter.melding_id), -1)
            for letter in group
            if letter.melding_id is not None
        ),
        default=-1,
    )
    if answered >= newest.at_ms:
        return "LUKKET", BESVART
    last = _last(group, done)
    if last == LUKKET:
        return "LUKKET", OPERATOR
    if newest.gyldig_til is not None and newest.gyldig_til <= now:
        return "UTLOPT", None
    if last == GJENKJORT:
        return "GJENKJORT", None
    if last == PARKERT:
        return "PARKERT", OPERATOR
    return ("PARKERT", LOKKEVERN) if last is None and newest.gjenkjoringer >= maks_runder else ("APEN", None)


def _last(group: list[Letter], done: Mapping[Uuid, list[Act]]) -> str | None:
    """Return what was last done: on the newest letter, or closing any, which holds for what comes of the melding later too."""
    newest = group[-1]
    counting = [
        act for letter in group for act in done.get(letter.id, ()) if letter is newest or act.record.handling == LUKKET
    ]
    return max(counting, key=lambda act: act.offset).record.handling if counting else None


def _lined_up(
    groups: list[list[Letter]],
    judged: list[tuple[Tilstand, str | None]],
    done: Mapping[Uuid, list[Act]],
    doubtful: Mapping[Uuid, list[Tvil]],
) -> tuple[Sak, ...]:
    before: dict[int, Uuid | None] = {}
    behind: dict[Uuid, list[Uuid]] = defaultdict(list)
    waiting: dict[tuple[Kommunenummer, bytes], list[Uuid]] = defaultdict(list)
    for nr, (group, (tilstand, _)) in enumerate(zip(groups, judged, strict=True)):
        line = waiting[line_of(group[0])]
        undelivered = tilstand in UNDELIVERED
        before[nr] = line[-1] if line and undelivered else None
        if undelivered:
            for earlier in line:
                behind[earlier].append(group[-1].id)
            line.append(group[-1].id)
    return tuple(
        Sak(
            brev=tuple(group),
            tilstand=tilstand,
            arsak=arsak,
            bak=before[nr],
            venter=tuple(behind[group[-1].id]),
            handlinger=tuple(
                sorted((act for letter in group for act in done.get(letter.id, ())), key=lambda act: act.offset)
            ),
            uten_virkning=tuple(tvil for letter in group for tvil in doubtful.get(letter.id, ())),
        )
        for nr, (group, (tilstand, arsak)) in enumerate(zip(groups, judged, strict=True))
    )


def last_act(sak: Sak, handling: str) -> datetime | None:
    """Return when the last act of this kind was done on the sak, or None."""
    moments = [act.record.tidspunkt for act in sak.handlinger if act.record.handling == handling]
    return moments[-1] if moments else None


def _uuid(text: str) -> Uuid | None:
    try:
        return Uuid(text)
    except InvalidNameError:
        return None
