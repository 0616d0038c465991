from __future__ import annotations

import hashlib
from importlib import resources
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from broker.embedded.jars import class_path_id, expected_digests, find_jars, verify
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def digests(folder: Path) -> dict[str, str]:
    return {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in folder.glob("*.jar")}


@pytest.fixture
def jars(tmp_path: Path) -> Path:
    for name in ("a.jar", "b.jar"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_the_list_of_digests_holds_what_the_pom_asks_for() -> None:
    pom = ET.fromstring(resources.files("broker.embedded").joinpath("pom.xml").read_text())
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    for dependency in pom.iterfind(".//m:dependency", space):
        artifact, version = (dependency.findtext(f"m:{part}", namespaces=space) for part in ("artifactId", "version"))
        assert f"{artifact}-{version}.jar" in expected_digests()
    assert len(expected_digests()) == 45


def test_known_jars_are_accepted(jars: Path) -> None:
    verify(jars, digests(jars))


def test_a_changed_jar_is_refused_by_name(jars: Path) -> None:
    known = digests(jars)
    (jars / "b.jar").write_bytes(b"changed")
    with pytest.raises(ConfigurationError, match=r"b\.jar"):
        verify(jars, known)


@pytest.mark.parametrize("change", ["missing", "foreign"])
def test_a_jar_too_few_or_too_many_is_refused(jars: Path, change: str) -> None:
    known = digests(jars)
    if change == "missing":
        (jars / "b.jar").unlink()
    else:
        (jars / "c.jar").write_bytes(b"c")
    with pytest.raises(ConfigurationError):
        verify(jars, known)


def test_an_existing_distribution_is_used_as_it_is(tmp_path: Path) -> None:
    libs = tmp_path / "libs"
    libs.mkdir()
    for name in ("kafka_2.13-4.4.0.jar", "a.jar", "readme.txt"):
        (libs / name).touch()
    assert find_jars({"KAFKA_HOME": str(tmp_path)}) == (libs / "a.jar", libs / "kafka_2.13-4.4.0.jar")


def test_a_kafka_home_without_kafka_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="KAFKA_HOME"):
        find_jars({"KAFKA_HOME": str(tmp_path)})


def test_without_maven_the_error_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="apt-get install maven"):
        find_jars({"PATH": "", "XDG_CACHE_HOME": str(tmp_path)})


def fake_maven(folder: Path, script: str) -> str:
    program = folder / "bin" / "mvn"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{program.parent}:/usr/bin:/bin"


def test_a_maven_that_fails_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    environment = {"PATH": fake_maven(tmp_path, "exit 1"), "XDG_CACHE_HOME": str(tmp_path)}
    with pytest.raises(ConfigurationError, match="Maven kunne ikke hente"):
        find_jars(environment)
    assert not any(one.is_dir() for one in (tmp_path / "meldingsformidler").iterdir())


def test_what_maven_brings_is_checked_before_it_is_kept(tmp_path: Path) -> None:
    script = 'for one in "$@"; do case $one in -DoutputDirectory=*) echo evil > "${one#*=}/evil.jar";; esac; done'
    environment = {"PATH": fake_maven(tmp_path, script), "XDG_CACHE_HOME": str(tmp_path)}
    with pytest.raises(ConfigurationError, match=r"evil\.jar"):
        find_jars(environment)
    assert not any(one.is_dir() for one in (tmp_path / "meldingsformidler").iterdir())


def test_another_class_path_has_another_archive(jars: Path) -> None:
    both = tuple(sorted(jars.glob("*.jar")))
    before = class_path_id(both)
    assert class_path_id(both) == before
    assert class_path_id(both[:1]) != before
    both[0].write_bytes(b"changed")
    assert class_path_id(both) != before
