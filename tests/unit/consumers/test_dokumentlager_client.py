from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from consumers.dokumentlager_client import DokumentlagerClient
from schemas.errors import PackageMissingError, PackageUnavailableError
from schemas.names import DokumentlagerId

DATA = bytes(range(256)) * 40


class Tokens:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.forgotten = 0

    async def access_token(self) -> str:
        if self.error is not None:
            raise self.error
        return f"t{self.forgotten}"

    def forget(self) -> None:
        self.forgotten += 1


class Breaking(httpx.AsyncByteStream):
    def __init__(self, data: bytes) -> None:
        self.data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.data
        raise httpx.ReadError("broken")


class Server:
    """Serves ``DATA``, by ranges, and breaks after so many bytes each time."""

    def __init__(self, *, breaks_after: int | None = None, ranges: bool = True, etag: str = '"x"') -> None:
        self.breaks_after = breaks_after
        self.ranges = ranges
        self.etag = etag
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        wanted = request.headers.get("Range") if self.ranges else None
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        data = DATA[start:]
        status = 206 if wanted else 200
        headers = {"ETag": self.etag}
        if self.breaks_after is not None and len(data) > self.breaks_after:
            return httpx.Response(status, headers=headers, stream=Breaking(data[: self.breaks_after]))
        return httpx.Response(status, headers=headers, content=data)


async def read(server: Any, tokens: Any = None, size: int = len(DATA)) -> bytes:
    async with httpx.AsyncClient(transport=httpx.MockTransport(server)) as http:
        client = DokumentlagerClient("http://lager/", http=http, tokens=tokens or Tokens())
        return b"".join([piece async for piece in client.read(DokumentlagerId.new(), size)])


async def test_a_package_is_read_with_our_token() -> None:
    server = Server()
    assert await read(server) == DATA
    assert server.requests[0].headers["Authorization"] == "Bearer t0"
    assert server.requests[0].url.path.startswith("/dokumentlager/v1/pakker/")


async def test_a_break_is_resumed_where_it_was() -> None:
    server = Server(breaks_after=3000)
    assert await read(server) == DATA
    assert [one.headers.get("Range") for one in server.requests] == [None, "bytes=3000-", "bytes=6000-", "bytes=9000-"]
    assert server.requests[1].headers["If-Range"] == '"x"'


async def test_too_many_breaks_are_an_outage() -> None:
    with pytest.raises(PackageUnavailableError):
        await read(Server(breaks_after=100))


async def test_a_package_that_changed_meanwhile_is_an_outage() -> None:
    with pytest.raises(PackageUnavailableError):
        await read(Server(breaks_after=3000, ranges=False))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, PackageMissingError),
        (401, PackageUnavailableError),
        (403, PackageUnavailableError),
        (416, PackageUnavailableError),
        (500, PackageUnavailableError),
        (503, PackageUnavailableError),
        (302, PackageUnavailableError),
    ],
)
async def test_every_other_answer_is_ours_to_wait_out_but_missing(status: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        await read(lambda _: httpx.Response(status))


async def test_nobody_there_and_no_token_are_outages() -> None:
    def nobody(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("nobody", request=request)

    with pytest.raises(PackageUnavailableError):
        await read(nobody)
    with pytest.raises(PackageUnavailableError):
        await read(Server(), Tokens(httpx.ConnectError("no issuer")))


@pytest.mark.parametrize("error", [json.JSONDecodeError("x", "<html>", 0), KeyError("access_token"), TypeError()])
async def test_an_issuer_that_answers_something_else_is_an_outage(error: Exception) -> None:
    with pytest.raises(PackageUnavailableError):
        await read(Server(), Tokens(error))


async def test_a_token_that_is_refused_is_fetched_anew_and_tried_once_more() -> None:
    server, tokens = Server(), Tokens()

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401) if request.headers["Authorization"] == "Bearer t0" else server(request)

    assert await read(answer, tokens) == DATA
    assert tokens.forgotten == 1


async def test_a_new_token_that_is_refused_too_is_not_tried_for_ever() -> None:
    tokens, asked = Tokens(), []

    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["Authorization"])
        return httpx.Response(401)

    with pytest.raises(PackageUnavailableError):
        await read(refuse, tokens)
    assert asked == ["Bearer t0", "Bearer t1"]


async def test_an_endless_answer_is_cut_off_behind_its_size() -> None:
    assert len(await read(Server(), size=100)) > 100
