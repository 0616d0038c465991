"""Reading all that lies on some topics now, and no further."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from broker.ports import Tail
    from broker.record import Incoming


async def read_until_caught_up(tail: Tail, handle: Callable[[Sequence[Incoming]], Awaitable[object]]) -> None:
    """Hand every batch to ``handle`` and return when all that lay on the topics at the start has been dealt with.

    Args:
        tail: Started.
        handle: Deals with one batch; called again when it has returned.

    Raises:
        TransportError: Reading cannot go on.
    """

    async def read() -> None:
        async for batch in tail:
            await handle(batch)

    reading, complete = asyncio.create_task(read()), asyncio.create_task(tail.caught_up.wait())
    try:
        await asyncio.wait((reading, complete), return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            reading.result()  # it ends before the topics do only by an error
    finally:
        for task in (reading, complete):
            task.cancel()
        await asyncio.gather(reading, complete, return_exceptions=True)
