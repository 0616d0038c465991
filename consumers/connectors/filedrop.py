"""A fagsystem that reads folders: søknader are dropped as files, receipts and case updates are read from files.

::

    <rot>/<kommunenummer>/
        inn/<meldingId>/            one søknad: its files, leveranse.json, and FERDIG, which is written last
        ut/<meldingId>.kvittering.json          {"status": "MOTTATT"} or {"status": "AVVIST", "kode": "…"}
        ut/<digisosId>/<nr>/        one case update: digisos-soker.json, its PDFs, and FERDIG, which is written last
        behandlet/                  what was taken from ut/, under the same names
        avvist/                     what could not be accepted, each with a <name>.feil.json that has the code

Rules:

1. A søknad is written to a folder under ``arbeid/``, synced, and renamed into ``inn/``: nobody sees half of one.
2. ``FERDIG`` holds the SHA-256 of each file, so that the receiver can check what it read.
3. A søknad that has been dropped is not dropped again, also when the fagsystem has taken the folder away: ``levert/`` remembers.
   It is noted as on its way (``<meldingId>.pa-vei``) before the rename: if a crash comes between the rename and the note that it
   is done, what is on its way and no longer under ``arbeid/`` has been dropped. Each process has work folders of its own there.
4. The fagsystem writes a receipt or an update under another name, or without its FERDIG, and renames or marks it when it is
   whole. What is in ut/ stays there until it is durable on its topic.
5. Folders are mode 0700 and files 0600: what lies here is in clear, in the receiver's own domain.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker.clock import timestamp
from broker.files import sync_folder
from broker.krasj import crash_point
from broker.log import get_logger
from consumers.connector import (
    ConnectorContext,
    ConnectorEvent,
    ConnectorSpec,
    Leveranse,
    Levert,
    Oppdatering,
    Svar,
    SvarAvvist,
    SvarMottatt,
    Vedlagt,
)
from consumers.connectors.leveranse_json import leveranse_json
from schemas.digisos_soker_json import FILENAME
from schemas.errors import (
    ConfigurationError,
    FagsystemFailureError,
    FagsystemUnavailableError,
    InvalidDocumentError,
    InvalidNameError,
)
from schemas.names import DigisosId, MeldingId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from consumers.connector import Settle
    from schemas.errors import MeldingsformidlerError

MARKER: Final = "FERDIG"
LEVERANSE: Final = "leveranse.json"
ON_ITS_WAY_SUFFIX: Final = ".pa-vei"
RECEIPT_SUFFIX: Final = ".kvittering.json"
MAX_READ_BYTES: Final = 16 * 1024 * 1024
_PRIVATE_FOLDER: Final = 0o700
_PRIVATE_FILE: Final = 0o600


class FiledropSettings(BaseModel):
    """Settings of the filedrop connector."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mappe: Path = Field(description="Rotmappen; kommunens egen mappe lages under den. Må ligge på ett filsystem.")
    intervall_s: float = Field(default=1.0, gt=0, description="Hvor ofte ut/ leses, i sekunder.")


class _Receipt(BaseModel):
    """What a fagsystem writes to ``<meldingId>.kvittering.json``."""

    model_config = ConfigDict(hide_input_in_errors=True)

    status: str
    kode: str = ""


