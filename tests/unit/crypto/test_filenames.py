from __future__ import annotations

import pytest

from crypto import filenames


@pytest.mark.parametrize(
    "name",
    ["soknad.json", "vedlegg/Lønnslipp (1), mai.pdf", "a", "x" * 255, "\u00e5" * 127, "a.b.c", ".skjult", "日本.pdf"],
)
def test_ordinary_names_are_allowed(name: str) -> None:
    assert filenames.problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 256,
        "\u00e5" * 128,
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "a/./b",
        "a.",
        "a ",
        " a",
        "a /b",
        "C:",
        "C:/a",
        "a\\b",
        "a:b",
        "a*",
        "a?",
        'a"b',
        "a<b",
        "a|b",
        "a\nb",
        "a\x00b",
        "a\x7fb",
        "a\u202eb",
        "a\u2028b",
        "a\ud800b",
        "NUL",
        "nul.txt",
        "vedlegg/COM1.pdf",
        "mimetype",
        "MimeType",
        "META-INF/a",
        "meta-inf/a",
        "META-INF",
    ],
)
def test_names_that_some_disk_would_take_for_something_else_are_not(name: str) -> None:
    reason = filenames.problem(name)

    assert reason is not None
    assert len(name) < 3 or name not in reason


@pytest.mark.parametrize(
    ("first", "second"), [("A", "a"), ("\u00e5", "a\u030a"), ("Å", "å"), ("ß", "SS"), ("a/B", "A/b")]
)
def test_names_that_differ_in_case_or_form_are_the_same(first: str, second: str) -> None:
    assert filenames.same(first) == filenames.same(second)


def test_other_names_are_not_the_same() -> None:
    assert filenames.same("o.pdf") != filenames.same("ø.pdf")
