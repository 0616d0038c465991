"""How long each HTTP request takes, by its route's template."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from prometheus_client import Histogram
from starlette.requests import Request

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_SECONDS: Final = Histogram(
    "http_server_request_duration_seconds", "Duration of HTTP requests.", ["method", "route", "status"]
)
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD: Final = "_OTHER"
"""What a method that a client invents is counted as: each label value is a series that stays."""


def route_of(request: Request) -> str:
    """Return the route's template (``/soknader/{id}``), which unlike the path is fit for logs and metric labels."""
    route = request.scope.get("route")
    return str(getattr(route, "path", "ukjent"))


class RequestTimer:
    """ASGI middleware that measures each request, a stream until its end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and note how long it took."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
            labels = {"method": method, "route": route_of(Request(scope)), "status": str(status)}
            REQUEST_SECONDS.labels(**labels).observe(time.perf_counter() - started)
