"""A limit on what a request may carry, before anybody parses it.

A framework that parses JSON reads the whole body into memory first, whoever sends it: the limit stands outside of it, in every
process, and a route that takes more says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES: Final = 1024 * 1024


class BodyTooLarge(HTTPException):
    """413: raised from where the body is read, which frameworks pass on as it is."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(413, f"forespørselens innhold er større enn {max_bytes} byte", {"Connection": "close"})


class BodyLimit:
    """ASGI middleware that ends a request whose body is larger than it may be.

    A ``Content-Length`` that says so is refused at the first attempt to read, and a body without one when it has come so far.

    Args:
        app: The application inside.
        max_bytes: Most that a body may be.
        exempt: Says which requests have no limit here.
    """

    def __init__(
        self, app: ASGIApp, *, max_bytes: int = MAX_BODY_BYTES, exempt: Callable[[Scope], bool] | None = None
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with a body that ends in an error when it is too large."""
        if scope["type"] != "http" or (self._exempt is not None and self._exempt(scope)):
            await self._app(scope, receive, send)
            return
        promised = _content_length(scope)
        received = 0

        async def limited() -> Message:
            nonlocal received
            if promised > self._max_bytes:
                raise BodyTooLarge(self._max_bytes)
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise BodyTooLarge(self._max_bytes)
            return message

        await self._app(scope, limited, send)


def _content_length(scope: Scope) -> int:
    value = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(value) if value.isdigit() else 0
