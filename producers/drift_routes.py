"""What an operator may ask of the intake, and tell it: ``/drift/v1/utboks``. For the sender's own machines alone.

``GET /drift/v1/utboks`` tells how it stands, ``POST …/gjenopprett`` reads back what the database lacks (a line of JSON for each
step), ``POST …/emner/{emne}/godta`` takes a topic for the one that we know.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse

from broker.log import get_logger
from broker.routing import TRANSPORT, parse_topic
from broker.web import FiksError
from schemas.errors import InvalidNameError, MeldingsformidlerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from broker.tokens import TokenVerifier
    from broker.web import Health
    from producers.guards import Guards
    from producers.outbox import Outbox
    from producers.packages import Packages
    from schemas.names import Organisasjonsnummer

PREFIX: Final = "/drift/v1/utboks"
MEDIA_TYPE: Final = "application/x-ndjson"


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
    """

    tokens: TokenVerifier
    avsender: Organisasjonsnummer
    outbox: Outbox
    packages: Packages
    guards: Guards
    health: Health

    async def check(self, authorization: str | None) -> None:
        """Accept the sender's own machines.

        Raises:
            FiksError: 401 without a valid token, 403 for anybody else's.
        """
        client = await self.tokens.client(authorization)
        if client.organisasjonsnummer != self.avsender:
            raise FiksError(403, "bare avsenderens egne maskiner har tilgang")

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

    async def accept(self, topic: str) -> dict[str, str]:
        """Take a topic for the one that we know.

        Raises:
            FiksError: 400, we do not write it.
        """
        try:
            kind = parse_topic(topic).kind
        except InvalidNameError:
            kind = None
        if kind not in {"soknad", "transport"}:
            raise FiksError(400, "emnet er ikke et som avsenderen skriver til")
        if topic == TRANSPORT:
            await self.guards.register.forget()
        verdict = await self.guards.topics.accept(topic)
        get_logger().warning("topic_accepted", topic=topic, resultat=verdict.value)
        return {"emne": topic, "dom": verdict.value}

    async def restored(self) -> AsyncIterator[bytes]:
        """Read back; return a line for each step. The last one is done, or an error that says what to do."""
        try:
            async for progress in self.guards.register.restore(self.packages, await self.outbox.packages()):
                yield orjson.dumps(asdict(progress)) + b"\n"
        except MeldingsformidlerError as error:
            yield orjson.dumps({"kode": error.code, "feil": str(error)}) + b"\n"


def drift_router(drift: Drift) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix=PREFIX, tags=["drift"])

    @router.get("")
    async def show(authorization: Annotated[str | None, Header()] = None) -> dict[str, Any]:
        await drift.check(authorization)
        return await drift.show()

    @router.post("/gjenopprett")
    async def restore(authorization: Annotated[str | None, Header()] = None) -> StreamingResponse:
        await drift.check(authorization)
        return StreamingResponse(drift.restored(), media_type=MEDIA_TYPE)

    @router.post("/emner/{emne}/godta")
    async def accept(emne: str, authorization: Annotated[str | None, Header()] = None) -> dict[str, str]:
        await drift.check(authorization)
        return await drift.accept(emne)

    _ = show, restore, accept
    return router
