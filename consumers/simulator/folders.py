"""The simulated fagsystem over folders: the other side of ``consumers.connectors.filedrop``.

It takes each søknad that is whole from ``inn/``, checks its digests, moves it to ``arkiv/``, writes the receipt, and later the
case's updates, to ``ut/``. Everything is seen from the folders themselves, so that it can be killed at any moment.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from consumers.connectors.filedrop import LEVERANSE, MARKER, RECEIPT_SUFFIX
from schemas.digisos_soker_json import FILENAME
from schemas.errors import InvalidNameError
from schemas.names import Kommunenummer
from schemas.records import SOKNAD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.clock import Clock
    from consumers.simulator.case import CasePlan, Switches

DAMAGED_KODE: Final = "demo.filer-stemmer-ikke"
_CHUNK_BYTES: Final = 256 * 1024


class FolderFagsystem:
    """Works in every kommune's folder below ``root``.

    Args:
        root: The same as the connectors' ``mappe``.
        switches: The operator's.
        plan: How cases go on.
        clock: What the time is.
    """

    def __init__(self, root: Path, *, switches: Switches, plan: CasePlan, clock: Clock) -> None:
        self._root = root
        self._switches = switches
        self._plan = plan
        self._clock = clock

    def tick(self) -> None:
        """Do all that can be done now. Blocks on disk only."""
        for folder in sorted(self._root.iterdir()) if self._root.is_dir() else ():
            number = _number(folder.name)
            if number is not None and (folder / "inn").is_dir() and self._switches.of(number).tilstand != "nede":
                self._work(folder, number)

    def _work(self, folder: Path, number: Kommunenummer) -> None:
        archive = folder / "arkiv"
        archive.mkdir(mode=0o700, exist_ok=True)
        for soknad in sorted((folder / "inn").iterdir()):
            if (soknad / MARKER).exists():
                soknad.rename(archive / soknad.name)
                received = self._clock().timestamp()
                os.utime(archive / soknad.name / MARKER, (received, received))
        for soknad in sorted(archive.iterdir()):
            self._answer(folder, soknad, number)

    def _answer(self, folder: Path, soknad: Path, number: Kommunenummer) -> None:
        leveranse = json.loads((soknad / LEVERANSE).read_bytes())
        receipt = _written(folder, f"{soknad.name}{RECEIPT_SUFFIX}")
        if receipt is None:
            receipt = self._write_receipt(folder, soknad, leveranse, number)
        svar = json.loads(receipt.read_bytes())
        if svar["status"] == "MOTTATT" and leveranse["type"] == SOKNAD and self._switches.of(number).oppdater:
            stored = datetime.fromtimestamp((soknad / MARKER).stat().st_mtime, UTC)
            self._go_on(folder, leveranse, stored)

    def _write_receipt(self, folder: Path, soknad: Path, leveranse: dict[str, Any], number: Kommunenummer) -> Path:
        kode = self._switches.of(number).rejection(leveranse) or (None if _is_whole(soknad) else DAMAGED_KODE)
        svar = {"status": "AVVIST", "kode": kode} if kode else {"status": "MOTTATT"}
        path = folder / "ut" / f"{soknad.name}{RECEIPT_SUFFIX}"
        _write_whole(path, json.dumps(svar).encode())
        return path

    def _go_on(self, folder: Path, leveranse: dict[str, Any], stored: datetime) -> None:
        digisos_id = leveranse["digisosId"]
        for number in range(1, self._plan.due(stored, self._clock()) + 1):
            if _written(folder, f"{digisos_id}/{number:03}/{MARKER}") is not None:
                continue
            update = folder / "ut" / digisos_id / f"{number:03}"
            update.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_whole(update / FILENAME, self._plan.document(stored, number, leveranse.get("enhetsnummer")))
            _write_whole(update / MARKER, b"")


def _written(folder: Path, name: str) -> Path | None:
    """Return where a file that we wrote lies now: still in ut/, or taken by the connector."""
    return next((path for place in ("ut", "behandlet", "avvist") if (path := folder / place / name).exists()), None)


def _is_whole(soknad: Path) -> bool:
    sums: dict[str, str] = json.loads((soknad / MARKER).read_bytes())["sha256"]
    return all((soknad / name).is_file() and _digest(soknad / name) == digest for name, digest in sums.items())


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(path):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            yield piece


def _write_whole(path: Path, content: bytes) -> None:
    work = path.with_name(f".{path.name}.ny")
    descriptor = os.open(work, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    work.rename(path)


def _number(text: str) -> Kommunenummer | None:
    try:
        return Kommunenummer(text)
    except InvalidNameError:
        return None
