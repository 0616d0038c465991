from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from broker.operatorer import Operatorer
from broker.web import install_fiks_errors
from producers import cli_drift, cli_recall, recall
from producers.drift_client import DriftClient
from producers.forsegling import Forsegler
from producers.omsending import Omsender
from producers.recall import Tilbakekaller
from producers.recall_routes import RecallDrift, recall_router
from schemas.errors import StoreError
from schemas.names import MeldingId, Organisasjonsnummer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AVSENDER = Organisasjonsnummer("889640782")


class Caller:
    client_id = "driften"
    organisasjonsnummer = AVSENDER


class Tokens:
    async def client(self, _: str | None) -> Caller:
        return Caller()


@pytest.fixture
def operatorer(world: Any, tmp_path: Path) -> Operatorer:
    operatorer = Operatorer(tmp_path / "kontor")
    for name in ("kari", "ola"):
        operatorer.add(name, world.now)
    return operatorer


@pytest.fixture
async def http(world: Any, operatorer: Operatorer) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    install_fiks_errors(app)
    omsender = Omsender(world.kopier, Forsegler(world.katalog, world.kopier, world.clock), world.clock)
    recaller = Tilbakekaller(world.database, omsender, operatorer.load, world.clock, world.outbox.added.set)
    tokens: Any = Tokens()
    app.include_router(recall_router(RecallDrift(tokens, AVSENDER, recaller)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://drift.test") as client:
        yield client


@pytest.fixture
async def melding_id(world: Any, sending: Any) -> MeldingId:
    await world.post(sending)
    (kopi,) = await world.kopier.alive()
    return MeldingId(kopi.melding_id)


class Terminal:
    """Types commands against the routes, each in an event loop of its own."""

    def __init__(self, http: httpx.AsyncClient, folder: Path) -> None:
        self.http = http
        self.folder = folder

    def __call__(self, *arguments: str, operator: str = "kari") -> Any:
        environment = {"FORMIDLER_DATA": str(self.folder), "FORMIDLER_OPERATOR": operator}
        return CliRunner().invoke(cli_recall.app, list(arguments), env=environment)


@pytest.fixture
async def terminal(
    http: httpx.AsyncClient, world: Any, operatorer: Operatorer, monkeypatch: pytest.MonkeyPatch
) -> Terminal:
    @asynccontextmanager
    async def drift_client(*_: object) -> AsyncIterator[DriftClient]:
        yield DriftClient("https://drift.test", http, "avsender")

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(cli_drift, "run_calls", lambda work: asyncio.run_coroutine_threadsafe(work, loop).result())
    monkeypatch.setattr(cli_drift, "drift_client", drift_client)
    monkeypatch.setattr(cli_recall, "clock_of", lambda _: world.clock)
    return Terminal(http, operatorer.path.parent)


async def typed(terminal: Terminal, *arguments: str, operator: str = "kari") -> Any:
    return await asyncio.to_thread(terminal, *arguments, operator=operator)


async def test_the_command_shows_what_is_affected_and_acts_with_a_reason(
    terminal: Terminal, melding_id: MeldingId
) -> None:
    found = await typed(terminal, "sok", "--kommune", "0301", "--json")
    assert json.loads(found.output)["meldinger"][0]["meldingId"] == melding_id
    dry = await typed(terminal, "trekk", "--kommune", "0301", "--torr")
    assert "1 meldinger er berørt" in dry.output
    assert (await typed(terminal, "trekk", "--kommune", "0301")).exit_code == 2
    assert (await typed(terminal, "trekk", "-b", "x")).exit_code == 2
    done = await typed(terminal, "trekk", "--kommune", "0301", "-b", "feil i skjemaet")
    assert "1 TRUKKET" in done.output, done.output
    listed = await typed(terminal, "list", "--json")
    assert json.loads(listed.output)[0]["begrunnelse"] == "feil i skjemaet"


async def test_the_command_of_another_operator_approves(
    terminal: Terminal, operatorer: Operatorer, melding_id: MeldingId
) -> None:
    operatorer._save(operatorer.load().model_copy(update={"grense": 0}))
    proposed = json.loads((await typed(terminal, "send", "--kommune", "0301", "-b", "tapt", "--json")).output)
    assert proposed["tilstand"] == "FORESLATT"
    own = await typed(terminal, "approve", proposed["id"])
    assert own.exit_code != 0
    approved = await typed(terminal, "approve", proposed["id"], "--json", operator="ola")
    assert json.loads(approved.output)["tilstand"] == "UTFORT"
    assert melding_id


async def test_the_same_command_goes_on_with_what_was_broken_off(
    terminal: Terminal, melding_id: MeldingId, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks_off(*_: object) -> str:
        raise StoreError("borte")

    with monkeypatch.context() as broken:
        broken.setattr(recall, "withdraw_in", breaks_off)
        assert (await typed(terminal, "trekk", "--kommune", "0301", "-b", "feil")).exit_code != 0
    (begun,) = json.loads((await typed(terminal, "list", "--json")).output)
    assert begun["tilstand"] == "GODKJENT"
    other = await typed(terminal, "send", "--kommune", "0301", "-b", "feil", "--json")
    assert json.loads(other.stdout)["id"] != begun["id"]
    again = await typed(terminal, "trekk", "--kommune", "0301", "-b", "feil")
    assert "1 TRUKKET" in again.stdout, again.output
    assert f"fortsetter {begun['id']}" in again.stderr
    recalls = json.loads((await typed(terminal, "list", "--json")).output)
    assert {one["tilstand"] for one in recalls} == {"UTFORT"}
    assert len(recalls) == 2
    after = await typed(terminal, "trekk", "--kommune", "0301", "-b", "feil", "--json")
    assert json.loads(after.stdout)["id"] not in {one["id"] for one in recalls}
    assert melding_id


async def test_the_same_command_does_not_propose_the_same_twice(
    terminal: Terminal, operatorer: Operatorer, world: Any, make_sending: Any, melding_id: MeldingId
) -> None:
    operatorer._save(operatorer.load().model_copy(update={"grense": 0}))
    command = ("trekk", "--kommune", "0301", "-b", "feil", "--json")
    first, second = [json.loads((await typed(terminal, *command)).stdout)["id"] for _ in range(2)]
    others = json.loads((await typed(terminal, *command, operator="ola")).stdout)["id"]
    assert first == second != others
    await world.post(make_sending(seed=9, encrypt_for=world.keys.mottak), path="0301/ref-9")
    assert json.loads((await typed(terminal, *command)).stdout)["id"] not in {first, others}
    assert melding_id
