"""Every crash point of every process, each × kill -9 at that very place.

A wave has at most one crash point in each process, drawn by the seed: five processes die at once, each at its own place. All
that was sent in a wave is judged before the next begins. What a wave finds is shown for each of its points; ``--punkt`` runs one
alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from checker import Finding
from environment import FILE_PROCESS, HTTP_PROCESS, KOMMUNER, ON_PAPER, OVER_FILES, OVER_HTTP
from harness import Harness, Result
from load import SLAG
from waiting import until

from broker.krasj import CRASH_POINTS

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence
    from pathlib import Path
    from random import Random

FIRE_WITHIN_S: Final = 60.0
FEED_EVERY_S: Final = 2.0
PAPER_EVERY_S: Final = 12.0
MOST_PASSES: Final = 3
A_CLAIM: Final = "6m"

ONLY_FILES: Final = ("consumers.filedrop.", "consumers.svar.")
ONLY_HTTP: Final = ("consumers.http.",)
PAPER: Final = ("producers.utskrift.", "producers.eskalering.", "kvittering.vakt.")
"""Passed by what no fagsystem answers for."""
BY_OPERATORS: Final = ("producers.omsending.", "producers.recall.", "broker.gjenkjoring.")
"""Passed when an operator does something; the scenarios in ``recovery`` crash there."""
SELDOM: Final = (
    *PAPER,
    "producers.start.",
    "producers.dokumentlager.",
    "consumers.rebuild.",
    "consumers.session.caught-up",
    "consumers.dead-letter.",
    "broker.",
)
"""Passed once a start, or once for what is rare: these crash at the first pass."""


def processes_of(point: str) -> tuple[str, ...]:
    """Return the processes that pass a crash point."""
    part = point.partition(".")[0]
    if part != "consumers":
        return (part,)
    if point.startswith(ONLY_FILES):
        return (FILE_PROCESS,)
    return (HTTP_PROCESS,) if point.startswith(ONLY_HTTP) else (HTTP_PROCESS, FILE_PROCESS)


def waves(points: Sequence[str], times: int, rng: Random) -> list[dict[str, str]]:
    """Return waves, by process, in which each point occurs ``times`` times."""
    queues: dict[str, list[str]] = defaultdict(list)
    for _ in range(times):
        for point in rng.sample(points, len(points)):
            shortest = min(processes_of(point), key=lambda name: len(queues[name]))
            queues[shortest].append(point)
    longest = max(len(queue) for queue in queues.values())
    return [{name: queue[at] for name, queue in queues.items() if at < len(queue)} for at in range(longest)]


async def crash(h: Harness, armed: dict[str, str]) -> list[Result]:
    """Run one wave; return a result for each of its points."""
    began = time.monotonic()
    run = h.new_run()
    loading = asyncio.create_task(_load(h, run))
    markers = await asyncio.gather(*(_arm(h, name, point) for name, point in armed.items()))
    await loading
    await _feed_until_dead(h, run, armed, markers)
    if any(point.startswith(PAPER) for point in armed.values()):
        await h.jump(A_CLAIM)  # what a dead process had taken on is its own for so long
    kills = sum(marker.exists() for marker in markers)
    findings = await h.settle(run)
    results = [h.result(point, run, findings, kills=0, seconds=0) for point in armed.values()]
    for result, marker in zip(results, markers, strict=True):
        result.kills = int(marker.exists())
        result.seconds = (time.monotonic() - began) / len(armed)
        if not marker.exists():
            result.findings = [*findings, Finding("uforklart", result.name, "krasjpunktet ble ikke nådd")]
    h.report(f"bølge {run}: {kills} drept, {results[0].soknader} meldinger, {len(findings)} funn")
    return results


def _extra(h: Harness, run: str, points: Iterable[str]) -> list[Coroutine[Any, Any, Any]]:
    """Return what has to be done besides for these points to be passed."""
    wanted = tuple(points)
    extra: list[Coroutine[Any, Any, Any]] = []
    if any(point.startswith(PAPER) for point in wanted):
        extra.append(h.send(run, ON_PAPER, ventet="PAPIR"))
    if any(point.startswith("consumers.dead-letter.") for point in wanted):
        extra += [h.poison(run, OVER_HTTP, ["stoy"]), h.poison(run, [OVER_FILES], ["stoy"])]
    if any(point.startswith("producers.dokumentlager.") for point in wanted):
        extra.append(h.send(run, OVER_HTTP[0], large=True))
    return extra


async def _arm(h: Harness, name: str, point: str) -> Path:
    nth = 1 if point.startswith(SELDOM) else h.rng.randint(1, MOST_PASSES)
    return await h.world.restart_to_crash(name, point, nth)


async def _load(h: Harness, run: str) -> None:
    await asyncio.gather(
        h.send(run, *KOMMUNER, more=1),
        h.send(run, h.rng.choice(KOMMUNER), large=True),
        h.poison(run, OVER_HTTP, [h.rng.choice(SLAG)]),
        h.poison(run, [OVER_FILES], [h.rng.choice(SLAG)]),
    )


async def _feed_until_dead(h: Harness, run: str, armed: dict[str, str], markers: Iterable[Path]) -> None:
    """Send more until every armed process has died: what it was to die of may have been done before it was armed."""
    deadline = time.monotonic() + FIRE_WITHIN_S
    waited = tuple(markers)
    while not all(marker.exists() for marker in waited) and time.monotonic() < deadline:
        left = {point for point, marker in zip(armed.values(), waited, strict=True) if not marker.exists()}
        if any(point.startswith("broker.") for point in left):
            h.change_katalog()
        await asyncio.gather(h.send(run, *KOMMUNER), *_extra(h, run, left))
        pause = PAPER_EVERY_S if any(point.startswith(PAPER) for point in left) else FEED_EVERY_S
        await until(lambda: all(marker.exists() for marker in waited), pause)


async def crash_all(h: Harness, times: int, points: Sequence[str] | None = None) -> list[Result]:
    """Crash at every point so many times; return a result for each point."""
    chosen = sorted(points or (one for one in CRASH_POINTS if not one.startswith(BY_OPERATORS)))
    totals = {point: Result(point) for point in chosen}
    for wave in waves(chosen, times, h.rng):
        for result in await crash(h, wave):
            totals[result.name].add(result)
    return list(totals.values())