class FiledropConnector:
    """Drops søknader in a folder; see the module.

    Args:
        settings: The connector's own.
        context: Whom it serves.
    """

    def __init__(self, settings: FiledropSettings, context: ConnectorContext) -> None:
        self._settings = settings
        self._root = settings.mappe / context.kommunenummer
        self._clock = context.clock
        self._taken: set[Path] = set()
        self._token = secrets.token_hex(4)  # two processes may write one søknad: nobody drops what the other has begun
        self._log = get_logger().bind(kommunenummer=context.kommunenummer)

    def _folder(self, name: str) -> Path:
        return self._root / name

    async def start(self) -> None:
        """Make the folders, and clear away what a crash left half-written."""
        try:
            await asyncio.to_thread(self._prepare)
        except OSError as error:
            raise ConfigurationError(f"mappe: {self._root} kan ikke lages eller skrives ({error.strerror})") from error

    async def close(self) -> None:
        """Nothing is held open."""

    def _prepare(self) -> None:
        for name in ("inn", "ut", "behandlet", "avvist", "levert", "arbeid"):
            self._folder(name).mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        for left in self._folder("arbeid").iterdir():
            self._clear(left)

    def _clear(self, work: Path) -> None:
        """Remove what was never dropped: first the note that it is on its way, or it would seem to be dropped."""
        self._on_its_way(work.name.partition("~")[0]).unlink(missing_ok=True)
        sync_folder(self._folder("levert"))
        shutil.rmtree(work, ignore_errors=True)

    def _on_its_way(self, name: str) -> Path:
        return self._folder("levert") / f"{name}{ON_ITS_WAY_SUFFIX}"

    async def deliver(self, leveranse: Leveranse) -> Svar:
        """Drop the søknad; the answer comes as a receipt."""
        try:
            if await asyncio.to_thread(self._is_dropped, leveranse.melding_id):
                return Levert()
            await self._drop(leveranse)
        except FileNotFoundError as error:
            raise FagsystemUnavailableError("en av mappene er borte") from error
        except OSError as error:
            if error.errno in _UNAVAILABLE:
                raise FagsystemUnavailableError(f"mappen kan ikke skrives ({error.strerror})") from error
            raise FagsystemFailureError(f"mappen kan ikke skrives ({error.strerror})") from error
        return Levert()

    def _is_dropped(self, melding_id: MeldingId) -> bool:
        if (self._folder("levert") / melding_id).exists():
            return True
        left_work = not any(self._works(melding_id))
        if (self._folder("inn") / melding_id).exists() or (left_work and self._on_its_way(melding_id).exists()):
            self._note_dropped(melding_id)
            return True
        return False

    def _works(self, melding_id: MeldingId) -> Iterator[Path]:
        return self._folder("arbeid").glob(f"{melding_id}~*")

    async def _drop(self, leveranse: Leveranse) -> None:
        work = self._folder("arbeid") / f"{leveranse.melding_id}~{self._token}"
        await asyncio.to_thread(self._clear, work)
        work.mkdir(mode=_PRIVATE_FOLDER)
        sums = {file.name: await self._write(work / file.name, leveranse.read(file.name)) for file in leveranse.files}
        sums[LEVERANSE] = await self._write(work / LEVERANSE, _once(leveranse_json(leveranse)))
        marker = orjson.dumps({"sha256": sums}, option=orjson.OPT_INDENT_2)
        await self._write(work / MARKER, _once(marker))
        await asyncio.to_thread(self._make_visible, work, leveranse.melding_id)

    async def _write(self, path: Path, pieces: AsyncIterator[bytes]) -> str:
        """Write a new private file, synced; return its digest."""
        digest = hashlib.sha256()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE_FILE)
        with os.fdopen(descriptor, "wb") as file:
            async for piece in pieces:
                digest.update(piece)
                file.write(piece)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        return digest.hexdigest()

    def _make_visible(self, work: Path, melding_id: MeldingId) -> None:
        sync_folder(work)
        sync_folder(work.parent)
        self._on_its_way(melding_id).touch(mode=_PRIVATE_FILE)
        sync_folder(self._folder("levert"))
        crash_point("consumers.filedrop.on-its-way")
        work.rename(self._folder("inn") / melding_id)
        crash_point("consumers.filedrop.dropped")
        self._note_dropped(melding_id)

    def _note_dropped(self, melding_id: MeldingId) -> None:
        sync_folder(self._folder("arbeid"))
        sync_folder(self._folder("inn"))
        done = self._folder("levert") / melding_id
        done.touch(mode=_PRIVATE_FILE)
        self._on_its_way(melding_id).unlink(missing_ok=True)
        sync_folder(self._folder("levert"))

    async def events(self) -> AsyncIterator[ConnectorEvent]:
        """Give what lies in ut/, again and again until it is taken away."""
        self._taken.clear()
        while True:
            try:
                found = await asyncio.to_thread(lambda: list(self._new_paths()))
            except OSError as error:
                raise FagsystemUnavailableError(f"ut/ kan ikke leses ({error.strerror})") from error
            for path in found:
                self._taken.add(path)
                event = await self._event(path)
                if event is not None:
                    yield event
            await asyncio.sleep(self._settings.intervall_s)

    def _new_paths(self) -> Iterator[Path]:
        """Return what is whole and not taken yet: receipts first, then each case's updates in order of name."""
        entries = sorted(self._folder("ut").iterdir())
        yield from (path for path in entries if path.name.endswith(RECEIPT_SUFFIX) and path not in self._taken)
        for case in entries:
            if case.is_dir():
                yield from (
                    update
                    for update in sorted(case.iterdir())
                    if update.is_dir() and update not in self._taken and (update / MARKER).exists()
                )

    async def _event(self, path: Path) -> ConnectorEvent | None:
        settle = self._settle(path)
        try:
            return await asyncio.to_thread(_read, path, settle)
        except (InvalidNameError, InvalidDocumentError) as error:
            self._log.warning("connector_file_refused", fil=path.name, exc_info=error)
            await settle(error)
        except FileNotFoundError:
            self._taken.discard(path)  # taken away again by whoever wrote it
        return None

    def _settle(self, path: Path) -> Settle:
        async def settle(error: MeldingsformidlerError | None) -> None:
            await asyncio.to_thread(self._take_away, path, error)
            self._taken.discard(path)

        return settle

    def _take_away(self, path: Path, error: MeldingsformidlerError | None) -> None:
        relative = path.relative_to(self._folder("ut"))
        target = self._folder("behandlet" if error is None else "avvist") / relative
        target.parent.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        if target.is_dir():
            shutil.rmtree(target)  # the same update as before, whose move a crash had hidden from us
        path.rename(target)
        if error is not None:
            report = {"kode": error.code, "tidspunkt": timestamp(self._clock())}
            target.with_name(f"{target.name}.feil.json").write_text(json.dumps(report))


