from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from consumers.connector import Avvist, ConnectorContext, Fil, Leveranse, Levert, Mottatt
from consumers.connectors.http import HttpConnector, HttpSettings, retry_after
from schemas.errors import ConfigurationError, FagsystemFailureError, FagsystemUnavailableError
from schemas.names import DigisosId, Kommunenummer, MeldingId, NavEksternRefId, Organisasjonsnummer, Sha256

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


async def once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def connector(answer: Any, state: Any = None, **settings: Any) -> HttpConnector:
    transport = httpx.MockTransport(answer if callable(answer) else lambda _: answer)
    context = ConnectorContext(Kommunenummer("4601"), lambda: NOW, state)
    return HttpConnector(
        HttpSettings(**{"url": "http://f/4601/", "intervall_s": 0.01} | settings), context, transport=transport
    )


def leveranse(name: str = "a.pdf", content: bytes = b"%PDF") -> Leveranse:
    return Leveranse(
        melding_id=MeldingId.new(),
        digisos_id=DigisosId.new(),
        kommunenummer=Kommunenummer("4601"),
        nav_ekstern_ref_id=NavEksternRefId("r"),
        enhetsnummer=None,
        hastegrad="NODHJELP",
        type="SOKNAD",
        innsendt=NOW,
        avsender=Organisasjonsnummer("889640782"),
        files=(Fil(name, "application/pdf", len(content), Sha256.of(content)),),
        _read=lambda _: once(content),
    )


@pytest.mark.parametrize(
    ("status", "body", "svar"),
    [
        (200, {}, Mottatt()),
        (201, {"status": "MOTTATT"}, Mottatt()),
        (202, None, Levert()),
        (409, {"status": "MOTTATT"}, Mottatt()),
        (409, {"status": "LEVERT"}, Levert()),
        (409, {"status": "AVVIST", "kode": "demo.nei"}, Avvist("demo.nei")),
        (422, {"kode": "demo.nei"}, Avvist("demo.nei")),
        (400, {"kode": "demo.nei"}, Avvist("demo.nei")),
    ],
)
async def test_each_answer_means_what_the_table_says(status: int, body: Any, svar: Any) -> None:
    answer = httpx.Response(status, json=body) if body is not None else httpx.Response(status)
    assert await connector(answer).deliver(leveranse()) == svar


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 502, 503, 504])
async def test_what_is_not_the_soknads_fault_is_an_outage(status: int) -> None:
    with pytest.raises(FagsystemUnavailableError) as raised:
        await connector(httpx.Response(status, headers={"Retry-After": "120"})).deliver(leveranse())
    assert raised.value.retry_after == timedelta(minutes=2)


@pytest.mark.parametrize(
    ("status", "body"), [(500, b"{}"), (400, b"Kari"), (409, b"{}"), (409, b"\xff"), (302, b""), (204, b"")]
)
async def test_everything_else_is_a_failure_on_this_soknad(status: int, body: bytes) -> None:
    with pytest.raises(FagsystemFailureError) as raised:
        await connector(httpx.Response(status, content=body)).deliver(leveranse())
    assert "Kari" not in str(raised.value)


