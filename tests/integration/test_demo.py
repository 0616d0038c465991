"""The demo is itself a test: a whole day, from an empty folder, judged by its own verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from producers.demo.plan import Role

pytestmark = pytest.mark.kafka

WITHIN_S = 300.0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "broker.cli", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)


def test_a_day_among_six_kommuner_ends_with_every_check_holding(tmp_path: Path) -> None:
    ended = run("--json", "--soknader", "30", "--seed", "11", "--data", str(tmp_path / "data"))
    document = json.loads(ended.stdout)
    assert [line for line in document["dom"] if not line["holder"]] == []
    assert document["ok"] is True
    assert ended.returncode == 0
    assert len(document["soknader"]) == 30
    assert {soknad["rolle"] for soknad in document["soknader"]} == set(Role)
    assert len({soknad["kommunenummer"] for soknad in document["soknader"]}) == 6


def test_a_day_with_too_few_kommuner_is_refused_in_words() -> None:
    ended = run("--kommuner", "0301,4601")
    assert ended.returncode == 1
    assert "minst 3 kommuner" in ended.stderr


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "oppsett.json").write_text("{}")
    ended = run("--data", str(tmp_path))
    assert ended.returncode == 1
    assert "i bruk" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["oppsett.json"]
