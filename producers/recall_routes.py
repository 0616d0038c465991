"""Recall over HTTP, for the sender's own machines: ``/drift/v1/tilbakekalling``.

``POST …/sok`` asks what is affected; ``POST`` carries out a signed demand, or notes it as a proposal; ``POST …/{id}/godkjenn``
approves one; ``GET`` lists them. A machine's token lets in; what is done is decided by operators' signatures
(``producers.recall``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, TypeVar

from fastapi import APIRouter, Header, Request
from pydantic import ConfigDict, Field, ValidationError

from broker.clock import timestamp
from broker.web import FiksError
from producers.recall import TREKK, RecallUtvalg, Resultat, Tilbakekaller, view
from schemas.errors import GovernedActError, SelectionError
from schemas.model import WireModel
from schemas.names import Uuid

if TYPE_CHECKING:
    from broker.tokens import TokenVerifier
    from producers.recall_rows import Tilbakekalling
    from schemas.names import Organisasjonsnummer

PREFIX: Final = "/drift/v1/tilbakekalling"
MAX_PAGE: Final = 500
MAX_JWS_CHARS: Final = 64 * 1024

Authorization = Annotated[str | None, Header()]
B = TypeVar("B", bound=WireModel)


class SokBody(WireModel):
    """A question; a field that nobody knows is refused, or a misspelt one would select everything.

    Attributes:
        utvalg: What is asked for.
        handling: What the digest is to be for: ``trekk`` or ``send``.
        etter: Begin behind this place.
        antall: At most so many.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    utvalg: RecallUtvalg = RecallUtvalg()
    handling: Literal["trekk", "send"] = TREKK
    etter: int = Field(default=0, ge=0)
    antall: int = Field(default=100, ge=1, le=MAX_PAGE)


class KravBody(WireModel):
    """A signed demand, or a signed approval."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    jws: str = Field(min_length=1, max_length=MAX_JWS_CHARS)


@dataclass(frozen=True)
class RecallDrift:
    """What the routes need.

    Attributes:
        tokens: Checks who calls.
        avsender: Whose machines may.
        tilbakekaller: Answers and acts.
    """

    tokens: TokenVerifier
    avsender: Organisasjonsnummer
    tilbakekaller: Tilbakekaller

    async def check(self, authorization: str | None) -> None:
        """Accept the sender's own machines.

        Raises:
            FiksError: 401 without a valid token, 403 for anybody else's.
        """
        client = await self.tokens.client(authorization)
        if client.organisasjonsnummer != self.avsender:
            raise FiksError(403, "bare avsenderens egne maskiner har tilgang")

    async def body(self, model: type[B], request: Request, authorization: str | None) -> B:
        """Return what was asked; nothing is read before the token is.

        Raises:
            FiksError: 401 or 403 as for ``check``, 400 for anything that is not the model.
        """
        await self.check(authorization)
        try:
            return model.model_validate_json(await request.body())
        except ValidationError as error:
            errors = error.errors(include_url=False, include_context=False, include_input=False)
            where = ", ".join(".".join(map(str, one["loc"])) or "innholdet" for one in errors[:10])
            raise FiksError(400, f"ugyldig eller manglende felt: {where}") from None


def recall_router(drift: RecallDrift) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix=PREFIX, tags=["drift"])

    @router.post("/sok")
    async def sok(request: Request, authorization: Authorization = None) -> dict[str, Any]:
        """List the affected meldinger, in the order accepted, with how far each has come."""
        body = await drift.body(SokBody, request, authorization)
        found = await drift.tilbakekaller.look(body.utvalg, body.handling, etter=body.etter, antall=body.antall)
        return {
            "antall": found.antall,
            "digest": found.digest,
            "tilNr": found.til_nr,
            "etter": found.etter,
            "meldinger": [view(funn) for funn in found.funn],
        }

    @router.post("")
    async def demand(request: Request, authorization: Authorization = None) -> dict[str, Any]:
        """Carry out a signed demand, or note it as a proposal."""
        body = await drift.body(KravBody, request, authorization)
        try:
            return result_view(await drift.tilbakekaller.demand(body.jws))
        except GovernedActError as error:
            raise refused(error) from None

    @router.post("/{recall_id}/godkjenn")
    async def approve(recall_id: Uuid, request: Request, authorization: Authorization = None) -> dict[str, Any]:
        """Carry out a proposal that another operator has signed for."""
        body = await drift.body(KravBody, request, authorization)
        try:
            return result_view(await drift.tilbakekaller.approve(recall_id, body.jws))
        except GovernedActError as error:
            raise refused(error) from None

    @router.get("")
    async def recalls(authorization: Authorization = None) -> dict[str, list[dict[str, Any]]]:
        """List all recalls, newest first, with the signed demands."""
        await drift.check(authorization)
        return {"tilbakekallinger": [recall_view(recall) for recall in await drift.tilbakekaller.recalls()]}

    _ = sok, demand, approve, recalls
    return router


def refused(error: GovernedActError) -> FiksError:
    """Return the answer to an act that is refused."""
    return FiksError(400 if isinstance(error, SelectionError) else 409, str(error), error_code=error.code)


def result_view(resultat: Resultat) -> dict[str, Any]:
    """Return what came of a demand."""
    return {
        "id": resultat.id,
        "tilstand": resultat.tilstand,
        "antall": dict(resultat.antall),
        "forSent": list(resultat.for_sent),
        "endret": list(resultat.endret),
    }


def recall_view(recall: Tilbakekalling) -> dict[str, Any]:
    """Return a recall."""
    return {
        "id": recall.id,
        "handling": recall.handling,
        "utvalg": recall.utvalg,
        "digest": recall.digest,
        "antall": recall.antall,
        "aktor": recall.aktor,
        "begrunnelse": recall.begrunnelse,
        "krav": recall.krav,
        "tilstand": recall.tilstand,
        "godkjentAv": recall.godkjent_av,
        "tidspunkt": timestamp(recall.tidspunkt),
    }
