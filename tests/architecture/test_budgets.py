"""Sizes and habits that a linter does not know."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

MAX_MODULE_LINES = 400
FLAT_LISTS = {"schemas/errors.py": 450}
"""Modules that are one list of one kind of thing, which nobody reads from end to end."""
MAX_FUNCTION_LINES = 50


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the function's lines without its docstring."""
    doc = node.body[0] if ast.get_docstring(node, clean=False) is not None else None
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    return total - ((doc.end_lineno or doc.lineno) - doc.lineno + 1 if doc else 0)


def sleeps(tree: ast.AST) -> list[int]:
    """Return the lines that call ``sleep`` with anything but a literal zero, which only lets other tasks run."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (getattr(node.func, "attr", None) == "sleep" or getattr(node.func, "id", None) == "sleep")
        and not (node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0)
    ]


def polling(tree: ast.Module) -> set[int]:
    """Return the lines inside a loop: looking again and again is no guess at a duration."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.While | ast.For)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def test_no_module_is_longer_than_its_budget(sources: list[Path], root: Path) -> None:
    long = {
        str(path.relative_to(root)): lines
        for path in sources
        if (lines := len(path.read_text("utf-8").splitlines()))
        > FLAT_LISTS.get(str(path.relative_to(root)), MAX_MODULE_LINES)
    }
    assert long == {}


def test_no_function_is_longer_than_its_budget(sources: list[Path], root: Path) -> None:
    long = {
        f"{path.relative_to(root)}:{node.name}": length(node)
        for path in sources
        for node in functions(ast.parse(path.read_text("utf-8")))
        if length(node) > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_nothing_waits_by_guessing_a_duration(sources: list[Path], test_sources: list[Path], root: Path) -> None:
    found: list[str] = []
    for path in [*sources, *test_sources]:
        if path.parent.name == "benchmarks":  # a load that comes at a fixed rate waits between two arrivals
            continue
        tree = ast.parse(path.read_text("utf-8"))
        found += [f"{path.relative_to(root)}:{line}" for line in sleeps(tree) if line not in polling(tree)]
    assert found == [], "wait for a condition with a deadline, or for an event"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("import time\ntime.sleep(1)", [2]),
        ("async def f():\n    await asyncio.sleep(0.1)", [2]),
        ("sleep(delay)", [1]),
        ("await asyncio.sleep(0)", []),
        ("page.sleepy(1)", []),
    ],
)
def test_the_search_for_sleep_finds_it(text: str, lines: list[int]) -> None:
    assert sleeps(ast.parse(text)) == lines


def test_no_todo_is_left(sources: list[Path], test_sources: list[Path], root: Path) -> None:
    word = re.compile("|".join(["TO" + "DO", "FIX" + "ME", r"\b" + "X" * 3 + r"\b"]))
    found = [str(p.relative_to(root)) for p in [*sources, *test_sources] if word.search(p.read_text("utf-8"))]
    assert found == []


def test_every_exception_from_a_rule_has_a_code_and_a_reason(
    sources: list[Path], test_sources: list[Path], root: Path
) -> None:
    comment = re.compile(
        r"#\s*(noqa|type:\s*ignore|pyright:\s*ignore)"
        r"(?P<code>:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*|\[[\w, -]+\])?(?P<rest>.*)$"
    )
    found: list[str] = []
    for path in [*sources, *test_sources]:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            match = comment.search(line)
            if match is None or path == Path(__file__):
                continue
            reason = match["rest"].split("#")[-1].strip(" -–:")
            if not match["code"] or (len(reason) < 3):
                found.append(f"{path.relative_to(root)}:{number}: {line.strip()}")
    assert found == []
