"""What is cited can be found by a stranger: public addresses and this repository, never one person's papers or machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

_SKIPPED_FOLDERS: Final = {
    ".git",
    ".venv",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".import_linter_cache",
    ".hypothesis",
    ".formidler",
}
_SKIPPED_SUFFIXES: Final = {".jsa", ".lock", ".bin", ".p7m", ".pyc"}
_PAPERS: Final = ("fiks-kontrakter", "digisos-domene", "kafka-lokalt", r"ytelse\.md", r"stil\.md", r"peers\.md")
_FORBIDDEN: Final = {
    # DESIGN.md is this repository's own; the same name in lower case is somebody's notes.
    "a paper that is not in the repository": re.compile(rf"(?<![\w-])(?:{'|'.join(_PAPERS)}|design\.md)"),
    "a place on one machine": re.compile(
        r"(?<![\w.])/(?:work|root|home/\w+|Users/\w+)/|\.\./shared|(?<!\w)shared/\w+\.md"
    ),
}


@pytest.fixture(scope="module")
def texts(root: Path) -> dict[str, str]:
    """Every file of the repository but this one, which has to say what it looks for."""
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if _SKIPPED_FOLDERS & set(relative.parts) or path.suffix in _SKIPPED_SUFFIXES or path == Path(__file__):
            continue
        if path.is_file():
            found[str(relative)] = path.read_text("utf-8", "replace")
    return found


def test_the_search_reaches_code_tests_and_documents(texts: dict[str, str]) -> None:
    assert {"tests/conftest.py", "pyproject.toml"} <= set(texts)
    if "broker/routing.py" in texts:  # else an installed wheel is tested
        assert {"README.md", "DESIGN.md", "docs/glossary.md", ".ci/run", "schemas/avro/soknad.v1.avsc"} <= set(texts)


@pytest.mark.parametrize("kind", _FORBIDDEN)
def test_nothing_cites_what_a_stranger_cannot_find(texts: dict[str, str], kind: str) -> None:
    pattern = _FORBIDDEN[kind]
    found = [
        f"{name}:{number}"
        for name, text in texts.items()
        if pattern.search(text)
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == [], f"{kind} is cited"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("see ``fiks-kontrakter``, section 2", "a paper that is not in the repository"),
        ("(digisos-domene.md)", "a paper that is not in the repository"),
        ("design.md says", "a paper that is not in the repository"),
        ("in /home/ola/src", "a place on one machine"),
        ('"/Users/kari/x"', "a place on one machine"),
    ],
)
def test_the_search_finds_what_it_is_for(line: str, kind: str) -> None:
    assert _FORBIDDEN[kind].search(line)


@pytest.mark.parametrize("line", ["[DESIGN.md](DESIGN.md)", "https://example.no/home", "GET /v1/work/x", "stilt.md"])
def test_the_search_leaves_what_is_ours(line: str) -> None:
    assert not any(pattern.search(line) for pattern in _FORBIDDEN.values())
