from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from broker.embedded.cache import cache_folder, ensure_folder

if TYPE_CHECKING:
    from pathlib import Path


def test_the_cache_lies_where_xdg_says(tmp_path: Path) -> None:
    assert cache_folder({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "meldingsformidler"


def test_a_folder_is_made_once_by_whoever_comes_first(tmp_path: Path) -> None:
    made: list[Path] = []
    together = threading.Barrier(4)

    def make(target: Path) -> None:
        made.append(target)
        (target / "file").write_text("x")

    def ask() -> None:
        together.wait()
        ensure_folder(tmp_path / "deep" / "folder", make)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert (tmp_path / "deep" / "folder" / "file").read_text() == "x"


def test_what_fails_half_way_leaves_nothing_and_may_be_tried_again(tmp_path: Path) -> None:
    def fail(target: Path) -> None:
        (target / "half").write_text("x")
        raise LookupError("own")

    with pytest.raises(LookupError):
        ensure_folder(tmp_path / "folder", fail)
    assert [one for one in tmp_path.iterdir() if one.is_dir()] == []
    assert ensure_folder(tmp_path / "folder", lambda target: (target / "whole").touch()).is_dir()
