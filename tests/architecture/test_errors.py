"""The error tree, its docstring and its codes are one thing."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import schemas.errors
from schemas.errors import MeldingsformidlerError


def _drawn(cls: type[MeldingsformidlerError], indent: str = "") -> Iterator[str]:
    children = [c for c in cls.__subclasses__() if c.__module__ == "schemas.errors"]
    for number, child in enumerate(children):
        last = number == len(children) - 1
        yield f"{indent}{'└── ' if last else '├── '}{child.__name__}"
        yield from _drawn(child, indent + ("    " if last else "│   "))


def _documented() -> list[str]:
    block = inspect.cleandoc(schemas.errors.__doc__ or "").split("::\n\n")[1].split("\n\n")[0]
    return inspect.cleandoc(block).splitlines()


def _edges(lines: list[str]) -> set[tuple[str, str]]:
    """Return (parent, child): the order of siblings is the author's."""
    path: list[str] = []
    found: set[tuple[str, str]] = set()
    for line in lines:
        name = line.lstrip("│├└─ ")
        depth = (len(line) - len(name)) // 4
        path[depth:] = [name]
        if depth:
            found.add((path[depth - 1], name))
    return found


def _all() -> list[type[MeldingsformidlerError]]:
    found: list[type[MeldingsformidlerError]] = []
    queue: list[type[MeldingsformidlerError]] = [MeldingsformidlerError]
    while queue:
        found.append(queue.pop())
        queue.extend(c for c in found[-1].__subclasses__() if c.__module__ == "schemas.errors")
    return found


def test_the_docstring_draws_the_tree() -> None:
    assert _edges(_documented()) == _edges(["MeldingsformidlerError", *_drawn(MeldingsformidlerError)])


def test_codes_are_unique_and_written_on_every_class() -> None:
    assert all("code" in vars(cls) for cls in _all())
    assert [code for code, n in Counter(cls.code for cls in _all()).items() if n > 1] == []


def test_codes_are_lower_case_words_of_a_fixed_form() -> None:
    for cls in _all():
        assert re.fullmatch(r"[a-z]+(\.[a-z-]+)?", cls.code), cls


def test_every_name_ends_in_error_and_has_a_docstring() -> None:
    for cls in _all():
        assert cls.__name__.endswith("Error")
        assert "__doc__" in vars(cls), cls
        assert vars(cls)["__doc__"], cls


def test_no_error_of_the_tree_is_defined_anywhere_else(sources: list[Path]) -> None:
    ours = {cls.__name__ for cls in _all()}
    found = [
        f"{path.name}: {name}"
        for path in sources
        if path.name != "errors.py" or path.parent.name != "schemas"
        for name, bases in re.findall(r"^class (\w+)\((.*)\):", path.read_text("utf-8"), re.MULTILINE)
        if ours & set(re.findall(r"\w+", bases))
    ]
    assert found == []
