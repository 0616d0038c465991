from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker.app import create_app
from broker.issuer import LocalIssuer
from broker.katalog import Katalog
from broker.web import Health


def make_http(katalog: Katalog, issuer: LocalIssuer | None = None) -> httpx.AsyncClient:
    app = create_app(katalog, Health(), issuer)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x")


@pytest.fixture
async def http(make_entry: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with make_http(Katalog([make_entry("0301"), make_entry("4601")])) as client:
        yield client


async def test_the_katalog_is_open_to_read(http: httpx.AsyncClient) -> None:
    everyone = (await http.get("/katalog/v1/kommuner")).json()
    one = (await http.get("/katalog/v1/kommuner/0301")).json()
    assert [entry["kommunenummer"] for entry in everyone] == ["0301", "4601"]
    assert one == everyone[0]
    assert one["sertifikater"][0]["pem"].startswith("-----BEGIN CERTIFICATE-----")


async def test_the_katalog_shows_no_private_key(http: httpx.AsyncClient) -> None:
    assert "PRIVATE" not in (await http.get("/katalog/v1/kommuner")).text


async def test_a_kommune_that_is_not_there_is_a_404(http: httpx.AsyncClient) -> None:
    assert (await http.get("/katalog/v1/kommuner/1103")).status_code == 404


async def test_a_number_of_the_wrong_form_is_a_400(http: httpx.AsyncClient) -> None:
    answer = await http.get("/katalog/v1/kommuner/oslo")
    assert answer.status_code == 400
    assert "oslo" not in answer.json()["message"]


async def test_registry_health_and_metrics_are_there(http: httpx.AsyncClient) -> None:
    for path in ("/registry/subjects", "/isalive", "/isready", "/metrics"):
        assert (await http.get(path)).status_code == 200, path


async def test_tokens_are_handed_out_only_where_an_issuer_is_given(http: httpx.AsyncClient, clock: Any) -> None:
    assert (await http.get("/utsteder/jwks")).status_code == 404
    issuer = LocalIssuer("http://x/utsteder", "a", ec.generate_private_key(ec.SECP256R1()), Katalog(), clock)
    async with make_http(Katalog(), issuer) as local:
        assert (await local.get("/utsteder/jwks")).status_code == 200


async def test_the_doors_describe_themselves(http: httpx.AsyncClient) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    assert {"/katalog/v1/kommuner", "/registry/subjects", "/isready"} <= set(paths)
