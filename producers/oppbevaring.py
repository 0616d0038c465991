"""Retention at the sender: copies that nobody ever vouched for, and packages that no receiver can ask for any more.

Rules:

1. A copy whose melding was not received within its time is destroyed, with proof in the revisjon and a critical line in the log.
2. A package leaves the dokumentlager when its copy is destroyed and its søknad topic has forgotten the melding: until then its
   connector may fetch it once more. The file goes first, so that a crash in between only repeats the rest.
3. A package that nothing refers to, since the process ended between storing it and accepting its søknad, goes when a copy and
   then a package would have gone, by the time of its file; so does that of a reference that was read back, by its søknad's time.
   Only while the register is known to have all that is on the topic: a database that was restored from a backup has not heard of
   the packages that are newer than the backup.
4. What was sent, to whom and with which digest stays: a reference is the same søknad for ever.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from broker.clock import system_clock
from broker.log import get_logger
from broker.rounds import rounds
from producers.outbox_rows import to_ms
from schemas.names import DokumentlagerId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.clock import Clock
    from broker.sql import Connection
    from producers.avsenderkopi import Avsenderkopier

EVERY: Final = timedelta(hours=1)
IN_FLIGHT: Final = timedelta(hours=1)
"""So long, by the machine's own time, a package may be without a reference because its søknad is being taken in."""
PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Kept:
    """For how long things are kept.

    Attributes:
        kopi: A copy that nobody vouched for, after the melding was accepted.
        pakke: A package in the dokumentlager, after its copy was destroyed.
    """

    kopi: timedelta
    pakke: timedelta


def _unknown() -> bool:
    return False


async def clear(kopier: Avsenderkopier, kept: Kept, now: datetime, level: Callable[[], bool] = _unknown) -> int:
    """Destroy and delete what is over age; return how many packages went from the dokumentlager.

    Args:
        kopier: The copies, and their packages.
        kept: For how long.
        now: Aware UTC.
        level: Says whether the register has all that is on the topic (rule 3).

    Raises:
        StoreError: Some may be left, for the next round.
    """
    await kopier.expire(now - kept.kopi, now)
    deleted = 0
    while ids := await kopier.removable_packages(now - kept.pakke):
        for dokumentlager_id in ids:
            await asyncio.to_thread(kopier.dokumentlager.delete, dokumentlager_id)
            await kopier.forget_package(dokumentlager_id)
        deleted += len(ids)
    if level():
        before = now - kept.kopi - kept.pakke
        deleted += await _clear_read_back(kopier, before, level)
        deleted += await _clear_unknown(kopier, before, level)
    return deleted


async def _clear_read_back(kopier: Avsenderkopier, before: datetime, level: Callable[[], bool]) -> int:
    """Delete the packages of references that have no copy, and that were accepted before a moment; return how many."""
    deleted = 0
    while ids := await kopier.database.read(lambda connection: _without_copy(connection, before)):
        for dokumentlager_id in ids:
            if not level():
                return deleted
            await asyncio.to_thread(kopier.dokumentlager.delete, dokumentlager_id)
            await kopier.forget_package(dokumentlager_id)
            deleted += 1
    return deleted


async def _clear_unknown(kopier: Avsenderkopier, before: datetime, level: Callable[[], bool]) -> int:
    """Delete packages that nothing refers to, and that were stored before a moment; return how many."""
    stored = await asyncio.to_thread(kopier.dokumentlager.stored_before, min(before, system_clock() - IN_FLIGHT))
    old, deleted = sorted(stored), 0
    for start in range(0, len(old), PAGE):
        some = old[start : start + PAGE]
        known = await kopier.database.read(partial(_known, ids=some))
        for dokumentlager_id in some:
            if dokumentlager_id in known:
                continue
            if not level():
                return deleted
            await asyncio.to_thread(kopier.dokumentlager.delete, dokumentlager_id)
            get_logger().warning("unknown_package_deleted", dokumentlager_id=dokumentlager_id)
            deleted += 1
    return deleted


def _without_copy(connection: Connection, before: datetime) -> list[DokumentlagerId]:
    rows = connection.execute(
        "SELECT i.dokumentlager_id FROM innsending i WHERE i.dokumentlager_id IS NOT NULL AND i.innsendt_ms < ?"
        " AND NOT EXISTS (SELECT 1 FROM avsenderkopi k WHERE k.melding_id = i.melding_id) LIMIT ?",
        (to_ms(before), PAGE),
    ).fetchall()
    return [DokumentlagerId(row[0]) for row in rows]


def _known(connection: Connection, ids: Sequence[DokumentlagerId]) -> frozenset[str]:
    """Return those of ``ids`` that a submission or a sealing refers to."""
    places = ", ".join("?" * len(ids))
    found: set[str] = set()
    for table in ("innsending", "forsegling"):
        sql = f"SELECT dokumentlager_id FROM {table} WHERE dokumentlager_id IN ({places})"  # noqa: S608 - of our own words
        found.update(str(row[0]) for row in connection.execute(sql, ids))
    return frozenset(found)


async def keep_retention(
    kopier: Avsenderkopier, kept: Kept, clock: Clock, level: Callable[[], bool] = _unknown
) -> None:
    """Clear now and once an hour by ``clock``, until cancelled; see ``clear``."""

    async def work(now: datetime) -> None:
        deleted = await clear(kopier, kept, now, level)
        if deleted:
            get_logger().info("packages_expired", antall=deleted)

    await rounds("oppbevaring", work, every=EVERY, clock=clock)
