from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from producers.drift_client import DriftClient, drift_client
from schemas.errors import ConfigurationError, RefusedError

if TYPE_CHECKING:
    from pathlib import Path


def client(status: int, body: object) -> tuple[DriftClient, list[httpx.Request]]:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(status, json=body)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return DriftClient("https://drift.test/", http, "hemmelig"), seen


async def test_it_asks_with_its_token_and_returns_the_document() -> None:
    asking, seen = client(200, {"antall": 1})
    assert await asking.get("/drift/v1/x", {"antall": 2}) == {"antall": 1}
    assert await asking.post("/drift/v1/y", {"torr": True}) == {"antall": 1}
    assert [str(request.url) for request in seen] == [
        "https://drift.test/drift/v1/x?antall=2",
        "https://drift.test/drift/v1/y",
    ]
    assert {request.headers["authorization"] for request in seen} == {"Bearer hemmelig"}


async def test_a_refusal_is_told_in_the_processs_own_words() -> None:
    asking, _ = client(403, {"message": "bare avsenderens egne maskiner"})
    with pytest.raises(RefusedError, match="egne maskiner") as error:
        await asking.get("/drift/v1/x")
    assert error.value.status == 403


async def test_without_a_set_up_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="formidler up"):
        async with drift_client(tmp_path):
            pass


async def test_with_address_and_token_no_set_up_is_needed(tmp_path: Path) -> None:
    async with drift_client(tmp_path, "https://drift.test", "hemmelig") as asking:
        assert isinstance(asking, DriftClient)
