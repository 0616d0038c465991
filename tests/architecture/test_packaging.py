"""Our six folders are imported under their own names, which nobody else may own in the same environment."""

from __future__ import annotations

import importlib
import os
import zipfile
from importlib.metadata import distribution, distributions, entry_points, packages_distributions
from importlib.resources import files
from pathlib import Path
from typing import Final

import pytest

PACKAGES: Final = ("broker", "consumers", "crypto", "kvittering", "producers", "schemas")
GROUPS: Final = ("meldingsformidler.commands", "meldingsformidler.connectors", "meldingsformidler.processes")


@pytest.mark.parametrize("name", PACKAGES)
def test_package_is_ours_alone(name: str) -> None:
    owners = {
        owner
        for package, dists in packages_distributions().items()
        if package.lower() == name  # Crypto and crypto are one folder on macOS and Windows
        for owner in dists
    }
    assert owners <= {"meldingsformidler"}, f"{owners} also ship {name!r}"


@pytest.mark.parametrize("name", PACKAGES)
def test_package_is_imported_from_our_own_installation(name: str) -> None:
    module = importlib.import_module(name)
    place = Path(str(module.__file__)).resolve()
    installed = Path(str(distribution("meldingsformidler").locate_file(""))).resolve()
    tree = Path(__file__).resolve().parents[2]
    expected = installed if os.environ.get("FORMIDLER_EXPECT_WHEEL") else tree
    assert place.is_relative_to(expected), f"{name} is imported from {place}"


@pytest.mark.parametrize("name", PACKAGES)
def test_package_says_that_it_is_typed(name: str) -> None:
    assert files(name).joinpath("py.typed").is_file()


def test_the_banned_names_are_not_installed() -> None:
    installed = {str(d.metadata["Name"]).lower() for d in distributions()}
    assert not installed & {"pycrypto", "pycryptodome"}, "their Crypto and our crypto are one folder on some systems"


def test_docker_has_no_init_file(root: Path) -> None:
    assert not list((root / "docker").rglob("__init__.py")), "it would shadow the Docker SDK in the repository's root"


def test_tests_have_no_init_file(root: Path) -> None:
    assert not list((root / "tests").rglob("__init__.py"))


def test_the_avro_schemas_are_installed() -> None:
    names = {path.name for path in files("schemas").joinpath("avro").iterdir()}
    assert "soknad.v1.avsc" in names


@pytest.mark.parametrize(
    "point", [p for group in GROUPS for p in entry_points(group=group)], ids=lambda p: f"{p.group}:{p.name}"
)
def test_entry_point_loads(point: object) -> None:
    assert point.load() is not None  # type: ignore[attr-defined]  # parametrize hides the type


def test_there_are_entry_points_of_every_kind() -> None:
    for group in GROUPS:
        assert len(entry_points(group=group)) >= 3, group  # an empty group would make the test above pass by itself


def test_the_wheel_holds_every_file_of_the_packages(root: Path, tmp_path: Path) -> None:
    if not (root / "broker").is_dir():
        pytest.skip("the source tree is not here: this run tests an installed wheel")
    from hatchling.builders.wheel import WheelBuilder  # noqa: PLC0415  # only here, and only where there is a tree

    wheel = next(WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    here = {
        str(path.relative_to(root))
        for package in PACKAGES
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here <= packed, f"missing: {sorted(here - packed)}"
    assert not [name for name in packed if name.startswith(("tests/", "docker/", "typings/"))]
