"""The outbox against the disk: messages made durable a second, against bare fdatasync calls a second.

A submission puts two messages in the outbox, beside its reference and the sender's copy, in one transaction, and waits until
that is on disk. One at a time pays for an fsync each; many at once share it. The floor appends a package's bytes to a file and
syncs it, one after the other: on a disk that syncs in a quarter of a millisecond, what a submission costs besides is as much, and
the slower the disk, the higher the ratios of 16 and 256. On PostgreSQL, where it can be had, the same through a server.

Run it alone with ``python tests/benchmarks/bench_outbox.py``.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parent.parent / "support"))

from _rows import Row, print_table
from _sender import all_kommuner, scratch
from postgres import PostgresMissingError, PostgresServer

from broker.clock import system_clock
from broker.sql import open_database
from crypto.content_key import ContentKey
from crypto.key_wrap import KeyWrapper
from crypto.trust import Trust
from producers.avsenderkopi import Avsenderkopier
from producers.database import MIGRATIONS
from producers.dokumentlager import DiskDokumentlager
from producers.intake import Accepted
from producers.messages import accepted_messages
from producers.outbox import Outbox
from schemas.names import DigisosId, Eier, MeldingId, NavEksternRefId, Organisasjonsnummer, Sha256, Uuid
from schemas.records import TRANSPORT_AKSEPTERT, SoknadRecord, TransportRecord

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from producers.outbox import Message

KOMMUNE = all_kommuner()[0]
PACKAGE_BYTES = 13_000
SLICES = 5
SLICE_S = 0.4
AT_ONCE = {1: 0.4, 16: 1.0, 256: 1.0}
"""Submissions at once, and the goal: messages a second ÷ fdatasync a second."""
MESSAGES = 2
_numbers = itertools.count()


def rows() -> list[Row]:
    """Measure everything; takes about half a minute."""
    return asyncio.run(_rows())


async def _rows() -> list[Row]:
    async with scratch() as folder:
        found = await _measure(str(folder / "producers.sqlite"), folder, "SQLite")
        with ExitStack() as stack:
            try:
                server = stack.enter_context(PostgresServer())
            except PostgresMissingError as error:
                sys.stderr.write(f"PostgreSQL måles ikke: {error}\n")
            else:
                found += await _measure(server.url(server.new_database()), folder, "PostgreSQL")
    return found


async def _measure(place: str, folder: Path, kind: str) -> list[Row]:
    file = (folder / "gulv").open("wb", buffering=0)
    with file:
        async with open_database(place, MIGRATIONS) as database:
            lager = DiskDokumentlager(folder / "dokumentlager")
            kopier = Avsenderkopier(database, lager, wrapper=KeyWrapper([os.urandom(32)]), trust=Trust())
            arms = [_syncs(file.fileno()), *[_accepts(Outbox(database), kopier, at_once) for at_once in AT_ONCE]]
            floor, *ours = await _in_turns(*arms)
    return [
        Row(
            f"utboksen på {kind}, {at_once} innsendinger samtidig: meldinger/s ÷ fdatasync/s",
            figure,
            floor,
            figure / floor,
            goal if kind == "SQLite" else goal / 2,
            "higher",
            "per s",
        )
        for (at_once, goal), figure in zip(AT_ONCE.items(), ours, strict=True)
    ]


def _syncs(descriptor: int) -> Callable[[], Awaitable[float]]:
    data = os.urandom(PACKAGE_BYTES)

    def run() -> float:
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < SLICE_S:
            os.write(descriptor, data)
            os.fdatasync(descriptor)
            count += 1
        return count / (time.perf_counter() - begin)

    async def in_thread() -> float:
        return await asyncio.to_thread(run)

    return in_thread


def _accepts(outbox: Outbox, kopier: Avsenderkopier, at_once: int) -> Callable[[], Awaitable[float]]:
    async def one_after_the_other(submissions: list[tuple[Accepted, tuple[Message, Message]]], until: float) -> int:
        count = 0
        while submissions and time.perf_counter() < until:
            accepted, messages = submissions.pop()
            if await outbox.accept(accepted, messages, kopier.keeper(accepted)) is not None:
                raise RuntimeError("each reference is new")
            count += MESSAGES
        return count

    async def run() -> float:
        submissions = [_submission() for _ in range(1000 if at_once == 1 else 2500)]
        begin = time.perf_counter()
        counts = await asyncio.gather(*[one_after_the_other(submissions, begin + SLICE_S) for _ in range(at_once)])
        return sum(counts) / (time.perf_counter() - begin)

    return run


def _submission() -> tuple[Accepted, tuple[Message, Message]]:
    """Return what intake hands to the outbox; made before the clock starts."""
    melding_id, digisos_id = MeldingId.new(), DigisosId.new()
    reference, package, now = NavEksternRefId(f"ref-{next(_numbers)}"), os.urandom(PACKAGE_BYTES), system_clock()
    digest = Sha256.of(package)
    soknad = SoknadRecord(
        melding_id=melding_id,
        digisos_id=digisos_id,
        kommunenummer=KOMMUNE,
        nav_ekstern_ref_id=reference,
        innsendt=now,
        avsender=Organisasjonsnummer("889640782"),
        nokkel_id=digest,
        sha256=digest,
        storrelse=len(package),
        pakke=package,
    )
    transport = TransportRecord(
        hendelse_id=Uuid.new(),
        melding_id=melding_id,
        digisos_id=digisos_id,
        kommunenummer=KOMMUNE,
        type=TRANSPORT_AKSEPTERT,
        tidspunkt=now,
        nav_ekstern_ref_id=reference,
        eier=Eier("a" * 64),
        sha256=digest,
    )
    accepted = Accepted(soknad, transport, 1, ContentKey.new())
    return accepted, accepted_messages(accepted, None)


async def _in_turns(*arms: Callable[[], Awaitable[float]]) -> list[float]:
    """Return each arm's median, measured in turns."""
    figures: list[list[float]] = [[] for _ in arms]
    for nr in range(SLICES):
        order = range(len(arms)) if nr % 2 == 0 else reversed(range(len(arms)))
        for arm in order:
            figures[arm].append(await arms[arm]())
    return [median(arm) for arm in figures]


if __name__ == "__main__":
    print_table(rows())
