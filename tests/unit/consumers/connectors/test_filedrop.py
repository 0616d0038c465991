from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consumers.connector import ConnectorContext, Fil, Leveranse, Levert, Oppdatering, SvarAvvist
from consumers.connectors.filedrop import FiledropConnector, FiledropSettings
from schemas.errors import ConfigurationError, MismatchError
from schemas.names import DigisosId, Kommunenummer, MeldingId, NavEksternRefId, Organisasjonsnummer, Sha256

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
NUMBER = Kommunenummer("4601")


async def once(content: bytes) -> AsyncIterator[bytes]:
    yield content


@pytest.fixture
async def connector(tmp_path: Path) -> FiledropConnector:
    settings = FiledropSettings(mappe=tmp_path, intervall_s=0.01)
    connector = FiledropConnector(settings, ConnectorContext(NUMBER, lambda: NOW, None))
    await connector.start()
    return connector


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / NUMBER


def leveranse(content: dict[str, bytes]) -> Leveranse:
    def read(name: str) -> AsyncIterator[bytes]:
        return once(content[name])

    return Leveranse(
        melding_id=MeldingId.new(),
        digisos_id=DigisosId.new(),
        kommunenummer=NUMBER,
        nav_ekstern_ref_id=NavEksternRefId("r"),
        enhetsnummer=None,
        hastegrad="VANLIG",
        type="SOKNAD",
        innsendt=NOW,
        avsender=Organisasjonsnummer("889640782"),
        files=tuple(Fil(n, "application/pdf", len(data), Sha256.of(data)) for n, data in content.items()),
        _read=read,
    )


async def test_a_drop_has_its_files_its_leveranse_and_a_marker_with_every_digest(
    connector: FiledropConnector, root: Path
) -> None:
    one = leveranse({"a.pdf": b"%PDF", "b.json": b"{}"})
    assert await connector.deliver(one) == Levert()
    folder = root / "inn" / one.melding_id
    sums = json.loads((folder / "FERDIG").read_bytes())["sha256"]
    assert sums.keys() == {"a.pdf", "b.json", "leveranse.json"}
    assert all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest for name, digest in sums.items())
    told = json.loads((folder / "leveranse.json").read_bytes())
    assert (told["meldingId"], told["digisosId"]) == (one.melding_id, one.digisos_id)


def modes_below(root: Path) -> set[tuple[str, int]]:
    kinds = {True: "folder", False: "file"}
    return {(kinds[path.is_dir()], stat.S_IMODE(path.stat().st_mode)) for path in root.rglob("*")}


async def test_only_the_owner_can_read_what_was_dropped(connector: FiledropConnector, root: Path) -> None:
    await connector.deliver(leveranse({"a.pdf": b"%PDF"}))
    assert modes_below(root) == {("folder", 0o700), ("file", 0o600)}


async def test_what_the_fagsystem_took_away_is_not_dropped_again(connector: FiledropConnector, root: Path) -> None:
    one = leveranse({"a.pdf": b"%PDF"})
    await connector.deliver(one)
    (root / "inn" / one.melding_id).rename(root / "tatt")
    assert await connector.deliver(one) == Levert()
    assert not (root / "inn" / one.melding_id).exists()


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize("taken", [True, False])
async def test_a_crash_behind_the_rename_does_not_drop_twice(
    connector: FiledropConnector, root: Path, monkeypatch: pytest.MonkeyPatch, *, taken: bool
) -> None:
    def cut(_: MeldingId) -> None:
        raise PowerCutError

    one = leveranse({"a.pdf": b"%PDF"})
    with monkeypatch.context() as patch:
        patch.setattr(connector, "_note_dropped", cut)
        with pytest.raises(PowerCutError):
            await connector.deliver(one)
    if taken:
        (root / "inn" / one.melding_id).rename(root / "tatt")
    await connector.start()
    assert await connector.deliver(one) == Levert()
    assert (root / "inn" / one.melding_id).exists() is not taken
    assert [path.name for path in (root / "levert").iterdir()] == [one.melding_id]


