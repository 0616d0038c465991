"""Who is watching which søknad: from the store's commit to every open stream, without waiting for any of them.

Rules:

1. A listener's queue is bounded. One that does not keep up loses the oldest views: the newest is the whole truth.
2. A listener registers before it reads the store, so that no change falls between the two.
3. One owner has a few streams, and all owners together so many that the process still serves: one more is refused.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.web import FiksError
from kvittering.metrics import LISTENERS

if TYPE_CHECKING:
    from collections.abc import Generator

    from schemas.names import DigisosId, Eier

MAX_QUEUE: Final = 32
MAX_STREAMS_EACH: Final = 10
MAX_STREAMS: Final = 1_000
RETRY_AFTER: Final = {"Retry-After": "30"}


@dataclass(frozen=True, slots=True)
class View:
    """What the citizen is shown: JSON, and a name for exactly that."""

    version: str
    body: bytes


class Listener:
    """One open stream's queue. Made by ``Hub.listen``."""

    def __init__(self) -> None:
        self._views: deque[View] = deque(maxlen=MAX_QUEUE)
        self._changed = asyncio.Event()
        self._closed = False

    def put(self, view: View) -> None:
        """Add a view; the oldest goes if there is no room."""
        self._views.append(view)
        self._changed.set()

    def close(self) -> None:
        """End the stream once its queue is empty."""
        self._closed = True
        self._changed.set()

    async def next(self, timeout_s: float) -> View | None:
        """Return the next view, or None after ``timeout_s`` without one.

        Raises:
            EOFError: The stream is over.
        """
        if not self._views and not self._closed:
            self._changed.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                return None
        if self._views:
            return self._views.popleft()
        raise EOFError


class Hub:
    """Every open stream, by søknad. One event loop owns it."""

    def __init__(self) -> None:
        self._listeners: dict[DigisosId, set[Listener]] = {}
        self._streams: Counter[Eier] = Counter()
        self._closed = False

    def check_room(self, eier: Eier) -> None:
        """Say whether the owner may have one more stream (rule 3).

        Raises:
            FiksError: 429 when this owner has as many as one may have, 503 when all together have.
        """
        if self._streams[eier] >= MAX_STREAMS_EACH:
            raise FiksError(429, "for mange åpne strømmer for samme person; lukk noen først", headers=RETRY_AFTER)
        if self._streams.total() >= MAX_STREAMS:
            raise FiksError(503, "for mange åpne strømmer nå; prøv igjen", headers=RETRY_AFTER)

    @contextmanager
    def listen(self, digisos_id: DigisosId, eier: Eier) -> Generator[Listener]:
        """Listen to an owner's søknad for as long as the context lasts.

        Raises:
            FiksError: There is no room; see ``check_room``.
        """
        self.check_room(eier)
        listener = Listener()
        if self._closed:
            listener.close()
        self._listeners.setdefault(digisos_id, set()).add(listener)
        self._streams[eier] += 1
        LISTENERS.inc()
        try:
            yield listener
        finally:
            LISTENERS.dec()
            self._streams[eier] -= 1
            if not self._streams[eier]:
                del self._streams[eier]
            remaining = self._listeners[digisos_id]
            remaining.discard(listener)
            if not remaining:
                del self._listeners[digisos_id]

    def is_watched(self, digisos_id: DigisosId) -> bool:
        """Return whether anybody listens to the søknad."""
        return digisos_id in self._listeners

    def publish(self, digisos_id: DigisosId, view: View) -> None:
        """Give a view to everybody who listens to the søknad."""
        for listener in self._listeners.get(digisos_id, ()):
            listener.put(view)

    def close(self) -> None:
        """End every stream, and those that are opened from now on."""
        self._closed = True
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.close()
