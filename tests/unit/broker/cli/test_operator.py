from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from broker.cli.main import app
from broker.operatorer import Operatorer
from schemas.errors import GovernedActError


def run(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["operator", *arguments, "--data", str(data)])


def listed(data: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(run(data, "list", "--json").output)
    return document


def test_an_operator_is_made_listed_and_taken_out(tmp_path: Path) -> None:
    assert run(tmp_path, "ny", "kari").exit_code == 0
    (kari,) = listed(tmp_path)["operatorer"]
    assert (kari["navn"], kari["nokkelHer"], kari["fjernet"]) == ("kari", True, None)
    assert run(tmp_path, "fjern", "kari").exit_code == 0
    (kari,) = listed(tmp_path)["operatorer"]
    assert kari["fjernet"] is not None
    assert kari["nokkelHer"] is False


def test_somebody_elses_certificate_is_registered_without_a_key(tmp_path: Path) -> None:
    run(tmp_path / "annen", "ny", "ola")
    pem = tmp_path / "ola.pem"
    pem.write_text(Operatorer(tmp_path / "annen").load().operatorer[0].sertifikat)
    made = json.loads(run(tmp_path / "her", "ny", "ola", "--sertifikat", str(pem), "--json").output)
    assert made["nokkelHer"] is False


def test_the_list_for_people_says_what_one_may_do_alone(tmp_path: Path) -> None:
    run(tmp_path, "ny", "kari")
    shown = run(tmp_path, "list").output
    assert "kari" in shown
    assert "Mer enn 10 meldinger" in shown
    assert listed(tmp_path)["maksRunder"] == 3


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "ny", "kari")
    assert isinstance(run(tmp_path, "ny", "kari").exception, GovernedActError)
    assert isinstance(run(tmp_path, "fjern", "ola").exception, GovernedActError)


@pytest.mark.parametrize("command", ["ny", "fjern"])
def test_what_was_done_is_said_as_json_too(tmp_path: Path, command: str) -> None:
    if command == "fjern":
        run(tmp_path, "ny", "kari")
    assert json.loads(run(tmp_path, command, "kari", "--json").output)["navn"] == "kari"
