"""The day's citizens: tokens, submission as NAV's clients do it, and status as the portal follows it. All over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import httpx
from cryptography import x509

from broker.supervisor.layout import Layout
from producers.demo.plan import PlannedSoknad
from producers.dokument import Dokument
from producers.http_client import Sent, SoknadClient
from producers.status_client import StatusClient
from schemas.names import DigisosId, Fodselsnummer

TIMEOUT_S: Final = 60.0


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
        """Yield the citizen's view each time it changes, from the server-sent events."""
        client = StatusClient(self.status_url, self.http, await self.token(person))
        async for view in client.follow(digisos_id):
            yield view

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
