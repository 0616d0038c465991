"""Asking a ``producers`` process as the sender's own machine does, for commands."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import httpx

from broker.cli.calling import sender_token
from broker.supervisor.layout import Layout
from producers.http_client import TIMEOUT_S, refused

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

_CONNECT_S: Final = 10.0


class DriftClient:
    """Asks one process.

    Args:
        base_url: Its address, without a path.
        http: Does the calls.
        token: A machine's token whose organisation is the sender.
    """

    def __init__(self, base_url: str, http: httpx.AsyncClient, token: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._http = http
        self._headers = {"Authorization": f"Bearer {token}"}

    async def get(self, path: str, params: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        """Return the answer to a question.

        Raises:
            RefusedError: It said no.
            httpx.HTTPError: It was not reached.
        """
        return document_of(await self._http.get(self._base_url + path, params=params, headers=self._headers))

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to an order; raises as ``get``."""
        return document_of(await self._http.post(self._base_url + path, json=body, headers=self._headers))


def document_of(answer: httpx.Response) -> dict[str, Any]:
    """Return what an answer says.

    Raises:
        RefusedError: It says no.
    """
    if not answer.is_success:
        raise refused(answer)
    document: dict[str, Any] = answer.json()
    return document


@asynccontextmanager
async def drift_client(data: Path, url: str | None = None, token: str | None = None) -> AsyncGenerator[DriftClient]:
    """Return a client of the set-up in ``data``, or of another address.

    Args:
        data: Folder of a running ``formidler up``; not looked at when address and token are given.
        url: The process's address.
        token: A token; fetched with the sender's key in ``data`` when None.

    Raises:
        ConfigurationError: There is no set-up, or its issuer gives no such token.
        httpx.HTTPError: The issuer was not reached.
    """
    async with httpx.AsyncClient(timeout=httpx.Timeout(TIMEOUT_S, connect=_CONNECT_S)) as http:
        bearer = token or await sender_token(http, Layout.load(data))
        yield DriftClient(url or Layout.load(data).address("producers"), http, bearer)
