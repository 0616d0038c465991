"""What of the outbox may be published now: looks at places and topics, never at a value.

Rules:

1. Messages of one digisosId are taken in order, up to the first one that may not go. What stands behind it waits with it.
2. The oldest digisosId comes first. Rows are read a page at a time, so that an outbox of any length costs the same memory.
3. What nothing can be done about is not looked through again in every round: ``after`` says up to where there was nothing else. A
   digisosId that has something before ``after`` is left alone behind it. Whoever opens a topic again begins from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterator

    from broker.sql import Connection

PAGE: Final = 500
"""How many messages are looked at together, and how many must be passed over before the place is worth remembering."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be taken.

    Attributes:
        busy: digisosId-er under way; left out, with all that they have.
        stuck: digisosId-er that wait for a while; left out as well.
        stuck_rows: Places of messages that a person must look at. Each stops those behind it.
        held: Topics that take nothing now. A message for one stops those behind it.
        single: Topics that are tried with one digisosId at a time.
        buckets: The buckets that are ours; None for all.
        max_runs: Most digisosId-er.
        max_bytes: Stop when this much is gathered; the first one is taken whatever its size.
        after: Nothing up to this place can be taken; 0 to look from the beginning.
    """

    busy: Collection[str] = ()
    stuck: Collection[str] = ()
    stuck_rows: Collection[int] = ()
    held: Container[str] = ()
    single: Collection[str] = ()
    buckets: Collection[str] | None = None
    max_runs: int = 256
    max_bytes: int = 16 * 1024 * 1024
    after: int = 0


@dataclass(frozen=True, slots=True)
class Picked:
    """What was found.

    Attributes:
        runs: For each digisosId the places of its messages, in order.
        after: For the next round, as long as nothing opens again.
    """

    runs: list[list[int]]
    after: int


@dataclass(slots=True)
class _Search:
    """A search under way."""

    bounds: Bounds
    runs: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    closed: set[str] = field(default_factory=set[str])
    tried: dict[str, str] = field(default_factory=dict[str, str])
    size: int = 0
    passed: int = 0
    floor: int | None = None

    def full(self, digisos_id: str, size: int) -> bool:
        new = digisos_id not in self.runs
        return (new and len(self.runs) >= self.bounds.max_runs) or (
            bool(self.runs) and self.size + size > self.bounds.max_bytes
        )

    def may_go(self, digisos_id: str, topic: str) -> bool:
        if topic in self.bounds.held:
            return False
        return topic not in self.bounds.single or self.tried.setdefault(topic, digisos_id) == digisos_id


def pick(connection: Connection, bounds: Bounds) -> Picked:
    """Return the places of what may be published now."""
    search = _Search(bounds)
    last = bounds.after
    for nr, digisos_id, topic, size in _in_order(connection, bounds):
        if digisos_id in bounds.busy:
            search.floor = nr - 1 if search.floor is None else search.floor
        elif digisos_id in search.closed or digisos_id in bounds.stuck:
            search.passed += search.floor is None
        elif (
            nr in bounds.stuck_rows
            or not search.may_go(digisos_id, topic)
            or _waits_before(connection, search, digisos_id)
        ):
            search.closed.add(digisos_id)
            search.passed += search.floor is None
        elif search.full(digisos_id, size):
            search.floor = nr - 1 if search.floor is None else search.floor
            break
        else:
            search.floor = nr - 1 if search.floor is None else search.floor
            search.runs.setdefault(digisos_id, []).append(nr)
            search.size += size
        last = nr
    reached = last if search.floor is None else search.floor
    return Picked(list(search.runs.values()), reached if search.passed >= PAGE else bounds.after)


def _waits_before(connection: Connection, search: _Search, digisos_id: str) -> bool:
    """Return whether the digisosId has something that was passed over in a former round (rule 3)."""
    after = search.bounds.after
    if after == 0 or digisos_id in search.runs:
        return False
    row = connection.execute("SELECT 1 FROM utboks WHERE digisos_id = ? AND nr <= ? LIMIT 1", (digisos_id, after))
    return row.fetchone() is not None


def _in_order(connection: Connection, bounds: Bounds) -> Iterator[tuple[int, str, str, int]]:
    """Go through the outbox a page at a time: a driver may fetch all that a statement finds."""
    ours = "" if bounds.buckets is None else f"AND botte IN ({', '.join('?' * len(bounds.buckets))})"
    sql = f"SELECT nr, digisos_id, topic, storrelse FROM utboks WHERE nr > ? {ours} ORDER BY nr LIMIT {PAGE}"  # noqa: S608 - of our own words and places
    last = bounds.after
    while page := connection.execute(sql, (last, *(bounds.buckets or ()))).fetchall():
        for row in page:
            yield row[0], row[1], row[2], row[3]
        last = page[-1][0]
