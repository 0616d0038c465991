from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker.registry_api import MEDIA_TYPE, registry_router
from broker.web import install_fiks_errors
from schemas.records import RECORD_TYPES
from schemas.registry import SCHEMAS, latest, versions


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    install_fiks_errors(app)
    app.include_router(registry_router())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x/registry") as client:
        yield client


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda s: s.subject)
async def test_a_schema_is_given_by_its_id(http: httpx.AsyncClient, schema: Any) -> None:
    answer = await http.get(f"/schemas/ids/{schema.id}")
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert json.loads(answer.json()["schema"]) == json.loads(schema.text)
    used = await http.get(f"/schemas/ids/{schema.id}/versions")
    assert used.json() == [{"subject": schema.subject, "version": schema.version}]


async def test_the_subjects_are_every_kind_of_record(http: httpx.AsyncClient) -> None:
    assert (await http.get("/subjects")).json() == sorted(f"{kind}-value" for kind in RECORD_TYPES)


@pytest.mark.parametrize("asked", ["latest", "-1", "1", "2"])
async def test_a_version_is_given_by_number_or_as_the_latest(http: httpx.AsyncClient, asked: str) -> None:
    body = (await http.get(f"/subjects/soknad-value/versions/{asked}")).json()
    meant = versions("soknad")[0] if asked == "1" else latest("soknad")
    assert (body["subject"], body["version"], body["id"]) == ("soknad-value", meant.version, meant.id)
    assert (await http.get("/subjects/soknad-value/versions")).json() == [1, 2]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/schemas/ids/9999", 40403),
        ("/schemas/ids/9999/versions", 40403),
        ("/subjects/finnes-ikke-value/versions", 40401),
        ("/subjects/soknad/versions", 40401),
        ("/subjects/soknad-value-value/versions", 40401),
        ("/subjects/finnes-ikke-value/versions/1", 40401),
        ("/subjects/soknad-value/versions/999", 40402),
        ("/subjects/soknad-value/versions/x", 40402),
    ],
)
async def test_what_is_not_there_has_confluents_codes(http: httpx.AsyncClient, path: str, code: int) -> None:
    answer = await http.get(path)
    assert (answer.status_code, answer.json()["error_code"]) == (404, code)


@pytest.mark.parametrize("path", ["/config", "/config/soknad-value"])
async def test_compatibility_is_full_and_transitive(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).json() == {"compatibilityLevel": "FULL_TRANSITIVE"}


async def test_the_only_type_is_avro(http: httpx.AsyncClient) -> None:
    assert (await http.get("/schemas/types")).json() == ["AVRO"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/subjects/soknad-value/versions"), ("PUT", "/config"), ("DELETE", "/subjects/soknad-value/versions/1")],
)
async def test_nobody_can_write(http: httpx.AsyncClient, method: str, path: str) -> None:
    assert (await http.request(method, path, json={"schema": "{}"})).status_code == 405


async def test_an_id_that_is_no_number_is_a_400(http: httpx.AsyncClient) -> None:
    assert (await http.get("/schemas/ids/x")).status_code == 400
