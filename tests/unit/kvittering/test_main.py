from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

import httpx

from crypto.certificates import certificate_pem
from crypto.keys import write_private_key
from kvittering.__main__ import main
from schemas.names import Organisasjonsnummer

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_settings(folder: Path, kit: Any, oslo: Any) -> dict[str, str]:
    certificate, key = oslo.authority.issue(
        "innsyn", Organisasjonsnummer("889640782"), purpose="kryptering", now=kit.now, key="rsa3072"
    )
    write_private_key(folder / "innsyn-key.pem", key)
    (folder / "innsyn.pem").write_bytes(certificate_pem(certificate))
    (folder / "eier").write_text("ab" * 32)
    (folder / "eier").chmod(0o600)
    return {
        "FORMIDLER_KAFKA_BOOTSTRAP": f"127.0.0.1:{unused_port()}",
        "FORMIDLER_KVITTERING_PORT": str(unused_port()),
        "FORMIDLER_KVITTERING_DATABASE": str(folder / "k.sqlite"),
        "FORMIDLER_KVITTERING_EIER_KEY": str(folder / "eier"),
        "FORMIDLER_KVITTERING_INNSYN_KEYS": json.dumps([str(folder / "innsyn-key.pem"), str(folder / "innsyn.pem")]),
        "FORMIDLER_KVITTERING_ISSUER": "http://utsteder",
        "FORMIDLER_KVITTERING_JWKS_URL": "http://127.0.0.1:9/jwks",
    }


async def answer(http: httpx.AsyncClient, path: str) -> httpx.Response:
    async with asyncio.timeout(20):
        while True:
            try:
                return await http.get(path)
            except httpx.ConnectError:
                await asyncio.sleep(0.01)


async def test_it_starts_and_serves_while_kafka_is_away_and_says_that_it_is_not_ready(
    kit: Any, oslo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(tmp_path, kit, oslo)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    stop = asyncio.Event()
    running = asyncio.create_task(main(stop))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings['FORMIDLER_KVITTERING_PORT']}") as http:
        alive, ready = await answer(http, "/isalive"), await answer(http, "/isready")
    stop.set()
    async with asyncio.timeout(20):
        await running
    assert alive.status_code == 200
    assert ready.status_code == 503
    assert "katalog" in ready.json()["mangler"]
