"""The simulated fagsystem over HTTP: what ``consumers.connectors.http`` speaks with."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from broker.web import FiksError, Health, health_router, install_fiks_errors
from consumers.simulator.archive import Archive, Stored
from schemas.digisos_soker_json import FILENAME
from schemas.errors import InvalidNameError
from schemas.names import Kommunenummer, MeldingId
from schemas.records import SOKNAD

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from broker.clock import Clock
    from consumers.simulator.case import CasePlan, Styring, Switches

PAGE: Final = 100
GARBAGE: Final = b"<html>\xff\x00<b>Proxy Error</b>"
_DONE: Final = {"MOTTATT": 201, "LEVERT": 202, "AVVIST": 422}


class HttpFagsystem:
    """Receives søknader, remembers them, and tells what becomes of them.

    Args:
        folder: Where everything is kept.
        switches: The operator's.
        plan: How cases go on.
        clock: What the time is.
    """

    def __init__(self, folder: Path, *, switches: Switches, plan: CasePlan, clock: Clock) -> None:
        self._folder = folder
        self.switches = switches
        self._plan = plan
        self._clock = clock
        self._archives: dict[str, Archive] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._changed = asyncio.Event()
        for path in folder.iterdir() if folder.is_dir() else ():
            self.archive(Kommunenummer(path.name))

    def archive(self, kommunenummer: Kommunenummer) -> Archive:
        """Return the kommune's archive."""
        if kommunenummer not in self._archives:
            self._archives[kommunenummer] = Archive(self._folder / kommunenummer)
        return self._archives[kommunenummer]

    async def be_slow(self, kommunenummer: Kommunenummer) -> None:
        """Let a slow fagsystem's time pass; it ends early when its operator changes a switch."""
        styring = self.switches.of(kommunenummer)
        if styring.tilstand == "treg":
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), styring.treghet_s)

    def change(self, kommunenummer: Kommunenummer | None, change: Mapping[str, Any]) -> Styring:
        """Change one kommune's switches, or everybody's; pydantic's ``ValidationError`` if one is wrong."""
        changed = self.switches.change(kommunenummer, change) if kommunenummer else self.switches.change_all(change)
        self._changed.set()
        self._changed = asyncio.Event()
        return changed

    async def receive(
        self, kommunenummer: Kommunenummer, leveranse: Mapping[str, Any], files: list[tuple[str, BinaryIO]]
    ) -> tuple[int, dict[str, str]]:
        """Store a søknad once, and return the HTTP status and body to answer with."""
        archive, melding_id = self.archive(kommunenummer), str(leveranse["meldingId"])
        async with self._locks.setdefault(melding_id, asyncio.Lock()):
            earlier = archive.stored.get(melding_id)
            if earlier is not None:
                return 409, {"status": earlier.status, "kode": earlier.kode}
            styring = self.switches.of(kommunenummer)
            kode = styring.rejection(leveranse)
            status = "AVVIST" if kode else "MOTTATT" if styring.svar == "straks" else "LEVERT"
            svar = Stored(leveranse, status, kode or "", self._clock())
            await asyncio.to_thread(archive.keep, leveranse, files, svar)
            return _DONE[status], {"status": status, "kode": svar.kode}

    def tick(self) -> None:
        """Tell what is due: answers that come later, and how cases go on."""
        now = self._clock()
        for number, archive in tuple(self._archives.items()):
            styring = self.switches.of(number)
            if styring.tilstand == "nede":
                continue
            for melding_id, stored in tuple(archive.stored.items()):  # a thread may store one meanwhile
                if stored.status == "LEVERT" and melding_id not in archive.answered:
                    archive.tell({"type": "MOTTATT", "meldingId": melding_id})
                if styring.oppdater and stored.status != "AVVIST" and stored.leveranse.get("type") == SOKNAD:
                    self._go_on(archive, stored, self._plan.due(stored.at, now))

    def _go_on(self, archive: Archive, stored: Stored, due: int) -> None:
        digisos_id = str(stored.leveranse["digisosId"])
        for number in range(archive.updates[digisos_id] + 1, due + 1):
            document = self._plan.document(stored.at, number, stored.leveranse.get("enhetsnummer"))
            filer = [{"filnavn": FILENAME, "innhold": base64.b64encode(document).decode()}]
            archive.tell({"type": "OPPDATERING", "digisosId": digisos_id, "filer": filer})