@pytest.mark.parametrize("restarts", [True, False])
async def test_a_crash_before_the_rename_does_not_lose_it(
    connector: FiledropConnector, root: Path, monkeypatch: pytest.MonkeyPatch, *, restarts: bool
) -> None:
    def cut(*_: Any) -> None:
        raise PowerCutError

    one = leveranse({"a.pdf": b"%PDF"})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", cut)
        with pytest.raises(PowerCutError):
            await connector.deliver(one)
    assert (root / "levert" / f"{one.melding_id}.pa-vei").exists()
    if restarts:
        await connector.start()
        assert list((root / "levert").iterdir()) == []
    assert await connector.deliver(one) == Levert()
    assert (root / "inn" / one.melding_id / "FERDIG").exists()
    assert [path.name for path in (root / "levert").iterdir()] == [one.melding_id]


async def test_a_start_clears_what_a_crash_left_half_written(connector: FiledropConnector, root: Path) -> None:
    (root / "arbeid" / "halv").mkdir()
    (root / "arbeid" / "halv" / "a.pdf").write_bytes(b"%P")
    await connector.start()
    assert list((root / "arbeid").iterdir()) == []


async def test_a_folder_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "fil").write_text("x")
    settings = FiledropSettings(mappe=tmp_path / "fil")
    with pytest.raises(ConfigurationError, match="mappe"):
        await FiledropConnector(settings, ConnectorContext(NUMBER, lambda: NOW, None)).start()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("00-ikke-en-id.kvittering.json", b'{"status": "MOTTATT"}'),
        ("00000000-0000-4000-8000-000000000000.kvittering.json", b"{"),
        ("00000000-0000-4000-8000-000000000000.kvittering.json", b'{"status": "KANSKJE", "hvem": "Kari"}'),
        ("00000000-0000-4000-8000-000000000000.kvittering.json", b'{"kode": "x"}'),
    ],
)
async def test_a_receipt_that_breaks_the_rules_is_put_aside_with_its_code(
    connector: FiledropConnector, root: Path, name: str, content: bytes
) -> None:
    (root / "ut" / name).write_bytes(content)
    good = root / "ut" / f"z{MeldingId.new()}"
    good.mkdir()
    melding_id = MeldingId("ffffffff-ffff-4fff-bfff-ffffffffffff")
    (root / "ut" / f"{melding_id}.kvittering.json").write_bytes(b'{"status": "AVVIST", "kode": "demo.nei"}')
    event: Any = await anext(connector.events())
    assert isinstance(event, SvarAvvist)
    assert (event.melding_id, event.kode) == (melding_id, "demo.nei")
    assert (root / "avvist" / name).exists()
    assert json.loads((root / "avvist" / f"{name}.feil.json").read_bytes())["kode"].startswith("kontrakt.")


async def test_an_update_is_told_when_its_marker_is_there_and_moved_when_it_is_settled(
    connector: FiledropConnector, root: Path
) -> None:
    case = DigisosId.new()
    for number, whole in (("001", True), ("002", True), ("003", False)):
        folder = root / "ut" / case / number
        folder.mkdir(parents=True)
        (folder / "digisos-soker.json").write_text(number)
        (folder / "brev.pdf").write_bytes(b"%PDF")
        if whole:
            (folder / "FERDIG").touch()
    events = connector.events()
    first, second = await anext(events), await anext(events)
    assert isinstance(first, Oppdatering)
    assert isinstance(second, Oppdatering)
    assert [first.digisos_soker, second.digisos_soker] == [b"001", b"002"]
    assert [(one.name, one.content) for one in first.files] == [("brev.pdf", b"%PDF")]
    await first.ack()
    await second.refuse(MismatchError("nei"))
    assert (root / "behandlet" / case / "001" / "digisos-soker.json").exists()
    assert (root / "avvist" / case / "002").exists()
    assert json.loads((root / "avvist" / case / "002.feil.json").read_bytes())["kode"] == "kontrakt.avvik"
    assert (root / "ut" / case / "003").exists()


async def test_an_update_without_its_document_is_put_aside(connector: FiledropConnector, root: Path) -> None:
    case = DigisosId.new()
    (root / "ut" / case / "001").mkdir(parents=True)
    (root / "ut" / case / "001" / "FERDIG").touch()
    (root / "ut" / case / "002").mkdir(parents=True)
    (root / "ut" / case / "002" / "digisos-soker.json").write_text("{}")
    (root / "ut" / case / "002" / "FERDIG").touch()
    event: Any = await anext(connector.events())
    assert event.digisos_soker == b"{}"
    assert (root / "avvist" / case / "001.feil.json").exists()
