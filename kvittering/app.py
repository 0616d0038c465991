"""The status over HTTP: the citizen's own søknader, live, and what the sender may ask.

Rules:

1. A citizen sees their own søknader and no others. One that is somebody else's and one that does not exist get the same answer,
   403 with the same text, by the same single look-up: as at Fiks, which has no 404 here.
2. A machine may ask only if its organisation is one of the senders: what a søknad's status is, is not a vendor's business.
3. Nothing is cached on the way.
4. A token is looked at before a body is, and a stream does not outlive the token that opened it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, FastAPI, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field, ValidationError

from broker.clock import Clock, system_clock
from broker.web import FiksError, Health, health_router, install_fiks_errors
from kvittering.applier import view_of
from kvittering.frist_routes import frist_router
from kvittering.projection import Projection, project
from kvittering.stream import events
from kvittering.views import bundle, citizen_view, operator_view
from schemas.model import WireModel
from schemas.names import DigisosId

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from broker.katalog import Katalog
    from broker.tokens import TokenVerifier
    from kvittering.hub import Hub, View
    from kvittering.store import StatusStore
    from schemas.names import Eier, Organisasjonsnummer

FORBIDDEN: Final = "Ingen tilgang til søknaden, eller den finnes ikke"
NO_STORE: Final = {"Cache-Control": "no-store"}
MAX_STATUS_IDS: Final = 10_000
MAX_BODY_BYTES: Final = 1024 * 1024
MAX_FIELDS_TOLD: Final = 10

Authorization = Annotated[str | None, Header()]


class StatusRequest(WireModel):
    """Which søknader a sender asks about."""

    digisos_id_liste: Annotated[tuple[DigisosId, ...], Field(max_length=MAX_STATUS_IDS)]


STATUS_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {"application/json": {"schema": StatusRequest.model_json_schema()}},
}


async def read_status_request(request: Request) -> StatusRequest:
    """Return what a sender asks, read here and not by FastAPI, which would read all of it before we saw a token.

    Raises:
        FiksError: 413 for more than 1 MiB, 400 for anything that is not a ``StatusRequest``.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise FiksError(413, f"forespørselen er større enn {MAX_BODY_BYTES} byte")
    try:
        return StatusRequest.model_validate_json(bytes(body))
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        where = "; ".join(".".join(map(str, ("body", *one["loc"]))) for one in errors[:MAX_FIELDS_TOLD])
        raise FiksError(400, f"ugyldig eller manglende felt: {where}") from None


@dataclass(frozen=True, slots=True)
class Innsyn:
    """What the routes need.

    Attributes:
        store: The status.
        hub: Who is watching.
        tokens: Checks tokens.
        eier_key: Central key of the owners' HMAC.
        katalog: Certificates, for bundles.
        avsendere: Organisations whose machines may ask about any søknad.
        heartbeat_s: How often an idle stream says that it lives.
        max_stream_s: How long a stream lasts.
        clock: What the time is, for what is late.
    """

    store: StatusStore
    hub: Hub
    tokens: TokenVerifier
    eier_key: bytes
    katalog: Katalog
    avsendere: frozenset[Organisasjonsnummer]
    heartbeat_s: float = 15.0
    max_stream_s: float = 1800.0
    clock: Clock = system_clock

    async def eier(self, authorization: str | None) -> Eier:
        """Return whose token it is, as the owner that søknader are kept under."""
        return (await self.tokens.citizen(authorization)).eier(self.eier_key)

    async def own(self, digisos_id: DigisosId, authorization: str | None) -> Projection:
        """Return one of the citizen's own søknader.

        Raises:
            FiksError: 401 without a valid token, 403 for any other søknad (rule 1).
        """
        return await self.shown(digisos_id, await self.eier(authorization))

    async def shown(self, digisos_id: DigisosId, eier: Eier) -> Projection:
        """Return the owner's søknad.

        Raises:
            FiksError: 403 when it is not theirs, or is not there.
        """
        state = await self.store.state(digisos_id, eier)
        if state is None:
            raise FiksError(403, FORBIDDEN)
        return project(state)

    def stream(
        self, digisos_id: DigisosId, eier: Eier, valid_s: float, last_event_id: str | None
    ) -> AsyncGenerator[bytes]:
        """Return the owner's stream of a søknad that is theirs; see ``stream.events``.

        Args:
            digisos_id: Which søknad.
            eier: Its owner.
            valid_s: For how long the owner's token is valid.
            last_event_id: The version that the client has, if it came back.

        Raises:
            FiksError: 429 or 503 when there are too many streams.
        """
        self.hub.check_room(eier)

        async def current() -> View:
            return view_of(await self.shown(digisos_id, eier))

        return events(
            self.hub,
            digisos_id,
            eier,
            current,
            last_event_id=last_event_id,
            heartbeat_s=self.heartbeat_s,
            max_stream_s=min(self.max_stream_s, valid_s),
        )

    async def check_avsender(self, authorization: str | None) -> None:
        """Accept a sender's machine.

        Raises:
            FiksError: 401 without a valid token, 403 for anybody else's (rule 2).
        """
        client = await self.tokens.client(authorization)
        if client.organisasjonsnummer not in self.avsendere:
            raise FiksError(403, "klientens organisasjon er ikke en avsender av søknader")


