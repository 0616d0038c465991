"""Retention at the sender: copies that nobody ever vouched for, and packages that no receiver can ask for any more.

Rules:

1. A copy whose melding was not received within its time is destroyed, with proof in the revisjon and a critical line in the log.
2. A package leaves the dokumentlager when its copy is destroyed and its søknad topic has forgotten the melding: until then its
   connector may fetch it once more. The file goes first, so that a crash in between only repeats the rest.
3. What was sent, to whom and with which digest stays: a reference is the same søknad for ever.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from broker.log import get_logger
from broker.rounds import rounds

if TYPE_CHECKING:
    from broker.clock import Clock
    from producers.avsenderkopi import Avsenderkopier

EVERY: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Kept:
    """For how long things are kept.

    Attributes:
        kopi: A copy that nobody vouched for, after the melding was accepted.
        pakke: A package in the dokumentlager, after its copy was destroyed.
    """

    kopi: timedelta
    pakke: timedelta


async def clear(kopier: Avsenderkopier, kept: Kept, now: datetime) -> int:
    """Destroy and delete what is over age; return how many packages went from the dokumentlager.

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
    return deleted


async def keep_retention(kopier: Avsenderkopier, kept: Kept, clock: Clock) -> None:
    """Clear now and once an hour by ``clock``, until cancelled."""

    async def work(now: datetime) -> None:
        deleted = await clear(kopier, kept, now)
        if deleted:
            get_logger().info("packages_expired", antall=deleted)

    await rounds("oppbevaring", work, every=EVERY, clock=clock)
