"""What the delivery state machine remembers: each open record, and who waits for what.

``Waiting`` keeps three heaps: who may go to the fagsystem, who sleeps, and who expires. A record is in at most one of the first
two, and its state says which.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

    from broker.delivery_messages import Received, Ticket
    from broker.record import Attempt
    from schemas.errors import MeldingsformidlerError


MAX_GONE: Final = 1000
"""How many that are done may still stand among those that expire."""


class Step(Enum):
    """What a record needs next."""

    DELIVER = 1
    WITHDRAW = 2
    DEAD_LETTER = 3
    PUBLISH = 4


class State(Enum):
    """What a record does meanwhile."""

    WAITING = 1
    """Behind its key, or for a free place."""
    RUNNING = 2
    """A command is out."""
    SLEEPING = 3
    """Until its time."""
    DONE = 4


@dataclass(slots=True, eq=False)
class Entry:
    """An open record."""

    ticket: Ticket
    received: Received
    sequence: int
    step: Step = Step.DELIVER
    state: State = State.WAITING
    error: MeldingsformidlerError | None = None
    attempts: list[Attempt] = field(default_factory=list["Attempt"])
    failures: int = 0
    watched: bool = False
    """It is in the heap of those that expire."""

    @property
    def key(self) -> tuple[int, str]:
        """Its place in line: keys are told apart within a partition."""
        return self.ticket.partition, self.received.key

    @property
    def may_change(self) -> bool:
        """Whether it is not at the fagsystem, and nothing has been decided about it."""
        return self.step is Step.DELIVER and self.state in {State.WAITING, State.SLEEPING}


@dataclass(slots=True)
class Partition:
    """A partition that is ours.

    Attributes:
        generation: Of which assignment.
        entries: What is read and not passed by a commit, by offset; None for what is done.
        open: How many of them are not done.
        next_offset: What comes before it has been read.
        paused: Nothing more is read for the time being.
        full: There is too much in it already.
    """

    generation: int
    entries: dict[int, Entry | None] = field(default_factory=dict[int, "Entry | None"])
    open: int = 0
    next_offset: int = -1
    paused: bool = False
    full: bool = False


@dataclass(slots=True)
class Breaker:
    """The fagsystem is away: nobody goes before ``until``, and then one at a time."""

    until: datetime
    failures: int = 1
    probe: Entry | None = None


class Waiting:
    """The first of each key, as they wait for a place, for time, or for too long."""

    def __init__(self) -> None:
        self._ready: list[tuple[bool, int, Entry]] = []
        self._sleeping: list[tuple[datetime, int, Entry]] = []
        self._expiring: list[tuple[datetime, int, Entry]] = []
        self._gone = 0

    @property
    def anybody_ready(self) -> bool:
        """Whether somebody may go as soon as there is a place."""
        return bool(self._ready)

    @property
    def next_moment(self) -> datetime | None:
        """When the first one wakes or expires; the deadline of one that is done is nobody's."""
        while self._expiring and self._expiring[0][2].state is State.DONE:
            heapq.heappop(self._expiring)
        return min((heap[0][0] for heap in (self._sleeping, self._expiring) if heap), default=None)

    def ready(self, entry: Entry) -> None:
        """Put in line: urgent ones first, then as they came."""
        entry.state = State.WAITING
        heapq.heappush(self._ready, (not entry.received.urgent, entry.sequence, entry))
        self._watch(entry)

    def pop_ready(self) -> Entry:
        """Take the first in line."""
        return heapq.heappop(self._ready)[2]

    def postpone(self, entry: Entry, at: datetime) -> None:
        """Wait until ``at``."""
        entry.state = State.SLEEPING
        heapq.heappush(self._sleeping, (at, entry.sequence, entry))
        self._watch(entry)

    def wake(self, now: datetime) -> list[Entry]:
        """Return those whose time has come, in its order."""
        woken: list[Entry] = []
        while self._sleeping and self._sleeping[0][0] <= now:
            entry = heapq.heappop(self._sleeping)[2]
            entry.state = State.WAITING
            woken.append(entry)
        return woken

    def expire(self, now: datetime) -> list[Entry]:
        """Return those whose hand-over may no longer begin. What is at the fagsystem began in time."""
        expired: list[Entry] = []
        while self._expiring and self._expiring[0][0] <= now:
            entry = heapq.heappop(self._expiring)[2]
            entry.watched = False
            if entry.may_change:
                expired.append(entry)
        return expired

    def tidy(self) -> None:
        """Forget those that no longer wait."""
        self._ready = [item for item in self._ready if item[2].may_change and item[2].state is State.WAITING]
        self._sleeping = [item for item in self._sleeping if item[2].state is State.SLEEPING]
        heapq.heapify(self._ready)
        heapq.heapify(self._sleeping)
        self._tidy_expiring()

    def gone(self, entry: Entry) -> None:
        """Note that an entry is done; forgets such ones now and then, so that a deadline of tomorrow holds no memory today."""
        self._gone += entry.watched
        if self._gone > MAX_GONE:
            self._tidy_expiring()

    def _tidy_expiring(self) -> None:
        self._gone = 0
        self._expiring = [item for item in self._expiring if item[2].state is not State.DONE]
        heapq.heapify(self._expiring)

    def _watch(self, entry: Entry) -> None:
        expires = entry.received.expires
        if expires is not None and entry.step is Step.DELIVER and not entry.watched:
            entry.watched = True
            heapq.heappush(self._expiring, (expires, entry.sequence, entry))