def create_app(innsyn: Innsyn, health: Health) -> FastAPI:
    """Return the application."""
    app = FastAPI(title="Meldingsformidler: kvittering", version="1")
    install_fiks_errors(app)
    app.include_router(health_router(health))
    app.include_router(innsyn_router(innsyn))
    app.include_router(avsender_router(innsyn))
    app.include_router(frist_router(innsyn.store, innsyn.check_avsender, innsyn.clock))
    return app


def innsyn_router(innsyn: Innsyn) -> APIRouter:
    """Return the citizen's routes."""
    router = APIRouter(prefix="/innsyn/v1/soknader", tags=["innsyn"])

    @router.get("")
    async def soknader(response: Response, authorization: Authorization = None) -> list[dict[str, Any]]:
        """List the citizen's own søknader, newest first."""
        response.headers.update(NO_STORE)
        states = await innsyn.store.owned_by(await innsyn.eier(authorization))
        return [citizen_view(project(state)) for state in states]

    @router.get("/{digisos_id}")
    async def soknad(digisos_id: DigisosId, response: Response, authorization: Authorization = None) -> dict[str, Any]:
        """Show one of the citizen's own søknader: status, history and kvitteringer."""
        response.headers.update(NO_STORE)
        return citizen_view(await innsyn.own(digisos_id, authorization))

    @router.get("/{digisos_id}/kvitteringer")
    async def kvitteringer(
        digisos_id: DigisosId, response: Response, authorization: Authorization = None
    ) -> dict[str, Any]:
        """Return the kvitteringer with the certificates to verify them by, offline."""
        response.headers.update(NO_STORE)
        projection = await innsyn.own(digisos_id, authorization)
        knr = projection.kommunenummer
        return bundle(projection, innsyn.katalog.signers(knr) if knr else ())

    @router.get("/{digisos_id}/hendelser")
    async def hendelser(
        digisos_id: DigisosId,
        authorization: Authorization = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> StreamingResponse:
        """Stream the status as server-sent events: ``status``, with the view as data and its version as id."""
        person, valid_s = await innsyn.tokens.citizen_for(authorization)
        eier = person.eier(innsyn.eier_key)
        await innsyn.shown(digisos_id, eier)
        stream = innsyn.stream(digisos_id, eier, valid_s, last_event_id)
        headers = NO_STORE | {"X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    _ = soknader, soknad, kvitteringer, hendelser
    return router


def avsender_router(innsyn: Innsyn) -> APIRouter:
    """Return the sender's routes, the first as NAV's own clients call it."""
    router = APIRouter(tags=["avsender"])

    @router.post("/digisos/api/v1/nav/soknader/status", openapi_extra={"requestBody": STATUS_BODY})
    async def status(
        request: Request,
        sporings_id: Annotated[str, Query(alias="sporingsId", min_length=1, max_length=100)],
        authorization: Authorization = None,
    ) -> dict[str, list[dict[str, Any]]]:
        """Return which søknader the fagsystem has; one that is unknown is not delivered."""
        _ = sporings_id
        await innsyn.check_avsender(authorization)
        asked = await read_status_request(request)
        delivered = await innsyn.store.delivered(asked.digisos_id_liste)
        return {"statusListe": [{"digisosId": one, "levertFagsystem": yes} for one, yes in delivered.items()]}

    @router.get("/drift/v1/soknader/{digisos_id}")
    async def drift(digisos_id: DigisosId, authorization: Authorization = None) -> dict[str, Any]:
        """Show operators how one søknad stands: each message, codes, what waits and what was refused."""
        await innsyn.check_avsender(authorization)
        state = await innsyn.store.state(digisos_id)
        if state is None:
            raise FiksError(404, "søknaden er ikke kjent")
        return operator_view(project(state))

    _ = status, drift
    return router
