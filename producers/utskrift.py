"""The print channel: a letter set in a folder, from which somebody prints it and sends it to the kommune.

::

    utskrift/
      ko/<meldingId>/      sets to print
        00-forside.pdf       the cover
        01-soknad.pdf        Soknad.pdf first, then the others in the package's order; pictures as PDF pages
        …
        brevsett.json        ids, digests, numbers of pages; nothing personal
      ferdig/<meldingId>/  printed and handed over: moved here by whoever printed it (``formidler utskrift ferdig``)

Rules:

1. A set is whole or not there: it is written beside the queue, synced, and renamed. A set that is there is not written again.
2. It is the receiver's handover, and in clear: folders 0700, files 0600, on a disk that is the printer's to protect.
3. JSON is not printed. What cannot be made into pages lies there as it came, and the cover and ``brevsett.json`` say so: one
   damaged file does not keep a citizen's søknad from being read.
4. File names are numbers and kinds: a name that a citizen gave stands on the cover alone.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
from collections.abc import Collection
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import orjson

from broker.clock import timestamp
from broker.files import sync_folder
from broker.krasj import crash_point
from producers.brev import JPEG, PDF, PNG, Forside, Vedlegg, cover_letter, page_count, picture_page
from schemas.errors import ChannelUnavailableError, DamagedFileError
from schemas.names import MeldingId
from schemas.records import ETTERSENDELSE, KANAL_PRINT

if TYPE_CHECKING:
    from collections.abc import Generator
    from datetime import datetime
    from pathlib import Path

    from crypto.asice import PackageFile
    from producers.kanaler import OpenedFiles
    from producers.kopi_rows import Kopi
    from schemas.records import KatalogRecord

MANIFEST: Final = "brevsett.json"
QUEUE: Final = "ko"
DONE: Final = "ferdig"
DAMAGED: Final = "skadet"
NOT_PAGES: Final = "ikke-sider"
_UNFINISHED: Final = ".ny-"
_PRIVATE: Final = 0o700
_SUFFIXES: Final = {PDF: "pdf", PNG: "png", JPEG: "jpg"}
_TOLD: Final = {DAMAGED: "kan ikke vises som sider, ligger ved som fil", NOT_PAGES: "ligger ved som fil"}
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class _Sheet:
    """One file of a set."""

    fil: str
    data: bytes
    kilde: str | None
    kilde_sha256: str | None
    sider: int | None
    merknad: str | None = None

    def line(self) -> dict[str, Any]:
        """Return its line of ``brevsett.json``."""
        return {
            "fil": self.fil,
            "storrelse": len(self.data),
            "sha256": hashlib.sha256(self.data).hexdigest(),
            "sider": self.sider,
            "kildeSha256": self.kilde_sha256,
            "merknad": self.merknad,
        }

    def vedlegg(self) -> Vedlegg:
        """Return its line on the cover."""
        return Vedlegg(self.kilde or self.fil, self.sider, _TOLD.get(self.merknad or ""))


class Utskrift:
    """The print channel; see ``kanaler.Kanal``.

    Args:
        folder: Where the sets go; made if it is not there.
    """

    navn = KANAL_PRINT

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folders, and remove what a crash left unfinished: clear text that nobody looks after.

        What another instance is writing now stays: its writer holds a lock on it, which a crash lets go of.

        Raises:
            ChannelUnavailableError: The folder cannot be written.
        """
        with _mapped():
            for path in (self.folder, self.folder / QUEUE, self.folder / DONE):
                path.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
                path.chmod(_PRIVATE)
            for left in self.folder.glob(f"{_UNFINISHED}*"):
                with _held(left) as ours:
                    if ours:
                        shutil.rmtree(left)

    async def send(self, kopi: Kopi, opened: OpenedFiles, entry: KatalogRecord, now: datetime) -> None:
        """Put a letter set in the queue; see ``kanaler.Kanal.send``."""
        await asyncio.to_thread(self._send, kopi, opened, entry, now)

    async def closed(self, waiting: Collection[MeldingId]) -> frozenset[MeldingId]:
        """Return the sets that were printed; see ``kanaler.Kanal.closed``."""
        return await asyncio.to_thread(lambda: frozenset(one for one in waiting if self._manifest(DONE, one).is_file()))

    async def withdraw(self, melding_id: MeldingId) -> bool:
        """Take a set out of the queue, unless it has been printed; see ``kanaler.Kanal.withdraw``."""
        return await asyncio.to_thread(self._withdraw, melding_id)

    def _manifest(self, where: str, melding_id: MeldingId) -> Path:
        return self.folder / where / melding_id / MANIFEST

    def _has(self, melding_id: MeldingId) -> bool:
        return any((self.folder / where / melding_id).exists() for where in (QUEUE, DONE))

    def _send(self, kopi: Kopi, opened: OpenedFiles, entry: KatalogRecord, now: datetime) -> None:
        if self._has(kopi.melding_id):
            return
        sheets = _sheets(opened, now)
        cover = _cover(kopi, entry, sheets, now)
        self._write(kopi, [cover, *sheets], now)

    def _write(self, kopi: Kopi, sheets: list[_Sheet], now: datetime) -> None:
        unfinished = self.folder / f"{_UNFINISHED}{uuid4().hex}"
        try:
            with _mapped():
                unfinished.mkdir(mode=_PRIVATE)
                with _held(unfinished) as ours:
                    if not ours:
                        raise BlockingIOError
                    for sheet in sheets:
                        _write_synced(unfinished / sheet.fil, sheet.data)
                    _write_synced(unfinished / MANIFEST, _manifest_of(kopi, sheets, now))
                    sync_folder(unfinished)
                    self._put_in_queue(unfinished, kopi.melding_id)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _put_in_queue(self, unfinished: Path, melding_id: MeldingId) -> None:
        try:
            crash_point("producers.utskrift.before-rename")
            unfinished.rename(self.folder / QUEUE / melding_id)
            crash_point("producers.utskrift.renamed")
        except OSError:
            if not self._has(melding_id):  # another instance was there first
                raise
        sync_folder(self.folder / QUEUE)

    def _withdraw(self, melding_id: MeldingId) -> bool:
        gone = self.folder / f"{_UNFINISHED}{uuid4().hex}"
        with _mapped():
            try:
                (self.folder / QUEUE / melding_id).rename(gone)
            except FileNotFoundError:
                return False
            sync_folder(self.folder / QUEUE)
            shutil.rmtree(gone)
        return True


