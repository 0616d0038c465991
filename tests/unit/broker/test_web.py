from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.types import Scope
from structlog.testing import capture_logs

from broker import web
from broker.body_limit import MAX_BODY_BYTES
from broker.runtime import INSTANCE_ENV, INSTANCE_HEADER
from broker.web import (
    FiksError,
    Health,
    health_router,
    install_fiks_errors,
    serve,
)
from schemas.errors import (
    BrokerUnavailableError,
    ConfigurationError,
    InvalidDocumentError,
    MeldingsformidlerError,
    UnsealError,
)

FIELDS = {"timestamp", "status", "error", "errorId", "path", "originalPath", "message", "errorCode", "errorJson"}


class _Body(BaseModel):
    navn: str
    antall: int


def make_app() -> FastAPI:
    app = FastAPI()
    install_fiks_errors(app)

    @app.get("/fiks/{what}")
    async def fiks(what: str) -> None:
        raise FiksError(413, f"del 2 er for stor ({len(what)})", error_code="stor", headers={"Retry-After": "7"})

    @app.get("/ours/{what}")
    async def ours(what: str) -> None:
        errors: dict[str, MeldingsformidlerError] = {
            "broker": BrokerUnavailableError("Kafka svarer ikke"),
            "document": InvalidDocumentError("soknad.json", "data", "mangler"),
            "unseal": UnsealError(),
            "configuration": ConfigurationError("oppsett"),
        }
        raise errors[what]

    @app.post("/body")
    async def body(body: _Body) -> None:
        raise AssertionError(body)

    @app.get("/crash")
    async def crash() -> None:
        raise ZeroDivisionError("Kari Nordmann")

    _ = fiks, ours, body, crash
    return app


async def ask(method: str, path: str, **options: object) -> httpx.Response:
    transport = httpx.ASGITransport(make_app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        return await http.request(method, path, **options)  # type: ignore[arg-type]  # the test's own keywords


async def test_an_error_has_fiks_shape() -> None:
    answer = await ask("GET", "/fiks/abc?a=b")
    body = answer.json()
    assert answer.status_code == 413
    assert set(body) == FIELDS
    assert (body["status"], body["errorCode"], body["errorJson"]) == (413, "stor", None)
    assert body["error"] in {"Request Entity Too Large", "Content Too Large"}  # Python's own name for 413 changed
    assert body["message"] == "del 2 er for stor (3)"
    assert body["path"] == body["originalPath"] == "/fiks/abc"
    assert UUID(body["errorId"])
    assert isinstance(body["timestamp"], int)
    assert answer.headers["Retry-After"] == "7"


@pytest.mark.parametrize(
    ("what", "status", "code"),
    [
        ("broker", 503, "transport.megler-utilgjengelig"),
        ("document", 400, "kontrakt.ugyldig-dokument"),
        ("unseal", 400, "krypto.apning"),
        ("configuration", 500, "oppsett"),
    ],
)
async def test_our_own_errors_get_the_status_that_says_whose_fault_it_is(what: str, status: int, code: str) -> None:
    answer = await ask("GET", f"/ours/{what}")
    assert (answer.status_code, answer.json()["errorCode"]) == (status, code)
    assert set(answer.json()) == FIELDS


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/finnes-ikke", 404), ("POST", "/crash", 405)])
async def test_an_unknown_path_and_a_wrong_method_have_the_same_shape(method: str, path: str, status: int) -> None:
    answer = await ask(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == FIELDS


async def test_a_wrong_method_says_which_are_right() -> None:
    assert (await ask("POST", "/crash")).headers["Allow"] == "GET"


async def test_a_broken_body_names_the_field_and_never_the_value() -> None:
    answer = await ask("POST", "/body", json={"navn": "Kari", "antall": "Nordmann"})
    assert answer.status_code == 400
    assert "body.antall" in answer.json()["message"]
    assert "Nordmann" not in answer.text
    assert "Kari" not in answer.text


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'"Nordmann"'])
async def test_a_body_that_is_no_json_is_a_400_without_its_content(content: bytes) -> None:
    answer = await ask("POST", "/body", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "Nordmann" not in answer.text


async def test_what_nobody_foresaw_is_a_500_without_its_text_and_is_logged() -> None:
    with capture_logs() as logs:
        answer = await ask("GET", "/crash")
    assert answer.status_code == 500
    assert set(answer.json()) == FIELDS
    assert "Kari" not in answer.text
    (line,) = [line for line in logs if line["event"] == "request_failed"]
    assert (line["rute"], line["metode"]) == ("/crash", "GET")
    assert line["error_id"] == answer.json()["errorId"]


def health_app(health: Health) -> httpx.AsyncClient:
    app = FastAPI()
    app.include_router(health_router(health))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x")


async def test_a_process_is_ready_when_every_check_is() -> None:
    health = Health()
    missing: list[str] = ["katalogen er ikke lest"]
    health.add_check("kafka", lambda: None)
    health.add_check("katalog", lambda: missing[0] if missing else None)
    async with health_app(health) as http:
        before = await http.get("/isready")
        missing.clear()
        after = await http.get("/isready")
    assert (before.status_code, before.json()) == (
        503,
        {"klar": False, "mangler": {"katalog": "katalogen er ikke lest"}},
    )
    assert (after.status_code, after.json()) == (200, {"klar": True, "mangler": {}})


async def test_what_else_there_is_to_tell_keeps_nobody_from_being_ready() -> None:
    health = Health()
    told = ["kommune 0301 har ikke noe gyldig sertifikat"]
    health.add_notice("sertifikater", lambda: told[0] if told else None)
    async with health_app(health) as http:
        before = await http.get("/isready")
        told.clear()
        after = await http.get("/isready")
    assert before.status_code == 200
    assert before.json()["merknader"] == {"sertifikater": "kommune 0301 har ikke noe gyldig sertifikat"}
    assert after.json() == {"klar": True, "mangler": {}}


async def test_a_process_that_is_not_ready_is_still_alive() -> None:
    health = Health()
    health.add_check("kafka", lambda: "nei")
    async with health_app(health) as http:
        answer = await http.get("/isalive")
    assert (answer.status_code, answer.text) == (200, "ALIVE")


async def test_metrics_are_in_the_format_of_prometheus() -> None:
    async with health_app(Health()) as http:
        answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "# TYPE" in answer.text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until_it_answers(http: httpx.AsyncClient, path: str) -> httpx.Response:
    async with asyncio.timeout(10):
        while True:
            try:
                return await http.get(path)
            except httpx.ConnectError:
                await asyncio.sleep(0.01)


async def test_a_server_ends_open_requests_before_it_stops() -> None:
    app = FastAPI()
    entered, release = asyncio.Event(), asyncio.Event()

    @app.get("/alive")
    async def alive() -> str:
        return "yes"

    @app.get("/slow")
    async def slow() -> str:
        entered.set()
        await release.wait()
        return "done"

    _ = alive, slow
    stop, port = asyncio.Event(), free_port()
    async with asyncio.timeout(20), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        serving = asyncio.create_task(serve(app, "127.0.0.1", port, stop))
        await until_it_answers(http, "/alive")
        open_request = asyncio.create_task(http.get("/slow"))
        await entered.wait()
        stop.set()
        release.set()
        assert (await open_request).json() == "done"
        await serving
        with pytest.raises(httpx.ConnectError):
            await httpx.AsyncClient().get(f"http://127.0.0.1:{port}/alive")


async def test_a_port_that_is_taken_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "BIND_WITHIN_S", 0.1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        stop = asyncio.Event()
        async with asyncio.timeout(10):
            with pytest.raises(ConfigurationError, match="porten er opptatt"):
                await serve(FastAPI(), "127.0.0.1", taken.getsockname()[1], stop)
    assert stop.is_set()


async def test_a_port_that_is_let_go_of_in_time_is_taken_over() -> None:
    stop = asyncio.Event()
    app = FastAPI()
    app.include_router(health_router(Health()))
    async with asyncio.timeout(20):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            serving = asyncio.create_task(serve(app, "127.0.0.1", port, stop))
            await asyncio.wait([serving], timeout=0.2)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await until_it_answers(http, "/isalive")).text == "ALIVE"
        stop.set()
        await serving


