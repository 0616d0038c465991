from __future__ import annotations

from pathlib import Path

from broker.embedded.cds import ClassArchive, class_archive
from broker.embedded.java import Java


def make_archive(folder: Path) -> ClassArchive:
    return ClassArchive(folder / "x.jsa", folder / ".x.1.jsa")


def test_the_first_run_writes_the_archive_and_the_next_uses_it(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    assert archive.options() == [f"-XX:ArchiveClassesAtExit={archive.draft}"]
    archive.draft.write_text("classes")
    archive.keep()
    assert archive.options() == [f"-XX:SharedArchiveFile={archive.path}", "-Xshare:auto"]
    assert not archive.draft.exists()


def test_a_run_that_wrote_nothing_keeps_nothing(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    archive.keep()
    assert not archive.path.exists()


def test_what_a_killed_run_left_is_dropped(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    archive.draft.write_text("half")
    archive.drop()
    archive.drop()
    assert list(tmp_path.iterdir()) == []


def test_each_java_has_its_own_archive(tmp_path: Path) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    paths = {class_archive((), Java(Path("java"), version), environment).path for version in ("17.0.1", "21")}
    assert len(paths) == 2