def _read(path: Path, settle: Settle) -> ConnectorEvent:
    return _read_receipt(path, settle) if path.is_file() else _read_update(path, settle)


def _read_receipt(path: Path, settle: Settle) -> ConnectorEvent:
    melding_id = MeldingId(path.name.removesuffix(RECEIPT_SUFFIX))
    try:
        receipt = _Receipt.model_validate_json(path.read_bytes()[:MAX_READ_BYTES])
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        raise InvalidDocumentError("kvittering.json", where, "mangler eller har feil form") from None
    match receipt.status:
        case "MOTTATT":
            return SvarMottatt(settle, melding_id)
        case "AVVIST":
            return SvarAvvist(settle, melding_id, receipt.kode)
        case _:
            raise InvalidDocumentError("kvittering.json", "status", "skal være MOTTATT eller AVVIST")


def _read_update(path: Path, settle: Settle) -> ConnectorEvent:
    digisos_id = DigisosId(path.parent.name)
    if not (path / FILENAME).is_file():
        raise InvalidDocumentError(FILENAME, "", "mangler")
    letters = sorted(each for each in path.iterdir() if each.name not in {FILENAME, MARKER} and each.is_file())
    files = [path / FILENAME, *letters]
    if sum(each.stat().st_size for each in files) > MAX_READ_BYTES:
        raise InvalidDocumentError(FILENAME, "", "oppdateringen er for stor")
    content, *rest = [each.read_bytes() for each in files]
    vedlagt = tuple(Vedlagt(each.name, data) for each, data in zip(letters, rest, strict=True))
    return Oppdatering(settle, digisos_id, content, vedlagt)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


_UNAVAILABLE: Final = frozenset(
    {errno.EACCES, errno.ENOSPC, errno.EROFS, errno.EIO, errno.ESTALE, errno.EDQUOT},
)
"""The folder's trouble, not the søknad's."""

SPEC = ConnectorSpec(
    name="filedrop",
    description="Legger hver søknad som filer i en mappe, og leser kvitteringer og saksoppdateringer fra en annen.",
    settings=FiledropSettings,
    create=FiledropConnector,
)
