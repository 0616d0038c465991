"""The simulated fagsystemer: their operators' switches, and what lies on their disks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx

from broker.supervisor.layout import Layout
from producers.demo.journey import Journey
from schemas.names import Kommunenummer, NavEksternRefId

REFUSAL_CODE: Final = "demo.utenfor-kommunen"
_ABOUT: Final = frozenset({"leveranse.json", "svar.json", "FERDIG"})
"""What a fagsystem keeps beside the citizen's own files."""


class Fagsystem:
    """Every simulated fagsystem of a set-up.

    Args:
        layout: Where it is.
        http: Does the calls.
    """

    def __init__(self, layout: Layout, http: httpx.AsyncClient) -> None:
        self._url = layout.address("fagsystem")
        self._folder = layout.fagsystem
        self._http = http

    async def take_down(self, kommunenummer: Kommunenummer) -> None:
        """Let one kommune's fagsystem answer nobody."""
        await self._switch(f"/styring/{kommunenummer}", {"tilstand": "nede"})

    async def bring_up(self, kommunenummer: Kommunenummer) -> None:
        """Let it answer again."""
        await self._switch(f"/styring/{kommunenummer}", {"tilstand": "oppe"})

    async def refuse(self, ref: NavEksternRefId) -> None:
        """Let whichever fagsystem gets this søknad say no to it."""
        await self._switch("/styring", {"avvis": [{"ref": ref, "kode": REFUSAL_CODE}]})

    def received(self, journey: Journey) -> list[dict[str, str]]:
        """Return each delivery of this søknad that a fagsystem has stored: digest by file name, read from its disk now."""
        return [
            {path.name: _digest(path) for path in sorted(folder.iterdir()) if path.name not in _ABOUT}
            for folder in self._deliveries()
            if _json(folder / "leveranse.json").get("navEksternRefId") == journey.planned.ref
            and _json(folder / "svar.json").get("status") != "AVVIST"
        ]

    def offices(self, journey: Journey) -> list[str | None]:
        """Return the NAV office that each delivery of this søknad was handed over for."""
        told = (_json(folder / "leveranse.json") for folder in self._deliveries())
        return [
            leveranse["enhetsnummer"] for leveranse in told if leveranse.get("navEksternRefId") == journey.planned.ref
        ]

    def _deliveries(self) -> Iterator[Path]:
        """Yield the folder of each delivery: of the fagsystem that speaks HTTP, and of the one that takes folders."""
        for pattern in ("http/*/soknader/*", "mapper/*/inn/*", "mapper/*/arkiv/*"):
            yield from (path for path in sorted(self._folder.glob(pattern)) if path.is_dir())

    async def _switch(self, path: str, change: dict[str, Any]) -> None:
        (await self._http.put(self._url + path, json=change)).raise_for_status()


def _json(path: Path) -> dict[str, Any]:
    """Return the document in ``path``; a fagsystem of folders has no svar.json, which reads as an empty one."""
    return dict(json.loads(path.read_bytes())) if path.exists() else {}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
