from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from typer.testing import CliRunner

from broker.routing import TRANSPORT
from kvittering import cli_status as module
from kvittering import emner
from kvittering.cli_status import Outcome, app
from kvittering.comparing import Comparison, Difference
from kvittering.rebuild import Progress, Rebuilt
from kvittering.store import StatusStore
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

runner = CliRunner()


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    yield
    structlog.reset_defaults()  # the command sends its log to a stream that is closed by now


async def stop(path: Path, **topics: str) -> None:
    async with StatusStore(path) as store:
        await store.write(lambda connection: emner.note(connection, {TRANSPORT: topics["why"]}))


def test_stopped_topics_are_accepted_and_told_once(tmp_path: Path) -> None:
    path = tmp_path / "k.sqlite"
    asyncio.run(stop(path, why="slettet og laget på nytt"))
    result = runner.invoke(app, ["godta-emner", "--lager", str(path), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"godtatt": [{"topic": TRANSPORT, "avvik": "slettet og laget på nytt"}]}
    (line,) = [json.loads(one) for one in result.stderr.splitlines()]
    assert (line["event"], line["topic"], line["avvik"]) == ("topic_accepted", TRANSPORT, "slettet og laget på nytt")
    assert line["navn"]
    again = runner.invoke(app, ["godta-emner", "--lager", str(path)])
    assert (again.exit_code, again.stdout) == (0, "ingen emner er stoppet\n")


def test_a_topic_that_the_store_does_not_know_is_not_accepted(tmp_path: Path) -> None:
    path = tmp_path / "k.sqlite"
    asyncio.run(stop(path, why="x"))
    result = runner.invoke(app, ["godta-emner", "--lager", str(path), "--topic", "fiks.9999.kvittering.v1"])
    assert isinstance(result.exception, ConfigurationError)
    assert "fiks.9999.kvittering.v1" in str(result.exception)


def test_without_a_store_there_is_nothing_to_accept(tmp_path: Path) -> None:
    result = runner.invoke(app, ["godta-emner", "--lager", str(tmp_path / "k.sqlite")])
    assert isinstance(result.exception, ConfigurationError)
    assert not (tmp_path / "k.sqlite").exists()


def rebuilt() -> Rebuilt:
    one = Rebuilt(records=30, soknader=10, read_s=1.0, fold_s=2.0, cut=frozenset([TRANSPORT]))
    one.outcomes.update({"MOTTATT": 29, "UNDERKJENT": 1})
    return one


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Outcome]:
    """Let the command come to the outcome that is put here, without Kafka."""
    given: list[Outcome] = []

    async def rebuild(*_: Any, **__: Any) -> Outcome:
        return given[0]

    monkeypatch.setattr(module, "_rebuild", rebuild)
    monkeypatch.setattr(module, "kafka_access", lambda *_, **__: None)
    monkeypatch.setenv("FORMIDLER_KVITTERING_DATABASE", str(tmp_path / "k.sqlite"))
    return given


def call(*arguments: str) -> Any:
    return runner.invoke(app, ["rebuild", "--innsyn", "x.pem", *arguments])


def test_stores_that_are_alike_are_told_with_what_it_took(answer: list[Outcome]) -> None:
    answer.append(Outcome(rebuilt(), Comparison(compared=10, under_way=2)))
    result = call("--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (document["poster"], document["posterPerSekund"], document["underveis"]) == (30, 10, 2)
    assert document["utfall"] == {"MOTTATT": 29, "UNDERKJENT": 1}
    assert document["beskarneEmner"] == [TRANSPORT]
    shown = call().stdout
    assert "like: 10 søknader sammenlignet, 0 forskjellige, 2 endret underveis" in shown
    assert f"{TRANSPORT} har ikke lenger sine første poster" in shown


def test_a_difference_is_told_by_id_and_field_and_is_no_success(answer: list[Outcome]) -> None:
    found = Difference("0b9c6a0e-0000-4000-8000-000000000000", ("status", "oppdatert"))
    answer.append(Outcome(rebuilt(), Comparison(compared=10, differing=60), [found] * 55))
    result = call("--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["forskjeller"][0] == {"digisosId": found.digisos_id, "felt": list(found.felt)}
    shown = call().stdout
    assert f"{found.digisos_id}  status, oppdatert" in shown
    assert "… og 10 til" in shown


def test_stores_that_were_exchanged_are_a_success_whatever_differed(answer: list[Outcome]) -> None:
    outcome = Outcome(rebuilt(), Comparison(compared=10, differing=1), swapped=True, kept_at="k", former="k.gammel-1")
    answer.append(outcome)
    result = call("--bytt")
    assert result.exit_code == 0
    assert "det gamle ligger i k.gammel-1" in result.stdout


def test_without_a_running_store_there_is_nothing_to_compare_with(answer: list[Outcome]) -> None:
    answer.append(Outcome(rebuilt(), kept_at="ny.sqlite"))
    result = call("--til", "ny.sqlite")
    assert result.exit_code == 0
    assert "ikke noe lager å sammenligne med" in result.stdout


def test_a_database_server_needs_a_place_for_the_new_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORMIDLER_KVITTERING_DATABASE", "postgresql://localhost/kvittering")
    result = call()
    assert isinstance(result.exception, ConfigurationError)
    assert "--til" in str(result.exception)


def test_progress_goes_to_people_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    module._tell(Progress("leser", 100, 300, per_s=50.0))
    assert "leser: 100 av 300 poster, 50 i sekundet, 4 s igjen" in capsys.readouterr().err
