"""The intake over HTTP, with Fiks Digisos' own submission contract.

``POST /digisos/api/v1/soknader/{kommunenummer}/{navEksternRefId}`` takes a søknad, ``GET
/digisos/api/v1/dokumentlager-public-key`` gives the certificate that its files are encrypted for.

Errors are Fiks' error object: 400 for what is wrong in the request, 401 for the token, 403 for somebody else's søknad, 413 for
too much, 415 for types that we do not take, 429 for too many files that could not be decrypted, 503 for what passes, 507 for a
full disk. What is no 2xx has left nothing behind, and the sender has its draft; the one answer that cannot promise it says so.

Source: Fiks Digisos send API v1.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

from cryptography.hazmat.primitives.serialization import Encoding
from fastapi import APIRouter, FastAPI, Header, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from broker.krasj import crash_point
from broker.web import FiksError, error_response, health_router, install_fiks_errors
from producers.envelopes import WINDOW
from producers.library import BEHIND, LIGHT_BYTES, TOO_MANY_FAILURES, UNAVAILABLE
from producers.multipart import MultipartReader
from producers.package_routes import package_router
from producers.places import BUSY
from producers.versions import VERSION_HEADER, parse_version
from schemas.errors import OutcomeUnknownError, RefusedError, StoreError, StoreFullError
from schemas.names import Kommunenummer, NavEksternRefId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cryptography import x509

    from broker.katalog import Katalog
    from broker.tokens import TokenVerifier
    from broker.web import Health
    from producers.library import Producer

INTAKE_PATH: Final = "/digisos/api/v1/soknader/"
BATCH_BYTES: Final = 256 * 1024
"""So much of a body is gathered before a thread is asked to work on it."""
IDLE_S: Final = 60.0
"""A client that sends nothing for so long has gone, as far as we are concerned."""
TOTAL_S: Final = 300.0
"""So long may a whole body take: 150 MiB at 4 Mbit/s. A place is not held for longer."""
RETRY_AFTER_S: Final = {BUSY: 5, TOO_MANY_FAILURES: int(WINDOW.total_seconds()), BEHIND: 300}
"""When to come back, by the reason of a refusal."""
FULL_RETRY_AFTER_S: Final = 120
STORE_RETRY_AFTER_S: Final = 15
INSUFFICIENT_STORAGE: Final = 507
NOTHING_KEPT: Final = "ingenting av søknaden er lagret; behold utkastet og send på nytt"
OUTCOME_UNKNOWN: Final = (
    "det er uvisst om søknaden ble lagret; behold utkastet og send på nytt med samme navEksternRefId,"
    " så blir den ikke dobbel"
)


def create_app(
    *, producer: Producer, tokens: TokenVerifier, katalog: Katalog, certificate: x509.Certificate, health: Health
) -> FastAPI:
    """Return the application.

    Args:
        producer: Takes søknader in.
        tokens: Checks who calls.
        katalog: Says which connector is a kommune's.
        certificate: What clients encrypt files for.
        health: Whether the process is ready.
    """
    app = FastAPI(title="Meldingsformidler: producers", version="1")
    install_fiks_errors(
        app, large_bodies=lambda scope: scope["path"].startswith(INTAKE_PATH)
    )  # ``batches`` limits them

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> JSONResponse:
        after = RETRY_AFTER_S.get(error.reason)
        headers = None if after is None else {"Retry-After": str(after)}
        return error_response(
            request, FiksError(error.status, error.message, error_code=f"{error.code}.{error.reason}", headers=headers)
        )

    @app.exception_handler(StoreError)
    async def not_stored(request: Request, error: StoreError) -> JSONResponse:
        if request.url.path.startswith(INTAKE_PATH):
            return error_response(request, store_failure(error))
        return error_response(request, FiksError(UNAVAILABLE, str(error), error_code=error.code))

    _ = refused, not_stored
    app.include_router(health_router(health))
    app.include_router(intake_router(producer, tokens, certificate))
    packages = producer.packages
    app.include_router(package_router(tokens, katalog, producer.outbox, producer.dokumentlager, packages))
    return app


def store_failure(error: StoreError) -> FiksError:
    """Return the answer to a submission that could not be stored."""
    full = isinstance(error, StoreFullError)
    kept = OUTCOME_UNKNOWN if isinstance(error, OutcomeUnknownError) else NOTHING_KEPT
    return FiksError(
        INSUFFICIENT_STORAGE if full else UNAVAILABLE,
        f"{'det er ikke plass til søknaden nå' if full else 'søknaden kan ikke lagres nå'}: {kept}",
        error_code=error.code,
        headers={"Retry-After": str(FULL_RETRY_AFTER_S if full else STORE_RETRY_AFTER_S)},
    )


def intake_router(producer: Producer, tokens: TokenVerifier, certificate: x509.Certificate) -> APIRouter:
    """Return the routes of Fiks Digisos that senders use."""
    router = APIRouter(prefix="/digisos/api/v1", tags=["soknader"])
    public_key = certificate.public_bytes(Encoding.DER)

    @router.post("/soknader/{kommunenummer}/{navEksternRefId}", status_code=202)
    async def soknad(
        request: Request,
        kommunenummer: str,
        navEksternRefId: str,  # noqa: N803 - Fiks' own name, as it stands in the OpenAPI document
        *,
        authorization: Annotated[str | None, Header()] = None,
        traceparent: Annotated[str | None, Header()] = None,
        avsenderversjon: Annotated[str | None, Header(alias=VERSION_HEADER)] = None,
    ) -> str:
        person = await tokens.citizen(authorization)
        receiver, reference = Kommunenummer(kommunenummer), NavEksternRefId(navEksternRefId)
        reader = MultipartReader(request.headers.get("content-type"), max_parts=producer.limits.max_parts)
        version = None if avsenderversjon is None else parse_version(avsenderversjon)
        async with producer.receive(
            receiver, reference, person, traceparent=traceparent, avsenderversjon=version
        ) as reception:
            async for batch in batches(request, producer.limits.max_body_bytes):
                await reception.feed(partial(reader.feed, batch), light=len(batch) <= LIGHT_BYTES)
            reader.close()
            digisos_id = await reception.accept()
        crash_point("producers.intake.before-answer")
        return digisos_id

    @router.get("/dokumentlager-public-key")
    async def dokumentlager_public_key(authorization: Annotated[str | None, Header()] = None) -> Response:
        await tokens.any_caller(authorization)
        return Response(public_key, media_type="application/octet-stream")

    _ = soknad, dokumentlager_public_key
    return router


async def batches(
    request: Request, max_bytes: int, *, idle_s: float = IDLE_S, total_s: float = TOTAL_S
) -> AsyncIterator[bytes]:
    """Return the body in pieces that are worth a thread's while.

    Raises:
        RefusedError: 413, more than ``max_bytes``; 400, the client broke off, sends nothing any more, or takes too long.
    """
    deadline = asyncio.get_running_loop().time() + total_s
    gathered: list[bytes] = []
    size = total = 0
    stream = request.stream()
    try:
        while True:
            async with asyncio.timeout_at(min(asyncio.get_running_loop().time() + idle_s, deadline)):
                chunk = await anext(stream, None)
            if chunk is None:
                break
            total += len(chunk)
            if total > max_bytes:
                raise RefusedError(413, f"sendingen er større enn {max_bytes} byte", reason="storrelse")
            gathered.append(chunk)
            size += len(chunk)
            if size >= BATCH_BYTES:
                yield b"".join(gathered)
                gathered, size = [], 0
    except (ClientDisconnect, TimeoutError):
        raise RefusedError(400, "sendingen ble avbrutt før den var hel; send på nytt", reason="avbrutt") from None
    if gathered:
        yield b"".join(gathered)
