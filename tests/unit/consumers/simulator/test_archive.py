from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

from consumers.simulator.archive import Archive, Stored
from schemas.names import MeldingId

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def stored(melding_id: str) -> Stored:
    return Stored({"meldingId": melding_id, "type": "SOKNAD"}, "MOTTATT", "", NOW)


def test_what_was_kept_and_told_is_there_after_a_restart(tmp_path: Path) -> None:
    archive, melding_id = Archive(tmp_path), MeldingId.new()
    archive.keep({"meldingId": melding_id, "type": "SOKNAD"}, [("a.pdf", io.BytesIO(b"%PDF"))], stored(melding_id))
    archive.tell({"type": "MOTTATT", "meldingId": melding_id})
    archive.tell({"type": "OPPDATERING", "digisosId": "d"})
    again = Archive(tmp_path)
    assert again.stored == archive.stored
    assert again.hendelser == archive.hendelser
    assert (again.updates["d"], again.answered) == (1, {melding_id})
    assert (tmp_path / "soknader" / melding_id / "a.pdf").read_bytes() == b"%PDF"


def test_a_torn_last_line_is_cut_off_and_told_again(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.tell({"type": "MOTTATT", "meldingId": "a"})
    with (tmp_path / "hendelser.jsonl").open("ab") as file:
        file.write(b'{"id": "2", "type": "MOT')
    again = Archive(tmp_path)
    again.tell({"type": "MOTTATT", "meldingId": "b"})
    assert [one["meldingId"] for one in Archive(tmp_path).hendelser] == ["a", "b"]
    assert [one["id"] for one in Archive(tmp_path).hendelser] == ["1", "2"]


def test_a_first_line_that_is_torn_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "hendelser.jsonl").write_bytes(b'{"id"')
    assert Archive(tmp_path).hendelser == []


def test_half_a_soknad_is_cleared_away(tmp_path: Path) -> None:
    Archive(tmp_path)
    (tmp_path / "soknader" / ".halv").mkdir()
    assert Archive(tmp_path).stored == {}
    assert not (tmp_path / "soknader" / ".halv").exists()


def test_a_cursor_gives_what_is_behind_it(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    for n in range(5):
        archive.tell({"type": "MOTTATT", "meldingId": str(n)})
    assert [one["id"] for one in archive.after("", 2)] == ["1", "2"]
    assert [one["id"] for one in archive.after("3", 10)] == ["4", "5"]
    assert archive.after("5", 10) == []
    assert len(archive.after("tull", 10)) == 5


def test_a_file_name_never_leaves_its_folder(tmp_path: Path) -> None:
    archive, melding_id = Archive(tmp_path), MeldingId.new()
    archive.keep({"meldingId": melding_id}, [("../../ute.pdf", io.BytesIO(b"x"))], stored(melding_id))
    assert (tmp_path / "soknader" / melding_id / "ute.pdf").exists()
