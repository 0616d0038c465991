"""Where the simulated HTTP fagsystem keeps what it receives, so that it survives its own restarts.

::

    <mappe>/<kommunenummer>/soknader/<meldingId>/   the files, leveranse.json, svar.json
    <mappe>/<kommunenummer>/hendelser.jsonl         what it has told, one line each

A søknad is written beside its place, synced and renamed. ``svar.json`` has the answer, and when it was given.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from broker.clock import timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import BinaryIO

SVAR: Final = "svar.json"
LEVERANSE: Final = "leveranse.json"
_CHUNK_BYTES: Final = 256 * 1024


@dataclass(frozen=True)
class Stored:
    """A søknad that was received.

    Attributes:
        leveranse: As the connector sent it.
        status: MOTTATT, LEVERT or AVVIST.
        kode: Why, for AVVIST.
        at: When, aware UTC.
    """

    leveranse: Mapping[str, Any]
    status: str
    kode: str
    at: datetime


class Archive:
    """One kommune's søknader and hendelser.

    Args:
        folder: Of the kommune; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._soknader = folder / "soknader"
        self._log = folder / "hendelser.jsonl"
        self._soknader.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.stored: dict[str, Stored] = {}
        self.hendelser: list[dict[str, Any]] = []
        self.updates: dict[str, int] = defaultdict(int)
        """How many updates of each case were told."""
        self.answered: set[str] = set()
        """Meldinger that an event has answered for."""
        self._load()

    def _load(self) -> None:
        for path in self._soknader.iterdir():
            if path.name.startswith("."):
                shutil.rmtree(path)
                continue
            svar = json.loads((path / SVAR).read_bytes())
            leveranse = json.loads((path / LEVERANSE).read_bytes())
            at = datetime.fromisoformat(svar["tidspunkt"])
            self.stored[path.name] = Stored(leveranse, svar["status"], svar["kode"], at)
        if self._log.exists():
            content = self._log.read_bytes()
            whole = content.rpartition(b"\n")[0]
            if len(whole) + 1 < len(content):  # a crash has torn the last line
                os.truncate(self._log, len(whole) + 1 if whole else 0)
            for line in whole.splitlines():
                self._remember(json.loads(line))

    def keep(self, leveranse: Mapping[str, Any], files: Iterable[tuple[str, BinaryIO]], svar: Stored) -> None:
        """Store a søknad, durably, with the answer that it gets."""
        melding_id = str(leveranse["meldingId"])
        work = self._soknader / f".{melding_id}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        for name, content in files:
            _write(work / os.path.basename(name), content)  # noqa: PTH119 - the name alone, whatever came
        told = {"status": svar.status, "kode": svar.kode, "tidspunkt": timestamp(svar.at)}
        for name, document in ((LEVERANSE, leveranse), (SVAR, told)):
            path = work / name
            path.write_text(json.dumps(document, ensure_ascii=False, indent=2), "utf-8")
            path.chmod(0o600)
            _sync(path)
        work.rename(self._soknader / melding_id)
        _sync(self._soknader)
        self.stored[melding_id] = svar

    def tell(self, hendelse: Mapping[str, Any]) -> None:
        """Append a hendelse, durably; its id is its number."""
        numbered = {"id": str(len(self.hendelser) + 1), **hendelse}
        with self._log.open("ab") as file:
            file.write(json.dumps(numbered, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._remember(numbered)

    def _remember(self, hendelse: dict[str, Any]) -> None:
        self.hendelser.append(hendelse)
        if hendelse["type"] == "OPPDATERING":
            self.updates[hendelse["digisosId"]] += 1
        else:
            self.answered.add(hendelse["meldingId"])

    def after(self, cursor: str, limit: int) -> list[dict[str, Any]]:
        """Return hendelser behind ``cursor``, oldest first; all from the start when it is empty or unknown."""
        start = int(cursor) if cursor.isascii() and cursor.isdigit() else 0
        return self.hendelser[start : start + limit]


def _write(path: Path, content: BinaryIO) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while piece := content.read(_CHUNK_BYTES):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
