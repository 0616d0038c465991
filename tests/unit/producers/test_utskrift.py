from __future__ import annotations

import asyncio
import hashlib
import io
import json
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pypdf import PdfReader

from broker.files import sync_folder
from crypto.asice import PackageFile
from producers import utskrift as module
from producers.utskrift import Utskrift
from schemas.errors import ChannelUnavailableError
from schemas.names import MeldingId, Sha256

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Files:
    """A message's files in clear, as a test makes them."""

    content: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    @property
    def files(self) -> list[PackageFile]:
        return [PackageFile(name, kind, len(data), Sha256.of(data)) for name, (kind, data) in self.content.items()]

    def read(self, name: str) -> Iterator[bytes]:
        data = self.content[name][1]
        yield data[:10]
        yield data[10:]


@pytest.fixture
async def sent(world: Any, sending: Any) -> Any:
    """What a real submission left: its copy, and the katalog's entry of the receiver."""
    assert (await world.post(sending)).status_code == 202
    (kopi,) = await world.kopier.alive()
    return kopi, world.katalog.get(kopi.kommunenummer)


@pytest.fixture
def channel(tmp_path: Path) -> Utskrift:
    made = Utskrift(tmp_path / "utskrift")
    made.prepare()
    return made


def manifest_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "brevsett.json").read_text())
    return document


def text_of(path: Path) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(path.read_bytes())).pages)


async def test_a_real_soknad_becomes_a_set_with_a_cover_the_soknad_first_and_pictures_as_pages(
    world: Any, sending: Any, sent: Any, channel: Utskrift
) -> None:
    kopi, entry = sent
    with await world.kopier.open(kopi.melding_id, world.now) as opened:
        await channel.send(kopi, opened, entry, world.now)
    folder = channel.folder / "ko" / kopi.melding_id
    names = ["00-forside.pdf", "01-soknad.pdf", "02-vedlegg.pdf", "03-vedlegg.pdf"]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "brevsett.json"]
    assert (folder / "01-soknad.pdf").read_bytes() == sending.content["Soknad.pdf"]
    manifest = manifest_of(folder)
    assert [one["fil"] for one in manifest["filer"]] == names
    for one in manifest["filer"]:
        assert hashlib.sha256((folder / one["fil"]).read_bytes()).hexdigest() == one["sha256"]
        assert one["sider"] == len(PdfReader(folder / one["fil"]).pages)
    sources = {one["kildeSha256"] for one in manifest["filer"]} - {None}
    assert sources == {hashlib.sha256(data).hexdigest() for data in sending.content.values()}
    cover = text_of(folder / "00-forside.pdf")
    assert [word for word in ("Oslo kommune", kopi.digisos_id, "Lønnslipp.png, 1 side") if word not in cover] == []


async def test_the_set_names_nobody_but_in_what_the_citizen_sent(
    world: Any, sending: Any, sent: Any, channel: Utskrift
) -> None:
    kopi, entry = sent
    with await world.kopier.open(kopi.melding_id, world.now) as opened:
        await channel.send(kopi, opened, entry, world.now)
    folder = channel.folder / "ko" / kopi.melding_id
    for text in ((folder / "brevsett.json").read_text(), text_of(folder / "00-forside.pdf")):
        assert sending.fodselsnummer not in text
    assert "Lønnslipp" not in (folder / "brevsett.json").read_text()


async def test_nobody_else_on_the_machine_may_read_it(sent: Any, channel: Utskrift, world: Any) -> None:
    kopi, entry = sent
    await channel.send(kopi, Files({"Soknad.pdf": ("application/pdf", b"%PDF-1.4")}), entry, world.now)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (channel.folder, *channel.folder.rglob("*"))}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


async def test_the_cover_of_an_ettersendelse_says_that_it_is_one(sent: Any, channel: Utskrift, world: Any) -> None:
    kopi, entry = sent
    record = kopi.record.model_copy(update={"type": "ETTERSENDELSE"})
    kopi = type(kopi)(**{name: getattr(kopi, name) for name in kopi.__slots__} | {"record": record})
    await channel.send(kopi, Files(), entry, world.now)
    assert "Ettersendelse til søknad" in text_of(channel.folder / "ko" / kopi.melding_id / "00-forside.pdf")


async def test_the_address_the_office_and_emergency_help_are_on_the_cover(
    sent: Any, channel: Utskrift, world: Any
) -> None:
    kopi, entry = sent
    record = kopi.record.model_copy(update={"hastegrad": "NODHJELP", "enhetsnummer": "0312"})
    kopi = type(kopi)(**{name: getattr(kopi, name) for name in kopi.__slots__} | {"record": record})
    entry = entry.model_copy(update={"postadresse": ("NAV Frogner", "Postboks 1", "0301 Oslo")})
    await channel.send(kopi, Files(), entry, world.now)
    cover = text_of(channel.folder / "ko" / kopi.melding_id / "00-forside.pdf")
    assert [word for word in ("Postboks 1", "v/ Nav-kontor 0312", "NØDHJELP") if word not in cover] == []
    assert manifest_of(channel.folder / "ko" / kopi.melding_id)["hastegrad"] == "NODHJELP"


async def test_damaged_files_go_along_as_they_are_and_are_told_of(sent: Any, channel: Utskrift, world: Any) -> None:
    kopi, entry = sent
    files = Files(
        {
            "soknad.json": ("application/json", b"{}"),
            "bilde.png": ("image/png", b"\x89PNG ikke mer"),
            "lapp.txt": ("text/plain", b"hei"),
            "Soknad.pdf": ("application/pdf", b"%PDF-1.4 ikke mer"),
        }
    )
    await channel.send(kopi, files, entry, world.now)
    folder = channel.folder / "ko" / kopi.melding_id
    found = {one["fil"]: (one["sider"], one["merknad"]) for one in manifest_of(folder)["filer"][1:]}
    assert found == {
        "01-soknad.pdf": (None, "skadet"),
        "02-vedlegg.png": (None, "skadet"),
        "03-vedlegg.bin": (None, "ikke-sider"),
    }
    assert (folder / "02-vedlegg.png").read_bytes() == b"\x89PNG ikke mer"
    assert "bilde.png (kan ikke vises som sider" in text_of(folder / "00-forside.pdf").replace("\n", " ")


