"""What 357 kommuner cost against one: CPU per søknad, in this process with all its threads.

Two senders share one embedded Kafka that has the topics of all kommuner, 357 × 4 × 2 partitions. One sender's katalog has Oslo
alone and sends everything there; the other's has all, and each slice sends one søknad to every kommune. Each slice runs from
the first call of ``Producer.submit`` until the last SENDT is on its topic. Kafka's own CPU is not counted: it is another
process.

Everything is warm on both sides: the first message to a topic makes Kafka create its segments, and the first seal for a
certificate builds its template. Those firsts are paid before the clock runs. All certificates share one key pair (see
``_sender``); each is a certificate of its own.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from _rows import Row, interleave, medians, print_table
from _sender import (
    all_kommuner,
    cluster,
    kommune_certificate,
    make_katalog,
    make_keys,
    running_sender,
    scratch,
    sending_to,
)

from broker.clock import system_clock
from crypto import seal_package

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _sender import Sender

    from schemas.names import Kommunenummer

OSLO = all_kommuner()[0]
GOAL = 1.2
SLICES = 3
SEAL_SLICES = 9
AT_ONCE = 32


def rows() -> list[Row]:
    """Measure; takes about half a minute."""
    return [asyncio.run(_submit_row()), _seal_row()]


async def _submit_row() -> Row:
    everyone = all_kommuner()
    async with (
        scratch() as folder,
        cluster(everyone, folder) as kafka,
        running_sender(kafka.producers, make_katalog([OSLO]), folder / "one") as one,
        running_sender(kafka.producers, make_katalog(everyone), folder / "all") as every,
    ):
        arms = ((every, everyone), (one, (OSLO,) * len(everyone)))
        for sender, kommuner in arms:
            await _cpu_us(sender, kommuner)  # the first message to each topic
        figures: tuple[list[float], list[float]] = [], []
        for nr in range(SLICES):
            for arm in (0, 1) if nr % 2 == 0 else (1, 0):
                figures[arm].append(await _cpu_us(*arms[arm]))
    return _row("innsending (Python-kall) til SENDT", figures)


async def _cpu_us(sender: Sender, kommuner: Sequence[Kommunenummer]) -> float:
    """Return microseconds of CPU per søknad, all threads of this process."""
    sendings = [sending_to(knr) for knr in kommuner]
    before = time.process_time()
    await sender.submit_all(sendings, at_once=AT_ONCE)
    return (time.process_time() - before) / len(sendings) * 1e6


def _seal_row() -> Row:
    everyone = all_kommuner()
    every, one = _sealing(everyone), _sealing([OSLO] * len(everyone))
    every()  # builds each certificate's template
    return _row("pakke, signere og forsegle alene", interleave(SEAL_SLICES, every, one))


def _row(what: str, figures: Sequence[Sequence[float]]) -> Row:
    """Return a row from the slices' figures: those of all kommuner, those of one."""
    ours, floor = medians(figures)
    name = f"{len(all_kommuner())} kommuner mot én: {what}, CPU per søknad"
    return Row(name, ours, floor, ours / floor, GOAL, "lower", "µs")


def _sealing(kommuner: Sequence[Kommunenummer]) -> Callable[[], float]:
    sending = sending_to(OSLO)
    (pdf,) = sending.files
    files = [
        ("soknad.json", "application/json", sending.soknad_json),
        ("vedlegg.json", "application/json", sending.vedlegg_json),
        (pdf.filnavn, pdf.mimetype, b"".join(pdf.read())),
    ]
    signer, now = make_keys().signer, system_clock()
    certificates = [kommune_certificate(knr) for knr in kommuner]

    def measure() -> float:
        before = time.process_time()
        for certificate in certificates:
            seal_package(files, recipient=certificate, signer=signer, now=now)
        return (time.process_time() - before) / len(certificates) * 1e6

    return measure


if __name__ == "__main__":
    print_table(rows())