def make_app(fagsystem: HttpFagsystem, health: Health) -> FastAPI:
    """Return the fagsystem's HTTP doors: søknader, hendelser, and ``/styring`` for its operator."""
    app = FastAPI(title="Simulert fagsystem", openapi_url=None)
    install_fiks_errors(app, large_bodies=lambda scope: scope["path"].endswith("/soknader"))  # with all their files
    app.include_router(health_router(health))

    @app.put("/styring")
    async def change_all(change: dict[str, Any]) -> JSONResponse:
        return _answer(lambda: fagsystem.change(None, change).model_dump(by_alias=True, mode="json"))

    @app.put("/styring/{kommunenummer}")
    async def change(kommunenummer: str, change: dict[str, Any]) -> JSONResponse:
        number = _number(kommunenummer)
        return _answer(lambda: fagsystem.change(number, change).model_dump(by_alias=True, mode="json"))

    @app.get("/styring/{kommunenummer}")
    async def show(kommunenummer: str) -> JSONResponse:
        return JSONResponse(fagsystem.switches.of(_number(kommunenummer)).model_dump(by_alias=True, mode="json"))

    @app.post("/{kommunenummer}/soknader")
    async def soknad(kommunenummer: str, request: Request, idempotency_key: Annotated[str, Header()]) -> Response:
        number = _number(kommunenummer)
        await fagsystem.be_slow(number)
        styring = fagsystem.switches.of(number)
        if (error := _failure(styring)) is not None:
            return error
        async with request.form(max_files=1000) as form:
            files = [each for each in form.getlist("fil") if isinstance(each, UploadFile)]
            leveranse = await _leveranse(form.get("leveranse"), idempotency_key)
            status, body = await fagsystem.receive(number, leveranse, _named(leveranse, files))
        if styring.svar_tapt_neste:
            styring.svar_tapt_neste -= 1
            raise FiksError(504, "svaret ble borte på veien")
        return JSONResponse(body, status_code=status)

    @app.get("/{kommunenummer}/hendelser")
    async def hendelser(kommunenummer: str, etter: str = "") -> Response:
        number = _number(kommunenummer)
        styring = fagsystem.switches.of(number)
        _check_up(styring)
        if styring.tull:
            return Response(GARBAGE)
        return JSONResponse({"hendelser": fagsystem.archive(number).after(etter, PAGE)})

    _ = change_all, change, show, soknad, hendelser
    return app


def _check_up(styring: Styring) -> None:
    if styring.tilstand == "nede":
        raise FiksError(503, "fagsystemet er nede")


def _failure(styring: Styring) -> Response | None:
    """Fail as the operator asked for; None when there is nothing to fail with. Uses up one of ``feil_neste``."""
    _check_up(styring)
    if not styring.feil_neste:
        return None
    styring.feil_neste -= 1
    if styring.tull:
        return Response(GARBAGE, status_code=styring.feil_status)
    raise FiksError(styring.feil_status, "fagsystemet feilet")


def _named(leveranse: Mapping[str, Any], files: list[UploadFile]) -> list[tuple[str, BinaryIO]]:
    """Give each file the name that leveranse has at its place: a header's filename is only as good as its parser."""
    names = [str(each["filnavn"]) for each in leveranse.get("filer", ())]
    if len(names) != len(files):
        raise FiksError(400, "leveransen har ikke like mange filer som den nevner")
    return [(name, file.file) for name, file in zip(names, files, strict=True)]


def _answer(act: Any) -> JSONResponse:
    try:
        return JSONResponse(act())
    except ValidationError as error:
        fields = "; ".join(".".join(map(str, one["loc"])) for one in error.errors(include_input=False))
        raise FiksError(400, f"styring: ugyldige felt: {fields}") from None


def _number(text: str) -> Kommunenummer:
    try:
        return Kommunenummer(text)
    except InvalidNameError as error:
        raise FiksError(404, str(error)) from None


async def _leveranse(part: UploadFile | str | None, idempotency_key: str) -> dict[str, Any]:
    content = await part.read() if isinstance(part, UploadFile) else (part or "").encode()
    try:
        leveranse: dict[str, Any] = json.loads(content)
        melding_id = MeldingId(str(leveranse["meldingId"]))
    except (ValueError, KeyError, TypeError, InvalidNameError):
        raise FiksError(400, "delen leveranse mangler eller er ugyldig") from None
    if melding_id != idempotency_key:
        raise FiksError(400, "Idempotency-Key er ikke leveransens meldingId")
    return leveranse
