"""Places for submissions under way: so many in all, and so many for one person.

Rules:

1. A place is held for as long as the body takes to come, so one person may only have a few: whoever sends slowly on purpose uses
   up his own. ``producers.app`` bounds how long a body may take.
2. Who gets no place in time is told to come back, and does not wait for ever with a connection open.
3. When all places are taken and none has been given for as long as anybody waits, the process is not ready.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from producers import metrics
from schemas.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from schemas.names import Eier

BUSY: Final = "opptatt"
"""The reason of whoever got no place."""
WAIT_S: Final = 5.0
MAX_CONCURRENT: Final = 64
MAX_PER_PERSON: Final = 4


@dataclass(slots=True)
class _Person:
    room: asyncio.Semaphore
    users: int = 0


class Places:
    """The places of one process. For one event loop.

    Args:
        total: Submissions under way at once.
        per_person: Of these, one person's.
        wait_s: How long somebody waits for a place, in seconds.
    """

    def __init__(self, total: int, per_person: int, *, wait_s: float = WAIT_S) -> None:
        self._total = total
        self._per_person = per_person
        self._wait_s = wait_s
        self._room = asyncio.Semaphore(total)
        self._persons: dict[Eier, _Person] = {}
        self._taken = 0
        self._given = time.monotonic()

    @asynccontextmanager
    async def place(self, eier: Eier) -> AsyncGenerator[None]:
        """Hold one of the person's places, and one of all, within the context.

        Raises:
            RefusedError: 503, there was none in time.
        """
        person = self._persons.setdefault(eier, _Person(asyncio.Semaphore(self._per_person)))
        person.users += 1
        try:
            async with AsyncExitStack() as held:
                try:
                    async with asyncio.timeout(self._wait_s):
                        await held.enter_async_context(person.room)
                        await held.enter_async_context(self._room)
                except TimeoutError:
                    raise RefusedError(
                        503, "for mange innsendinger er underveis; prøv igjen om litt", reason=BUSY
                    ) from None
                held.enter_context(_Counted(self))
                yield
        finally:
            person.users -= 1
            if not person.users:
                del self._persons[eier]

    @asynccontextmanager
    async def patiently(self) -> AsyncGenerator[None]:
        """Hold a place that is waited for as long as it takes: for callers in this process, whose bytes are here already."""
        async with self._room:
            with _Counted(self):
                yield

    def problem(self) -> str | None:
        """Return why nobody gets in, or None."""
        if self._taken < self._total or time.monotonic() - self._given < self._wait_s:
            return None
        return "alle plasser for innsendinger er opptatt"

    @property
    def persons(self) -> int:
        """How many persons hold or wait for a place."""
        return len(self._persons)

    def count(self, change: int) -> None:
        """Take note of a place that was given (1) or came back (-1)."""
        self._taken += change
        if change > 0:
            self._given = time.monotonic()
        metrics.SUBMISSIONS_UNDER_WAY.set(self._taken)


class _Counted:
    """Counts one place for as long as it is held."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def __enter__(self) -> None:
        self._places.count(1)

    def __exit__(self, *_: object) -> None:
        self._places.count(-1)
