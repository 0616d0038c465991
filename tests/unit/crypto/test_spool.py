from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto import Limits, Spool, seal
from crypto.content_key import ContentKey
from crypto.spool import CbcView
from schemas.errors import StoreError, UnsealError
from schemas.names import Sha256

if TYPE_CHECKING:
    from conftest import Actors
    from hypothesis.strategies import DataObject


def fill(sealed: bytes, spool: Spool, chunk: int = 1000) -> Spool:
    for at in range(0, len(sealed), chunk):
        assert spool.write(sealed[at : at + chunk]) == len(sealed[at : at + chunk])
    spool.finish()
    return spool


def test_the_digest_and_the_size_are_those_of_what_came(actors: Actors) -> None:
    for data in (seal(b"x" * 5000, actors.recipient[0]), b"not an envelope at all", b""):
        with fill(data, Spool()) as spool:
            assert (spool.sha256, spool.size) == (Sha256.of(data), len(data))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 3000))
def test_plaintext_is_read_from_any_position(actors: Actors, data: DataObject, size: int) -> None:
    plain = os.urandom(size)
    with fill(seal(plain, actors.recipient[0]), Spool(memory_bytes=500)) as spool, spool.plaintext(actors.keys) as view:
        view.check_padding()
        assert view.seek(0, io.SEEK_END) == view.size == size
        for _ in range(5):
            at, count = data.draw(st.integers(0, size + 5)), data.draw(st.integers(0, 600))
            assert view.seek(at) == at
            assert view.read(count) == plain[at : at + count]
        view.seek(0)
        assert view.readall() == plain
        assert view.seek(-min(size, 3), io.SEEK_CUR) == view.tell()


def test_seeking_before_the_start_is_refused(actors: Actors) -> None:
    with fill(seal(b"abc", actors.recipient[0]), Spool()) as spool, spool.plaintext(actors.keys) as view:
        with pytest.raises(ValueError, match="negative"):
            view.seek(-1)
        assert (view.readable(), view.seekable(), view.writable()) == (True, True, False)


def test_large_packages_go_to_a_file_without_a_name_and_hold_ciphertext_alone(actors: Actors, tmp_path: Path) -> None:
    plain = b"fodselsnummer " * 10_000
    with fill(seal(plain, actors.recipient[0]), Spool(memory_bytes=4096, directory=tmp_path)) as spool:
        spool._file.flush()
        descriptor = spool._file.fileno()
        stat = os.fstat(descriptor)

        assert list(tmp_path.iterdir()) == []
        assert (stat.st_nlink, stat.st_mode & 0o777, stat.st_size) == (0, 0o600, len(plain) // 16 * 16 + 16)
        assert b"fodselsnummer" not in os.pread(descriptor, stat.st_size, 0)
        assert spool.plaintext(actors.keys).readall() == plain


def test_small_packages_stay_in_memory(actors: Actors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", None)  # would fail if it were used

    with fill(seal(bytes(500_000), actors.recipient[0]), Spool()) as spool:
        assert spool.plaintext(actors.keys).size == 500_000


def test_what_cannot_be_stored_is_a_store_error(actors: Actors) -> None:
    sealed = seal(bytes(10_000), actors.recipient[0])
    with Spool(memory_bytes=1000, directory=Path("/nonexistent")) as spool, pytest.raises(StoreError):
        spool.write(sealed)


def test_a_spool_that_lost_bytes_is_a_store_error(actors: Actors) -> None:
    with fill(seal(bytes(10_000), actors.recipient[0]), Spool()) as spool, spool.plaintext(actors.keys) as view:
        spool._file.truncate(5000)
        with pytest.raises(StoreError):
            view.readall()


def test_broken_padding_is_told_only_when_asked() -> None:
    key = ContentKey(bytes(32), bytes(16))
    view = CbcView(io.BytesIO(bytes(64)), 64, key)

    assert len(view.readall()) == view.size == 64
    with pytest.raises(UnsealError):
        view.check_padding()


def test_the_limit_stops_storing_but_not_hashing(actors: Actors) -> None:
    sealed = seal(bytes(100_000), actors.recipient[0])
    with fill(sealed, Spool(limits=Limits(max_package_bytes=50_000))) as spool:
        assert spool._file.tell() < 50_000
        assert spool.sha256 == Sha256.of(sealed)
        with pytest.raises(UnsealError):
            spool.plaintext(actors.keys)


@pytest.mark.parametrize("size", [0, 8])
def test_an_envelope_without_whole_blocks_is_refused(size: int, actors: Actors) -> None:
    sealed = seal(b"", actors.recipient[0])
    head = bytearray(sealed[: -16 - 1])
    broken = bytes(head) + bytes((size,)) + bytes(size)
    with fill(broken, Spool()) as spool, pytest.raises(UnsealError):
        spool.plaintext(actors.keys)


def test_the_order_of_calls_is_held(actors: Actors) -> None:
    spool = Spool()
    with pytest.raises(RuntimeError):
        spool.plaintext(actors.keys)
    spool.finish()
    spool.finish()
    with pytest.raises(RuntimeError):
        spool.write(b"x")
    spool.close()
    with pytest.raises(RuntimeError):
        spool.plaintext(actors.keys)
