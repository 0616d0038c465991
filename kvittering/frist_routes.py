"""The overdue list over HTTP: who has waited longest, in which kommune, and why. For the sender's own machines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Response

from broker.clock import timestamp
from broker.durations import parse_duration
from broker.web import FiksError
from kvittering.fristlager import Frist, list_frister, overdue
from schemas.errors import InvalidNameError
from schemas.names import Kommunenummer

if TYPE_CHECKING:
    from broker.clock import Clock
    from broker.sql import Connection
    from kvittering.fristlager import Overdue
    from kvittering.store import StatusStore

MAX_LISTED: Final = 1_000
PATH: Final = "/drift/v1/frister"

Check = Callable[[str | None], Awaitable[None]]
"""Accepts the ``Authorization`` of a sender's machine, or raises."""
Authorization = Annotated[str | None, Header()]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a list is asked for."""

    kommunenummer: Kommunenummer | None
    innen: timedelta
    antall: int

    def answer(self, connection: Connection, now: datetime) -> tuple[list[Frist], Overdue]:
        listed = list_frister(connection, now + self.innen, kommunenummer=self.kommunenummer, limit=self.antall)
        return listed, overdue(connection, now)


def frist_router(store: StatusStore, check_avsender: Check, clock: Clock) -> APIRouter:
    """Return the route of the overdue list."""
    router = APIRouter(tags=["avsender"])

    @router.get(PATH)
    async def frister(
        response: Response,
        authorization: Authorization = None,
        kommunenummer: str | None = None,
        innen: str = "0s",
        antall: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 100,
    ) -> dict[str, Any]:
        """List what is past its deadline, or will be within ``innen`` (``6h``), who has waited longest first."""
        response.headers["Cache-Control"] = "no-store"
        await check_avsender(authorization)
        asked, now = _asked(kommunenummer, innen, antall), clock()
        listed, late = await store.read(lambda connection: asked.answer(connection, now))
        return overdue_view(listed, late, now)

    _ = frister
    return router


def overdue_view(listed: list[Frist], late: Overdue, now: datetime) -> dict[str, Any]:
    """Return the list for machines.

    Returns:
        ``{tidspunkt, antall, kommuner: [{kommunenummer, arsak, antall}], frister: [{digisosId, meldingId, kommunenummer, kanal,
        arsak, kode, akseptert, forfall, ventetS, overS}]}``: ``antall`` and ``kommuner`` count all that is late now; ``overS`` is
        negative for what is only near.
    """
    return {
        "tidspunkt": timestamp(now),
        "antall": sum(late.counts.values()),
        "kommuner": [
            {"kommunenummer": kommunenummer, "arsak": arsak, "antall": antall}
            for (kommunenummer, arsak), antall in sorted(late.counts.items())
        ],
        "frister": [_line(one, now) for one in listed],
    }


def _line(one: Frist, now: datetime) -> dict[str, Any]:
    return {
        "digisosId": one.digisos_id,
        "meldingId": one.melding_id,
        "kommunenummer": one.kommunenummer,
        "kanal": one.kanal,
        "arsak": one.arsak,
        "kode": one.kode,
        "akseptert": timestamp(one.akseptert),
        "forfall": timestamp(one.forfall),
        "ventetS": round((now - one.akseptert).total_seconds()),
        "overS": round((now - one.forfall).total_seconds()),
    }


def _asked(kommunenummer: str | None, innen: str, antall: int) -> _Asked:
    try:
        return _Asked(Kommunenummer(kommunenummer) if kommunenummer else None, parse_duration(innen), antall)
    except InvalidNameError as error:
        raise FiksError(400, str(error)) from None
