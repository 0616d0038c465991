from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.web import Health
from consumers.simulator.case import CasePlan, Switches
from consumers.simulator.http_app import HttpFagsystem, make_app
from schemas.names import DigisosId, Kommunenummer, MeldingId

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
NUMBER = Kommunenummer("4601")


@pytest.fixture
def fagsystem(tmp_path: Path) -> HttpFagsystem:
    return HttpFagsystem(tmp_path, switches=Switches(), plan=CasePlan(), clock=lambda: NOW)


@pytest.fixture
async def http(fagsystem: HttpFagsystem) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_app(fagsystem, Health()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://f") as http:
        yield http


async def post(http: httpx.AsyncClient, melding_id: str, **change: Any) -> httpx.Response:
    told = {"meldingId": melding_id, "digisosId": DigisosId.new(), "type": "SOKNAD", "filer": [{"filnavn": "a.pdf"}]}
    parts = [
        ("leveranse", (None, json.dumps(told | change.pop("told", {})), "application/json")),
        ("fil", ("a.pdf", b"%PDF", "application/pdf")),
    ]
    return await http.post(
        f"/{NUMBER}/soknader", files=parts, headers={"Idempotency-Key": change.get("key", melding_id)}
    )


async def test_a_soknad_is_stored_once_and_the_repeat_is_told_what_became_of_it(http: httpx.AsyncClient) -> None:
    melding_id = MeldingId.new()
    first, *again = [await post(http, melding_id) for _ in range(3)]
    assert (first.status_code, first.json()["status"]) == (201, "MOTTATT")
    assert {(one.status_code, one.json()["status"]) for one in again} == {(409, "MOTTATT")}


async def test_the_same_soknad_at_once_is_one(http: httpx.AsyncClient) -> None:
    melding_id = MeldingId.new()
    answers = await asyncio.gather(*(post(http, melding_id) for _ in range(5)))
    assert sorted(one.status_code for one in answers) == [201, 409, 409, 409, 409]


@pytest.mark.parametrize("change", [{"key": "another"}, {"told": {"meldingId": "x"}}, {"told": {"filer": []}}], ids=str)
async def test_a_broken_request_is_refused(http: httpx.AsyncClient, change: Any) -> None:
    assert (await post(http, MeldingId.new(), **change)).status_code == 400


async def test_the_operator_takes_it_down_and_makes_it_fail(http: httpx.AsyncClient) -> None:
    assert (await http.put(f"/styring/{NUMBER}", json={"tilstand": "nede"})).json()["tilstand"] == "nede"
    assert (await post(http, MeldingId.new())).status_code == 503
    assert (await http.get(f"/{NUMBER}/hendelser")).status_code == 503
    await http.put("/styring", json={"tilstand": "oppe", "feilNeste": 1, "avvisNeste": 1})
    assert [(await post(http, MeldingId.new())).status_code for _ in range(3)] == [500, 422, 201]


async def test_the_operator_says_what_it_fails_with_and_may_let_it_talk_rubbish(http: httpx.AsyncClient) -> None:
    await http.put("/styring", json={"feilNeste": 1, "feilStatus": 429})
    assert [(await post(http, MeldingId.new())).status_code for _ in range(2)] == [429, 201]
    await http.put("/styring", json={"feilNeste": 1, "feilStatus": 409, "tull": True})
    rubbish = [await post(http, MeldingId.new()), await http.get(f"/{NUMBER}/hendelser")]
    assert [one.status_code for one in rubbish] == [409, 200]
    for one in rubbish:
        with pytest.raises(ValueError, match=r"decode|Expecting"):
            one.json()


async def test_an_answer_that_is_lost_leaves_the_soknad_stored(http: httpx.AsyncClient) -> None:
    await http.put("/styring", json={"svarTaptNeste": 1})
    melding_id = MeldingId.new()
    assert [(await post(http, melding_id)).status_code for _ in range(2)] == [504, 409]


async def test_a_slow_one_is_quick_again_when_the_operator_says_so(http: httpx.AsyncClient) -> None:
    await http.put(f"/styring/{NUMBER}", json={"tilstand": "treg", "treghetS": 600})
    waiting = asyncio.create_task(post(http, MeldingId.new()))
    await asyncio.wait((waiting,), timeout=0.02)
    assert not waiting.done()
    await http.put(f"/styring/{NUMBER}", json={"tilstand": "oppe"})
    assert (await asyncio.wait_for(waiting, 5)).status_code == 201


@pytest.mark.parametrize("path", ["/styring", f"/styring/{NUMBER}"])
async def test_a_wrong_switch_is_named(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.put(path, json={"tilstand": "kanskje"})
    assert answer.status_code == 400
    assert "tilstand" in answer.json()["message"]


async def test_a_path_that_names_no_kommune_is_not_found(http: httpx.AsyncClient) -> None:
    assert (await http.get("/styring/abc")).status_code == 404


async def test_events_come_by_the_clock_and_survive_a_restart(
    http: httpx.AsyncClient, fagsystem: HttpFagsystem, tmp_path: Path
) -> None:
    await http.put(f"/styring/{NUMBER}", json={"svar": "senere"})
    assert (await post(http, MeldingId.new())).status_code == 202
    fagsystem.tick()
    fagsystem.tick()
    told = (await http.get(f"/{NUMBER}/hendelser")).json()["hendelser"]
    assert [one["type"] for one in told] == ["MOTTATT", "OPPDATERING"]
    again = HttpFagsystem(tmp_path, switches=Switches(), plan=CasePlan(), clock=lambda: NOW)
    again.tick()
    assert again.archive(NUMBER).hendelser == told
