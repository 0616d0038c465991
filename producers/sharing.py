"""Who relays which søknader when several instances share one outbox: the decision, without a database.

Rules:

1. Every digisosId belongs to one of 256 buckets, for good. A bucket is leased by one instance at a time, until a moment of the
   *database's* clock: instances need not agree on the time.
2. Each lease has a number that grows with every change of holder. Whoever comes with a former number has lost the bucket.
3. Instances that were seen lately share the buckets evenly. One with too many gives some up when nothing of them is under way;
   one with too few takes what is free or has run out.
4. An instance believes in its leases no longer than it knows them to last: it counts from before it asked, on a clock of its own
   that does not stop when the machine sleeps. When in doubt it starts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from schemas.names import DigisosId

BUCKETS: Final = tuple(f"{number:02x}" for number in range(256))
"""Every bucket, by name."""


def bucket_of(digisos_id: DigisosId) -> str:
    """Return the bucket of a søknad: the last two digits of its id, which are random in every kind of UUID."""
    return digisos_id[-2:]


@dataclass(frozen=True, slots=True)
class Lease:
    """One bucket as it stands in the database.

    Attributes:
        bucket: Its name.
        holder: The instance that has it; None when it was given back.
        token: How many times it has changed hands.
        expires_ms: When it runs out, on the database's clock.
    """

    bucket: str
    holder: str | None
    token: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What an instance should do now.

    Attributes:
        keep: Buckets of its own, with their tokens; their leases are to be renewed.
        take: Leases to take over, exactly as they were seen.
        leave: Of those kept, the ones to give up as soon as nothing of them is under way.
    """

    keep: Mapping[str, int]
    take: tuple[Lease, ...]
    leave: frozenset[str]


def share(instance: str, live: Collection[str], total: int) -> int:
    """Return how many of ``total`` buckets are the instance's, so that no two shares differ by more than one."""
    ranked = sorted({*live, instance})
    each, rest = divmod(total, len(ranked))
    return each + (ranked.index(instance) < rest)


def plan(instance: str, leases: Iterable[Lease], live: Collection[str], now_ms: int) -> Plan:
    """Return what ``instance`` should do.

    Args:
        instance: Who asks.
        leases: Every bucket's, as they stand.
        live: The instances that were seen lately.
        now_ms: The database's clock.
    """
    every = sorted(leases, key=lambda lease: lease.bucket)
    mine = [lease for lease in every if lease.holder == instance]
    wanted = share(instance, live, len(every))
    free = (
        lease for lease in every if lease.holder is None or (lease.holder != instance and lease.expires_ms <= now_ms)
    )
    missing = max(wanted - len(mine), 0)
    return Plan(
        keep={lease.bucket: lease.token for lease in mine},
        take=tuple(lease for lease, _ in zip(free, range(missing), strict=False)),
        leave=frozenset(lease.bucket for lease in mine[wanted:]),
    )
