"""What is cited can be found by a stranger: public addresses and this repository, never one person's papers or machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

_PAPERS: Final = ("fiks-kontrakter", "digisos-domene", "kafka-lokalt", r"ytelse\.md", r"stil\.md", r"peers\.md")
_FORBIDDEN: Final = {
    # DESIGN.md is this repository's own; the same name in lower case is somebody's notes.
    "a paper that is not in the repository": re.compile(rf"(?<![\w-])(?:{'|'.join(_PAPERS)})|(?<![\w-])design\.md"),
    "a place on one machine": re.compile(r"(?<![\w.])/(?:home|Users|root|mnt)/\w"),
}
_SUFFIXES: Final = {
    ".py",
    ".md",
    ".toml",
    ".avsc",
    ".pyi",
    ".csv",
    ".xml",
    ".sql",
    ".json",
    ".yaml",
    ".yml",
    ".txt",
    "",
}
_FOLDERS: Final = (
    ".ci",
    "broker",
    "consumers",
    "crypto",
    "docs",
    "kvittering",
    "producers",
    "schemas",
    "tests",
    "typings",
)


@pytest.fixture(scope="module")
def texts(root: Path) -> dict[str, str]:
    paths = [path for folder in _FOLDERS for path in (root / folder).rglob("*") if "__pycache__" not in path.parts]
    found = {
        str(path.relative_to(root)): path.read_text("utf-8", "replace")
        for path in [*paths, *root.glob("*.md"), root / "pyproject.toml", root / "Makefile"]
        if path.is_file() and path.suffix in _SUFFIXES and path != Path(__file__)
    }
    if "broker/routing.py" not in found:
        pytest.skip("the source tree is not here: this run tests an installed wheel")
    return found


@pytest.mark.parametrize("kind", _FORBIDDEN)
def test_nothing_cites_what_a_stranger_cannot_find(texts: dict[str, str], kind: str) -> None:
    pattern = _FORBIDDEN[kind]
    found = [
        f"{name}:{number}"
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == [], f"{kind} is cited"


def test_nobody_writes_down_where_his_own_copy_lies(texts: dict[str, str], root: Path) -> None:
    own = re.compile(rf"(?<![\w.]){re.escape(str(root))}(?![\w-])")
    assert [name for name, text in texts.items() if own.search(text)] == []


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("see ``fiks-kontrakter``, section 2", "a paper that is not in the repository"),
        ("(digisos-domene.md)", "a paper that is not in the repository"),
        ("design.md says", "a paper that is not in the repository"),
        ("in /home/ola/src", "a place on one machine"),
    ],
)
def test_the_patterns_find_what_they_are_for(line: str, kind: str) -> None:
    assert _FORBIDDEN[kind].search(line)


@pytest.mark.parametrize("line", ["[DESIGN.md](DESIGN.md)", "https://example.no/home/a", "GET /v1/home/x", "stilt.md"])
def test_the_patterns_leave_what_is_ours(line: str) -> None:
    assert not any(pattern.search(line) for pattern in _FORBIDDEN.values())
