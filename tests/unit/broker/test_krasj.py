"""Crash points: dead when the environment asks for it, at the pass that it asks for, and otherwise nothing at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from broker.krasj import CRASH_POINTS, KRASJ_ENV, KRASJ_FILE_ENV, armed, crash_point
from schemas.errors import ConfigurationError

POINT = "producers.outbox.after-commit"
THREE_TIMES = f"""
from broker.krasj import crash_point
for number in range(3):
    crash_point("producers.outbox.before-commit")
    crash_point("{POINT}")
    print(number, flush=True)
"""


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", THREE_TIMES],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_the_environment_nothing_happens() -> None:
    assert armed({}) is None
    for name in CRASH_POINTS:
        crash_point(name)


def test_a_process_dies_by_kill_9_at_the_place_that_was_asked_for() -> None:
    ended = run(**{KRASJ_ENV: POINT})
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "")


def test_a_number_says_at_which_pass() -> None:
    ended = run(**{KRASJ_ENV: f"{POINT}:3"})
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "0\n1\n")


def test_the_file_tells_that_it_happened_and_lets_the_next_life_live(tmp_path: Path) -> None:
    file = tmp_path / "krasjet"
    environment = {KRASJ_ENV: POINT, KRASJ_FILE_ENV: str(file)}
    assert run(**environment).returncode == -signal.SIGKILL
    assert file.exists()
    again = run(**environment)
    assert (again.returncode, again.stdout) == (0, "0\n1\n2\n")


def test_a_place_that_is_not_passed_leaves_no_file(tmp_path: Path) -> None:
    file = tmp_path / "krasjet"
    assert run(**{KRASJ_ENV: f"{POINT}:4", KRASJ_FILE_ENV: str(file)}).returncode == 0
    assert not file.exists()


@pytest.mark.parametrize("wanted", ["finnes.ikke", f"{POINT}:0", f"{POINT}:to", f"{POINT}:-1"])
def test_what_is_no_crash_point_is_refused(wanted: str) -> None:
    with pytest.raises(ConfigurationError, match="krasjpunkt"):
        armed({KRASJ_ENV: wanted})
