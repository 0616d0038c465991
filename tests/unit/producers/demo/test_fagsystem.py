from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from broker.supervisor.bootstrap import DEFAULT_KOMMUNER
from broker.supervisor.layout import ConnectorSetup, Layout
from producers.demo.fagsystem import REFUSAL_CODE, Fagsystem
from producers.demo.journey import Journey
from producers.demo.plan import plan_day
from schemas.names import Kommunenummer, NavEksternRefId

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
OSLO = Kommunenummer("0301")


class Operator:
    """Stands in for the simulator's own door: notes what was asked, and answers with ``status``."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, object]] = []
        self.status = 204

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.method, request.url.path, json.loads(request.content)))
        return httpx.Response(self.status)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout.prepare(
        tmp_path / "data", {"acme": ConnectorSetup(leverandor="acme", type="http", kommuner=(OSLO,))}
    )
    layout.setup.porter["fagsystem"] = 1234
    return layout


@pytest.fixture
def operator() -> Operator:
    return Operator()


@pytest.fixture
async def fagsystem(layout: Layout, operator: Operator) -> AsyncIterator[Fagsystem]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(operator)) as http:
        yield Fagsystem(layout, http)


@pytest.fixture
def journey() -> Journey:
    return Journey(plan_day(1, 6, DEFAULT_KOMMUNER, NOW).soknader[0], NOW)


def deliver(layout: Layout, place: str, ref: str, *, status: str | None = None, **files: bytes) -> None:
    """Put a delivery where a simulated fagsystem puts it."""
    folder = layout.fagsystem / place
    folder.mkdir(parents=True)
    (folder / "leveranse.json").write_text(json.dumps({"navEksternRefId": ref}), "utf-8")
    if status:
        (folder / "svar.json").write_text(json.dumps({"status": status}), "utf-8")
    for name, content in files.items():
        (folder / name).write_bytes(content)


async def test_each_switch_asks_the_simulator_for_one_change(fagsystem: Fagsystem, operator: Operator) -> None:
    await fagsystem.take_down(OSLO)
    await fagsystem.bring_up(OSLO)
    await fagsystem.refuse(NavEksternRefId("a-1"))
    assert operator.asked == [
        ("PUT", "/styring/0301", {"tilstand": "nede"}),
        ("PUT", "/styring/0301", {"tilstand": "oppe"}),
        ("PUT", "/styring", {"avvis": [{"ref": "a-1", "kode": REFUSAL_CODE}]}),
    ]


async def test_a_switch_that_is_refused_is_told(fagsystem: Fagsystem, operator: Operator) -> None:
    operator.status = 409
    with pytest.raises(httpx.HTTPStatusError):
        await fagsystem.take_down(OSLO)


def test_nothing_is_received_before_it_lies_on_disk(fagsystem: Fagsystem, journey: Journey) -> None:
    assert fagsystem.received(journey) == []


@pytest.mark.parametrize("place", ["http/0301/soknader/m1", "mapper/0301/inn/m1", "mapper/0301/arkiv/m1"])
def test_what_lies_on_disk_is_told_by_digest_without_the_systems_own_files(
    layout: Layout, fagsystem: Fagsystem, journey: Journey, place: str
) -> None:
    deliver(layout, place, journey.planned.ref, status="MOTTATT", vedlegg=b"innhold", FERDIG=b"")
    assert fagsystem.received(journey) == [{"vedlegg": hashlib.sha256(b"innhold").hexdigest()}]


def test_a_second_delivery_of_the_same_soknad_is_seen(layout: Layout, fagsystem: Fagsystem, journey: Journey) -> None:
    deliver(layout, "http/0301/soknader/m1", journey.planned.ref, a=b"1")
    deliver(layout, "http/0301/soknader/m2", journey.planned.ref, a=b"1")
    assert len(fagsystem.received(journey)) == 2


def test_anothers_delivery_and_a_refused_one_do_not_count(
    layout: Layout, fagsystem: Fagsystem, journey: Journey
) -> None:
    deliver(layout, "http/0301/soknader/m1", "another", a=b"1")
    deliver(layout, "http/0301/soknader/m2", journey.planned.ref, status="AVVIST", a=b"1")
    assert fagsystem.received(journey) == []
