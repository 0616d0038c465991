"""What a package offers stands in a sorted ``__all__``, and exists."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest


def _exports(path: Path) -> list[str] | None:
    for node in ast.parse(path.read_text("utf-8")).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if (
            any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)
            and node.value is not None
        ):  # type: ignore[attr-defined]  # both have one
            return list(ast.literal_eval(node.value))  # type: ignore[attr-defined]  # both have one
    return None


def _module(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def test_every_list_of_exports_is_sorted_and_true(sources: list[Path], root: Path) -> None:
    checked = 0
    for path in sources:
        names = _exports(path)
        if names is None:
            continue
        checked += 1
        assert sorted(names) == names, path  # by code point, as ruff sorts constants, classes, functions
        module = importlib.import_module(_module(path, root))
        assert [name for name in names if not hasattr(module, name)] == [], path
    assert checked, "no module has an __all__, so this proves nothing"


def test_a_package_file_only_re_exports(sources: list[Path]) -> None:
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr)
    for path in sources:
        if path.name == "__init__.py":
            body = ast.parse(path.read_text("utf-8")).body
            assert all(isinstance(node, allowed) for node in body), path


@pytest.mark.parametrize("name", ["crypto"])
def test_the_public_package_names_what_it_offers(name: str) -> None:
    assert importlib.import_module(name).__all__
