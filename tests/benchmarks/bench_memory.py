"""Memory of every process on the way, for one søknad with 150 MB of vedlegg: from the portal to the fagsystem's disk.

The set-up is that of ``formidler up``: real processes, a real Kafka, the package by reference through the dokumentlager, a
connector that posts and one that drops files. Idle is what a process holds after a small søknad has gone the whole way, so
that imports and warm caches are not counted. The peak is the kernel's own (``VmHWM``), reset before the large one is sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

import httpx
from _rows import Row

from broker.log import configure_logging
from broker.supervisor.bootstrap import bootstrap, choose_connectors
from broker.supervisor.up import running
from producers.demo.portal import Portal
from producers.dokument import Dokument
from producers.http_client import SoknadClient
from schemas.examples import make_pdf, make_soknad, make_vedlegg, synthetic_fodselsnummer
from schemas.names import Fodselsnummer, Kommunenummer, NavEksternRefId

if TYPE_CHECKING:
    from broker.supervisor.up import Running

KOMMUNER: Final = tuple(Kommunenummer(number) for number in ("0301", "4601", "5001"))
HTTP, FILEDROP = KOMMUNER[0], KOMMUNER[2]
FILES: Final = 15
FILE_BYTES: Final = 10_000_000
GOAL_MIB: Final = 32
WITHIN_S: Final = 120


def rows() -> list[Row]:
    """Return a row for each process on the way."""
    return asyncio.run(_measure())


async def _measure() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="formidler-bench-") as folder:
        configure_logging("benk", stream=io.StringIO())
        layout = bootstrap(Path(folder), choose_connectors(KOMMUNER), datetime.now(UTC))
        async with (
            running(layout, external=None, report=lambda _: None) as up,
            httpx.AsyncClient(timeout=WITHIN_S) as http,
        ):
            portal = Portal.of(layout, http)
            found: list[Row] = []
            for kommune, connector in ((HTTP, "konnektor-fjordsak"), (FILEDROP, "konnektor-arkivmappe")):
                await _send_and_wait(portal, kommune, files=1, size=50_000)
                watched = ("producers", connector) if kommune == HTTP else (connector,)
                idle = {name: _reset_peak(up, name) for name in watched}
                await _send_and_wait(portal, kommune, files=FILES, size=FILE_BYTES)
                found += [_row(name, _read(up, name, "VmHWM") - idle[name]) for name in watched]
            return found


def _row(name: str, rise_mib: float) -> Row:
    return Row(f"minne over hvile, 150 MB hele veien: {name}", rise_mib, 0, rise_mib, GOAL_MIB, "lower", "MiB")


async def _send_and_wait(portal: Portal, kommune: Kommunenummer, *, files: int, size: int) -> None:
    rng = Random(files)
    person = Fodselsnummer(synthetic_fodselsnummer(rng))
    content = make_pdf(rng, size)
    documents = [Dokument.of_bytes(f"vedlegg-{nr}.pdf", content) for nr in range(files)]
    digest = hashlib.sha512(content).hexdigest()
    token = await portal.token(person)
    sent = await SoknadClient(portal.client.base_url, portal.http).send(
        kommune,
        NavEksternRefId(f"minne-{kommune}-{files}"),
        soknad_json=make_soknad(rng, fodselsnummer=person, kommunenummer=kommune),
        vedlegg_json=make_vedlegg([("annet", "annet", document.filnavn, digest) for document in documents]),
        files=[Dokument.of_bytes("soknad.pdf", make_pdf(rng, 30_000)), *documents],
        token=token,
    )
    async with asyncio.timeout(WITHIN_S):
        async for view in portal.follow(sent.digisos_id, person):
            if view["status"] == "FERDIGBEHANDLET":
                return


def _reset_peak(up: Running, name: str) -> float:
    """Let the kernel forget the highest memory so far; return what the process holds now, MiB."""
    Path(f"/proc/{up.children[name].pid}/clear_refs").write_text("5")
    return _read(up, name, "VmRSS")


def _read(up: Running, name: str, field: str) -> float:
    lines = Path(f"/proc/{up.children[name].pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))
