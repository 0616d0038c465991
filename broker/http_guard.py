"""A connection must say what it wants within a time, or it is closed.

uvicorn has a time limit between requests, and none for a request that has begun and never gets through its headers: a few
thousand such connections would hold every place. How large headers may be, h11 limits itself (64 KiB).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

HEADERS_WITHIN_S: Final = 10.0


class GuardedProtocol(H11Protocol):
    """uvicorn's protocol, with a time limit for a request's headers."""

    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as theirs
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Take in what came; a request whose headers are not whole yet has until the time that was set at its beginning."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._expect_headers()
        else:
            self._forget()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._forget()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        if self._overdue is None:
            self._overdue = self.loop.call_later(HEADERS_WITHIN_S, self.transport.close)

    def _forget(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
