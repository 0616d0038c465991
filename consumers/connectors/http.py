"""A fagsystem that speaks HTTP: søknader are posted, later answers and case updates are polled.

``POST <url>/soknader``, ``Idempotency-Key: <meldingId>``, multipart/form-data: a part ``leveranse`` (JSON: ids, type, urgency,
and each file's name, mimetype, size and SHA-256), then one part ``fil`` with a filename for each file, in the same order.

=====================  =====================================================================================
200, 201               stored: MOTTATT
202                    taken over, the answer comes later: LEVERT
409                    had it already; the body says what became of it: ``{"status": "MOTTATT"|"LEVERT"|"AVVIST"}``
4xx with ``kode``      no, and never: AVVIST with that reason code
408, 429, 502-504      unavailable; ``Retry-After`` is kept to
401, 403, 404          unavailable: our own set-up is wrong, and no reason to refuse a citizen's søknad
everything else        the fagsystem fails on this søknad
=====================  =====================================================================================

``GET <url>/hendelser?etter=<cursor>`` gives ``{"hendelser": […]}``, oldest first, each with an ``id`` that serves as cursor and a
``type``: MOTTATT or AVVIST (``meldingId``, ``kode``), or OPPDATERING (``digisosId``, ``filer``: ``filnavn`` and ``innhold`` in
base64, ``digisos-soker.json`` among them). The cursor is kept in the connector's state, and moves when all before it is durable.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
from collections import deque
from collections.abc import AsyncIterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from broker.krasj import crash_point
from broker.log import get_logger
from consumers.connector import (
    Avvist,
    ConnectorContext,
    ConnectorEvent,
    ConnectorSpec,
    Leveranse,
    Levert,
    Mottatt,
    Oppdatering,
    Svar,
    SvarAvvist,
    SvarMottatt,
    Vedlagt,
)
from consumers.connectors.leveranse_json import leveranse_json
from schemas.digisos_soker_json import FILENAME
from schemas.errors import (
    ConfigurationError,
    FagsystemFailureError,
    FagsystemUnavailableError,
    InvalidNameError,
    MeldingsformidlerError,
)
from schemas.names import DigisosId, MeldingId

if TYPE_CHECKING:
    from collections.abc import Generator

    from consumers.connector import Settle

CURSOR: Final = "hendelser.etter"

_OK: Final = 200
_STORED: Final = frozenset({200, 201})
_TAKEN_OVER: Final = 202
_CONFLICT: Final = 409
_UNAVAILABLE: Final = frozenset({401, 403, 404, 408, 429, 502, 503, 504})
_CLIENT_ERRORS: Final = range(400, 500)


class HttpSettings(BaseModel):
    """Settings of the http connector."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(
        pattern=r"^https?://", description="Fagsystemets adresse for denne kommunen, uten skråstrek til slutt."
    )
    token_fil: Path | None = Field(default=None, description="Fil med et token som sendes som Authorization: Bearer.")
    tidsgrense_s: float = Field(default=60.0, gt=0, description="Hvor lenge et svar kan vente på seg, i sekunder.")
    intervall_s: float = Field(default=1.0, gt=0, description="Hvor ofte hendelser hentes, i sekunder.")


class _Body(BaseModel):
    """What we look for in an answer; everything else passes."""

    model_config = ConfigDict(hide_input_in_errors=True)

    status: str = ""
    kode: str = ""