def _sheets(opened: OpenedFiles, now: datetime) -> list[_Sheet]:
    """Return what is printed behind the cover, in order."""
    printed = [one for one in opened.files if one.mimetype != _JSON]
    printed.sort(key=lambda one: one.name.lower() != "soknad.pdf")  # stable: the rest keeps its order
    return [_sheet(nr, one, b"".join(opened.read(one.name)), now) for nr, one in enumerate(printed, 1)]


def _sheet(nr: int, file: PackageFile, data: bytes, now: datetime) -> _Sheet:
    kind = "soknad" if file.name.lower() == "soknad.pdf" else "vedlegg"
    name = f"{nr:02}-{kind}"
    if file.mimetype == PDF:
        pages = page_count(data)
        return _Sheet(f"{name}.pdf", data, file.name, file.sha256, pages, None if pages else DAMAGED)
    if file.mimetype in {PNG, JPEG}:
        try:
            return _Sheet(f"{name}.pdf", picture_page(data, now), file.name, file.sha256, 1)
        except DamagedFileError:
            return _Sheet(f"{name}.{_SUFFIXES[file.mimetype]}", data, file.name, file.sha256, None, DAMAGED)
    return _Sheet(f"{name}.bin", data, file.name, file.sha256, None, NOT_PAGES)


def _cover(kopi: Kopi, entry: KatalogRecord, sheets: list[_Sheet], now: datetime) -> _Sheet:
    record = kopi.record
    offices = {one.enhetsnummer: one.navn for one in entry.enheter}
    number = record.enhetsnummer
    office = None if number is None else offices.get(number, f"Nav-kontor {number}")
    data = cover_letter(
        Forside(
            mottaker=entry.postadresse or (f"{entry.navn} kommune",),
            kontor=office,
            nodhjelp=record.hastegrad == "NODHJELP",
            ettersendelse=record.type == ETTERSENDELSE,
            referanser=(
                ("Søknadens id (digisosId)", record.digisos_id),
                ("Meldingens id", record.melding_id),
                ("Avsenderens referanse", record.nav_ekstern_ref_id),
            ),
            innsendt=record.innsendt,
            skrevet=now,
            vedlegg=[sheet.vedlegg() for sheet in sheets],
        )
    )
    return _Sheet("00-forside.pdf", data, None, None, page_count(data))


def _manifest_of(kopi: Kopi, sheets: list[_Sheet], now: datetime) -> bytes:
    record = kopi.record
    document = {
        "meldingId": record.melding_id,
        "digisosId": record.digisos_id,
        "navEksternRefId": record.nav_ekstern_ref_id,
        "kommunenummer": record.kommunenummer,
        "enhetsnummer": record.enhetsnummer,
        "type": record.type,
        "hastegrad": record.hastegrad,
        "innsendt": timestamp(record.innsendt),
        "laget": timestamp(now),
        "filer": [sheet.line() for sheet in sheets],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _held(folder: Path) -> Generator[bool]:
    """Lock a folder while it is written or removed; False when somebody else has it, or has removed it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _mapped() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise ChannelUnavailableError(f"utskriftsmappen kan ikke brukes ({type(error).__name__})") from error
