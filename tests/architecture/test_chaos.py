"""The judge of the fault harness shares no code with the product but the schemas, and so cannot share its mistakes."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

PRODUCT: Final = frozenset({"broker", "consumers", "crypto", "kvittering", "producers"})
JUDGES: Final = frozenset({"checker", "evidence", "witness", "journal"})
SCHEMAS: Final = frozenset({"schemas.codec", "schemas.errors", "schemas.records"})


def imported(tree: ast.AST) -> set[str]:
    """Return every module that is imported, also where it is only for types, or inside of a function."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in {
            "import_module",
            "__import__",
        }:
            names.add("importlib")
    return names


@pytest.fixture
def judges(root: Path) -> dict[str, set[str]]:
    return {name: imported(ast.parse((root / "tests/chaos" / f"{name}.py").read_text("utf-8"))) for name in JUDGES}


def test_the_judge_imports_nothing_of_the_product_but_the_schemas(judges: dict[str, set[str]]) -> None:
    ours = {name: {one for one in found if one.partition(".")[0] in PRODUCT} for name, found in judges.items()}
    assert ours == {name: set() for name in JUDGES}
    schemas = {one for found in judges.values() for one in found if one.partition(".")[0] == "schemas"}
    assert schemas <= SCHEMAS


def test_the_judge_imports_no_other_part_of_the_harness(judges: dict[str, set[str]], root: Path) -> None:
    siblings = {path.stem for path in (root / "tests/chaos").glob("*.py")} - JUDGES
    assert {name: found & siblings for name, found in judges.items()} == {name: set() for name in JUDGES}


def test_the_judge_loads_nothing_by_name(judges: dict[str, set[str]]) -> None:
    assert not any({"importlib", "runpy", "subprocess"} & found for found in judges.values())


def test_the_search_finds_what_is_imported_wherever_it_stands() -> None:
    text = "import a\nfrom b.c import d\ndef f():\n    import e.f\nif TYPE_CHECKING:\n    from g import h\nimport_module('x')"
    assert imported(ast.parse(text)) == {"a", "b.c", "e.f", "g", "importlib"}
