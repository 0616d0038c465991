from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from broker.cli import main as module
from broker.cli.main import app, main
from schemas.errors import (
    BrokerUnavailableError,
    ConfigurationError,
    FagsystemUnavailableError,
    MeldingsformidlerError,
    UnsealError,
)


class _Point:
    def __init__(self, name: str, thing: Any) -> None:
        self.name, self.thing = name, thing

    def load(self) -> Any:
        return self.thing


def offer(monkeypatch: pytest.MonkeyPatch, **commands: Any) -> None:
    points = [_Point(name, thing) for name, thing in commands.items()]
    monkeypatch.setattr(module, "entry_points", lambda group: points if group == module.GROUP else [])


def test_the_version_is_the_installed_one() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"formidler {version('meldingsformidler')}\n")


def test_without_a_command_it_explains_itself() -> None:
    result = CliRunner().invoke(app, [])
    assert "Eksempel" in result.output
    assert "konvolutt" in result.output


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_where_people_look_for_it(flag: str) -> None:
    assert CliRunner().invoke(app, [flag]).exit_code == 0


def test_a_command_may_be_a_function_or_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    group = typer.Typer()

    @group.command("en")
    def one() -> None:
        typer.echo("en")

    @group.command("to")
    def two() -> None:
        typer.echo("to")

    def alone(name: str) -> None:
        typer.echo(f"alene {name}")

    _ = one, two
    offer(monkeypatch, gruppe=group, alene=alone)
    runner = CliRunner()
    assert runner.invoke(app, ["gruppe", "to"]).output == "to\n"
    assert runner.invoke(app, ["alene", "x"]).output == "alene x\n"
    assert runner.invoke(app, ["finnes-ikke"]).exit_code == 2


def test_only_the_command_that_is_used_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    class _Explosive(_Point):
        def load(self) -> Any:
            raise AssertionError("loaded for nothing")

    def alone() -> None:
        typer.echo("ok")

    monkeypatch.setattr(module, "entry_points", lambda **_: [_Explosive("annen", None), _Point("alene", alone)])
    assert CliRunner().invoke(app, ["alene"]).output == "ok\n"


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (ConfigurationError("FORMIDLER_X mangler"), 1),
        (UnsealError(), 1),
        (BrokerUnavailableError("Kafka svarer ikke"), 3),
        (FagsystemUnavailableError("fagsystemet svarer ikke"), 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_of_ours_is_a_line_and_an_exit_code(
    error: MeldingsformidlerError, exit_code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise error

    offer(monkeypatch, feiler=fails)
    monkeypatch.setattr(sys, "argv", ["formidler", "feiler"])
    with pytest.raises(SystemExit) as caught:
        main()
    printed = capsys.readouterr()
    assert caught.value.code == exit_code
    assert printed.out == ""
    assert printed.err.startswith("feil: ")
    assert str(error) in printed.err
    assert error.code in printed.err
    assert "Traceback" not in printed.err


def test_with_json_an_error_is_a_document_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
        assert as_json
        raise BrokerUnavailableError("Kafka svarer ikke")

    offer(monkeypatch, feiler=fails)
    monkeypatch.setattr(sys, "argv", ["formidler", "feiler", "--json"])
    with pytest.raises(SystemExit) as caught:
        main()
    printed = capsys.readouterr()
    assert caught.value.code == 3
    assert printed.err == ""
    assert json.loads(printed.out) == {"ok": False, "feil": "Kafka svarer ikke", "kode": BrokerUnavailableError.code}


def test_text_in_an_error_is_never_taken_for_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise ConfigurationError("filer: [a/b.pem] og [/red]")

    offer(monkeypatch, feiler=fails)
    monkeypatch.setattr(sys, "argv", ["formidler", "feiler"])
    with pytest.raises(SystemExit):
        main()
    assert "[a/b.pem] og [/red]" in capsys.readouterr().err


def test_the_module_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "broker.cli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"formidler {version('meldingsformidler')}\n"
