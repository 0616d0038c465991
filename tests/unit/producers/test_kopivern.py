from __future__ import annotations

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI

from broker.kafka.settings import KafkaSettings
from broker.katalog import KatalogFollower
from broker.web import Health, health_router, install_fiks_errors
from producers.kopivern import Kopivern
from schemas.names import Organisasjonsnummer


def never() -> Any:
    raise AssertionError("nothing is read here")


async def test_the_operators_routes_are_there_and_what_is_held_is_told(world: Any) -> None:
    following = KatalogFollower(world.katalog, never)
    kafka = KafkaSettings(bootstrap="127.0.0.1:1")
    copies = Kopivern(world.kopier, world.katalog, following, kafka, world.clock)
    app, health = FastAPI(), Health()
    install_fiks_errors(app)
    app.include_router(health_router(health))
    copies.install(app, health, world.tokens, Organisasjonsnummer("889640782"))
    entry = world.katalog.get("0301")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://drift.test") as http:
        stranger = await http.get("/drift/v1/avsenderkopier")
        before = (await http.get("/isready")).json()
        world.katalog.put(entry.model_copy(update={"sertifikater": ()}))
        copies.forsegler.refresh()
        after = (await http.get("/isready")).json()

    assert stranger.status_code == 401
    assert before == {"klar": True, "mangler": {}}
    assert after["klar"]
    assert "0301 (ukjent)" in after["merknader"]["sertifikater"]


async def test_it_begins_and_ends_with_the_process(world: Any) -> None:
    following = KatalogFollower(world.katalog, never)
    copies = Kopivern(world.kopier, world.katalog, following, KafkaSettings(bootstrap="127.0.0.1:1"), world.clock)
    async with asyncio.TaskGroup() as tasks:
        copies.start(tasks)
        async with asyncio.timeout(10):
            while copies.forsegler.version == 0:  # noqa: ASYNC110  # the condition is its state, which has no event
                await asyncio.sleep(0.01)
        await copies.stop()
