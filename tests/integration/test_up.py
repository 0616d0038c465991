"""``formidler up`` as a user runs it: in a folder of its own, stopped by Ctrl-C, killed, started again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.embedded.server import EmbeddedKafka
from broker.supervisor.layout import Layout
from producers.demo.plan import PlannedSoknad, plan_day
from producers.demo.portal import Portal
from schemas.names import DigisosId, Kommunenummer

pytestmark = pytest.mark.kafka

KOMMUNER = ("4641", "1811", "5612")
WITHIN_S = 60.0


@dataclass
class Up:
    folder: Path
    process: subprocess.Popen[str]
    document: dict[str, Any]

    def interrupt(self) -> int:
        return self._end(signal.SIGINT)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        with self.process:  # waits, and closes the pipe
            return self.process.wait(WITHIN_S)


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "broker.cli", "up", "--json", "--data", str(folder), *more]


def start(folder: Path, *more: str, environment: Mapping[str, str] | None = None) -> Up:
    process = subprocess.Popen(
        command(folder, "--kommuner", ",".join(KOMMUNER), *more),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "formidler up ended before it was up"
    return Up(folder, process, json.loads(line))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    for pid in processes_of(tmp_path):
        os.kill(pid, signal.SIGKILL)


def processes_of(folder: Path) -> list[int]:
    """The processes that have ``folder`` in their arguments or environment: Kafka and our children."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in text:
                found.append(int(entry.name))
    return found


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def planned() -> PlannedSoknad:
    numbers = tuple(Kommunenummer(number) for number in KOMMUNER)
    return next(s for s in plan_day(3, 8, numbers, datetime.now(UTC)).soknader if s.kommunenummer == KOMMUNER[0])


async def send(folder: Path, soknad: PlannedSoknad) -> DigisosId:
    async with httpx.AsyncClient(timeout=30) as http:
        portal = Portal.of(Layout.load(folder), http)
        return (await portal.send(soknad, await portal.public_key(soknad.person))).digisos_id


async def status_reaches(folder: Path, digisos_id: DigisosId, soknad: PlannedSoknad, wanted: str) -> None:
    async with httpx.AsyncClient(timeout=30) as http, asyncio.timeout(WITHIN_S):
        async for view in Portal.of(Layout.load(folder), http).follow(digisos_id, soknad.person):
            if view["status"] == wanted:
                return


def test_ctrl_c_stops_everything_and_the_next_up_goes_on_where_it_stopped(folder: Path) -> None:
    first = start(folder)
    soknad = planned()
    digisos_id = asyncio.run(send(folder, soknad))
    asyncio.run(status_reaches(folder, digisos_id, soknad, "FERDIGBEHANDLET"))
    assert first.interrupt() == 0
    assert processes_of(folder) == []

    second = start(folder)
    assert second.document["adresser"] == first.document["adresser"]
    assert asyncio.run(send(folder, soknad)) == digisos_id
    asyncio.run(status_reaches(folder, digisos_id, soknad, "FERDIGBEHANDLET"))
    assert second.interrupt() == 0


def test_a_kill_9_loses_nothing_that_was_accepted_and_leaves_nobody_behind(folder: Path) -> None:
    first = start(folder)
    soknad = planned()
    digisos_id = asyncio.run(send(folder, soknad))
    first.kill()
    eventually(lambda: processes_of(folder) == [], "children outlived the supervisor")

    second = start(folder)
    asyncio.run(status_reaches(folder, digisos_id, soknad, "FERDIGBEHANDLET"))
    assert second.interrupt() == 0


def test_a_child_that_is_killed_comes_back(folder: Path) -> None:
    up = start(folder)
    layout = Layout.load(folder)
    address = layout.address("producers")
    victim = next(pid for pid in processes_of(folder) if b"producers" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(victim, signal.SIGKILL)

    def back() -> bool:
        try:
            return httpx.get(f"{address}/isready").is_success and victim not in processes_of(folder)
        except httpx.TransportError:
            return False

    eventually(back, "producers did not come back")
    assert up.interrupt() == 0


def test_two_on_one_folder_are_refused_in_words(folder: Path) -> None:
    up = start(folder)
    second = subprocess.run(command(folder), capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert second.returncode == 1
    assert "i bruk" in json.loads(second.stdout)["feil"]
    assert up.interrupt() == 0


def test_an_unknown_kommune_is_refused_before_anything_is_made(folder: Path) -> None:
    refused = subprocess.run(
        command(folder, "--kommuner", "9999"), capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert refused.returncode == 1
    assert "9999" in json.loads(refused.stdout)["feil"]
    assert not folder.exists()


def test_a_cluster_that_is_already_there_is_used_and_left_running(folder: Path, tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path / "klynge") as cluster:
        up = start(folder, "--kafka", cluster.bootstrap, environment=cluster.admin.environment())
        assert up.document["kafka"] == cluster.bootstrap
        assert not (folder / "kafka").exists()
        soknad = planned()
        digisos_id = asyncio.run(send(folder, soknad))
        asyncio.run(status_reaches(folder, digisos_id, soknad, "FERDIGBEHANDLET"))
        assert up.interrupt() == 0
        assert cluster.pid is not None


def test_a_cluster_that_wants_a_login_is_told_from_one_that_does_not_answer(folder: Path, tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path / "klynge") as cluster:
        refused = subprocess.run(
            command(folder, "--kafka", cluster.bootstrap), capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
    assert refused.returncode == 3
    assert "FORMIDLER_KAFKA_USERNAME" in refused.stderr + refused.stdout


def test_ctrl_c_ends_a_start_that_waits_for_a_cluster_that_is_not_there(folder: Path) -> None:
    process = subprocess.Popen(
        command(folder, "--kafka", "127.0.0.1:1"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    eventually((folder / "logg" / "up.log").exists, "it never began")
    process.send_signal(signal.SIGINT)
    with process:
        assert process.wait(WITHIN_S) in {0, 3, 130}  # 130: before it had begun to wait
