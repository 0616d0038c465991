from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from broker.kafka.settings import KafkaSettings
from broker.supervisor import children, up
from broker.supervisor.layout import ConnectorSetup, Layout
from broker.supervisor.spec import ProcessSpec
from broker.supervisor.up import Running
from schemas.errors import BrokerUnavailableError, ConfigurationError
from schemas.names import Kommunenummer

DOOR = """
import http.server, json, os, sys, pathlib
order = pathlib.Path(os.environ["ORDER"])
class Door(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ready = os.environ.get("READY", "yes") == "yes"
        body = json.dumps({"klar": ready, "mangler": {} if ready else {"kafka": "svarer ikke"}}).encode()
        self.send_response(200 if ready else 503)
        self.send_header("Formidler-Instans", os.environ.get("INSTANCE", os.environ["FORMIDLER_INSTANS"]))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
import signal
def stop(*_):
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
order.open("a").write(f"+{os.path.basename(__file__)[:-3]}\\n")
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Door).serve_forever()
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    setup = ConnectorSetup(leverandor="acme", type="http", kommuner=(Kommunenummer("0301"),))
    return Layout.prepare(tmp_path / "data", {"acme": setup})


@pytest.fixture
def make_spec(tmp_path: Path, layout: Layout) -> Any:
    def make(name: str, order: int, program: str = DOOR, **environment: str) -> ProcessSpec:
        (tmp_path / f"{name}.py").write_text(program, "utf-8")
        layout.reserve_ports([name])
        given = {"PYTHONPATH": str(tmp_path), "PORT": str(layout.port(name)), "ORDER": str(tmp_path / "order")}
        return ProcessSpec(name, name, order, lambda _: given | environment)

    return make


@pytest.fixture
async def running(layout: Layout) -> AsyncIterator[Running]:
    async with asyncio.TaskGroup() as tasks:
        up = Running(layout, KafkaSettings(bootstrap="127.0.0.1:1"), tasks, lambda _: None)
        try:
            yield up
        finally:
            for name in reversed(list(up.children)):
                await up.stop(name)


def order_of(tmp_path: Path) -> list[str]:
    return (tmp_path / "order").read_text("utf-8").split()


async def test_processes_start_side_by_side_and_all_are_ready(running: Running, make_spec: Any, tmp_path: Path) -> None:
    await running.start_all([make_spec("forst", 10), make_spec("saa", 20)])
    assert list(running.children) == ["forst", "saa"]
    assert sorted(order_of(tmp_path)) == ["+forst", "+saa"]


async def test_one_that_cannot_start_ends_the_start_of_all(layout: Layout, make_spec: Any) -> None:
    broken = make_spec("feil", 10, "import sys\nprint('FORMIDLER_X mangler')\nsys.exit(78)\n")
    started: list[Running] = []

    async def start_both() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            started.append(Running(layout, KafkaSettings(bootstrap="127.0.0.1:1"), tasks, lambda _: None))
            await started[0].start_all([make_spec("frisk", 10), broken])

    with pytest.raises(ExceptionGroup) as caught:
        await start_both()
    assert caught.group_contains(ConfigurationError, match="FORMIDLER_X")
    await started[0].children["frisk"].stop()


async def test_a_process_that_was_stopped_is_gone_and_may_be_stopped_again(running: Running, make_spec: Any) -> None:
    await running.start(make_spec("forst", 10))
    child = running.children["forst"]
    await running.stop("forst")
    await running.stop("forst")
    assert child.pid is None
    assert running.children == {}


async def test_a_process_that_never_gets_ready_is_told_with_its_reason(
    running: Running, make_spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "READY_WITHIN_S", 1.0)
    with pytest.raises(BrokerUnavailableError, match=r"sen ble ikke klar.*svarer ikke.*sen\.log"):
        await running.start(make_spec("sen", 10, READY="no"))


async def test_one_that_is_alive_and_not_ready_does_not_stop_the_others(
    layout: Layout, make_spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "READY_WITHIN_S", 1.0)
    told: list[str] = []
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = Running(layout, KafkaSettings(bootstrap="127.0.0.1:1"), tasks, told.append, strict=False)
        await running.start_all([make_spec("sen", 10, READY="no"), make_spec("frisk", 20)])
        alive = {name for name, child in running.children.items() if child.pid is not None}
        for name in list(running.children):
            await running.stop(name)
    assert alive == {"sen", "frisk"}
    assert list(running.not_ready) == ["sen"]
    assert "svarer ikke" in running.not_ready["sen"]
    assert any("sen.log" in line for line in told)


async def test_one_that_does_not_live_is_an_error_also_when_we_are_not_strict(
    layout: Layout, make_spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "READY_WITHIN_S", 1.0)
    monkeypatch.setattr(children, "FIRST_PAUSE_S", 30.0)
    started: list[Running] = []

    async def start() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            started.append(Running(layout, KafkaSettings(bootstrap="127.0.0.1:1"), tasks, lambda _: None, strict=False))
            await started[0].start(make_spec("dod", 10, "import sys\nsys.exit(1)\n"))

    with pytest.raises(ExceptionGroup) as caught:
        await start()
    assert caught.group_contains(BrokerUnavailableError, match="dod")


async def test_a_stranger_on_the_port_does_not_pass_for_our_child(
    running: Running, make_spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "READY_WITHIN_S", 1.0)
    with pytest.raises(BrokerUnavailableError, match="en annen prosess svarer"):
        await running.start(make_spec("fremmed", 10, INSTANCE="somebody-elses"))


async def test_a_process_with_a_wrong_setting_ends_the_start(layout: Layout, make_spec: Any) -> None:
    spec = make_spec("feil", 10, "import sys\nprint('FORMIDLER_X mangler')\nsys.exit(78)\n")
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            await Running(layout, KafkaSettings(bootstrap="127.0.0.1:1"), tasks, lambda _: None).start(spec)
    assert caught.group_contains(ConfigurationError, match="FORMIDLER_X")


async def test_an_unknown_process_is_a_clear_error(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "find_processes", lambda _: [])
    with pytest.raises(ConfigurationError, match="finnes-ikke"):
        await running.start_named("finnes-ikke")


def test_a_folder_belongs_to_one_at_a_time(layout: Layout) -> None:
    with up._only_one(layout):
        with pytest.raises(Timeout):
            FileLock(layout.folder / "oppe.lock", timeout=0).acquire()
        with pytest.raises(ConfigurationError, match="i bruk"):
            up._only_one(layout)


def test_a_folder_is_free_as_soon_as_its_owner_is_done(layout: Layout) -> None:
    held = up._only_one(layout)
    with held:
        pass
    with up._only_one(layout):
        assert held is not None
