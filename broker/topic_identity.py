"""Whether a topic is still the one that we know: its id in Kafka, and how many partitions it has.

Rules:

1. A topic that was deleted and made again has the same name and another id. What was on it is gone, and offsets that somebody
   keeps are of the former one.
2. Another number of partitions sends a søknad's next message to another partition than its first ones: the order is broken.
3. Nothing is guessed: who meets one of these stops with that topic, and a person says that it may go on.

Source: KIP-516 (topic ids).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """What tells a topic from another of the same name.

    Attributes:
        topic_id: Kafka's own id of it, as text; None when the cluster gives none (before KIP-516).
        partitions: How many it has, or should have.
    """

    topic_id: str | None
    partitions: int


class Verdict(Enum):
    """What became of a topic; the value is a stable word for logs, metrics and machines."""

    SAME = "samme"
    NEW = "nytt"
    """Nothing was known of it: remember what was seen."""
    MISSING = "mangler"
    """It is not there, or we may not see it."""
    RECREATED = "laget-pa-nytt"
    REPARTITIONED = "annet-antall-partisjoner"

    @property
    def harmless(self) -> bool:
        """Whether work on the topic may go on."""
        return self in {Verdict.SAME, Verdict.NEW}


ACCEPT_COMMAND: Final = "formidler kafka godta-emne"


def judge(expected: TopicIdentity | None, seen: TopicIdentity | None, *, agreed: int | None = None) -> Verdict:
    """Return what became of a topic since we last knew it.

    Args:
        expected: As it was remembered; None when it never was.
        seen: As it is in Kafka now; None when it is not.
        agreed: How many partitions the katalog says that it has; None when nothing does.
    """
    if seen is None:
        return Verdict.MISSING
    if expected is not None and None not in {expected.topic_id, seen.topic_id} and expected.topic_id != seen.topic_id:
        return Verdict.RECREATED
    known = (agreed, None if expected is None else expected.partitions)
    if any(partitions not in {None, seen.partitions} for partitions in known):
        return Verdict.REPARTITIONED
    return Verdict.NEW if expected is None else Verdict.SAME


def explain(
    verdict: Verdict,
    topic: str,
    expected: TopicIdentity | None,
    seen: TopicIdentity | None,
    *,
    command: str = ACCEPT_COMMAND,
) -> str:
    """Return what a person should know and do, in one sentence; topics' names are ours and hold no person.

    Args:
        verdict: What ``judge`` said.
        topic: Its name.
        expected: As it was remembered.
        seen: As it is in Kafka now.
        command: What takes the topic over as it is; its name is put at the end.
    """
    match verdict:
        case Verdict.SAME | Verdict.NEW:
            return f"{topic} er som avtalt"
        case Verdict.MISSING:
            return f"{topic} finnes ikke, eller vi har ikke lov til å se det"
        case Verdict.RECREATED:
            return f"{topic} er slettet og laget på nytt; se docs/drift.md, deretter `{command} {topic}`"
        case Verdict.REPARTITIONED:
            counts = f"{seen.partitions if seen else '?'} partisjoner, ikke {expected.partitions if expected else '?'}"
            return f"{topic} har {counts}; se docs/drift.md, deretter `{command} {topic}`"