async def test_a_set_is_written_once_also_when_it_has_been_printed(sent: Any, channel: Utskrift, world: Any) -> None:
    kopi, entry = sent
    files = Files({"Soknad.pdf": ("application/pdf", b"%PDF-1.4")})
    await channel.send(kopi, files, entry, world.now)
    before = (channel.folder / "ko" / kopi.melding_id / "brevsett.json").stat().st_ino
    await channel.send(kopi, files, entry, world.now)
    assert (channel.folder / "ko" / kopi.melding_id / "brevsett.json").stat().st_ino == before
    (channel.folder / "ko" / kopi.melding_id).rename(channel.folder / "ferdig" / kopi.melding_id)
    await channel.send(kopi, files, entry, world.now)
    assert list((channel.folder / "ko").iterdir()) == []


async def test_two_instances_that_write_the_same_set_leave_one(sent: Any, channel: Utskrift, world: Any) -> None:
    kopi, entry = sent
    files = Files({"Soknad.pdf": ("application/pdf", b"%PDF-1.4")})
    await asyncio.gather(*(Utskrift(channel.folder).send(kopi, files, entry, world.now) for _ in range(4)))
    assert [path.name for path in (channel.folder / "ko").iterdir()] == [kopi.melding_id]
    assert sorted(path.name for path in channel.folder.iterdir()) == ["ferdig", "ko"]


async def test_a_set_is_whole_or_not_there(
    sent: Any, channel: Utskrift, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kopi, entry = sent

    def full(*_: object) -> None:
        raise OSError(28, "full")

    monkeypatch.setattr(module, "sync_folder", full)
    with pytest.raises(ChannelUnavailableError, match="OSError"):
        await channel.send(kopi, Files(), entry, world.now)
    assert sorted(path.name for path in channel.folder.iterdir()) == ["ferdig", "ko"]
    monkeypatch.undo()
    await channel.send(kopi, Files(), entry, world.now)
    assert len(list((channel.folder / "ko").iterdir())) == 1


async def test_what_a_crash_left_unfinished_is_removed_at_the_next_start(channel: Utskrift) -> None:
    left = channel.folder / ".ny-halvferdig"
    left.mkdir()
    (left / "01-soknad.pdf").write_bytes(b"%PDF-1.4")
    channel.prepare()
    assert not left.exists()


async def test_an_instance_that_starts_leaves_alone_what_another_is_writing(
    sent: Any, channel: Utskrift, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kopi, entry = sent

    def another_starts(folder: Path) -> None:
        Utskrift(channel.folder).prepare()
        sync_folder(folder)

    monkeypatch.setattr(module, "sync_folder", another_starts)
    await channel.send(kopi, Files({"Soknad.pdf": ("application/pdf", b"%PDF-1.4")}), entry, world.now)
    queued = channel.folder / "ko" / kopi.melding_id
    assert sorted(path.name for path in queued.iterdir()) == ["00-forside.pdf", "01-soknad.pdf", "brevsett.json"]


async def test_a_set_that_was_removed_before_its_writer_held_it_is_written_again(
    sent: Any, channel: Utskrift, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kopi, entry = sent
    real = Path.mkdir

    def removed_at_once(path: Path, *args: Any, **options: Any) -> None:
        real(path, *args, **options)
        path.rmdir()

    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", removed_at_once)
        with pytest.raises(ChannelUnavailableError):
            await channel.send(kopi, Files(), entry, world.now)
    await channel.send(kopi, Files(), entry, world.now)
    assert (channel.folder / "ko" / kopi.melding_id / "brevsett.json").is_file()


async def test_a_set_is_closed_when_it_has_been_moved_whole(sent: Any, channel: Utskrift, world: Any) -> None:
    kopi, entry = sent
    waiting = [kopi.melding_id, MeldingId.new()]
    await channel.send(kopi, Files(), entry, world.now)
    assert await channel.closed(waiting) == frozenset()
    (channel.folder / "ferdig" / kopi.melding_id).mkdir()
    assert await channel.closed(waiting) == frozenset()  # a copy is under way
    (channel.folder / "ferdig" / kopi.melding_id).rmdir()
    (channel.folder / "ko" / kopi.melding_id).rename(channel.folder / "ferdig" / kopi.melding_id)
    assert await channel.closed(waiting) == {kopi.melding_id}


async def test_a_set_can_be_taken_back_until_it_is_printed(sent: Any, channel: Utskrift, world: Any) -> None:
    kopi, entry = sent
    assert not await channel.withdraw(kopi.melding_id)
    await channel.send(kopi, Files(), entry, world.now)
    assert await channel.withdraw(kopi.melding_id)
    assert sorted(path.name for path in channel.folder.rglob("*")) == ["ferdig", "ko"]
    await channel.send(kopi, Files(), entry, world.now)
    (channel.folder / "ko" / kopi.melding_id).rename(channel.folder / "ferdig" / kopi.melding_id)
    assert not await channel.withdraw(kopi.melding_id)


async def test_a_folder_that_cannot_be_used_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "utskrift").write_text("en fil")
    with pytest.raises(ChannelUnavailableError):
        Utskrift(tmp_path / "utskrift").prepare()
