"""Who is watching which søknad: from the store's commit to every open stream, without waiting for any of them.

Rules:

1. A listener's queue is bounded. One that does not keep up loses the oldest views: the newest is the whole truth.
2. A listener registers before it reads the store, so that no change falls between the two.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kvittering.metrics import LISTENERS

if TYPE_CHECKING:
    from collections.abc import Generator

    from schemas.names import DigisosId

MAX_QUEUE: Final = 32


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
        self._closed = False

    @contextmanager
    def listen(self, digisos_id: DigisosId) -> Generator[Listener]:
        """Listen to a søknad for as long as the context lasts."""
        listener = Listener()
        if self._closed:
            listener.close()
        self._listeners.setdefault(digisos_id, set()).add(listener)
        LISTENERS.inc()
        try:
            yield listener
        finally:
            LISTENERS.dec()
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
