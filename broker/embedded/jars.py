"""Kafka's jars: an existing distribution's, or Maven's, checked against the list of digests that we ship."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.embedded.cache import cache_folder, ensure_folder
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_TIMEOUT_S: Final = 900


def find_jars(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the class path of a Kafka broker, sorted by name.

    ``KAFKA_HOME`` wins; otherwise Maven resolves our ``pom.xml``, once, into a cache folder named by its digest.

    Args:
        environment: ``KAFKA_HOME``, ``PATH`` and the cache folder's variables are read from it.

    Raises:
        ConfigurationError: ``KAFKA_HOME`` holds no Kafka, Maven is missing or fails, or a jar is not the one that we know.
    """
    if home := environment.get("KAFKA_HOME"):
        jars = tuple(sorted((Path(home) / "libs").glob("*.jar")))
        if not any(jar.name.startswith("kafka_2.13-") for jar in jars):
            raise ConfigurationError("KAFKA_HOME peker ikke på en Kafka-distribusjon (libs/kafka_2.13-*.jar mangler)")
        return jars
    digest = hashlib.sha256(_resource("pom.xml")).hexdigest()[:16]
    folder = ensure_folder(cache_folder(environment) / f"kafka-{digest}", lambda target: _resolve(target, environment))
    return tuple(sorted(folder.glob("*.jar")))


def class_path_id(jars: tuple[Path, ...]) -> str:
    """Return a short name for exactly these jars: an archive of classes fits one class path, by place, size and time."""
    lines = [f"{jar}\0{(stat := jar.stat()).st_size}\0{stat.st_mtime_ns}" for jar in jars]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def expected_digests() -> dict[str, str]:
    """Return the SHA-256 of each jar by its name, from ``jars.sha256``."""
    lines = _resource("jars.sha256").decode("ascii").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def verify(folder: Path, digests: Mapping[str, str]) -> None:
    """Check that ``folder`` holds exactly these jars.

    Raises:
        ConfigurationError: One is missing, foreign, or has another content.
    """
    present = {jar.name: jar for jar in folder.glob("*.jar")}
    wrong = sorted(set(present) ^ set(digests))
    wrong += sorted(name for name, jar in present.items() if name in digests and _sha256(jar) != digests[name])
    if wrong:
        raise ConfigurationError(f"Kafkas jar-filer er ikke de vi kjenner (jars.sha256): {', '.join(wrong)}")


def _resolve(target: Path, environment: Mapping[str, str]) -> None:
    maven = shutil.which("mvn", path=environment.get("PATH", ""))
    if maven is None:
        raise ConfigurationError(
            "fant ikke mvn, som henter Kafka: installer Maven (Debian og Ubuntu: apt-get install maven), "
            "eller pakk ut Kafka og sett KAFKA_HOME"
        )
    pom = target / "pom.xml"
    pom.write_bytes(_resource("pom.xml"))
    command = [
        maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies",
        "-DincludeScope=runtime", f"-DoutputDirectory={target}",
    ]  # fmt: skip
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT_S)  # noqa: S603  # our own arguments
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigurationError(
            "Maven kunne ikke hente Kafka: er det forbindelse til Maven Central (eller et speil i ~/.m2/settings.xml)?"
        ) from error
    verify(target, expected_digests())


def _resource(name: str) -> bytes:
    return resources.files("broker.embedded").joinpath(name).read_bytes()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
