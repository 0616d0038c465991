"""What an operator may ask of the sender's copies, and have done with them: ``/drift/v1/avsenderkopier``.

For the sender's own machines alone. ``GET`` lists copies, ``GET …/{meldingId}`` tells of one, also when it is destroyed: that is
the proof. ``POST …/send`` and ``POST …/forsegl`` do one step of a run; whoever runs it asks again until nothing is left. Nothing
here opens a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from pydantic import Field, ValidationError

from broker.clock import timestamp
from broker.web import FiksError
from producers import kopi_rows
from producers.kopi_rows import Utvalg
from producers.omsending import MAX_STEP, Bestilling
from schemas.model import WireModel
from schemas.names import Kommunenummer, MeldingId, Uuid

if TYPE_CHECKING:
    from broker.tokens import TokenVerifier
    from producers.avsenderkopi import Avsenderkopier
    from producers.kopi_rows import Kopi
    from producers.omsending import Omsender, Steg
    from schemas.names import Organisasjonsnummer

PREFIX: Final = "/drift/v1/avsenderkopier"
MAX_MELDINGER: Final = 1000

Authorization = Annotated[str | None, Header()]


class BestillingBody(WireModel):
    """One step of a run.

    Attributes:
        omgang: The run's name.
        kommunenummer: Only this kommune's; everybody's when None.
        meldinger: Only these; all when there is none.
        etter: Begin behind this place.
        antall: Look at so many.
        torr: Only count.
        begrunnelse: Why, for the revisjon.
    """

    omgang: Uuid
    kommunenummer: Kommunenummer | None = None
    meldinger: tuple[MeldingId, ...] = Field(default=(), max_length=MAX_MELDINGER)
    etter: int = Field(default=0, ge=0)
    antall: int = Field(default=MAX_STEP, ge=1, le=MAX_STEP)
    torr: bool = False
    begrunnelse: str | None = Field(default=None, max_length=500)

    def order(self, client_id: str) -> Bestilling:
        """Return it as the core takes it."""
        return Bestilling(
            Utvalg(kommunenummer=self.kommunenummer, meldinger=self.meldinger),
            self.omgang,
            self.etter,
            self.antall,
            self.torr,
            client_id,
            self.begrunnelse,
        )


@dataclass(frozen=True)
class KopiDrift:
    """What the routes need.

    Attributes:
        tokens: Checks who calls.
        avsender: Whose machines may.
        kopier: The copies.
        omsender: Sends again.
    """

    tokens: TokenVerifier
    avsender: Organisasjonsnummer
    kopier: Avsenderkopier
    omsender: Omsender

    async def check(self, authorization: str | None) -> str:
        """Accept the sender's own machines; return the client's id.

        Raises:
            FiksError: 401 without a valid token, 403 for anybody else's.
        """
        client = await self.tokens.client(authorization)
        if client.organisasjonsnummer != self.avsender:
            raise FiksError(403, "bare avsenderens egne maskiner har tilgang")
        return client.client_id

    async def order(self, request: Request, authorization: str | None) -> Bestilling:
        """Return what a step is to do; nothing is read before the token is.

        Raises:
            FiksError: 401 or 403 as for ``check``, 400 for anything that is not a ``BestillingBody``.
        """
        client_id = await self.check(authorization)
        try:
            return BestillingBody.model_validate_json(await request.body()).order(client_id)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_context=False, include_input=False)
            where = ", ".join(".".join(map(str, one["loc"])) or "innholdet" for one in errors[:10])
            raise FiksError(400, f"ugyldig eller manglende felt: {where}") from None

    async def page(self, utvalg: Utvalg, etter: int, antall: int) -> dict[str, Any]:
        """Return copies, and where the next page begins."""
        page = await self.kopier.alive(utvalg, etter=etter, antall=antall)
        return {
            "antall": await self.kopier.count(utvalg),
            "etter": page[-1].nr if page else etter,
            "kopier": [kopi_view(kopi) for kopi in page],
        }

    async def proof(self, melding_id: MeldingId) -> dict[str, Any]:
        """Return what is known of a melding.

        Raises:
            FiksError: 404, it is not from here.
        """
        kopi = await self.kopier.get(melding_id)
        if kopi is None:
            raise FiksError(404, "meldingen er ikke sendt herfra")
        digests = await self.kopier.database.read(lambda connection: kopi_rows.sealings(connection, melding_id))
        return kopi_view(kopi) | {"forseglinger": [str(digest) for digest in digests]}


def kopi_view(kopi: Kopi) -> dict[str, Any]:
    """Return a copy as operators see it: ids, digests, times."""
    record = kopi.record
    return {
        "meldingId": kopi.melding_id,
        "digisosId": kopi.digisos_id,
        "kommunenummer": kopi.kommunenummer,
        "navEksternRefId": kopi.nav_ekstern_ref_id,
        "type": record.type,
        "innsendt": timestamp(kopi.innsendt),
        "gyldigTil": None if record.gyldig_til is None else timestamp(record.gyldig_til),
        "kanal": kopi.kanal,
        "sha256": kopi.sha256,
        "nokkelId": kopi.nokkel_id,
        "storrelse": record.storrelse,
        "dokumentlagerId": record.dokumentlager_id,
        "avsenderversjon": record.avsenderversjon,
        "skjemaversjon": record.skjemaversjon,
        "omsendinger": kopi.omsendinger,
        "destruert": None if kopi.destruert is None else timestamp(kopi.destruert),
        "kvitteringId": kopi.kvittering_id,
        "arsak": kopi.arsak,
    }


def step_view(steg: Steg) -> dict[str, Any]:
    """Return what a step did."""
    return {
        "sendt": steg.sendt,
        "hoppetOver": dict(steg.hoppet_over),
        "etter": steg.etter,
        "ferdig": steg.ferdig,
    }


def kopi_router(drift: KopiDrift) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix=PREFIX, tags=["drift"])

    @router.get("")
    async def kopier(
        kommunenummer: Kommunenummer | None = None,
        etter: Annotated[int, Query(ge=0)] = 0,
        antall: Annotated[int, Query(ge=1, le=MAX_STEP)] = MAX_STEP,
        authorization: Authorization = None,
    ) -> dict[str, Any]:
        """List copies that are not destroyed, in the order accepted."""
        await drift.check(authorization)
        return await drift.page(Utvalg(kommunenummer=kommunenummer), etter, antall)

    @router.get("/{melding_id}")
    async def kopi(melding_id: MeldingId, authorization: Authorization = None) -> dict[str, Any]:
        """Tell of one melding's copy."""
        await drift.check(authorization)
        return await drift.proof(melding_id)

    @router.post("/send")
    async def send(request: Request, authorization: Authorization = None) -> dict[str, Any]:
        """Send meldinger again as they were last sealed."""
        return step_view(await drift.omsender.send(await drift.order(request, authorization)))

    @router.post("/forsegl")
    async def forsegl(request: Request, authorization: Authorization = None) -> dict[str, Any]:
        """Seal meldinger for the newest certificate and send them again."""
        return step_view(await drift.omsender.forsegl(await drift.order(request, authorization)))

    _ = kopier, kopi, send, forsegl
    return router
