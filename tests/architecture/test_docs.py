"""The documents speak of code that is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from broker.cli.main import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
THEIRS = {"EnvelopedData", "AuthEnvelopedData", "SignedData"}  # CMS' own
PARTS = {"kontrakt", "krypto", "levering", "megler", "lager", "fagsystem", "oppsett"}
DECISIONS = [name for name in DOCUMENTS if re.search(r"adr/[0-9]", name)]


@pytest.fixture(scope="module")
def modules(root: Path, sources: list[Path]) -> set[str]:
    """Every way in which a document may name a module: from the root, from its package, or by its own name."""
    tests = [*(root / "tests").rglob("*.py"), *(root / ".ci").rglob("*.py")]
    relative = [path.relative_to(root).parts for path in [*sources, *tests]]
    return {"/".join(parts[start:]) for parts in relative for start in range(len(parts))}


def test_the_documents_are_all_here(root: Path) -> None:
    assert root == ROOT
    assert {"README.md", "DESIGN.md", "CHANGELOG.md", "docs/glossary.md", "docs/konvolutt.md"} <= set(DOCUMENTS)
    assert len(DECISIONS) >= 8


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_module_that_is_named_exists(name: str, root: Path, modules: set[str]) -> None:
    named = set(re.findall(r"`([a-z_/]+\.py)`", (root / name).read_text("utf-8")))
    assert sorted(named - modules) == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str, root: Path) -> None:
    document = root / name
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)\)", document.read_text("utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_test_that_is_named_exists(name: str, root: Path, test_sources: list[Path]) -> None:
    functions = {found for path in test_sources for found in re.findall(r"def (test_\w+)", path.read_text("utf-8"))}
    named = set(re.findall(r"`(test_\w+)`", (root / name).read_text("utf-8")))
    assert named - functions == set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_class_and_error_code_that_is_named_exists(name: str, root: Path, sources: list[Path]) -> None:
    code = "\n".join(path.read_text("utf-8") for path in sources)
    text = (root / name).read_text("utf-8")
    classes = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`", text)) - THEIRS
    assert {
        each for each in classes if not re.search(rf"(?:class {each}\b|\b{each} = |[\"']{each}[\"'])", code)
    } == set()
    codes = {each for each in re.findall(r"`([a-z]+\.[a-z-]+)`", text) if each.split(".")[0] in PARTS}
    assert {each for each in codes if f'"{each}"' not in code} == set()


def test_every_decision_is_in_the_index_with_its_four_parts(root: Path) -> None:
    index = (root / "docs" / "adr" / "README.md").read_text("utf-8")
    decisions = sorted((root / "docs" / "adr").glob("[0-9]*.md"))
    assert [path.name[:4] for path in decisions] == [f"{number:04}" for number in range(1, len(decisions) + 1)]
    for path in decisions:
        assert path.name in index
        assert re.findall(r"^## (\w+)", path.read_text("utf-8"), re.MULTILINE) == [
            "Context",
            "Options",
            "Decision",
            "Consequences",
        ], path.name


@pytest.mark.parametrize("name", ["README.md", "docs/konvolutt.md", "docs/drift.md"])
def test_every_command_that_is_shown_exists_with_its_options(name: str, root: Path) -> None:
    text = (root / name).read_text("utf-8")
    shown = re.findall(r"^(?:\.venv/bin/)?formidler ([a-z].*?)(?:\s{2,}#.*)?$", text, re.MULTILINE)
    shown += re.findall(r"`formidler ([a-z][^`]*)`", text)
    assert shown
    for line in shown:
        command: Any = get_command(app)
        words = line.split()
        while words and hasattr(command, "get_command"):
            command = command.get_command(None, words.pop(0))
            assert command is not None, line
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert [word for word in words if word.startswith("--") and word not in known] == [], line


def test_every_verb_that_is_shown_is_in_the_makefile(root: Path) -> None:
    verbs = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text("utf-8"), re.MULTILINE))
    shown = set(re.findall(r"\bmake ([a-z-]+)", (root / "README.md").read_text("utf-8")))
    assert shown <= verbs
