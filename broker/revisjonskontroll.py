"""Does the revisjon hold? Chains, signatures and keys of what lies on ``fiks.revisjon.v1``, judged from the records alone.

Records of one actor are tied by digests, not by their order on the topic: an outbox may publish two søknader's acts the other way
round. What is *not* seen from here: what was cut off the end of a chain, and what retention took from its beginning, when the
topic does not begin at offset 0.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.revisjon_records import OPERATOR_PREFIX, SIGNATURE_TYPE, canonical
from crypto.jws import verify_jws
from schemas.codec import decode
from schemas.errors import ContractError, SignatureError
from schemas.names import Sha256
from schemas.records import RevisjonRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.operator_register import OperatorEntry, Register
    from broker.record import Incoming

ULESELIG: Final = "uleselig"
NOKKEL: Final = "nokkel"
GAFFEL: Final = "gaffel"
HULL: Final = "hull"
USIGNERT: Final = "usignert"
SIGNATUR: Final = "signatur"
UKJENT_OPERATOR: Final = "ukjent-operator"
_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class Act:
    """An act as it lies on the topic.

    Attributes:
        record: What was done.
        digest: SHA-256 of the record's bytes, which the actor's next has as ``forrige``.
        at_ms: When Kafka took it, milliseconds since 1970.
        offset: Its place.
    """

    record: RevisjonRecord
    digest: Sha256
    at_ms: int
    offset: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not hold: a code, where, and words for people."""

    kode: str
    aktor: str
    offset: int
    tekst: str


@dataclass(frozen=True, slots=True)
class Kontroll:
    """What a verification found.

    Attributes:
        antall: Acts by actor, repeats counted once.
        signerte: How many of them have a signature that holds.
        problemer: What does not hold, in the order of the topic.
    """

    antall: dict[str, int]
    signerte: int
    problemer: tuple[Problem, ...]

    @property
    def holder(self) -> bool:
        """Whether nothing was found."""
        return not self.problemer


def read_act(record: Incoming) -> Act | None:
    """Return the act in a record of the topic, or None when it is unreadable or lies under another actor's key."""
    try:
        decoded = decode(RevisjonRecord, record.value)
    except ContractError:
        return None
    if decoded.aktor.encode() != record.key:
        return None
    return Act(decoded, Sha256.of(record.value), record.timestamp_ms, record.offset)


def verify_revisjon(records: Iterable[Incoming], register: Register) -> Kontroll:
    """Verify all that lies on the topic.

    Args:
        records: In the topic's order, from its first record on.
        register: Who the operators are and were.
    """
    acts: dict[Sha256, Act] = {}
    problems: list[Problem] = []
    first = None
    for record in records:
        first = record.offset if first is None else first
        act = read_act(record)
        if act is None:
            problems.append(_unreadable(record))
        else:
            acts.setdefault(act.digest, act)  # the same bytes again are a repeat
    whole = not first
    problems += _chain_problems(tuple(acts.values()), whole=whole)
    judged = {act.offset: problem for act in acts.values() if (problem := signature_problem(act, register)) is not None}
    problems += judged.values()
    signed = sum(1 for act in acts.values() if act.record.signatur is not None and act.offset not in judged)
    counts = Counter(act.record.aktor for act in acts.values())
    return Kontroll(dict(sorted(counts.items())), signed, tuple(sorted(problems, key=lambda one: one.offset)))


def signature_problem(act: Act, register: Register) -> Problem | None:
    """Return why an act's signature does not hold, or None: it holds, or a process wrote it, whose right to write is Kafka's."""
    record = act.record
    if not record.aktor.startswith(OPERATOR_PREFIX):
        return None
    entry = register.of_actor(record.aktor)
    if record.signatur is None:
        return Problem(USIGNERT, record.aktor, act.offset, "en operatørs handling er ikke signert")
    text = _not_operator(act, entry)
    if entry is None or text is not None:
        return Problem(UKJENT_OPERATOR, record.aktor, act.offset, text or "")
    try:
        payload, _ = verify_jws(record.signatur, [entry.certificate], typ=SIGNATURE_TYPE)
    except SignatureError:
        return Problem(SIGNATUR, record.aktor, act.offset, "signaturen er ikke operatørens")
    if payload != canonical(record):
        return Problem(SIGNATUR, record.aktor, act.offset, "det som er signert er ikke det som står der")
    return None


def operator_problem(act: Act, register: Register) -> Problem | None:
    """Return why an act that is only ever an operator's does not count, or None: an operator has signed for it."""
    if not act.record.aktor.startswith(OPERATOR_PREFIX):
        return Problem(USIGNERT, act.record.aktor, act.offset, "bare en operatør gjør slikt, og signerer det")
    return signature_problem(act, register)


def _not_operator(act: Act, entry: OperatorEntry | None) -> str | None:
    """Return why whoever acted was no operator then: by the time in the act, which they wrote, and by Kafka's, which is later."""
    navn = act.record.aktor.removeprefix(OPERATOR_PREFIX)
    if entry is None:
        return f"operatøren {navn} er ukjent i registeret på denne maskinen (operatorer.yaml); andre maskiners kan være et annet"
    late = entry.fjernet is not None and act.at_ms >= round(entry.fjernet.timestamp() * _MS)
    if late or not entry.is_active(act.record.tidspunkt):
        return f"{navn} var ikke operatør da"
    return None


def _unreadable(record: Incoming) -> Problem:
    aktor = record.key.decode("utf-8", "replace")[:40]
    try:
        decode(RevisjonRecord, record.value)
    except ContractError as error:
        return Problem(ULESELIG, aktor, record.offset, f"kan ikke leses ({error.code})")
    return Problem(NOKKEL, aktor, record.offset, "ligger under en annen aktørs nøkkel")


def _chain_problems(acts: Sequence[Act], *, whole: bool) -> list[Problem]:
    problems: list[Problem] = []
    known = {(act.record.aktor, act.digest) for act in acts}
    taken: set[tuple[str, Sha256 | None]] = set()
    cut: set[str] = set()
    for act in acts:
        aktor, former = act.record.aktor, act.record.forrige
        if (aktor, former) in taken:
            problems.append(Problem(GAFFEL, aktor, act.offset, "to handlinger følger samme handling"))
        taken.add((aktor, former))
        if former is None or (aktor, former) in known:
            continue
        if whole or aktor in cut:
            problems.append(Problem(HULL, aktor, act.offset, "handlingen før denne mangler"))
        cut.add(aktor)  # what retention took is missed once for each actor, at its beginning
    return problems
