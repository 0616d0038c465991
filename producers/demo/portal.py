"""The day's citizens: tokens, submission as NAV's clients do it, and status as the portal follows it. All over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import httpx
from cryptography import x509

from broker.supervisor.layout import Layout
from producers.demo.plan import PlannedSoknad
from producers.dokument import Dokument
from producers.http_client import Sent, SoknadClient
from schemas.names import DigisosId, Fodselsnummer

TIMEOUT_S: Final = 60.0
KNOWN_WITHIN_S: Final = 30.0
ASK_AGAIN_S: Final = 0.05
_DATA: Final = "data:"


@dataclass(frozen=True)
class Portal:
    """What a portal holds while it serves citizens.

    Attributes:
        http: Does every call.
        issuer_url: Where tokens come from.
        status_url: Base URL of the status API.
        client: Sends søknader.
    """

    http: httpx.AsyncClient
    issuer_url: str
    status_url: str
    client: SoknadClient

    @classmethod
    def of(cls, layout: Layout, http: httpx.AsyncClient) -> Portal:
        """Return the portal of a set-up that is up."""
        client = SoknadClient(layout.address("producers"), http)
        return cls(http, layout.issuer_url, layout.address("kvittering"), client)

    async def token(self, person: Fodselsnummer) -> str:
        """Return a citizen's token from the local issuer."""
        answer = await self.http.post(f"{self.issuer_url}/utvikling/borgertoken", json={"pid": str(person)})
        return str(answer.raise_for_status().json()["access_token"])

    async def public_key(self, person: Fodselsnummer) -> x509.Certificate:
        """Return the certificate that files are encrypted for."""
        return await self.client.public_key(await self.token(person))

    async def send(self, soknad: PlannedSoknad, certificate: x509.Certificate) -> Sent:
        """Send a søknad."""
        return await self.client.send(
            soknad.kommunenummer,
            soknad.ref,
            soknad_json=soknad.soknad_json,
            vedlegg_json=soknad.vedlegg_json,
            files=[Dokument.of_bytes(d.filnavn, d.data, d.mimetype) for d in soknad.documents],
            token=await self.token(soknad.person),
            encrypt_for=certificate,
        )

    async def follow(self, digisos_id: DigisosId, person: Fodselsnummer) -> AsyncIterator[dict[str, Any]]:
        """Yield the citizen's view each time it changes, from the server-sent events.

        The status is read from topics, a moment behind the 202. Until then a søknad is unknown, which is answered as
        somebody else's: 403. So that answer is asked again for a while.

        Raises:
            httpx.HTTPStatusError: The status API refuses, or does not know the søknad within half a minute.
        """
        url = f"{self.status_url}/innsyn/v1/soknader/{digisos_id}/hendelser"
        headers = await self._headers(person)
        deadline = asyncio.get_running_loop().time() + KNOWN_WITHIN_S
        while True:
            async with self.http.stream("GET", url, headers=headers) as answer:
                late = asyncio.get_running_loop().time() > deadline
                if answer.status_code != HTTPStatus.FORBIDDEN or late:
                    answer.raise_for_status()
                    async for line in answer.aiter_lines():
                        if line.startswith(_DATA):
                            yield json.loads(line.removeprefix(_DATA))
                    return
            await asyncio.sleep(ASK_AGAIN_S)

    async def bundle(self, digisos_id: DigisosId, person: Fodselsnummer) -> dict[str, Any]:
        """Return the kvitteringer with their certificates, for offline verification."""
        url = f"{self.status_url}/innsyn/v1/soknader/{digisos_id}/kvitteringer"
        answer = await self.http.get(url, headers=await self._headers(person))
        return dict(answer.raise_for_status().json())

    async def status_code(self, digisos_id: DigisosId, person: Fodselsnummer) -> int:
        """Return the HTTP status that ``person`` gets for this søknad."""
        url = f"{self.status_url}/innsyn/v1/soknader/{digisos_id}"
        return (await self.http.get(url, headers=await self._headers(person))).status_code

    async def _headers(self, person: Fodselsnummer) -> dict[str, str]:
        return {"Authorization": f"Bearer {await self.token(person)}"}
