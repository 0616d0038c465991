"""What commands that ask a running process share: the sender's own token, and a clean end when nobody answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import typer

from broker.cli.output import EXIT_INTERRUPTED, EXIT_UNREACHABLE, complain
from broker.issuer import SENDER_CLIENT_ID, load_issuer_key
from broker.process_clock import ProcessClock
from broker.runtime import run_command
from broker.tokens import ClientTokens
from crypto.certificates import load_certificate
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from broker.supervisor.layout import Layout

T = TypeVar("T")


def run_calls(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's calls; when an address does not answer, or somebody interrupts, say so and exit.

    Raises:
        MeldingsformidlerError: What went wrong otherwise.
    """
    try:
        return run_command(work)
    except httpx.RequestError as error:
        where = error.request.url.copy_with(path="/", query=None)
        complain(f"{where} svarer ikke ({type(error).__name__}); er `formidler up` i gang?")
        raise typer.Exit(EXIT_UNREACHABLE) from None
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


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
        clock=ProcessClock(layout.clock),  # the issuer follows a clock that was moved
    )
    try:
        return await tokens.access_token()
    except httpx.HTTPStatusError as error:
        raise ConfigurationError("utstederen gir ikke ut token her; oppgi --token") from error
