"""``requirements.lock`` is what gets installed: it must cover pyproject.toml, with digests and without hosts."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


@pytest.fixture(scope="session")
def lock(root: Path) -> str:
    return (root / "requirements.lock").read_text("utf-8")


@pytest.fixture(scope="session")
def pinned(lock: str) -> dict[str, list[Version]]:
    found: dict[str, list[Version]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", lock, re.MULTILINE):
        found.setdefault(canonicalize_name(name), []).append(Version(version))
    return found


def _requirements(root: Path) -> list[Requirement]:
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    names = [
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
    ]
    return [Requirement(name) for name in names]


def test_every_dependency_is_locked_at_a_version_that_it_allows(root: Path, pinned: dict[str, list[Version]]) -> None:
    stale = [
        str(requirement)
        for requirement in _requirements(root)
        if not any(requirement.specifier.contains(v) for v in pinned.get(canonicalize_name(requirement.name), []))
    ]
    assert not stale, f"run `make lock`: {stale}"


def test_every_pin_has_a_digest(lock: str) -> None:
    for pin in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in pin, pin.splitlines()[0]


@pytest.mark.parametrize("name", ["requirements.lock", ".ci/uv.lock"])
def test_no_lock_names_a_host_or_a_place(root: Path, name: str) -> None:
    path = root / name
    if not path.exists():
        pytest.skip("the source tree is not here: this run tests an installed wheel")
    text = path.read_text("utf-8")
    assert not re.search(r"://|^-|^ *--(?!hash=sha256:)", text, re.MULTILINE)


def test_the_installer_is_pinned_to_one_version_with_digests(root: Path) -> None:
    text = (root / ".ci" / "uv.lock").read_text("utf-8")
    assert re.findall(r"^uv==\d+\.\d+\.\d+ ", text, re.MULTILINE)
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", text)) > 1
