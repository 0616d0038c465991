"""What is left alone for a while because it failed, growing with each failure: topics, søknader, the store.

For one event loop; ``now`` is its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from broker.retry import Course, Rule, delay

if TYPE_CHECKING:
    from broker.retry import Random

K = TypeVar("K")

HOLD: Final = Rule(Course.WAIT, first=timedelta(seconds=0.25), ceiling=timedelta(seconds=30))


@dataclass(frozen=True, slots=True)
class Hold:
    """Something that fails.

    Attributes:
        failures: How many times in a row.
        since: When the first of them was.
        until: When to try again.
        code: Of the last error.
    """

    failures: int
    since: float
    until: float
    code: str


class Holds(Generic[K]):
    """What is held now.

    Args:
        jitter: Spreads the waits.
    """

    def __init__(self, jitter: Random) -> None:
        self._jitter = jitter
        self._holds: dict[K, Hold] = {}

    def __len__(self) -> int:
        return len(self._holds)

    def get(self, key: K) -> Hold | None:
        """Return the hold of ``key``, also when it may be tried again; None when it does not fail."""
        return self._holds.get(key)

    def fail(self, key: K, code: str, now: float) -> Hold | None:
        """Hold ``key``, for longer than before; None while it is held: others that were under way say the same thing."""
        former = self._holds.get(key)
        if former is not None and former.until > now:
            return None
        failures, since = (former.failures + 1, former.since) if former else (1, now)
        hold = Hold(failures, since, now + delay(HOLD, failures, self._jitter).total_seconds(), code)
        self._holds[key] = hold
        return hold

    def clear(self, key: K) -> bool:
        """Let go of ``key``, which works; say whether it was held."""
        return self._holds.pop(key, None) is not None

    def closed(self, now: float) -> frozenset[K]:
        """Return what is not to be tried yet."""
        return frozenset(key for key, hold in self._holds.items() if hold.until > now)

    def on_trial(self, now: float) -> frozenset[K]:
        """Return what failed and may be tried again."""
        return frozenset(key for key, hold in self._holds.items() if hold.until <= now)

    def next_until(self, now: float) -> float | None:
        """Return when the next hold is over; None when none is to come."""
        return min((hold.until for hold in self._holds.values() if hold.until > now), default=None)
