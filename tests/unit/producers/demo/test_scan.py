from __future__ import annotations

import base64
from pathlib import Path

import pytest

from producers.demo import scan as module
from producers.demo.plan import MARKER
from producers.demo.scan import Scan, patterns_of, scan
from schemas.examples import ETTERNAVN

PATTERNS = patterns_of([])


def look(folder: Path) -> Scan:
    return scan([folder], PATTERNS)


def test_nothing_is_found_in_ciphertext(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 100)
    assert look(tmp_path) == Scan(1, 25_600, len(PATTERNS), ())


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_plaintext_in_base64_is_found_wherever_it_begins(tmp_path: Path, shift: int) -> None:
    (tmp_path / "a").write_bytes(base64.b64encode(b"x" * shift + MARKER + b"yy"))
    assert look(tmp_path).hits == (f"{tmp_path / 'a'}: klartekst i base64",)


def test_a_name_is_reported_by_kind_and_not_by_value(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(f"hei {ETTERNAVN[0]}", "utf-8")
    assert look(tmp_path).hits == (f"{tmp_path / 'a'}: navn",)


def test_what_lies_across_two_windows_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_BYTES", 64)
    (tmp_path / "a").write_bytes(b"." * 50 + MARKER + b"." * 50)
    assert look(tmp_path).hits == (f"{tmp_path / 'a'}: klartekst",)


def test_what_lies_behind_a_hole_in_a_sparse_file_is_found(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.seek(50 * 1024 * 1024)
        file.write(MARKER)
    found = look(tmp_path)
    assert found.hits == (f"{tmp_path / 'a'}: klartekst",)
    assert found.size < 1024 * 1024


def test_folders_below_are_searched(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "d").write_bytes(MARKER)
    assert look(tmp_path).hits
