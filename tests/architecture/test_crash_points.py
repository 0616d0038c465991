"""The table of crash points and the code name the same places, each once."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from broker.krasj import CRASH_POINTS


def named(tree: ast.AST) -> list[str | None]:
    """Return what each call of ``crash_point`` names; None for what is no literal."""
    return [
        node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "crash_point"
    ]


def test_every_crash_point_is_at_one_place_in_the_code_and_no_other_is_there(sources: list[Path]) -> None:
    found = Counter(name for path in sources for name in named(ast.parse(path.read_text("utf-8"))))
    assert found == Counter(CRASH_POINTS.keys())


def test_a_crash_point_stands_in_the_process_that_it_names(sources: list[Path], root: Path) -> None:
    strangers = [
        f"{path.relative_to(root)}: {name}"
        for path in sources
        for name in named(ast.parse(path.read_text("utf-8")))
        if str(name).partition(".")[0] != path.relative_to(root).parts[0]
    ]
    assert strangers == []


@pytest.mark.parametrize(
    ("text", "names"),
    [('crash_point("a.b")', ["a.b"]), ("krasj.crash_point('a')", ["a"]), ("crash_point(name)", [None]), ("f('a')", [])],
)
def test_the_search_finds_the_calls(text: str, names: list[str | None]) -> None:
    assert named(ast.parse(text)) == names
