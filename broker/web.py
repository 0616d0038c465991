"""What every HTTP door of ours has in common: Fiks' error object, a limit on bodies, health, metrics, and a clean stop.

Errors have the shape that Fiks' clients parse (``timestamp, status, error, errorId, path, originalPath, message, errorCode,
errorJson``). A message names a field, a part or a header and says what to do; it never repeats a value.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from contextlib import nullcontext, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from broker.body_limit import MAX_BODY_BYTES, BodyLimit, BodyTooLarge
from broker.http_guard import GuardedProtocol
from broker.http_timer import RequestTimer, route_of
from broker.log import get_logger
from broker.runtime import INSTANCE_ENV, INSTANCE_HEADER
from schemas.errors import ConfigurationError, ContractError, CryptoError, MeldingsformidlerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from starlette.types import Scope

GRACE_S: Final = 10
"""How long open requests get to end after a stop was asked for."""
BIND_WITHIN_S: Final = GRACE_S + 2.0
"""How long we wait for a port that is taken: the process before us may have requests to end."""
MAX_CONNECTIONS: Final = 2_000
"""More open connections than this, and the rest are told 503 at once."""
KEEP_ALIVE_S: Final = 5


class FiksError(Exception):
    """An answer that is not success, in Fiks' shape.

    Args:
        status: HTTP status.
        message: For the caller: which field or part, and what to do. No values from a søknad.
        error_code: Stable code, if the caller should act on it.
        error_json: More for machines, as JSON text.
        headers: Extra response headers, for example ``WWW-Authenticate``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        error_code: str | None = None,
        error_json: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.error_code = error_code
        self.error_json = error_json
        self.headers = headers


def error_response(request: Request, error: FiksError, error_id: str | None = None) -> JSONResponse:
    """Return Fiks' error object (KS' documentation of its APIs: developers.fiks.ks.no and ks-no.github.io)."""
    return JSONResponse(
        {
            "timestamp": time.time_ns() // 1_000_000,
            "status": error.status,
            "error": HTTPStatus(error.status).phrase,
            "errorId": error_id or str(uuid4()),
            "path": request.url.path,
            "originalPath": request.url.path,
            "message": error.message,
            "errorCode": error.error_code,
            "errorJson": error.error_json,
        },
        status_code=error.status,
        headers=error.headers,
    )


def install_fiks_errors(app: FastAPI, *, large_bodies: Callable[[Scope], bool] | None = None) -> None:
    """Answer every failure of ``app`` with Fiks' error object; what we did not foresee is logged and told as a 500.

    A body of more than ``MAX_BODY_BYTES`` is such a failure (413), before any of it is parsed. Each request is timed.

    Args:
        app: Whose failures.
        large_bodies: Says for which requests there is no such limit, because their route limits them by itself.
    """
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES, exempt=large_bodies)
    app.add_middleware(RequestTimer)  # outermost: it measures what the caller waits for

    @app.exception_handler(FiksError)
    async def fiks(request: Request, error: FiksError) -> JSONResponse:
        return error_response(request, error)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        message = error.detail if isinstance(error, BodyTooLarge) else HTTPStatus(error.status_code).phrase
        return error_response(request, FiksError(error.status_code, message, headers=headers))

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> JSONResponse:
        where = "; ".join(".".join(str(part) for part in e["loc"]) for e in error.errors())
        return error_response(request, FiksError(400, f"ugyldig eller manglende felt: {where}"))

    @app.exception_handler(MeldingsformidlerError)
    async def ours(request: Request, error: MeldingsformidlerError) -> JSONResponse:
        status = 503 if error.retriable else 400 if isinstance(error, ContractError | CryptoError) else 500
        return error_response(request, FiksError(status, str(error), error_code=error.code))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        error_id = str(uuid4())
        get_logger().error(
            "request_failed", rute=route_of(request), metode=request.method, error_id=error_id, exc_info=error
        )
        return error_response(request, FiksError(500, "uventet feil; oppgi errorId til drift"), error_id)

    _ = fiks, http, validation, ours, unforeseen


class Health:
    """Whether a process is ready, as the sum of named checks, and what whoever asks should know besides."""

    def __init__(self) -> None:
        self._checks: dict[str, Callable[[], str | None]] = {}
        self._notices: dict[str, Callable[[], str | None]] = {}

    def add_check(self, name: str, check: Callable[[], str | None]) -> None:
        """Add a check that returns None when ready, else a short reason without personal data."""
        self._checks[name] = check

    def add_notice(self, name: str, notice: Callable[[], str | None]) -> None:
        """Add something to tell that does not keep the process from being ready; None while there is nothing."""
        self._notices[name] = notice

    def problems(self) -> dict[str, str]:
        """Return what is not ready, by name of the check."""
        return _answers(self._checks)

    def notices(self) -> dict[str, str]:
        """Return what else there is to tell, by name."""
        return _answers(self._notices)


def _answers(asked: Mapping[str, Callable[[], str | None]]) -> dict[str, str]:
    answers = {name: ask() for name, ask in asked.items()}
    return {name: answer for name, answer in answers.items() if answer is not None}


def health_router(health: Health) -> APIRouter:
    """Return ``/isalive``, ``/isready`` and ``/metrics``, as Nais expects them."""
    router = APIRouter(tags=["drift"])
    instance = {INSTANCE_HEADER: os.environ[INSTANCE_ENV]} if INSTANCE_ENV in os.environ else None

    @router.get("/isalive")
    async def isalive() -> PlainTextResponse:
        return PlainTextResponse("ALIVE")

    @router.get("/isready")
    async def isready() -> JSONResponse:
        problems, notices = health.problems(), health.notices()
        body = {"klar": not problems, "mangler": problems} | ({"merknader": notices} if notices else {})
        return JSONResponse(body, status_code=503 if problems else 200, headers=instance)

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    _ = isalive, isready, metrics
    return router


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the process's own composition root."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # theirs is a generator
        """Capture none: ``broker.runtime`` owns the signals."""
        return nullcontext()


async def serve(app: FastAPI, host: str, port: int, stop: asyncio.Event) -> None:
    """Serve ``app`` until ``stop`` is set, then let open requests end.

    Args:
        app: What to serve.
        host: Address to bind, for example ``127.0.0.1``.
        port: TCP port.
        stop: Set it to stop; it is set when this returns or raises.

    Raises:
        ConfigurationError: The port is somebody else's, or the address is not this machine's.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=GuardedProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = _Server(config)

    async def stop_when_asked() -> None:
        await stop.wait()
        server.should_exit = True

    watcher = asyncio.create_task(stop_when_asked())
    try:
        listening = await _listen(host, port, stop)
        if listening is not None:
            with listening:
                await server.serve(sockets=[listening])
    except SystemExit as error:  # theirs, for an application that does not begin
        raise RuntimeError("applikasjonen begynte ikke") from error
    finally:
        stop.set()
        await watcher


async def _listen(host: str, port: int, stop: asyncio.Event) -> socket.socket | None:
    """Return a socket that listens, or None when a stop was asked for while the port was taken."""
    deadline = time.monotonic() + BIND_WITHIN_S
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while not stop.is_set():
        try:
            return socket.create_server((host, port), family=family, backlog=2048)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ConfigurationError(
                    f"kan ikke lytte på {host}:{port} ({os.strerror(error.errno or 0)})"
                ) from error
            if time.monotonic() >= deadline:
                raise ConfigurationError(f"kan ikke lytte på {host}:{port}: porten er opptatt") from error
        await _wait_for(stop, 0.1)
    return None


async def _wait_for(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
