from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from producers import status_client
from producers.status_client import StatusClient, is_final
from schemas.errors import RefusedError
from schemas.names import DigisosId

ID = DigisosId("3fa85f64-5717-4562-b3fc-2c963f66afa6")


def make_client(*answers: httpx.Response) -> tuple[StatusClient, list[httpx.Request]]:
    waiting, seen = list(answers), list[httpx.Request]()

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return waiting.pop(0)

    return StatusClient("https://innsyn.test/", httpx.AsyncClient(transport=httpx.MockTransport(handle)), "t"), seen


def stream(*events: str) -> httpx.Response:
    return httpx.Response(200, text="".join(f"{event}\n\n" for event in events))


async def views(client: StatusClient, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async for view in client.follow(ID):
        found.append(view)
        if len(found) == count:
            break
    return found


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_client, "RETRY_S", 0)


async def test_the_status_is_asked_for_with_the_citizens_token() -> None:
    client, seen = make_client(httpx.Response(200, json={"status": "SENDT"}))
    assert await client.get(ID) == {"status": "SENDT"}
    assert seen[0].headers["authorization"] == "Bearer t"
    assert seen[0].url.path == f"/innsyn/v1/soknader/{ID}"


async def test_a_stream_that_ends_is_opened_again_after_the_last_event() -> None:
    client, seen = make_client(
        stream(": hei", 'id: 1\nevent: status\ndata: {"nr": 1}', 'event: annet\ndata: {"nr": 9}'),
        stream('id: 2\nevent: status\ndata: {"nr":\ndata: 2}'),
    )
    assert await views(client, 2) == [{"nr": 1}, {"nr": 2}]
    assert seen[1].headers["last-event-id"] == "1"


async def test_a_soknad_that_is_not_known_yet_is_asked_for_again() -> None:
    event = f"id: 1\nevent: status\ndata: {json.dumps({'status': 'SENDT'})}"
    client, seen = make_client(httpx.Response(404), httpx.Response(403), stream(event))
    assert await views(client, 1) == [{"status": "SENDT"}]
    assert len(seen) == 3


async def test_patience_with_an_unknown_soknad_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_client, "UNKNOWN_PATIENCE_S", -1)
    client, _ = make_client(httpx.Response(404, json={"message": "ukjent"}))
    with pytest.raises(RefusedError, match="ukjent"):
        await views(client, 1)


def test_a_case_that_is_closed_is_final() -> None:
    assert is_final({"status": "FERDIGBEHANDLET"})
    assert is_final({"status": "SENDT_PA_PAPIR"})
    assert not is_final({"status": "MOTTATT"})
