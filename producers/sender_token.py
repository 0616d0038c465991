"""A token of the sender's own machine, for commands beside a running ``formidler up``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from broker.issuer import SENDER_CLIENT_ID, load_issuer_key
from broker.process_clock import ProcessClock
from broker.tokens import ClientTokens
from crypto.certificates import load_certificate
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from broker.supervisor.layout import Layout


async def sender_token(http: httpx.AsyncClient, layout: Layout) -> str:
    """Return a token of the sender's own machine from the issuer of a running ``formidler up``.

    Raises:
        ConfigurationError: Its issuer does not issue such tokens.
    """
    tokens = ClientTokens(
        f"{layout.issuer_url}/token",
        issuer=layout.issuer_url,
        client_id=SENDER_CLIENT_ID,
        key=load_issuer_key(layout.key("avsender")),
        certificate=load_certificate(layout.certificate("avsender")),
        http=http,
        clock=ProcessClock(layout.clock),
    )
    try:
        return await tokens.access_token()
    except httpx.HTTPStatusError as error:
        raise ConfigurationError("utstederen gir ikke ut token her; oppgi --token") from error
