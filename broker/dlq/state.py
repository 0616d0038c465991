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
5. The order in which acts and answers are handed in changes nothing, but for acts on one letter: the last one counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from schemas.errors import InvalidNameError
from schemas.names import Kommunenummer, MeldingId, Uuid

if TYPE_CHECKING:
    from datetime import datetime

    from broker.dlq.letters import Letter
    from broker.revisjonskontroll import Act

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
class Sak:
    """One melding that died, and how it stands.

    Attributes:
        brev: Its letters, oldest first.
        tilstand: See rule 2.
        arsak: Why it is PARKERT or LUKKET: ``operator``, ``lokkevern`` or ``besvart``.
        bak: The sak that it waits behind (rule 3).
        venter: Those that wait behind it, in order.
        handlinger: Acts on its letters, in the topic's order.
    """

    brev: tuple[Letter, ...]
    tilstand: Tilstand
    arsak: str | None
    bak: Uuid | None
    venter: tuple[Uuid, ...]
    handlinger: tuple[Act, ...]

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
    maks_runder: int,
    uleselige: Mapping[Kommunenummer, int] | None = None,
) -> Dodebrev:
    """Return how the dead letters stand.

    Args:
        letters: In order for each partition; the same letter twice counts once.
        acts: Of the revisjon, in the topic's order.
        answers: The fagsystem's.
        now: Aware UTC.
        maks_runder: How many times a letter is sent again before the loop guard holds it.
        uleselige: Records that are no letters, by kommune.
    """
    done: dict[Uuid, list[Act]] = defaultdict(list)
    for act in acts:
        if act.record.handling in ACTS and (named := _uuid(act.record.objekt)) is not None:
            done[named].append(act)
    groups = _group(letters)
    judged = [_judge(group, done, answers, now, maks_runder) for group in groups]
    return Dodebrev(_lined_up(groups, judged, done), dict(uleselige or {}))


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
    groups: list[list[Letter]], judged: list[tuple[Tilstand, str | None]], done: Mapping[Uuid, list[Act]]
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
