from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consumers.simulator.case import CasePlan, Switches
from consumers.simulator.folders import DAMAGED_KODE, FolderFagsystem
from schemas.names import DigisosId, MeldingId

NUMBER = "4601"


class World:
    def __init__(self, root: Path) -> None:
        self.root = root / NUMBER
        (self.root / "inn").mkdir(parents=True)
        (self.root / "ut").mkdir()
        self.now = datetime(2026, 11, 23, 12, tzinfo=UTC)
        self.switches = Switches()
        self.fagsystem = FolderFagsystem(root, switches=self.switches, plan=CasePlan(), clock=lambda: self.now)

    def drop(self, *, whole: bool = True, damaged: bool = False, kind: str = "SOKNAD") -> tuple[str, str]:
        melding_id, case = MeldingId.new(), DigisosId.new()
        folder = self.root / "inn" / melding_id
        folder.mkdir()
        told = json.dumps({"meldingId": melding_id, "digisosId": case, "type": kind, "enhetsnummer": "1209"}).encode()
        (folder / "leveranse.json").write_bytes(told)
        (folder / "a.pdf").write_bytes(b"%PDF" + b"!" * damaged)
        sums = {"leveranse.json": hashlib.sha256(told).hexdigest(), "a.pdf": hashlib.sha256(b"%PDF").hexdigest()}
        if whole:
            (folder / "FERDIG").write_text(json.dumps({"sha256": sums}))
        return melding_id, case

    def receipt(self, melding_id: str) -> dict[str, str]:
        return json.loads((self.root / "ut" / f"{melding_id}.kvittering.json").read_bytes())

    def updates(self, case: str) -> list[str]:
        return sorted(path.name for path in (self.root / "ut" / case).glob("*") if (path / "FERDIG").exists())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_whole_drop_is_taken_and_answered_and_its_case_goes_on(world: World) -> None:
    melding_id, case = world.drop()
    world.fagsystem.tick()
    assert world.receipt(melding_id) == {"status": "MOTTATT"}
    assert (world.root / "arkiv" / melding_id / "a.pdf").exists()
    assert world.updates(case) == ["001"]
    world.now += timedelta(seconds=5)
    world.fagsystem.tick()
    world.fagsystem.tick()
    assert world.updates(case) == ["001", "002", "003"]


def test_half_a_drop_is_left_alone(world: World) -> None:
    melding_id, _ = world.drop(whole=False)
    world.fagsystem.tick()
    assert (world.root / "inn" / melding_id).exists()


def test_a_damaged_drop_is_rejected(world: World) -> None:
    melding_id, case = world.drop(damaged=True)
    world.fagsystem.tick()
    assert world.receipt(melding_id) == {"status": "AVVIST", "kode": DAMAGED_KODE}
    assert world.updates(case) == []


def test_an_ettersendelse_starts_no_case(world: World) -> None:
    _, case = world.drop(kind="ETTERSENDELSE")
    world.fagsystem.tick()
    assert world.updates(case) == []


def test_what_the_connector_took_away_is_not_written_again(world: World) -> None:
    melding_id, case = world.drop()
    world.fagsystem.tick()
    (world.root / "behandlet" / case).mkdir(parents=True)
    name = f"{melding_id}.kvittering.json"
    (world.root / "ut" / name).rename(world.root / "behandlet" / name)
    (world.root / "ut" / case / "001").rename(world.root / "behandlet" / case / "001")
    world.fagsystem.tick()
    assert not (world.root / "ut" / name).exists()
    assert world.updates(case) == []


def test_one_that_is_down_does_nothing(world: World) -> None:
    melding_id, _ = world.drop()
    world.switches.change(NUMBER, {"tilstand": "nede"})
    world.fagsystem.tick()
    assert (world.root / "inn" / melding_id).exists()


def test_folders_that_are_no_kommunes_are_passed_over(world: World, tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    world.fagsystem.tick()
    FolderFagsystem(tmp_path / "finnes-ikke", switches=Switches(), plan=CasePlan(), clock=lambda: world.now).tick()
