"""What to do when something fails: one table of error classes, and the arithmetic of waiting.

Rules:

1. The table decides, by the error's class and its bases; nobody else asks what kind of error it was.
2. Only ``COUNT`` uses up attempts. An outage is nobody's fault: ``WAIT`` and ``PAUSE`` go on for as long as it takes.
3. Waiting grows to a ceiling and is spread by jitter between half and the whole, so that 357 connectors do not knock together.
4. Randomness is an argument.

Others' numbers, for comparison: Spring Kafka 3 attempts, 1 s; phoss-ap 5 attempts, 1 min doubling
to 1 h; Altinn 6 attempts, 0.2 s to 5 s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from types import MappingProxyType
from typing import Final

from schemas.errors import (
    AccessDeniedError,
    BrokerUnavailableError,
    ChannelUnavailableError,
    ConfigurationError,
    FagsystemFailureError,
    FagsystemUnavailableError,
    MeldingsformidlerError,
    PackageMissingError,
    PackageUnavailableError,
    PartitionLostError,
    StoreError,
    UnexpectedRecordError,
)

Random = Callable[[], float]
"""Returns a number in [0, 1)."""


class Course(Enum):
    """What an error calls for."""

    GIVE_UP = "give up"
    """The same attempt never gets better: dead letter at once."""
    COUNT = "count"
    """The søknad may be at fault: try again later, a limited number of times."""
    WAIT = "wait"
    """Something that this søknad needs is away: try it again later, without limit; others are not concerned."""
    PAUSE = "pause"
    """Something that every søknad of the kommune needs is away: stop them all, probe with one, without limit."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    Attributes:
        course: What to do.
        attempts: For ``COUNT``: how many attempts there are in all.
        first: Wait after the first failure.
        ceiling: The longest wait.
        growth: Each wait is this many times the one before.
    """

    course: Course
    attempts: int = 1
    first: timedelta = timedelta(seconds=1)
    ceiling: timedelta = timedelta(minutes=5)
    growth: float = 2.0


TABLE: Final[Mapping[type[MeldingsformidlerError], Rule]] = MappingProxyType(
    {
        MeldingsformidlerError: Rule(Course.GIVE_UP),
        # A mistake of ours that this record brings out, or a moment without memory: not a citizen's fault at the first attempt.
        UnexpectedRecordError: Rule(Course.COUNT, attempts=3),
        FagsystemFailureError: Rule(Course.COUNT, attempts=8),
        # The package was stored before the record was written, so this should never pass; but a dokumentlager restored from a
        # backup may be a moment behind.
        PackageMissingError: Rule(Course.COUNT, attempts=5),
        PackageUnavailableError: Rule(Course.WAIT),
        # A channel that cannot take a message for three hours gives way to the next one: the citizen has waited a day already.
        ChannelUnavailableError: Rule(
            Course.COUNT, attempts=24, first=timedelta(seconds=10), ceiling=timedelta(minutes=10)
        ),
        BrokerUnavailableError: Rule(Course.WAIT, ceiling=timedelta(seconds=30)),
        # Our own rights are wrong: an administrator's work, and no reason to refuse a citizen's søknad.
        AccessDeniedError: Rule(Course.WAIT),
        # Whoever has the partition now answers; here nothing is to be given up.
        PartitionLostError: Rule(Course.WAIT),
        # A connector that finds out late that its set-up is wrong: the same for every søknad, and no citizen's fault.
        ConfigurationError: Rule(Course.PAUSE, ceiling=timedelta(minutes=5)),
        FagsystemUnavailableError: Rule(Course.PAUSE, ceiling=timedelta(minutes=1)),
        # Without the local store no answer can be made durable, for anybody.
        StoreError: Rule(Course.PAUSE, ceiling=timedelta(minutes=1)),
    }
)
"""What each class of error calls for. A class that is not here is judged as its nearest base."""

ALWAYS: Final = Rule(Course.WAIT, ceiling=timedelta(minutes=1))
"""After a hand-over nothing is given up: publishing its kvittering, or its dead letter, is repeated until it is durable."""

LONGEST_ASKED: Final = timedelta(minutes=15)
"""A fagsystem that asks us to stay away for longer is probed after this time all the same."""


def rule_for(error: MeldingsformidlerError, table: Mapping[type[MeldingsformidlerError], Rule] = TABLE) -> Rule:
    """Return the row of the error's class, or of its nearest base."""
    for kind in type(error).__mro__:
        if (rule := table.get(kind)) is not None:
            return rule
    return Rule(Course.GIVE_UP)


def delay(rule: Rule, failures: int, random: Random) -> timedelta:
    """Return how long to wait.

    Args:
        rule: The row that applies.
        failures: How many times in a row it has failed; at least 1.
        random: Decides the jitter.
    """
    longest = rule.ceiling.total_seconds()
    exponent = min(failures - 1, 64)  # beyond this every ceiling is reached, and a float would overflow
    whole = min(longest, rule.first.total_seconds() * rule.growth**exponent)
    return timedelta(seconds=whole * (0.5 + random() / 2))


def asked_delay(error: MeldingsformidlerError) -> timedelta:
    """Return how long the fagsystem asked us to stay away, at most ``LONGEST_ASKED``; zero if it did not."""
    asked = error.retry_after if isinstance(error, FagsystemUnavailableError) else None
    return min(max(asked or timedelta(), timedelta()), LONGEST_ASKED)
