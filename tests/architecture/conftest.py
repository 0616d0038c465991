from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

PACKAGES: Final = ("broker", "consumers", "crypto", "kvittering", "producers", "schemas")


@pytest.fixture(scope="session")
def root() -> Path:
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def sources(root: Path) -> list[Path]:
    """Every module that we ship."""
    found = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    if not found:
        pytest.skip("the source tree is not here: this run tests an installed wheel")
    return found


@pytest.fixture(scope="session")
def test_sources(root: Path) -> list[Path]:
    """Every module of the tests."""
    return sorted((root / "tests").rglob("*.py"))