class _Fil(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    filnavn: str
    innhold: str


class _Hendelse(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True, alias_generator=to_camel, populate_by_name=True)

    id: str
    type: str
    melding_id: str = ""
    digisos_id: str = ""
    kode: str = ""
    filer: tuple[_Fil, ...] = ()


class _Hendelser(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    hendelser: tuple[_Hendelse, ...]


@dataclass(eq=False)
class _Place:
    """One hendelse's place in the fagsystem's sequence, and whether it is settled."""

    cursor: str
    settled: bool = False


class HttpConnector:
    """Posts søknader and polls for answers; see the module.

    Args:
        settings: The connector's own.
        context: Whom it serves.
        transport: Of httpx, for tests; the network if not given.
    """

    def __init__(
        self, settings: HttpSettings, context: ConnectorContext, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._settings = settings
        self._url = settings.url.rstrip("/")
        self._context = context
        self._http = httpx.AsyncClient(timeout=settings.tidsgrense_s, transport=transport)
        self._places: deque[_Place] = deque()
        self._log = get_logger().bind(kommunenummer=context.kommunenummer)

    async def start(self) -> None:
        """Read the token, if there is one."""
        if self._settings.token_fil is not None:
            try:
                token = await asyncio.to_thread(self._settings.token_fil.read_text, "ascii")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"token_fil: {self._settings.token_fil} kan ikke leses") from error
            self._http.headers["Authorization"] = f"Bearer {token.strip()}"

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def deliver(self, leveranse: Leveranse) -> Svar:
        """Post the søknad; see the module's table."""
        boundary = secrets.token_hex(16)  # unguessable, so that no file can hold it
        headers = {
            "Idempotency-Key": leveranse.melding_id,
            "Content-Type": f"multipart/form-data; boundary={boundary}",
        }
        broken: list[MeldingsformidlerError] = []
        with _mapped():
            answer = await self._http.post(
                f"{self._url}/soknader", content=_watched(_multipart(leveranse, boundary), broken), headers=headers
            )
        if broken:
            raise broken[0]  # an answer to half a søknad is no answer
        return self._svar(answer)

    def _svar(self, answer: httpx.Response) -> Svar:
        code = answer.status_code
        if code in _STORED:
            return Mottatt()
        if code == _TAKEN_OVER:
            return Levert()
        if code in _UNAVAILABLE:
            raise self._unavailable(answer)
        body = _body(answer)
        if code == _CONFLICT and (earlier := _earlier(body)) is not None:
            return earlier
        if code in _CLIENT_ERRORS and body.kode:
            return Avvist(body.kode)
        raise FagsystemFailureError(f"fagsystemet svarte {code}")

    def _unavailable(self, answer: httpx.Response) -> FagsystemUnavailableError:
        wait = retry_after(answer.headers.get("Retry-After", ""), self._context.clock())
        return FagsystemUnavailableError(f"fagsystemet svarte {answer.status_code}", retry_after=wait)

    async def events(self) -> AsyncIterator[ConnectorEvent]:
        """Poll from the kept cursor on."""
        self._places.clear()
        after = await self._context.state.get(CURSOR) or ""
        while True:
            page = await self._fetch(after)
            if page and page[-1].id == after:
                self._log.warning("connector_cursor_stuck", antall=len(page))
                page = ()  # the fagsystem does not heed the cursor: the same page again
            for hendelse in page:
                place = _Place(hendelse.id)
                self._places.append(place)
                after = hendelse.id
                event = await self._event(hendelse, self._settle(place))
                if event is not None:
                    yield event
            if not page:
                await asyncio.sleep(self._settings.intervall_s)

    async def _fetch(self, after: str) -> tuple[_Hendelse, ...]:
        with _mapped():
            answer = await self._http.get(f"{self._url}/hendelser", params={"etter": after})
        if answer.status_code != _OK:
            raise self._unavailable(answer)
        try:
            return _Hendelser.model_validate_json(answer.content).hendelser
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
            raise FagsystemUnavailableError(f"fagsystemets hendelser kan ikke leses: {where}") from None

    async def _event(self, hendelse: _Hendelse, settle: Settle) -> ConnectorEvent | None:
        try:
            return _read(hendelse, settle)
        except (InvalidNameError, ValueError) as error:
            self._log.warning("connector_event_unreadable", type=hendelse.type, exc_info=error)
            await settle(None)  # it will not be better another time, and nobody could be told
        return None

    def _settle(self, place: _Place) -> Settle:
        async def settle(error: MeldingsformidlerError | None) -> None:
            _ = error  # a poll has nobody to tell; the runner has logged it
            place.settled = True
            done = None
            while self._places and self._places[0].settled:
                done = self._places.popleft()
            if done is not None:
                crash_point("consumers.http.before-cursor")
                await self._context.state.put(CURSOR, done.cursor)

        return settle


async def _multipart(leveranse: Leveranse, boundary: str) -> AsyncIterator[bytes]:
    yield _head(boundary, 'name="leveranse"', "application/json") + leveranse_json(leveranse)
    for file in leveranse.files:
        yield b"\r\n" + _head(boundary, f'name="fil"; filename="{_escaped(file.name)}"', file.mimetype)
        async for piece in leveranse.read(file.name):
            yield piece
    yield f"\r\n--{boundary}--\r\n".encode()


async def _watched(body: AsyncIterator[bytes], broken: list[MeldingsformidlerError]) -> AsyncIterator[bytes]:
    """Pass ``body`` on, and note what broke it: not every transport lets an error of the body through."""
    try:
        async for piece in body:
            yield piece
    except MeldingsformidlerError as error:
        broken.append(error)
        raise


def _head(boundary: str, disposition: str, mimetype: str) -> bytes:
    mimetype = mimetype if mimetype.isascii() and mimetype.isprintable() else "application/octet-stream"
    return f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: {mimetype}\r\n\r\n".encode()


def _escaped(name: str) -> str:
    """Return a file name as browsers write it: UTF-8, with what would end the parameter escaped (WHATWG HTML, 4.10.21.8)."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _body(answer: httpx.Response) -> _Body:
    try:
        return _Body.model_validate_json(answer.content)
    except ValidationError:
        return _Body()


def _earlier(body: _Body) -> Svar | None:
    match body.status:
        case "MOTTATT":
            return Mottatt()
        case "LEVERT":
            return Levert()
        case "AVVIST":
            return Avvist(body.kode)
        case _:
            return None


def _read(hendelse: _Hendelse, settle: Settle) -> ConnectorEvent:
    match hendelse.type:
        case "MOTTATT":
            return SvarMottatt(settle, MeldingId(hendelse.melding_id))
        case "AVVIST":
            return SvarAvvist(settle, MeldingId(hendelse.melding_id), hendelse.kode)
        case "OPPDATERING":
            files = {file.filnavn: _decoded(file.innhold) for file in hendelse.filer}
            document = files.pop(FILENAME, b"")
            letters = tuple(Vedlagt(name, content) for name, content in files.items())
            return Oppdatering(settle, DigisosId(hendelse.digisos_id), document, letters)
        case _:
            raise ValueError("a type of hendelse that we do not know")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None


def retry_after(value: str, now: datetime) -> timedelta | None:
    """Return how long a Retry-After header asks us to wait, None if there is none or it says nothing.

    Args:
        value: Seconds, or an HTTP date.
        now: Aware UTC.

    Source: RFC 9110 section 10.2.3.
    """
    if value.isascii() and value.isdigit():
        return timedelta(seconds=min(int(value[:10]), 10**8))
    try:
        moment = parsedate_to_datetime(value)
        return max(moment.replace(tzinfo=moment.tzinfo or UTC) - now, timedelta())
    except (
        ValueError,
        TypeError,
        IndexError,
        OverflowError,
    ):  # what the standard library's parser has been seen to raise
        return None


@contextmanager
def _mapped() -> Generator[None]:
    """Raise httpx's errors as ours. Their texts may hold a URL and no more, but only the class travels."""
    try:
        yield
    except httpx.HTTPError as error:
        raise FagsystemUnavailableError(f"fagsystemet kan ikke nås ({type(error).__name__})") from error


SPEC = ConnectorSpec(
    name="http",
    description="Sender hver søknad til fagsystemet med POST, og henter svar og saksoppdateringer med GET.",
    settings=HttpSettings,
    create=HttpConnector,
)
