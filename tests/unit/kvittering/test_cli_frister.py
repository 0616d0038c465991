from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from kvittering import cli_frister
from schemas.errors import ConfigurationError, InvalidNameError

LINE = {
    "digisosId": "3fa85f64-5717-4562-b3fc-2c963f66afa6",
    "meldingId": "9b2c0d7e-1f4a-4c3b-8d6e-5a7f8091a2b3",
    "kommunenummer": "0301",
    "kanal": "KAFKA",
    "arsak": "dodt-brev",
    "kode": "krypto.apning",
    "akseptert": "2026-11-23T12:00:00.000Z",
    "forfall": "2026-11-24T12:00:00.000Z",
    "ventetS": 26 * 3600 + 59,
    "overS": 2 * 3600,
}
ASK = ["--status-url", "http://status.test", "--token", "hemmelig"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    seen: list[httpx.Request] = []
    view: dict[str, Any] = {"tidspunkt": "2026-11-24T14:00:00.000Z", "antall": 1, "kommuner": [], "frister": [LINE]}
    answers = {"status": 200, "view": view, "seen": seen}

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(answers["status"], json=answers["view"])

    real = httpx.AsyncClient
    monkeypatch.setattr(
        cli_frister.httpx, "AsyncClient", lambda **options: real(transport=httpx.MockTransport(handle), **options)
    )
    return answers


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli_frister.app, ["list", *arguments], env={"COLUMNS": "160"})


def test_the_list_says_how_long_where_and_why(asked: Any) -> None:
    result = run(*ASK)
    assert result.exit_code == 0, result.output
    for word in ("0301", "1d2h", "2h", "KAFKA", "dodt-brev: krypto.apning", LINE["digisosId"], "1 over fristen"):
        assert str(word) in result.stdout
    assert asked["seen"][0].headers["authorization"] == "Bearer hemmelig"


def test_what_is_near_is_said_to_be_so(asked: Any) -> None:
    asked["view"] |= {"antall": 0, "frister": [LINE | {"overS": -1800, "kode": None, "arsak": "ikke-sendt"}]}
    result = run(*ASK, "--innen", "6h", "--kommune", "0301", "--antall", "5")
    assert "om 30m" in result.stdout
    assert "ingen er over fristen" in result.stdout
    assert dict(asked["seen"][0].url.params) == {"innen": "6h", "antall": "5", "kommunenummer": "0301"}


def test_machines_get_the_list_as_it_is(asked: Any) -> None:
    assert json.loads(run(*ASK, "--json").stdout) == asked["view"]


def test_an_empty_list_is_an_answer(asked: Any) -> None:
    asked["view"] |= {"antall": 0, "frister": []}
    assert run(*ASK).stdout.strip() == "ingen er over fristen"


def test_a_refusal_is_told(asked: Any) -> None:
    asked["status"] = 403
    assert isinstance(run(*ASK).exception, ConfigurationError)


def test_what_is_asked_wrongly_is_refused_before_anybody_is_asked(asked: Any) -> None:
    assert isinstance(run(*ASK, "--kommune", "Oslo").exception, InvalidNameError)
    assert isinstance(run(*ASK, "--innen", "snart").exception, InvalidNameError)
    assert asked["seen"] == []


def test_an_address_that_does_not_answer_is_exit_code_3() -> None:
    assert run("--status-url", "http://127.0.0.1:9", "--token", "x").exit_code == 3


def test_without_a_set_up_it_says_what_to_do(tmp_path: Path) -> None:
    result = run("--data", str(tmp_path))
    assert isinstance(result.exception, ConfigurationError)
    assert "formidler up" in str(result.exception)
