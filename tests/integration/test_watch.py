"""A kommune whose connector is away, in a whole set-up of real processes: the deadline passes, a letter is printed instead, and
what the connector says when it is back changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from pypdf import PdfReader
from typer.testing import CliRunner

from broker.cli.main import app
from broker.process_clock import ProcessClock
from broker.supervisor.bootstrap import HTTP_CONNECTOR, bootstrap, choose_connectors
from broker.supervisor.up import Running, running
from producers.demo.plan import PlannedSoknad, plan_day
from producers.demo.portal import Portal
from producers.status_client import StatusClient
from schemas.errors import RefusedError
from schemas.names import DigisosId, Kommunenummer

pytestmark = pytest.mark.kafka

KNR = Kommunenummer("4641")
KOMMUNER = (KNR, Kommunenummer("1811"), Kommunenummer("5612"))
WITHIN_S = 60.0


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Running]:
    layout = bootstrap(tmp_path / "data", choose_connectors(KOMMUNER), datetime.now(UTC))
    text = layout.katalog.read_text("utf-8")
    address = "  fristBekreftet: 6h\n  postadresse: [Aurland kommune, Vangen 1, 5745 Aurland]\n"
    entry = f"- kommunenummer: '{KNR}'\n"
    assert entry in text
    layout.katalog.write_text(text.replace(entry, entry + address), "utf-8")
    async with running(layout, external=None, report=lambda _: None) as up:
        yield up


@pytest.fixture
def connector(up: Running) -> Iterator[int]:
    """The process of the kommune's connector; it runs again after the test."""
    pid = pid_of(up.layout.folder, f"konnektor-{HTTP_CONNECTOR}", "consumers")
    yield pid
    os.kill(pid, signal.SIGCONT)


def pid_of(folder: Path, *words: str) -> int:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if all(word.encode() in text for word in (str(folder), *words)) and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    (pid,) = found
    return pid


async def formidler(up: Running, *arguments: str) -> Any:
    more = [*arguments, "--data", str(up.layout.folder), "--json"]
    result = await asyncio.to_thread(CliRunner().invoke, app, more)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


class Citizen:
    """One søknad, and what its citizen sees of it."""

    def __init__(self, up: Running, http: httpx.AsyncClient) -> None:
        day = plan_day(7, 6, KOMMUNER, ProcessClock(up.layout.clock)())
        self.soknad: PlannedSoknad = next(one for one in day.soknader if one.kommunenummer == KNR)
        self.portal = Portal.of(up.layout, http)
        self.http = http
        self.digisos_id = DigisosId.new()

    async def send(self) -> None:
        key = await self.portal.public_key(self.soknad.person)
        self.digisos_id = (await self.portal.send(self.soknad, key)).digisos_id

    async def view(self) -> dict[str, Any]:
        token = await self.portal.token(self.soknad.person)
        try:
            return await StatusClient(self.portal.status_url, self.http, token).get(self.digisos_id)
        except RefusedError:
            return {"status": "UKJENT", "historikk": []}

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(WITHIN_S):
            while not condition(view := await self.view()):  # noqa: ASYNC110 - processes have no event to wait for
                await asyncio.sleep(0.1)
            return view

    async def has(self, verdi: str, kanal: str) -> dict[str, Any]:
        return await self.until(
            lambda view: any((line["verdi"], line.get("kanal")) == (verdi, kanal) for line in view["historikk"])
        )


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(WITHIN_S):
        while not (found := await condition()):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)
        return found


def copies(up: Running) -> list[tuple[str, str | None, int]]:
    """Each melding's channel, why its copy was destroyed, and whether its key is still there."""
    sql = "SELECT kanal, arsak, EXISTS (SELECT 1 FROM kopiinnhold k WHERE k.melding_id = a.melding_id) FROM avsenderkopi a"
    with closing(sqlite3.connect(f"file:{up.layout.database('producers')}?mode=ro", uri=True)) as connection:
        return [tuple(row) for row in connection.execute(sql)]


async def test_when_a_connector_is_away_a_letter_is_printed_and_its_late_answer_changes_nothing(
    up: Running, connector: int
) -> None:
    os.kill(connector, signal.SIGSTOP)
    async with httpx.AsyncClient(timeout=30) as http:
        citizen = Citizen(up, http)
        await citizen.send()
        await citizen.until(lambda view: view["status"] == "SENDT")
        near = await formidler(up, "frister", "list", "--innen", "7h")
        assert [(one["arsak"], one["kanal"], one["overS"] < 0) for one in near["frister"]] == [
            ("ikke-bekreftet", "KAFKA", True)
        ]
        assert near["antall"] == 0

        await formidler(up, "tid", "frem", "6h11m")  # the kommune's own deadline and the margin
        await citizen.has("TTL_TIDSAVBRUDD", "KAFKA")
        view = await citizen.has("SENDT", "PRINT")
        assert view["status"] == "SENDT"

        (letter,) = await formidler(up, "utskrift", "list")
        check_letter(Path(letter["mappe"]), citizen)
        assert copies(up) == [("PRINT", None, 1)]

        await formidler(up, "utskrift", "ferdig", letter["meldingId"])
        view = await citizen.until(lambda view: view["status"] == "SENDT_PA_PAPIR")
        assert [line["verdi"] for line in view["historikk"]] == [
            "AKSEPTERT",
            "SENDT",
            "TTL_TIDSAVBRUDD",
            "SENDT",
            "UTSKREVET",
        ]
        assert copies(up) == [("PRINT", "utskrevet", 0)]
        acts = await until(lambda: destroyed(up))
        assert acts == [letter["meldingId"]]
        assert (await formidler(up, "frister", "list", "--innen", "300d"))["frister"] == []

        os.kill(connector, signal.SIGCONT)
        view = await citizen.has("AVVIST", "KAFKA")
        late = view["historikk"][-1]
        assert (late["verdi"], late["kode"], late["forSent"]) == ("AVVIST", "levering.utlopt", True)
        assert view["status"] == "SENDT_PA_PAPIR"
        shown = await formidler(up, "soknad", "status", citizen.digisos_id)
        assert (shown["status"], shown["kode"], shown["mottatt"]) == ("SENDT_PA_PAPIR", None, None)
        assert received(up) == []


def check_letter(folder: Path, citizen: Citizen) -> None:
    assert sorted(path.name for path in folder.iterdir())[:2] == ["00-forside.pdf", "01-soknad.pdf"]
    cover = PdfReader(folder / "00-forside.pdf").pages[0].extract_text()
    assert "Vangen 1" in cover
    assert citizen.digisos_id in cover


def received(up: Running) -> list[Path]:
    """Return what the kommune's fagsystem has stored."""
    return [path for path in up.layout.fagsystem.rglob("*.pdf") if KNR in path.parts]


async def destroyed(up: Running) -> list[str]:
    """Return the meldinger whose copies the revisjon says were destroyed."""
    listed = await formidler(up, "revisjon", "list")
    acts = listed if isinstance(listed, list) else next(value for value in listed.values() if isinstance(value, list))
    return [one["objekt"] for one in acts if one["handling"] == "avsenderkopi.destruert"]
