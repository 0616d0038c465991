"""Waiting for what is true, and never for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

EVERY_S: Final = 0.01


async def until(condition: Callable[[], Any], within_s: float = 60.0, every_s: float = EVERY_S) -> Any:
    """Look again and again; return what ``condition`` gave when it came true, and fail at the deadline."""
    async with asyncio.timeout(within_s):
        while True:
            found = condition()
            if found := await found if asyncio.iscoroutine(found) else found:
                return found
            await asyncio.sleep(every_s)
