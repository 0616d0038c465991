from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from broker.cli import kafka
from broker.cli.kafka import SUBFOLDER, app
from broker.embedded.folder import DataFolder
from schemas.errors import BrokerUnavailableError


class FakeServer:
    """Makes a folder as the embedded broker does, and runs nothing."""

    started: list[tuple[Path, bool]]

    def __init__(self, path: Path, *, die_with_parent: bool) -> None:
        self._path = path
        self._die_with_parent = die_with_parent

    def start(self) -> None:
        folder = DataFolder(self._path)
        os.close(folder.lock())
        folder.open_state()
        self.started.append((self._path, self._die_with_parent))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, bool]]:
    monkeypatch.setattr(FakeServer, "started", [], raising=False)
    monkeypatch.setattr(kafka, "EmbeddedKafka", FakeServer)
    return FakeServer.started


@pytest.fixture
def running(tmp_path: Path) -> Iterator[DataFolder]:
    """A folder whose lock is held, as by a broker that runs."""
    folder = DataFolder(tmp_path / SUBFOLDER)
    with open(folder.lock(), "rb"):  # noqa: PTH123 - a descriptor, not a path
        folder.open_state()
        yield folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})


def document(result: Result) -> dict[str, Any]:
    return dict(json.loads(result.stdout))


def test_start_runs_a_broker_that_outlives_the_command(tmp_path: Path, started: list[tuple[Path, bool]]) -> None:
    result = run("start", "--data", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    assert started == [(tmp_path / "kafka", False)]
    told = document(result)
    assert told["kjorer"] is True
    assert told["bruker"] == "admin"
    properties = Path(told["klient"]).read_text("utf-8")
    assert f"bootstrap.servers={told['adresse']}" in properties
    assert Path(told["klient"]).stat().st_mode & 0o777 == 0o600


def test_start_tells_a_person_how_to_look_and_how_to_stop_without_the_password(
    tmp_path: Path, started: list[tuple[Path, bool]]
) -> None:
    result = run("start", "--data", tmp_path)
    assert started
    assert "kcat -F" in result.stdout
    assert f"formidler kafka stop --data {tmp_path}" in result.stdout
    state = DataFolder(tmp_path / "kafka").state()
    assert state
    assert state.admin_password not in result.output


def test_start_changes_nothing_where_one_runs(running: DataFolder, started: list[tuple[Path, bool]]) -> None:
    result = run("start", "--data", running.path.parent, "--json")
    assert result.exit_code == 0, result.output
    assert started == []
    assert document(result)["mappe"] == str(running.path)


@pytest.mark.parametrize("was_running", [True, False])
def test_stop_says_whether_one_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, was_running: bool) -> None:
    asked: list[Path] = []

    def stop(path: Path) -> bool:
        asked.append(path)
        return was_running

    monkeypatch.setattr(kafka, "stop_folder", stop)
    assert document(run("stop", "--data", tmp_path, "--json")) == {"kjorer": False, "stoppet": was_running}
    assert ("er stoppet" in run("stop", "--data", tmp_path).stdout) is was_running
    assert asked == [tmp_path / "kafka"] * 2


def test_a_broker_that_will_not_stop_is_not_called_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: Path) -> bool:
        raise BrokerUnavailableError("Kafka (prosess 1) stoppet ikke")

    monkeypatch.setattr(kafka, "stop_folder", stop)
    result = run("stop", "--data", tmp_path)
    assert isinstance(result.exception, BrokerUnavailableError)
    assert "er stoppet" not in result.stdout


def test_status_of_a_folder_where_nothing_runs_is_unreachable(tmp_path: Path) -> None:
    result = run("status", "--data", tmp_path, "--json")
    assert result.exit_code == 3
    assert document(result) == {"kjorer": False, "mappe": str(tmp_path / "kafka"), "svarer": False}
    assert "kjører ikke" in run("status", "--data", tmp_path).stdout


@pytest.mark.parametrize(("answering", "exit_code", "said"), [(True, 0, " svarer"), (False, 3, "svarer ikke; se ")])
def test_status_of_a_broker_that_runs_says_whether_it_answers(
    running: DataFolder, monkeypatch: pytest.MonkeyPatch, *, answering: bool, exit_code: int, said: str
) -> None:
    monkeypatch.setattr(kafka, "answers", lambda _: answering)
    machine = run("status", "--data", running.path.parent, "--json")
    person = run("status", "--data", running.path.parent)
    assert machine.exit_code == person.exit_code == exit_code
    assert document(machine)["svarer"] is answering
    assert said in person.stdout