async def test_a_stop_ends_the_wait_for_a_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(FastAPI(), "127.0.0.1", taken.getsockname()[1], stop))
        stop.set()
        async with asyncio.timeout(5):
            await serving


async def test_an_address_that_is_not_ours_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigurationError, match="kan ikke lytte"):
        await serve(FastAPI(), "192.0.2.1", free_port(), asyncio.Event())  # an address for documentation


async def test_ready_says_which_start_of_the_process_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INSTANCE_ENV, "abc")
    async with health_app(Health()) as http:
        assert (await http.get("/isready")).headers[INSTANCE_HEADER] == "abc"


def echo_app(**options: Any) -> FastAPI:
    app = FastAPI()
    install_fiks_errors(app, **options)

    @app.post("/lengde")
    async def length(body: list[str]) -> int:
        return len(body)

    _ = length
    return app


async def chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 1000):
        yield b" " * 1000
    yield b"[]"


async def send(app: FastAPI, **options: Any) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x", headers=headers) as http:
        return await http.post("/lengde", **options)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_a_413_in_fiks_shape_before_it_is_parsed(*, chunked: bool) -> None:
    content = chunks(2 * MAX_BODY_BYTES) if chunked else b"[]" + b" " * MAX_BODY_BYTES
    answer = await send(echo_app(), content=content)
    assert answer.status_code == 413
    assert set(answer.json()) == FIELDS
    assert str(MAX_BODY_BYTES) in answer.json()["message"]


async def test_a_promise_of_too_much_is_refused_before_anything_is_read() -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError
        yield b""

    answer = await send(echo_app(), content=never(), headers={"Content-Length": str(MAX_BODY_BYTES + 1)})
    assert answer.status_code == 413


async def test_a_body_at_the_limit_is_let_through() -> None:
    content = b"[]" + b" " * (MAX_BODY_BYTES - 2)
    assert (await send(echo_app(), content=content)).json() == 0


async def test_a_route_that_limits_by_itself_is_let_alone() -> None:
    def large(scope: Scope) -> bool:
        return str(scope["path"]) == "/lengde"

    app = echo_app(large_bodies=large)
    assert (await send(app, content=chunks(2 * MAX_BODY_BYTES))).json() == 0
