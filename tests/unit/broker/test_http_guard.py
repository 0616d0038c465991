from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI

from broker import http_guard
from broker.web import Health, health_router, serve

REQUEST = b"GET /isalive HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(http_guard, "HEADERS_WITHIN_S", 0.3)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = int(probe.getsockname()[1])
    app, stop = FastAPI(), asyncio.Event()
    app.include_router(health_router(Health()))

    @app.get("/slow")
    async def slow() -> str:
        loop = asyncio.get_running_loop()
        later = loop.time() + 2 * http_guard.HEADERS_WITHIN_S
        while loop.time() < later:  # noqa: ASYNC110  # time itself is what must pass
            await asyncio.sleep(0.01)
        return "done"

    _ = slow
    serving = asyncio.create_task(serve(app, "127.0.0.1", free, stop))
    yield free
    stop.set()
    await serving


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(10):
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("beginning", [b"", b"GET /isalive HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_connection_that_never_says_what_it_wants_is_closed(port: int, beginning: bytes) -> None:
    reader, writer = await connect(port)
    writer.write(beginning)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_a_client_that_sends_its_headers_byte_by_byte_is_closed_in_time(port: int) -> None:
    reader, writer = await connect(port)

    async def drip() -> None:
        writer.write(b"GET /isalive HTTP/1.1\r\nX-Slow: ")
        while True:
            writer.write(b"a")
            await asyncio.sleep(0.01)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    dripping.cancel()
    writer.close()


async def test_a_second_request_on_a_connection_is_held_to_the_same_time(port: int) -> None:
    reader, writer = await connect(port)
    writer.write(REQUEST)
    async with asyncio.timeout(5):
        await reader.readuntil(b"ALIVE")
        writer.write(REQUEST[:20])
        assert await reader.read() == b""
    writer.close()


async def test_an_answer_that_takes_its_time_is_not_cut_off(port: int) -> None:
    reader, writer = await connect(port)
    writer.write(REQUEST.replace(b"/isalive", b"/slow"))
    async with asyncio.timeout(5):
        assert b"done" in await reader.readuntil(b"done")
    writer.close()
