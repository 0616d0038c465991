from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from producers import cli_utskrift
from schemas.errors import ChannelUnavailableError, ConfigurationError

FIRST = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
SECOND = "9b2c0d7e-1f4a-4c3b-8d6e-5a7f8091a2b3"


def run(folder: Path, *arguments: str) -> Any:
    return CliRunner().invoke(cli_utskrift.app, [*arguments, "--mappe", str(folder)], env={"COLUMNS": "200"})


def put(folder: Path, melding_id: str, *, laget: str, hastegrad: str = "VANLIG", **last: Any) -> None:
    files = [
        {"fil": "00-forside.pdf", "sider": 1, "merknad": None},
        {"fil": "01-soknad.pdf", "sider": 3, "merknad": None},
    ]
    files[1] |= last
    document = {
        "meldingId": melding_id,
        "kommunenummer": "0301",
        "hastegrad": hastegrad,
        "laget": laget,
        "filer": files,
    }
    path = folder / "ko" / melding_id
    path.mkdir()
    (path / "brevsett.json").write_text(json.dumps(document))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ko", "ferdig"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_the_queue_is_listed_with_emergency_help_first(folder: Path) -> None:
    put(folder, FIRST, laget="2026-11-24T12:00:00.000Z")
    put(folder, SECOND, laget="2026-11-24T13:00:00.000Z", hastegrad="NODHJELP", sider=None, merknad="skadet")
    listed = json.loads(run(folder, "list", "--json").stdout)
    assert [(one["meldingId"], one["nodhjelp"], one["sider"], one["skadet"]) for one in listed] == [
        (SECOND, True, None, 1),
        (FIRST, False, 4, 0),
    ]
    shown = run(folder, "list").stdout
    for word in ("NØDHJELP", "4 sider, 2 filer", "1 må ses på", "2 brevsett"):
        assert word in shown


def test_an_empty_queue_is_an_answer(folder: Path) -> None:
    assert "0 brevsett" in run(folder, "list").stdout


def test_a_set_is_done_once(folder: Path) -> None:
    put(folder, FIRST, laget="2026-11-24T12:00:00.000Z")
    assert json.loads(run(folder, "ferdig", FIRST, "--json").stdout)["ferdig"] is True
    assert (folder / "ferdig" / FIRST / "brevsett.json").is_file()
    assert list((folder / "ko").iterdir()) == []
    again = run(folder, "ferdig", FIRST)
    assert isinstance(again.exception, ConfigurationError)
    assert "før" in str(again.exception)


def test_what_is_not_there_or_is_no_set_is_refused(folder: Path) -> None:
    assert "ikke i køen" in str(run(folder, "ferdig", FIRST).exception)
    assert run(folder, "ferdig", "../../etc").exit_code == 2
    put(folder, FIRST, laget="x")
    (folder / "ko" / FIRST / "brevsett.json").write_text("{}")
    for command in (["ferdig", FIRST], ["list"]):
        assert isinstance(run(folder, *command).exception, ConfigurationError)


def test_a_move_that_fails_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, FIRST, laget="2026-11-24T12:00:00.000Z")

    def fail(*_: object) -> None:
        raise OSError(18, "en annen disk")

    monkeypatch.setattr(Path, "rename", fail)
    assert isinstance(run(folder, "ferdig", FIRST).exception, ChannelUnavailableError)


def test_a_folder_that_is_no_print_folder_is_told(tmp_path: Path) -> None:
    assert "ingen utskriftsmappe" in str(run(tmp_path, "list").exception)
