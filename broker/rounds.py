"""Work that is done again and again by the set-up's clock, which somebody may move."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from broker.log import get_logger
from schemas.errors import MeldingsformidlerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime, timedelta

    from broker.clock import Clock

LOOK_S: Final = 1.0
"""How often the clock is looked at."""


async def rounds(
    name: str, work: Callable[[datetime], Awaitable[object]], *, every: timedelta, clock: Clock, look_s: float = LOOK_S
) -> None:
    """Do ``work`` now, and again when ``every`` has gone by, until cancelled.

    Args:
        name: For the log, when it fails.
        work: Is given the time. What it raises of our own errors is told, and it is tried again at the next look.
        every: How long between two rounds, by ``clock``.
        clock: What the time is.
        look_s: How often it is looked at, in seconds.
    """
    last: datetime | None = None
    failed = False
    while True:
        now = clock()
        if last is None or now - last >= every:
            try:
                await work(now)
            except MeldingsformidlerError as error:
                if not failed:  # once, not each second of an outage
                    get_logger().warning("round_failed", navn=name, exc_info=error)
                failed = True
            else:
                last, failed = now, False
        await asyncio.sleep(look_s)
