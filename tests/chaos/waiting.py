"""Waiting for what is true, and never for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

EVERY_S: Final = 0.1


async def until(condition: Callable[[], Awaitable[bool] | bool], within_s: float, every_s: float = EVERY_S) -> bool:
    """Look again and again; return whether ``condition`` came true in time."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        held = condition()
        if held if isinstance(held, bool) else await held:
            return True
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(every_s)
