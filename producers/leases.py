"""Leases of the outbox's buckets: what ``producers.sharing`` decides, carried out in the database that the instances share.

Rules:

1. A heartbeat is one transaction: be seen, renew what is ours, take what our share lacks, give back what is too much. A bucket is
   taken by comparing what was seen with what is there, so two that want the same one cannot both get it.
2. A bucket that is to be given back takes no new work, and goes when nothing of it is under way.
3. What was removed from the outbox was removed under a lease: the number of the lease stands in the same transaction
   (``Outbox.replace``), so one that has lost a bucket removes nothing of it.
4. The database's clock says when a lease runs out. Ours says only how long ago we asked, and does not stop while a machine
   sleeps.
5. An outbox in a file has one instance and no leases at all (``SoleLeases``).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol
from uuid import uuid4

from broker.log import get_logger
from producers import metrics
from producers.sharing import BUCKETS, Lease, plan
from schemas.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Mapping

    from broker.sql.ports import Connection, Database

MIGRATION: Final = """
    CREATE TABLE leie (
        botte      TEXT PRIMARY KEY,
        instans    TEXT,
        symbol     INTEGER NOT NULL,
        utloper_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE instans (
        instans TEXT PRIMARY KEY,
        sett_ms INTEGER NOT NULL
    ) STRICT;
"""

POSTGRES_NOW: Final = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"
SQLITE_NOW: Final = "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"

TTL_S: Final = 10.0
"""So long the søknader of an instance that died wait for another."""
BEAT_S: Final = 3.0
HAND_OVER_S: Final = 0.2
"""The next heartbeat when there is something to give back, or when the former one failed."""
MARGIN_S: Final = 1.0
"""So long before its end we believe no more in a lease: a publication begun now is with Kafka before somebody else's begins."""
POLL_S: Final = 0.5
"""How often to look for what other instances have taken in for our buckets."""
_FORGET_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Fence:
    """The lease under which something is done."""

    bucket: str
    instance: str
    token: int


class Leases(Protocol):
    """Which buckets this instance relays."""

    poll_s: float | None
    """How often to look for what others took in; None when there are no others."""

    def buckets(self) -> frozenset[str] | None:
        """Return the buckets of which something new may be started now; None for all of them."""
        ...

    def fence(self, bucket: str) -> Fence | None:
        """Return the lease of a bucket that ``buckets`` has just named; None when there are no leases."""
        ...

    def holds(self, fence: Fence | None) -> bool:
        """Return whether what was begun under this lease may go on."""
        ...

    def working(self, bucket: str) -> AbstractContextManager[None]:
        """Return a context in which something of the bucket is under way."""
        ...

    def problem(self) -> str | None:
        """Return why nothing is relayed here, for ``/isready``; None when all is well."""
        ...


class SoleLeases:
    """All buckets, always: for an outbox that only one process can open."""

    poll_s: float | None = None

    def buckets(self) -> frozenset[str] | None:
        """Return None: all of them."""
        return None

    def fence(self, bucket: str) -> Fence | None:
        """Return None: there are no leases."""
        _ = bucket
        return None

    def holds(self, fence: Fence | None) -> bool:
        """Return True."""
        return fence is None

    @contextmanager
    def working(self, bucket: str) -> Generator[None]:
        """Do nothing about it."""
        _ = bucket
        yield

    def problem(self) -> str | None:
        """Return None."""
        return None


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat brought.

    Attributes:
        held: Our buckets, with the number of each lease.
        leave: Those of them that are to be given back.
        instances: How many there are, us included.
    """

    held: Mapping[str, int]
    leave: frozenset[str]
    instances: int


class SqlLeases:
    """The leases of one instance.

    Args:
        database: Shared by the instances; opened with ``MIGRATION`` among its migrations.
        now_sql: Asks the database for its time: ``POSTGRES_NOW`` or ``SQLITE_NOW``.
        changed: Set when there may be more to relay.
        instance: This instance's name, new for each life of the process.
        ttl_s: How long a lease lasts, in seconds.
        beat_s: How often it is renewed, in seconds.
        elapsed: A clock of seconds that never stops and never goes back.
    """

    poll_s: float | None = POLL_S

    def __init__(
        self,
        database: Database,
        now_sql: str,
        changed: asyncio.Event,
        *,
        instance: str | None = None,
        ttl_s: float = TTL_S,
        beat_s: float = BEAT_S,
        elapsed: Callable[[], float] | None = None,
    ) -> None:
        self.instance = instance or str(uuid4())
        self._database = database
        self._now_sql = now_sql
        self._changed = changed
        self._ttl_s = ttl_s
        self._beat_s = beat_s
        self._elapsed = elapsed or boot_time
        self._beat = Beat({}, frozenset(), 0)
        self._until = 0.0
        self._working: Counter[str] = Counter()

    def buckets(self) -> frozenset[str] | None:
        """Return what may be started now; see ``Leases``."""
        if self._elapsed() >= self._until:
            return frozenset()
        return frozenset(self._beat.held) - self._beat.leave

    def fence(self, bucket: str) -> Fence | None:
        """Return the bucket's lease; see ``Leases``."""
        return Fence(bucket, self.instance, self._beat.held[bucket])

    def holds(self, fence: Fence | None) -> bool:
        """Return whether the lease lasts; see ``Leases``."""
        return fence is not None and self._elapsed() < self._until and self._beat.held.get(fence.bucket) == fence.token

    @contextmanager
    def working(self, bucket: str) -> Generator[None]:
        """Keep the bucket from being given back; see ``Leases``."""
        self._working[bucket] += 1
        try:
            yield
        finally:
            self._working[bucket] -= 1
            if not self._working[bucket]:
                del self._working[bucket]

    def problem(self) -> str | None:
        """Return why nothing is relayed here; see ``Leases``."""
        if self._elapsed() < self._until:
            return None
        return "leien av utboksen er ikke fornyet: databasen svarer ikke, eller svarer for sent"

    async def run(self) -> None:
        """Renew until cancelled."""
        away = False
        while True:
            try:
                await self.beat()
            except StoreError as error:
                if not away:  # once, and not at each of an outage's many attempts
                    get_logger().error("leases_not_renewed", exc_info=error)
                away = True
                await asyncio.sleep(HAND_OVER_S)
                continue
            if away:
                get_logger().info("leases_renewed", antall=len(self._beat.held))
            away = False
            await asyncio.sleep(HAND_OVER_S if self._beat.leave else self._beat_s)

    async def beat(self) -> Beat:
        """Do one heartbeat.

        Raises:
            StoreError: Nothing was changed.
        """
        asked = self._elapsed()
        idle = frozenset(bucket for bucket in self._beat.leave if bucket not in self._working)
        ttl_ms = round(self._ttl_s * 1000)
        former = self._beat
        beat = await self._database.write(
            lambda connection: _beat(connection, self._now_sql, self.instance, ttl_ms, idle)
        )
        self._beat, self._until = beat, asked + self._ttl_s - MARGIN_S
        metrics.RELAY_BUCKETS.set(len(beat.held))
        metrics.RELAY_INSTANCES.set(beat.instances)
        if beat.held.keys() != former.held.keys() or beat.instances != former.instances:
            get_logger().info("leases_changed", antall=len(beat.held), instanser=beat.instances)
        if beat.held.keys() - former.held.keys():
            self._changed.set()
        return beat

    async def release(self) -> None:
        """Give everything back, when nothing is under way any more; a database that is away is told nothing."""
        self._until = 0.0

        def write(connection: Connection) -> None:
            connection.execute("UPDATE leie SET instans = NULL, utloper_ms = 0 WHERE instans = ?", (self.instance,))
            connection.execute("DELETE FROM instans WHERE instans = ?", (self.instance,))

        with suppress(StoreError):  # they run out
            await self._database.write(write)


def boot_time() -> float:
    """Return seconds that pass also while the machine sleeps, where it has such a clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _beat(connection: Connection, now_sql: str, instance: str, ttl_ms: int, idle: Collection[str]) -> Beat:
    """Do one heartbeat in a transaction.

    Args:
        connection: In the transaction.
        now_sql: Asks for the time.
        instance: Who we are.
        ttl_ms: How long leases last.
        idle: Buckets that may be given back.
    """
    now_ms = int(connection.execute(now_sql).fetchone()[0])
    live = _be_seen(connection, instance, now_ms, ttl_ms)
    found = plan(instance, _all_leases(connection), live, now_ms)
    for bucket in sorted(found.leave & frozenset(idle)):
        connection.execute(
            "UPDATE leie SET instans = NULL, utloper_ms = 0 WHERE botte = ? AND instans = ?", (bucket, instance)
        )
    until_ms = now_ms + ttl_ms
    for lease in found.take:
        # Somebody may have taken it, or its holder may have renewed it, since we looked.
        connection.execute(
            "UPDATE leie SET instans = ?, symbol = symbol + 1, utloper_ms = ?"
            " WHERE botte = ? AND symbol = ? AND utloper_ms = ?",
            (instance, until_ms, lease.bucket, lease.token, lease.expires_ms),
        )
    held = connection.execute(
        "UPDATE leie SET utloper_ms = ? WHERE instans = ? RETURNING botte, symbol", (until_ms, instance)
    ).fetchall()
    tokens = {str(row[0]): int(row[1]) for row in held}
    return Beat(tokens, found.leave & tokens.keys(), len(live))


def _be_seen(connection: Connection, instance: str, now_ms: int, ttl_ms: int) -> frozenset[str]:
    """Say that we live, and return who does."""
    connection.execute(
        "INSERT INTO instans (instans, sett_ms) VALUES (?, ?) ON CONFLICT (instans) DO UPDATE SET sett_ms = excluded.sett_ms",
        (instance, now_ms),
    )
    connection.execute("DELETE FROM instans WHERE sett_ms < ?", (now_ms - _FORGET_MS,))
    rows = connection.execute("SELECT instans FROM instans WHERE sett_ms > ?", (now_ms - ttl_ms,)).fetchall()
    return frozenset(str(row[0]) for row in rows)


def _all_leases(connection: Connection) -> list[Lease]:
    """Return every bucket's lease; the first time there are none yet."""
    sql = "SELECT botte, instans, symbol, utloper_ms FROM leie"
    rows = connection.execute(sql).fetchall()
    if len(rows) < len(BUCKETS):
        connection.executemany(
            "INSERT INTO leie (botte, instans, symbol, utloper_ms) VALUES (?, NULL, 0, 0) ON CONFLICT (botte) DO NOTHING",
            [(bucket,) for bucket in BUCKETS],
        )
        rows = connection.execute(sql).fetchall()
    return [Lease(row[0], row[1], int(row[2]), int(row[3])) for row in rows]