async def test_nobody_there_is_an_outage() -> None:
    def nobody(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("no answer", request=request)

    with pytest.raises(FagsystemUnavailableError):
        await connector(nobody).deliver(leveranse())
    with pytest.raises(FagsystemUnavailableError):
        await anext(connector(nobody, State()).events())


async def test_the_request_names_its_idempotency_key_and_escapes_file_names() -> None:
    seen: list[httpx.Request] = []

    async def keep(request: httpx.Request) -> httpx.Response:
        await request.aread()
        seen.append(request)
        return httpx.Response(201)

    one = leveranse('Søknad "1".pdf')
    await connector(keep).deliver(one)
    (request,) = seen
    assert request.headers["Idempotency-Key"] == one.melding_id
    assert 'filename="Søknad %221%22.pdf"'.encode() in request.content
    assert str(request.url) == "http://f/4601/soknader"
    head = request.content.partition(b"\r\n\r\n")[2].partition(b"\r\n--")[0]
    assert json.loads(head)["hastegrad"] == "NODHJELP"


async def test_a_token_is_read_from_its_file(tmp_path: Path) -> None:
    seen: list[str] = []

    def keep(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(201)

    (tmp_path / "token").write_text("abc\n")
    with_token = connector(keep, token_fil=tmp_path / "token")
    await with_token.start()
    await with_token.deliver(leveranse())
    assert seen == ["Bearer abc"]
    with pytest.raises(ConfigurationError, match="token_fil"):
        await connector(keep, token_fil=tmp_path / "borte").start()


class State:
    def __init__(self) -> None:
        self.value: str | None = None

    async def get(self, name: str) -> str | None:
        _ = name
        return self.value

    async def put(self, name: str, value: str) -> None:
        _ = name
        self.value = value


async def test_a_hendelse_that_cannot_be_read_is_passed_over_and_the_cursor_follows_what_is_settled() -> None:
    melding_id, case = MeldingId.new(), DigisosId.new()
    page = [
        {"id": "1", "type": "TELEPATI"},
        {"id": "2", "type": "MOTTATT", "meldingId": "ikke en id"},
        {"id": "3", "type": "OPPDATERING", "digisosId": case, "filer": [{"filnavn": "x", "innhold": "?"}]},
        {"id": "4", "type": "AVVIST", "meldingId": melding_id, "kode": "demo.nei"},
        {
            "id": "5",
            "type": "OPPDATERING",
            "digisosId": case,
            "filer": [{"filnavn": "digisos-soker.json", "innhold": base64.b64encode(b"{}").decode()}],
        },
    ]
    state, asked = State(), []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["etter"])
        return httpx.Response(200, json={"hendelser": page if not asked[-1] else []})

    events = connector(answer, state).events()
    rejected, update = await anext(events), await anext(events)
    assert (rejected.melding_id, rejected.kode) == (melding_id, "demo.nei")
    assert update.digisos_soker == b"{}"
    assert state.value == "3"
    await update.ack()
    assert state.value == "3", "four is not settled yet"
    await rejected.ack()
    assert state.value == "5"


@pytest.mark.parametrize(
    "answer", [httpx.Response(200, content=b"{"), httpx.Response(200, json={}), httpx.Response(500)]
)
async def test_a_page_that_cannot_be_read_is_an_outage(answer: httpx.Response) -> None:
    with pytest.raises(FagsystemUnavailableError):
        await anext(connector(answer, State()).events())


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("30", timedelta(seconds=30)),
        ("0", timedelta()),
        ("Mon, 23 Nov 2026 12:01:00 GMT", timedelta(minutes=1)),
        ("Mon, 23 Nov 2026 11:00:00 GMT", timedelta()),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("999999999999999999", timedelta(seconds=10**8)),
        ("Mon, 23 Nov 2026 12:00:00 +99999999999999999999", None),
        ("Mon, 23 Nov 99999999999999999999 12:00:00 GMT", None),
        ("Mon, 23 Nov", None),
        (",", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, wait: timedelta | None) -> None:
    assert retry_after(value, NOW) == wait


async def test_a_fagsystem_that_does_not_heed_the_cursor_is_asked_again_in_its_time_and_tells_nothing_twice() -> None:
    asked: list[str] = []
    twice = asyncio.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["etter"])
        if len(asked) > 1:
            twice.set()
        return httpx.Response(200, json={"hendelser": [{"id": "1", "type": "MOTTATT", "meldingId": MeldingId.new()}]})

    events = connector(answer, State(), intervall_s=30).events()
    await anext(events)
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.wait_for(twice.wait(), 5)
    for _ in range(50):
        await asyncio.sleep(0)
    assert asked == ["", "1"]
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
