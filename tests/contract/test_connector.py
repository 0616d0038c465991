"""What any connector must do. A vendor's own joins by adding a rig to ``rig``: how to look into its fagsystem and steer it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from broker.web import Health
from consumers.connector import (
    Avvist,
    ConnectorContext,
    ConnectorEvent,
    FagsystemConnector,
    Fil,
    Leveranse,
    Levert,
    Mottatt,
    Oppdatering,
    Svar,
    SvarAvvist,
    SvarMottatt,
)
from consumers.connectors.filedrop import FiledropConnector, FiledropSettings
from consumers.connectors.http import HttpConnector, HttpSettings
from consumers.connectors.memory import MemoryConnector, MemorySettings
from consumers.simulator.case import CasePlan, Switches
from consumers.simulator.folders import FolderFagsystem
from consumers.simulator.http_app import HttpFagsystem, make_app
from schemas.errors import FagsystemUnavailableError, MismatchError
from schemas.examples import make_digisos_soker
from schemas.names import DigisosId, Kommunenummer, MeldingId, NavEksternRefId, Organisasjonsnummer, Sha256

NUMBER = Kommunenummer("4601")
START = datetime(2026, 11, 23, 12, tzinfo=UTC)


class State:
    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    async def get(self, name: str) -> str | None:
        return self.texts.get(name)

    async def put(self, name: str, value: str) -> None:
        self.texts[name] = value


class Rig(Protocol):
    """One kind of connector before a fagsystem that outlives it."""

    async def connect(self) -> FagsystemConnector: ...
    def received(self, melding_id: MeldingId) -> dict[str, bytes] | None: ...
    def visible(self) -> set[str]: ...
    def down(self) -> None: ...
    def up(self) -> None: ...
    def answer_later(self) -> None: ...
    def reject(self, melding_id: MeldingId) -> None: ...
    def move_on(self) -> None:
        """Let the fagsystem do what it does by itself: answer, and update cases."""


class MemoryRig:
    def __init__(self) -> None:
        self.connector = MemoryConnector(MemorySettings(), ConnectorContext(NUMBER, lambda: START, State()))
        self.later = False

    async def connect(self) -> FagsystemConnector:
        return self.connector

    def received(self, melding_id: MeldingId) -> dict[str, bytes] | None:
        return self.connector.soknader.get(melding_id)

    def visible(self) -> set[str]:
        return set(self.connector.soknader)

    def down(self) -> None:
        self.connector.down = FagsystemUnavailableError("nede")

    def up(self) -> None:
        self.connector.down = None

    def answer_later(self) -> None:
        self.connector._settings = MemorySettings(svar="LEVERT")
        self.later = True

    def reject(self, melding_id: MeldingId) -> None:
        self.connector.rejections[melding_id] = "demo.avvist"

    def move_on(self) -> None:
        for melding_id in self.connector.order:
            if self.later:
                self.connector.tell_mottatt(melding_id)
            self.connector.tell_oppdatering(CASE, make_digisos_soker(now=START))


class HttpRig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.switches = Switches()
        self.switches.change(NUMBER, {"oppdater": True})
        self.state = State()
        self.fagsystem = HttpFagsystem(folder, switches=self.switches, plan=CasePlan(), clock=lambda: START)
        self.transport = httpx.ASGITransport(make_app(self.fagsystem, Health()))

    async def connect(self) -> FagsystemConnector:
        settings = HttpSettings(url=f"http://fagsystem/{NUMBER}", intervall_s=0.01)
        context = ConnectorContext(NUMBER, lambda: START, self.state)
        return HttpConnector(settings, context, transport=self.transport)

    def received(self, melding_id: MeldingId) -> dict[str, bytes] | None:
        return _files(self.folder / NUMBER / "soknader" / melding_id)

    def visible(self) -> set[str]:
        return set(self.fagsystem.archive(NUMBER).stored)

    def down(self) -> None:
        self.switches.change(NUMBER, {"tilstand": "nede"})

    def up(self) -> None:
        self.switches.change(NUMBER, {"tilstand": "oppe"})

    def answer_later(self) -> None:
        self.switches.change(NUMBER, {"svar": "senere"})

    def reject(self, melding_id: MeldingId) -> None:
        self.switches.change(NUMBER, {"avvis": [{"ref": melding_id}]})

    def move_on(self) -> None:
        self.fagsystem.tick()


class FiledropRig:
    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.switches = Switches()
        self.fagsystem = FolderFagsystem(folder, switches=self.switches, plan=CasePlan(), clock=lambda: START)

    async def connect(self) -> FagsystemConnector:
        settings = FiledropSettings(mappe=self.root, intervall_s=0.01)
        connector = FiledropConnector(settings, ConnectorContext(NUMBER, lambda: START, State()))
        await connector.start()
        return connector

    def received(self, melding_id: MeldingId) -> dict[str, bytes] | None:
        found = _files(self.root / NUMBER / "inn" / melding_id) or _files(self.root / NUMBER / "arkiv" / melding_id)
        if found is not None:
            json.loads(found.pop("FERDIG"))
        return found

    def visible(self) -> set[str]:
        return {path.name for place in ("inn", "arkiv") for path in (self.root / NUMBER).glob(f"{place}/*")}

    def down(self) -> None:
        (self.root / NUMBER).rename(self.root / "borte")

    def up(self) -> None:
        (self.root / "borte").rename(self.root / NUMBER)

    def answer_later(self) -> None:
        pass  # it never answers at once

    def reject(self, melding_id: MeldingId) -> None:
        self.switches.change(NUMBER, {"avvis": [{"ref": melding_id}]})

    def move_on(self) -> None:
        self.fagsystem.tick()


CASE = DigisosId.new()


def _files(folder: Path) -> dict[str, bytes] | None:
    if not folder.is_dir():
        return None
    ours = {"leveranse.json", "svar.json"}
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in ours}


@pytest.fixture(params=["memory", "http", "filedrop"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    return {
        "memory": MemoryRig,
        "http": lambda: HttpRig(tmp_path),
        "filedrop": lambda: FiledropRig(tmp_path),
    }[request.param]()


def make_leveranse(
    files: dict[str, bytes] | None = None,
    *,
    melding_id: MeldingId | None = None,
    breaks: Exception | None = None,
    waits: asyncio.Event | None = None,
) -> Leveranse:
    content = {"soknad.json": b'{"a": 1}', "Søknad til NAV.pdf": b"%PDF-1.7 \x00\xff"} if files is None else files

    async def read(name: str) -> AsyncIterator[bytes]:
        data = content[name]
        for start in range(0, len(data), 65536):
            yield data[start : start + 65536]
            if breaks is not None:
                raise breaks
            if waits is not None:
                await waits.wait()

    return Leveranse(
        melding_id=melding_id or MeldingId.new(),
        digisos_id=CASE,
        kommunenummer=NUMBER,
        nav_ekstern_ref_id=NavEksternRefId("ref-1"),
        enhetsnummer=None,
        hastegrad="VANLIG",
        type="SOKNAD",
        innsendt=START,
        avsender=Organisasjonsnummer("889640782"),
        files=tuple(Fil(n, "application/pdf", len(data), Sha256.of(data)) for n, data in content.items()),
        _read=read,
    )


async def first_events(connector: FagsystemConnector, count: int) -> list[ConnectorEvent]:
    found: list[ConnectorEvent] = []
    async with asyncio.timeout(10):
        events = connector.events()
        async for event in events:
            found.append(event)
            if len(found) == count:
                break
        await events.aclose()
    return found


async def nothing_comes(connector: FagsystemConnector, rounds: int = 5) -> bool:
    events = connector.events()
    waiting = asyncio.ensure_future(anext(events))
    for _ in range(rounds):
        await asyncio.wait((waiting,), timeout=0.02)
    came = waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return not came


def of_kind(events: list[ConnectorEvent], *kinds: type[ConnectorEvent]) -> list[ConnectorEvent]:
    return [event for event in events if isinstance(event, kinds)]


async def test_it_accepts_a_soknad_and_the_files_are_byte_identical(rig: Rig) -> None:
    files = {"soknad.json": b"{}", "tom.pdf": b"", "Søknad (1).pdf": random.Random(1).randbytes(700_000)}
    leveranse = make_leveranse(files)
    connector = await rig.connect()
    assert isinstance(await connector.deliver(leveranse), Mottatt | Levert)
    assert rig.received(leveranse.melding_id) == files
    await connector.close()


async def test_a_repeat_is_one_soknad_and_the_same_answer(rig: Rig) -> None:
    leveranse = make_leveranse()
    connector = await rig.connect()
    first = await connector.deliver(leveranse)
    rig.move_on()
    assert await connector.deliver(leveranse) == first
    await connector.close()
    again = await rig.connect()
    assert await again.deliver(leveranse) == first
    assert rig.visible() == {leveranse.melding_id}
    await again.close()


async def test_two_processes_that_are_asked_at_the_same_time_give_one_whole_soknad(rig: Rig) -> None:
    one, other = await rig.connect(), await rig.connect()
    content = {"soknad.json": b"{}", "a.pdf": bytes(300_000)}
    leveranse = make_leveranse(content)
    await asyncio.gather(one.deliver(leveranse), other.deliver(leveranse), return_exceptions=True)
    for connector in (one, other):
        assert isinstance(await connector.deliver(leveranse), Mottatt | Levert)
    assert rig.received(leveranse.melding_id) == content


async def test_an_unavailable_fagsystem_is_retriable_and_nothing_is_kept(rig: Rig) -> None:
    leveranse = make_leveranse()
    connector = await rig.connect()
    rig.down()
    with pytest.raises(FagsystemUnavailableError):
        await connector.deliver(leveranse)
    rig.up()
    assert rig.visible() == set()
    assert isinstance(await connector.deliver(leveranse), Mottatt | Levert)
    await connector.close()


async def test_what_breaks_in_the_middle_is_never_seen_and_goes_through_the_next_time(rig: Rig) -> None:
    melding_id = MeldingId.new()
    connector = await rig.connect()
    with pytest.raises(MismatchError):
        await connector.deliver(make_leveranse(melding_id=melding_id, breaks=MismatchError("endret")))
    assert rig.visible() == set()
    whole = make_leveranse(melding_id=melding_id)
    await connector.deliver(whole)
    received = rig.received(melding_id)
    assert received is not None
    assert received.keys() == {file.name for file in whole.files}
    await connector.close()


async def test_what_is_cancelled_in_the_middle_is_never_seen(rig: Rig) -> None:
    connector = await rig.connect()
    leveranse = make_leveranse(waits=asyncio.Event())
    task = asyncio.create_task(connector.deliver(leveranse))
    await asyncio.wait((task,), timeout=0.05)
    assert rig.visible() == set()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert rig.visible() == set()
    await connector.close()


async def test_several_at_a_time_do_not_disturb_each_other(rig: Rig) -> None:
    connector = await rig.connect()
    many = [make_leveranse({"a.pdf": bytes([n]) * 1000}) for n in range(8)]
    await asyncio.gather(*(connector.deliver(each) for each in many))
    assert [rig.received(each.melding_id) for each in many] == [{"a.pdf": bytes([n]) * 1000} for n in range(8)]
    await connector.close()


async def test_a_rejection_is_an_answer_with_a_code_and_stays_the_same(rig: Rig) -> None:
    leveranse = make_leveranse()
    rig.reject(leveranse.melding_id)
    connector = await rig.connect()
    svar: Svar | ConnectorEvent = await connector.deliver(leveranse)
    assert await connector.deliver(leveranse) == svar
    if isinstance(svar, Levert):
        rig.move_on()
        (svar,) = of_kind(await first_events(connector, 1), SvarAvvist)
    assert isinstance(svar, Avvist | SvarAvvist)
    assert svar.kode == "demo.avvist"
    await connector.close()


async def test_a_later_answer_comes_again_after_a_restart_until_it_is_acknowledged(rig: Rig) -> None:
    rig.answer_later()
    leveranse = make_leveranse()
    connector = await rig.connect()
    assert await connector.deliver(leveranse) == Levert()
    rig.move_on()
    (told,) = await first_events(connector, 1)
    assert isinstance(told, SvarMottatt)
    assert told.melding_id == leveranse.melding_id
    await connector.close()
    again = await rig.connect()
    (repeated, update) = await first_events(again, 2)
    assert repeated == told
    await repeated.ack()
    await update.ack()
    await again.close()
    assert await nothing_comes(await rig.connect())


async def test_what_is_acknowledged_out_of_order_comes_again_only_where_it_must(rig: Rig) -> None:
    rig.answer_later()
    connector = await rig.connect()
    await connector.deliver(make_leveranse())
    rig.move_on()
    answer, update = await first_events(connector, 2)
    await update.ack()
    await connector.close()
    again = await rig.connect()
    (first,) = await first_events(again, 1)
    assert first == answer
    await again.close()


async def test_a_case_update_has_the_documents_bytes_and_a_refused_one_is_not_told_again(rig: Rig) -> None:
    rig.answer_later()
    connector = await rig.connect()
    await connector.deliver(make_leveranse())
    rig.move_on()
    answer, update = await first_events(connector, 2)
    assert isinstance(update, Oppdatering)
    assert update.digisos_id == CASE
    assert b"MOTTATT" in update.digisos_soker
    await answer.ack()
    await update.refuse(MismatchError("nei"))
    await connector.close()
    assert await nothing_comes(await rig.connect())


async def test_a_connector_survives_a_fagsystem_that_is_down_while_it_listens(rig: Rig) -> None:
    rig.answer_later()
    connector = await rig.connect()
    await connector.deliver(make_leveranse())
    rig.move_on()
    rig.down()
    if not isinstance(rig, MemoryRig):
        with pytest.raises(FagsystemUnavailableError):
            await first_events(connector, 1)
    rig.up()
    assert isinstance((await first_events(connector, 1))[0], SvarMottatt)
    await connector.close()
