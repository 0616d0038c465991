from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from broker.files import open_private, write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_private_file_is_for_its_owner_from_its_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0)
    monkeypatch.setattr(Path, "replace", lambda self, target: seen.append(mode(self)) or os.replace(self, target))  # noqa: PTH105  # the method itself is what is watched
    seen: list[int] = []
    try:
        write_private(tmp_path / "a", b"1")
    finally:
        os.umask(before)
    assert seen == [0o600]
    assert mode(tmp_path / "a") == 0o600


def test_a_private_file_takes_the_place_of_the_former(tmp_path: Path) -> None:
    write_private(tmp_path / "a", b"1")
    write_private(tmp_path / "a", b"2")
    assert (tmp_path / "a").read_bytes() == b"2"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_write_that_fails_leaves_the_former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private(tmp_path / "a", b"1")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        write_private(tmp_path / "a", b"2")
    assert (tmp_path / "a").read_bytes() == b"1"


def test_a_leftover_that_others_could_read_does_not_make_the_next_one_readable(tmp_path: Path) -> None:
    leftover = tmp_path / ".a.ny"
    leftover.write_bytes(b"old")
    leftover.chmod(0o666)
    write_private(tmp_path / "a", b"secret")
    assert mode(tmp_path / "a") == 0o600


def test_a_file_that_lines_are_appended_to_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "logg"
    path.write_text("first\n", "utf-8")
    path.chmod(0o644)
    with open_private(path) as file:
        file.write("second\n")
    assert path.read_text("utf-8") == "first\nsecond\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
