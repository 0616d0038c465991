from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from crypto import ContentKey, KeyWrapper, WrappedKey
from schemas.errors import KeyFileError, UnsealError

if TYPE_CHECKING:
    from pathlib import Path


def write_kek(path: Path, size: int = 32) -> Path:
    path.write_text(os.urandom(size).hex())
    path.chmod(0o600)
    return path


def test_a_wrapped_key_comes_back_under_its_own_name_alone(tmp_path: Path) -> None:
    wrapper, key = KeyWrapper.load(write_kek(tmp_path / "kopi.key")), ContentKey.new()
    wrapped = wrapper.wrap(key, "melding-1")

    assert wrapper.unwrap(wrapped, "melding-1") == key
    with pytest.raises(UnsealError):
        wrapper.unwrap(wrapped, "melding-2")


def test_no_two_wrappings_are_alike_and_none_shows_the_key(tmp_path: Path) -> None:
    wrapper, key = KeyWrapper.load(write_kek(tmp_path / "kopi.key")), ContentKey.new()
    first, second = wrapper.wrap(key, "m"), wrapper.wrap(key, "m")

    assert first.data != second.data
    assert key.key not in first.data
    assert first.data.hex() not in repr(first)


@pytest.mark.parametrize("at", [0, 11, 12, 40, 75])
def test_a_wrapped_key_that_was_altered_does_not_unwrap(at: int) -> None:
    wrapper = KeyWrapper([os.urandom(32)])
    wrapped = wrapper.wrap(ContentKey.new(), "m")
    broken = bytearray(wrapped.data)
    broken[at] ^= 1

    for data in (bytes(broken), wrapped.data[:at]):
        with pytest.raises(UnsealError):
            wrapper.unwrap(WrappedKey(wrapped.kek_id, data), "m")


def test_a_new_kek_wraps_and_the_former_still_unwraps(tmp_path: Path) -> None:
    former, new = write_kek(tmp_path / "gammel.key"), write_kek(tmp_path / "ny.key")
    key = ContentKey.new()
    wrapped = KeyWrapper.load(former).wrap(key, "m")

    both = KeyWrapper.load(new, former)
    assert both.unwrap(wrapped, "m") == key
    assert both.wrap(key, "m").kek_id == KeyWrapper.load(new).wrap(key, "m").kek_id != wrapped.kek_id
    with pytest.raises(KeyFileError, match=wrapped.kek_id):
        KeyWrapper.load(new).unwrap(wrapped, "m")


def test_a_kek_of_another_length_or_none_is_refused(tmp_path: Path) -> None:
    for size in (31, 33):
        with pytest.raises(KeyFileError):
            KeyWrapper.load(write_kek(tmp_path / f"{size}.key", size))
        with pytest.raises(ValueError, match="KEK"):
            KeyWrapper([os.urandom(size)])
    with pytest.raises(KeyFileError):
        KeyWrapper.load()


def test_a_kek_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = write_kek(tmp_path / "kopi.key")
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        KeyWrapper.load(path)
