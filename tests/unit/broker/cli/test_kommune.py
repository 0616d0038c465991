from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from broker.cli.main import app
from broker.supervisor.bootstrap import bootstrap, choose_connectors
from schemas.errors import ConfigurationError, InvalidNameError
from schemas.names import Kommunenummer

KOMMUNER = tuple(Kommunenummer(number) for number in ("0301", "4601", "1811"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oppsett") / "data"
    bootstrap(folder, choose_connectors(KOMMUNER), datetime(2026, 11, 23, tzinfo=UTC))
    return folder


def run(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["kommune", *arguments, "--data", str(data)])


def test_the_list_is_the_katalogs(data: Path) -> None:
    found = json.loads(run(data, "list", "--json").output)
    assert [(entry["kommunenummer"], entry["navn"]) for entry in found] == [
        ("0301", "Oslo"),
        ("1811", "Bindal"),
        ("4601", "Bergen"),
    ]
    assert {entry["mottar"] for entry in found} == {"ja"}


def test_all_of_norway_can_be_listed_without_a_set_up(tmp_path: Path) -> None:
    found = json.loads(run(tmp_path, "list", "--alle", "--json").output)
    assert len(found) == 357
    assert {entry["mottar"] for entry in found} == {"nei"}


def test_the_list_for_people_is_a_table(data: Path) -> None:
    output = run(data, "list").output
    assert "Bindal" in output
    assert "Nummer" in output


def test_one_kommune_is_shown_with_certificates_and_offices(data: Path) -> None:
    shown: dict[str, Any] = json.loads(run(data, "show", "0301", "--json").output)
    assert [c["bruk"] for c in shown["sertifikater"]] == ["KRYPTERING", "KVITTERING"]
    assert len(shown["enheter"]) >= 15
    assert shown["iKatalogen"] is True


def test_a_revoked_certificate_is_shown_as_such(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    layout = bootstrap(folder, choose_connectors(KOMMUNER[:1]), datetime(2026, 11, 23, tzinfo=UTC))
    text = layout.katalog.read_text("utf-8")
    named = "- nokler/kommune-0301.pem"
    layout.katalog.write_text(
        text.replace(named, "- {fil: nokler/kommune-0301.pem, tilbakekalt: 2026-11-24T12:00:00Z}"), "utf-8"
    )
    assert "tilbakekalt 2026-11-24T12:00:00Z" in " ".join(run(folder, "show", "0301").output.split())


def test_a_kommune_outside_the_katalog_is_shown_as_not_receiving(data: Path) -> None:
    shown = json.loads(run(data, "show", "1103", "--json").output)
    assert (shown["navn"], shown["iKatalogen"], shown["mottar"], shown["sertifikater"]) == (
        "Stavanger",
        False,
        "nei",
        [],
    )


def test_one_kommune_for_people_names_its_offices(data: Path) -> None:
    output = run(data, "show", "0301").output
    assert "0301 Oslo" in output
    assert "KRYPTERING" in output
    assert "enhet" in output


@pytest.mark.parametrize(("number", "error"), [("9999", ConfigurationError), ("oslo", InvalidNameError)])
def test_an_unknown_number_is_refused(data: Path, number: str, error: type[Exception]) -> None:
    assert isinstance(run(data, "show", number).exception, error)


def test_a_folder_without_a_set_up_says_what_to_do(tmp_path: Path) -> None:
    result = run(tmp_path, "list")
    assert isinstance(result.exception, ConfigurationError)
    assert "formidler up" in str(result.exception)


def test_a_name_from_the_katalog_is_never_taken_for_markup(tmp_path: Path) -> None:
    layout = bootstrap(tmp_path, choose_connectors(KOMMUNER[:1]), datetime(2026, 11, 23, tzinfo=UTC))
    layout.katalog.write_text(layout.katalog.read_text("utf-8").replace("navn: Oslo", "navn: 'Os[/x]lo'"), "utf-8")
    assert "Os[/x]lo" in run(tmp_path, "list").output
    assert "Os[/x]lo" in run(tmp_path, "show", "0301").output
