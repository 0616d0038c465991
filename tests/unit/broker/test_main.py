from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import httpx
import pytest

from broker.__main__ import main


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    katalog = tmp_path / "katalog.yaml"
    katalog.write_text("kommuner: []\n", "utf-8")
    number = free_port()
    monkeypatch.setenv("FORMIDLER_BROKER_PORT", str(number))
    monkeypatch.setenv("FORMIDLER_BROKER_KATALOG", str(katalog))
    monkeypatch.setenv("FORMIDLER_KAFKA_BOOTSTRAP", f"127.0.0.1:{free_port()}")  # where nobody is
    return number


async def answer(port: int, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        while True:
            try:
                return await http.get(path)
            except httpx.ConnectError:
                await asyncio.sleep(0.01)


async def test_the_process_begins_serves_and_stops_while_kafka_is_away(port: int) -> None:
    stop = asyncio.Event()
    async with asyncio.timeout(20):
        process = asyncio.create_task(main(stop))
        assert (await answer(port, "/isalive")).text == "ALIVE"
        ready = await answer(port, "/isready")
        assert (ready.status_code, list(ready.json()["mangler"])) == (503, ["katalog"])
        assert (await answer(port, "/katalog/v1/kommuner")).status_code == 200
        assert not process.done()
        stop.set()
        await process
