from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from typer.testing import CliRunner

from producers import cli_drift, cli_kopi
from producers.drift_client import DriftClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MELDING = "7b7fd0c2-7b44-4d4e-9f65-0d1d8a6d2a22"
RUN = "5a0e6f5c-6f6b-4c55-9a3b-0d6c3c2f4f11"
KOPI = {
    "meldingId": MELDING,
    "digisosId": "0e0d8a1c-5f5c-4a55-8d1c-3d2f6f8f0b11",
    "kommunenummer": "0301",
    "innsendt": "2026-11-23T12:00:00.000Z",
    "kanal": "KAFKA",
    "omsendinger": 0,
    "destruert": None,
    "kvitteringId": None,
    "arsak": None,
    "forseglinger": ["a" * 64],
}


class Process:
    """A ``producers`` process that answers what a test says."""

    def __init__(self) -> None:
        self.steps = [(2, {}), (1, {"annen-kanal": 1}), (0, {})]
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.asked: list[str] = []
        self.view: dict[str, Any] = dict(KOPI)

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            self.asked.append(str(request.url.copy_with(scheme="https", host="x")).removeprefix("https://x"))
            page = {"antall": 1, "etter": 1, "kopier": [self.view]}
            return httpx.Response(200, json=page if request.url.path.endswith("avsenderkopier") else self.view)
        self.orders.append((request.url.path.rsplit("/", 1)[1], json.loads(request.content)))
        sent, passed_over = self.steps[len(self.orders) - 1]
        last = len(self.orders) == len(self.steps)
        body = {"sendt": sent, "hoppetOver": passed_over, "etter": 10 * len(self.orders), "ferdig": last}
        return httpx.Response(200, json=body)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    process = Process()

    @asynccontextmanager
    async def drift_client(*_: object) -> AsyncIterator[DriftClient]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(process.answer)) as http:
            yield DriftClient("https://drift.test", http, "hemmelig")

    monkeypatch.setattr(cli_drift, "drift_client", drift_client)
    return process


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli_kopi.app, list(arguments))


def test_copies_are_listed_for_people_and_for_machines(process: Process) -> None:
    shown, machine = run("list", "--kommune", "0301"), run("list", "--json")
    assert (shown.exit_code, machine.exit_code) == (0, 0)
    assert "0301" in shown.stdout
    assert "1 av 1 kopier" in shown.stdout
    assert json.loads(machine.stdout)["kopier"][0]["meldingId"] == MELDING
    assert process.asked[0].endswith("avsenderkopier?antall=100&kommunenummer=0301")


def test_the_proof_says_for_which_kvittering_a_copy_was_destroyed(process: Process) -> None:
    assert "kopien finnes" in run("bevis", MELDING).stdout
    process.view |= {"destruert": "2026-11-24T12:00:00.000Z", "kvitteringId": RUN}
    assert f"kvittering {RUN}" in " ".join(run("bevis", MELDING).stdout.split())
    process.view |= {"kvitteringId": None, "arsak": "utlopt"}
    assert "fordi: utlopt" in run("bevis", MELDING).stdout
    assert json.loads(run("bevis", MELDING, "--json").stdout)["arsak"] == "utlopt"


def test_a_run_goes_on_step_by_step_until_nothing_is_left(process: Process) -> None:
    result = run("send", "--alle-ikke-mottatt", "--rate", "0", "--begrunnelse", "disken døde", "--json")

    orders = [order for _, order in process.orders]
    assert result.exit_code == 0
    assert [order["etter"] for order in orders] == [0, 10, 20]
    assert len({order["omgang"] for order in orders}) == 1
    assert {order["begrunnelse"] for order in orders} == {"disken døde"}
    assert json.loads(result.stdout) == {
        "omgang": orders[0]["omgang"],
        "torr": False,
        "sendt": 3,
        "hoppetOver": {"annen-kanal": 1},
    }
    assert orders[0]["omgang"] in result.stderr


def test_a_run_that_was_broken_off_goes_on_under_its_name(process: Process) -> None:
    run("send", "--alle-ikke-mottatt", "--omgang", RUN, "--rate", "0")
    assert {order["omgang"] for _, order in process.orders} == {RUN}


def test_a_dry_run_says_what_would_be_done(process: Process) -> None:
    result = run("forsegl", "--kommune", "0301", "--melding", MELDING, "--torr")
    verb, order = process.orders[0]
    assert verb == "forsegl"
    assert (order["kommunenummer"], order["meldinger"], order["torr"]) == ("0301", [MELDING], True)
    assert "3 meldinger ville blitt lagt i utboksen" in result.stdout
    assert "1 hoppet over: annen-kanal" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("send",),
        ("send", "--kommune", "301"),
        ("send", "--alle-ikke-mottatt", "--omgang", "x"),
        ("forsegl",),
        ("forsegl", "--kommune", "0301", "--melding", "x"),
        ("bevis", "x"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(process: Process, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
    assert process.orders == process.asked == []


def test_an_address_that_does_not_answer_is_exit_code_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORMIDLER_TOKEN", "hemmelig")
    result = run("list", "--intake-url", "http://127.0.0.1:9")
    assert result.exit_code == 3
    assert "svarer ikke" in result.stderr
