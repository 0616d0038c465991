from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from broker.cli.output import complain, print_json, table


def test_json_is_one_line_when_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"navn": "Ås", "tall": [1, 2], "tid": datetime(2026, 1, 1, tzinfo=UTC)})
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert "Ås" in printed
    assert json.loads(printed)["tall"] == [1, 2]


def test_a_complaint_goes_to_standard_error_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    complain("x" * 300, code="oppsett")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"feil: {'x' * 300} (oppsett)\n"


def test_a_complaint_may_be_without_a_code(capsys: pytest.CaptureFixture[str]) -> None:
    complain("nei")
    assert capsys.readouterr().err == "feil: nei\n"


def test_a_table_has_a_title_headings_and_rows(capsys: pytest.CaptureFixture[str]) -> None:
    table("Navn", "Verdi", rows=[("a", "b")], title="Tittel")
    printed = capsys.readouterr().out
    assert [text in printed for text in ("Tittel", "Navn", "Verdi", "a", "b")] == [True] * 5
