"""Reading a søknad's status once, or as it changes: as its citizen does (server-sent events), or as the sender's machine does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Final

import orjson

from producers.http_client import refused
from schemas.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from schemas.names import DigisosId

FINAL: Final = frozenset({"FERDIGBEHANDLET", "BEHANDLES_IKKE", "SENDT_PA_PAPIR"})
"""A letter closes the digital way; the kommune may still write about the case, and the status follows it."""
UNKNOWN_PATIENCE_S: Final = 15.0
"""How long a søknad that was just sent may be unknown to the status API, which learns of it over Kafka."""
RETRY_S: Final = 0.3

_NOT_KNOWN_YET: Final = frozenset({403, 404})


def is_final(view: dict[str, Any]) -> bool:
    """Return whether nothing more is expected to happen, short of a case that is reopened."""
    return view["status"] in FINAL


class StatusClient:
    """Asks the status API of one kvittering process.

    Args:
        base_url: Its address, without a path.
        http: Does the calls.
        token: The citizen's access token.
    """

    PATH: ClassVar[str] = "/innsyn/v1/soknader"

    def __init__(self, base_url: str, http: httpx.AsyncClient, token: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._http = http
        self._headers = {"Authorization": f"Bearer {token}"}

    async def get(self, digisos_id: DigisosId) -> dict[str, Any]:
        """Return the status now: ``{digisosId, kommunenummer, status, oppdatert, historikk, kvitteringer}``.

        Raises:
            RefusedError: Not known, or not this citizen's.
            httpx.HTTPError: The address does not answer.
        """
        answer = await self._http.get(self._url(digisos_id), headers=self._headers)
        if not answer.is_success:
            raise refused(answer)
        view: dict[str, Any] = answer.json()
        return view

    async def follow(self, digisos_id: DigisosId) -> AsyncIterator[dict[str, Any]]:
        """Return the status now and at each change, without an end; a stream that ends is opened again.

        Raises:
            RefusedError: Not known after ``UNKNOWN_PATIENCE_S``, or not this citizen's.
            httpx.HTTPError: The address does not answer.
        """
        loop = asyncio.get_running_loop()
        patience = loop.time() + UNKNOWN_PATIENCE_S
        last_id = ""
        while True:
            headers = self._headers | ({"Last-Event-ID": last_id} if last_id else {})
            url = f"{self._url(digisos_id)}/hendelser"
            async with self._http.stream("GET", url, headers=headers, timeout=None) as answer:
                if answer.status_code in _NOT_KNOWN_YET and not last_id and loop.time() < patience:
                    await answer.aread()
                elif not answer.is_success:
                    await answer.aread()
                    raise refused(answer)
                else:
                    async for event_id, view in _events(answer.aiter_lines()):
                        last_id = event_id
                        yield view
            await asyncio.sleep(RETRY_S)

    def _url(self, digisos_id: DigisosId) -> str:
        return f"{self._base_url}{self.PATH}/{digisos_id}"


class SenderStatusClient(StatusClient):
    """Asks as the sender's own machine does, who needs no citizen's token and sees what operators see.

    Args:
        base_url: Its address, without a path.
        http: Does the calls.
        token: A machine's token whose consumer is the sender.
    """

    PATH: ClassVar[str] = "/drift/v1/soknader"

    async def follow(self, digisos_id: DigisosId) -> AsyncIterator[dict[str, Any]]:
        """Return the status now and at each change, without an end; see ``StatusClient.follow``."""
        loop = asyncio.get_running_loop()
        patience = loop.time() + UNKNOWN_PATIENCE_S
        shown: dict[str, Any] | None = None
        while True:
            try:
                view = await self.get(digisos_id)
            except RefusedError as error:
                if error.status not in _NOT_KNOWN_YET or shown is not None or loop.time() > patience:
                    raise
            else:
                if view != shown:
                    yield view
                shown = view
            await asyncio.sleep(RETRY_S)


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Return the ``status`` events of a stream, each with its id.

    Source: WHATWG HTML, section 9.2 (Server-sent events).
    """
    fields: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and "data" in fields else value
            continue
        if fields.get("event") == "status" and "data" in fields:
            yield fields.get("id", ""), orjson.loads(fields["data"])
        fields = {}
