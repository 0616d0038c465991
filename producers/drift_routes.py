"""What an operator may ask of the intake, and tell it: ``/drift/v1/utboks``. For the sender's own machines alone.

``GET /drift/v1/utboks`` tells how it stands, ``POST …/gjenopprett`` reads back what the database lacks (a line of JSON for each
step), ``POST …/emner/{emne}/godta`` takes a topic for the one that we know. The two that change something stand in the revisjon,
with the caller's ``{"begrunnelse": …}`` if it gives one: none is demanded, for they are what brings a stopped set-up back.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
from fastapi import APIRouter, Header, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, ValidationError

from broker.log import get_logger
from broker.routing import TRANSPORT, parse_topic
from broker.web import FiksError
from producers.revisjonsbok import write_act
from schemas.errors import AuditError, InvalidNameError, MeldingsformidlerError
from schemas.names import Uuid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from broker.clock import Clock
    from broker.sql import Connection
    from broker.tokens import TokenVerifier
    from broker.web import Health
    from producers.guards import Guards
    from producers.outbox import Outbox
    from producers.packages import Packages
    from schemas.names import Organisasjonsnummer

PREFIX: Final = "/drift/v1/utboks"
MEDIA_TYPE: Final = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Order:
    """Who asks for something to be changed, and why, if they say."""

    client_id: str
    begrunnelse: str | None = None


class OrderBody(BaseModel):
    """What the caller says."""

    model_config = ConfigDict(strict=True, extra="forbid")

    begrunnelse: str | None = None


@dataclass(frozen=True)
class Drift:
    """What operators look at.

    Attributes:
        tokens: Checks who calls.
        avsender: Whose machines may.
        outbox: Says what waits.
        packages: Has the large packages.
        guards: Say what is kept back, and are told otherwise.
        health: Says what is wrong.
        clock: What the time is, for the revisjon.
    """

    tokens: TokenVerifier
    avsender: Organisasjonsnummer
    outbox: Outbox
    packages: Packages
    guards: Guards
    health: Health
    clock: Clock

    async def check(self, authorization: str | None) -> str:
        """Accept the sender's own machines; return which one it is.

        Raises:
            FiksError: 401 without a valid token, 403 for anybody else's.
        """
        client = await self.tokens.client(authorization)
        if client.organisasjonsnummer != self.avsender:
            raise FiksError(403, "bare avsenderens egne maskiner har tilgang")
        return client.client_id

    async def order(self, request: Request, authorization: str | None) -> Order:
        """Return what is asked for; nothing is read before the token is.

        Raises:
            FiksError: 401 or 403 as for ``check``, 400 for anything that is not an ``OrderBody``.
        """
        client_id = await self.check(authorization)
        body = await request.body()
        try:
            return Order(client_id, OrderBody.model_validate_json(body).begrunnelse if body else None)
        except ValidationError:
            raise FiksError(400, "ugyldig felt: begrunnelse") from None

    async def show(self) -> dict[str, Any]:
        """Return how the outbox stands."""
        backlog = await self.outbox.backlog()
        verdicts = self.guards.topics.verdicts().items()
        return {
            "venter": backlog.messages,
            "eldste": None if backlog.oldest is None else backlog.oldest.isoformat(),
            "mangler": self.health.problems() | self.health.notices(),
            "emner": [{"emne": name, "dom": verdict, "tiltak": why} for name, (verdict, why) in verdicts],
        }

    async def accept(self, topic: str, order: Order) -> dict[str, str]:
        """Take a topic for the one that we know; the act is written with the first thing that is changed.

        Raises:
            FiksError: 400, we do not write it, or the reason may not be written.
        """
        try:
            kind = parse_topic(topic).kind
        except InvalidNameError:
            kind = None
        if kind not in {"soknad", "transport"}:
            raise FiksError(400, "emnet er ikke et som avsenderen skriver til")
        act = self._act("utboks.emne-godtatt", topic, order)
        try:
            if topic == TRANSPORT:
                await self.guards.register.forget(act)
                verdict = await self.guards.topics.accept(topic)
            else:
                verdict = await self.guards.topics.accept(topic, act)
        except AuditError as error:
            raise FiksError(400, str(error)) from error
        self.outbox.added.set()
        get_logger().warning("topic_accepted", topic=topic, resultat=verdict.value)
        return {"emne": topic, "dom": verdict.value}

    async def begin(self, order: Order) -> Uuid:
        """Write that references are about to be read back; return the run.

        Raises:
            FiksError: 400, the reason may not be written.
        """
        run = Uuid.new()
        try:
            await self.outbox.add(self._act("utboks.gjenoppretting-begynt", run, order))
        except AuditError as error:
            raise FiksError(400, str(error)) from error
        return run

    async def restored(self, run: Uuid, order: Order) -> AsyncIterator[bytes]:
        """Read back; return a line for each step. The last one is done, or an error that says what to do."""
        try:
            async for progress in self.guards.register.restore(self.packages, await self.outbox.packages()):
                if progress.done:
                    counts = {
                        "lest": progress.read,
                        "gjenopprettet": progress.restored,
                        "konflikter": progress.conflicts,
                        "pakker": progress.packages,
                    }
                    await self.outbox.add(self._act("utboks.gjenopprettet", run, order, **counts))
                yield orjson.dumps(asdict(progress)) + b"\n"
        except MeldingsformidlerError as error:
            yield orjson.dumps({"kode": error.code, "feil": str(error)}) + b"\n"

    def _act(self, handling: str, objekt: str, order: Order, **counts: int) -> Callable[[Connection], None]:
        details = {"klient": order.client_id} | {name: str(count) for name, count in counts.items()}
        now = self.clock()
        return lambda connection: write_act(
            connection, handling, objekt, detaljer=details, now=now, begrunnelse=order.begrunnelse
        )


def drift_router(drift: Drift) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix=PREFIX, tags=["drift"])

    @router.get("")
    async def show(authorization: Annotated[str | None, Header()] = None) -> dict[str, Any]:
        await drift.check(authorization)
        return await drift.show()

    @router.post("/gjenopprett")
    async def restore(request: Request, authorization: Annotated[str | None, Header()] = None) -> StreamingResponse:
        order = await drift.order(request, authorization)
        run = await drift.begin(order)
        return StreamingResponse(drift.restored(run, order), media_type=MEDIA_TYPE)

    @router.post("/emner/{emne}/godta")
    async def accept(
        request: Request, emne: str, authorization: Annotated[str | None, Header()] = None
    ) -> dict[str, str]:
        return await drift.accept(emne, await drift.order(request, authorization))

    _ = show, restore, accept
    return router
