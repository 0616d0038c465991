"""One suite for every Dokumentlager; a new one is a new line in ``KINDS``."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from producers.dokumentlager import DiskDokumentlager, Dokumentlager, Swept
from schemas.errors import PackageMissingError, StoreError
from schemas.names import DokumentlagerId

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {"disk": DiskDokumentlager}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "dokumentlager"


@pytest.fixture(params=KINDS)
def lager(request: pytest.FixtureRequest, folder: Path) -> Dokumentlager:
    return KINDS[request.param](folder)


def put(lager: Dokumentlager, *pieces: bytes) -> DokumentlagerId:
    sink = lager.create()
    for piece in pieces:
        sink.write(piece)
    return sink.commit()


def test_what_was_committed_is_read_back(lager: Dokumentlager) -> None:
    package = put(lager, b"abc", b"", b"def" * 200_000)
    assert lager.size(package) == 600_003
    assert b"".join(lager.read(package)) == b"abc" + b"def" * 200_000


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0, None, b"0123456789"), (3, None, b"3456789"), (2, 5, b"234"), (8, 99, b"89"), (5, 5, b""), (99, None, b"")],
)
def test_any_range_is_read(lager: Dokumentlager, start: int, end: int | None, expected: bytes) -> None:
    package = put(lager, b"0123456789")
    assert b"".join(lager.read(package, start, end)) == expected


def test_a_range_may_begin_and_end_in_different_pieces(lager: Dokumentlager) -> None:
    content = bytes(range(256)) * 4096
    package = put(lager, content)
    assert b"".join(lager.read(package, 262_000, 800_001)) == content[262_000:800_001]


def test_packages_have_their_own_ids(lager: Dokumentlager) -> None:
    assert put(lager, b"a") != put(lager, b"a")


def test_an_id_that_was_never_used_is_missing_at_the_call(lager: Dokumentlager) -> None:
    with pytest.raises(PackageMissingError):
        lager.read(DokumentlagerId.new())
    with pytest.raises(PackageMissingError):
        lager.size(DokumentlagerId.new())


def test_an_aborted_package_was_never_there(lager: Dokumentlager, folder: Path) -> None:
    sink = lager.create()
    sink.write(b"x" * 1_000_000)
    sink.abort()
    sink.abort()
    assert list(folder.iterdir()) == []


def test_abort_after_commit_does_nothing(lager: Dokumentlager) -> None:
    sink = lager.create()
    sink.write(b"x")
    package = sink.commit()
    sink.abort()
    assert lager.size(package) == 1


def test_a_deleted_package_is_missing_and_may_be_deleted_again(lager: Dokumentlager) -> None:
    package = put(lager, b"x")
    lager.delete(package)
    lager.delete(package)
    with pytest.raises(PackageMissingError):
        lager.size(package)


def test_every_committed_package_is_listed_and_no_other(lager: Dokumentlager, folder: Path) -> None:
    assert lager.ids() == frozenset()
    packages = {put(lager, b"a"), put(lager, b"b")}
    unfinished = lager.create()
    (folder / "noe annet.cms").write_bytes(b"?")
    assert lager.ids() == packages
    unfinished.abort()


def test_a_packages_state_is_the_same_until_its_bytes_may_have_changed(lager: Dokumentlager, folder: Path) -> None:
    one, two = put(lager, b"abc"), put(lager, b"abc")
    before = lager.state(one)
    assert lager.state(one) == before != lager.state(two)
    (path,) = folder.glob(f"{one}*")
    path.write_bytes(b"ab")
    assert lager.state(one) != before
    lager.delete(one)
    with pytest.raises(PackageMissingError):
        lager.state(one)


def test_sweep_removes_what_was_never_finished_and_nothing_else(lager: Dokumentlager, folder: Path) -> None:
    known, unknown = put(lager, b"known"), put(lager, b"newer than the backup")
    unfinished = lager.create()
    unfinished.write(b"x" * 500_000)
    (folder / "noe annet.txt").write_bytes(b"?")
    assert lager.sweep({known}) == Swept(removed=1, unknown=1)
    assert (lager.size(known), lager.size(unknown)) == (5, 21)
    assert (folder / "noe annet.txt").exists()
    unfinished.abort()


def test_only_the_owner_can_read_the_files(folder: Path) -> None:
    lager = DiskDokumentlager(folder)
    put(lager, b"x")
    unfinished = lager.create()
    unfinished.write(b"y")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600] * 2
    unfinished.abort()


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "fil").write_bytes(b"")
    with pytest.raises(StoreError):
        DiskDokumentlager(tmp_path / "fil" / "mappe")


def test_a_package_that_cannot_be_removed_is_a_store_error(folder: Path) -> None:
    lager = DiskDokumentlager(folder)
    dokumentlager_id = DokumentlagerId.new()
    (folder / f"{dokumentlager_id}.cms").mkdir()  # nobody can unlink a folder, whoever runs the tests
    with pytest.raises(StoreError):
        lager.delete(dokumentlager_id)


def test_a_folder_that_vanished_is_a_store_error(folder: Path) -> None:
    lager = DiskDokumentlager(folder)
    folder.rmdir()
    with pytest.raises(StoreError) as failed:
        lager.create()
    assert failed.value.retriable
