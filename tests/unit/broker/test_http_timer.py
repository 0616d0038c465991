from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY

from broker.web import install_fiks_errors


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = FastAPI()
    install_fiks_errors(app)

    @app.get("/ting/{nr}")
    async def ting(nr: int) -> int:
        return nr

    _ = ting
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def count(**labels: str) -> float:
    return REGISTRY.get_sample_value("http_server_request_duration_seconds_count", labels) or 0.0


async def test_a_request_is_counted_by_its_routes_template_and_not_by_its_path(client: httpx.AsyncClient) -> None:
    before = count(method="GET", route="/ting/{nr}", status="200")
    async with client:
        await client.get("/ting/1")
        await client.get("/ting/2")
    assert count(method="GET", route="/ting/{nr}", status="200") == before + 2
    assert count(method="GET", route="/ting/1", status="200") == 0


async def test_a_path_that_no_route_has_is_one_series_whatever_it_is(client: httpx.AsyncClient) -> None:
    before = count(method="GET", route="ukjent", status="404")
    async with client:
        await client.get("/finnes-ikke-1")
        await client.get("/finnes-ikke-2")
    assert count(method="GET", route="ukjent", status="404") == before + 2


async def test_a_method_that_a_client_invents_is_counted_with_all_its_like(client: httpx.AsyncClient) -> None:
    before = count(method="_OTHER", route="/ting/{nr}", status="405")
    async with client:
        await client.request("FOO", "/ting/1")
        await client.request("BAR", "/ting/1")
    found = count(method="_OTHER", route="/ting/{nr}", status="405")
    assert found == before + 2
