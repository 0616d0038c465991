from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.dokumentlager import DiskDokumentlager
from producers.spill import Spill


@pytest.fixture
def lager(tmp_path: Path) -> DiskDokumentlager:
    return DiskDokumentlager(tmp_path / "lager")


@given(st.lists(st.binary(max_size=40), max_size=12))
def test_what_was_written_is_stored_in_one_of_two_places(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    lager = DiskDokumentlager(tmp_path_factory.mktemp("lager"))
    spill = Spill(lager, inline_bytes=100)
    for piece in pieces:
        spill.write(piece)
    content = b"".join(pieces)
    in_memory = spill.in_memory
    stored = spill.store()
    assert in_memory == (stored.pakke is not None) == (len(content) <= 100)
    if stored.dokumentlager_id is None:
        assert stored.pakke == content
    else:
        assert b"".join(lager.read(stored.dokumentlager_id)) == content


def test_the_largest_inline_package_is_the_limit_itself(lager: DiskDokumentlager) -> None:
    spill = Spill(lager, inline_bytes=10)
    spill.write(b"0123456789")
    assert spill.store().pakke == b"0123456789"


@pytest.mark.parametrize("size", [5, 5000])
def test_an_aborted_package_leaves_nothing(lager: DiskDokumentlager, tmp_path: Path, size: int) -> None:
    spill = Spill(lager, inline_bytes=10)
    spill.write(bytes(size))
    spill.abort()
    spill.abort()
    assert list((tmp_path / "lager").iterdir()) == []
