"""Every command of ``formidler`` explains itself, and speaks JSON where it tells something."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from broker.cli.main import app

_NO_DATA = {"run", "stop"}  # their output is a log, or nothing


def _walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    names = command.list_commands(None) if hasattr(command, "list_commands") else []
    if not names:
        yield path, command
    for name in names:
        child = command.get_command(None, name)
        yield from _walk(child, (*path, name))


def _leaves() -> list[tuple[str, Any]]:
    return [(" ".join(path), command) for path, command in _walk(get_command(app), ())]


@pytest.fixture(scope="module")
def leaves() -> list[tuple[str, Any]]:
    found = _leaves()
    assert len(found) >= len(entry_points(group="meldingsformidler.commands"))
    return found


def test_every_command_shows_an_example(leaves: list[tuple[str, Any]]) -> None:
    silent = [path for path, command in leaves if "Eksempel" not in f"{command.epilog or ''}{command.help or ''}"]
    assert silent == []


def test_every_example_calls_the_command_that_it_stands_under(leaves: list[tuple[str, Any]]) -> None:
    wrong = [
        path for path, command in leaves if f"formidler {path}" not in f"{command.epilog or ''}{command.help or ''}"
    ]
    assert wrong == []


def test_every_command_has_json_where_it_tells_something(leaves: list[tuple[str, Any]]) -> None:
    without = [
        path
        for path, command in leaves
        if path.split()[-1] not in _NO_DATA and "--json" not in {o for p in command.params for o in p.opts}
    ]
    assert without == []


def test_every_option_is_explained(leaves: list[tuple[str, Any]]) -> None:
    mute = [
        f"{path}: {parameter.name}"
        for path, command in leaves
        for parameter in command.params
        if parameter.name != "help" and not parameter.help
    ]
    assert mute == []


def test_help_works_for_every_command(leaves: list[tuple[str, Any]]) -> None:
    runner = CliRunner()
    for path, _ in leaves:
        result = runner.invoke(app, [*path.split(), "--help"], prog_name="formidler")
        assert result.exit_code == 0, (path, result.output)
        assert "Usage" in result.output, path


def test_an_unknown_command_is_wrong_usage() -> None:
    assert CliRunner().invoke(app, ["finnes-ikke"]).exit_code == 2


def test_the_shell_can_complete_the_names_of_the_commands() -> None:
    environment = os.environ | {"_FORMIDLER_COMPLETE": "complete_bash", "COMP_WORDS": "formidler k", "COMP_CWORD": "1"}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("formidler"))], env=environment, capture_output=True, text=True, check=False
    )
    assert {"kafka", "kommune", "konvolutt"} <= set(done.stdout.split()), done.stderr
