"""``python tests/chaos``: break a real set-up in every way we know, and let an independent checker judge what came of it.

Every crash point of every process × kill -9, and every scenario, each once (some minutes). ``--alle`` (``make chaos ALL=1``) runs
each crash point and scenario at least 100 times, which takes a night. The seed is printed first; ``--seed`` repeats a run.
Exit code 1 when anything was lost, doubled, out of order or untrue.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from crashes import BY_OPERATORS, crash_all
from harness import Harness, Result
from load import new_seed
from network import Network, find_toxiproxy
from recovery import LOSSES, RECOVERIES
from rich.console import Console
from scenarios import SCENARIOS, Scenario
from table import as_document, print_table

from broker.krasj import CRASH_POINTS
from broker.log import configure_logging

WIDTH: Final = 150
"""Columns where no terminal says how many there are, so that a row stays on its line in a log."""
MANY: Final = 100
PER_WORLD: Final = 5
"""So many rounds share one set-up; then a new one begins, so that reading all of it stays quick."""


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="make chaos", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="decides everything that is drawn; printed first")
    parser.add_argument("--alle", action="store_true", help=f"each crash point and scenario {MANY} times")
    parser.add_argument("--ganger", type=int, help="each crash point and scenario so many times")
    parser.add_argument(
        "--punkt",
        action="append",
        choices=sorted(point for point in CRASH_POINTS if not point.startswith(BY_OPERATORS)),
        metavar="PUNKT",
        help="one crash point; may be repeated",
    )
    parser.add_argument(
        "--scenario", action="append", metavar="NAVN", help="scenarios whose name holds this; may be repeated"
    )
    parser.add_argument("--liste", action="store_true", help="show crash points and scenarios, and run nothing")
    parser.add_argument("--json", action="store_true", help="the table for machines")
    parser.add_argument(
        "--opptak", type=Path, help="write what the checker saw at the end, and the journal, to this folder"
    )
    parser.add_argument(
        "--behold", type=Path, metavar="MAPPE", help="keep logs, topics and folders of each set-up below this one"
    )
    parser.add_argument("--uten-nett", action="store_true", help="no toxic proxy between the processes")
    return parser.parse_args()


async def run(options: argparse.Namespace, seed: int, console: Console) -> list[Result]:
    """Run all that was asked for, and return a result for each crash point and scenario."""
    times = options.ganger or (MANY if options.alle else 1)
    totals: dict[str, Result] = {}
    began = time.monotonic()

    def report(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:7.1f} s[/]  {text}", highlight=False)

    done = 0
    while done < times:
        rounds = min(PER_WORLD, times - done)
        for result in await one_world(options, seed + done, rounds, report):
            totals.setdefault(result.name, Result(result.name)).add(result)
            totals[result.name].skipped = result.skipped
        done += rounds
        if times > rounds:
            report(f"{done} av {times} runder, {sum(len(result.findings) for result in totals.values())} funn")
    return list(totals.values())


async def one_world(options: argparse.Namespace, seed: int, rounds: int, report: object) -> list[Result]:
    """Run so many rounds in one set-up."""
    everything = not options.punkt and not options.scenario
    found: list[Result] = []
    async with AsyncExitStack() as stack:
        if options.behold:
            options.behold.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix="kaos-", dir=options.behold))
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="formidler-kaos-")))
        log = stack.enter_context((folder / "kaos.log").open("a", encoding="utf-8"))
        configure_logging("kaos", stream=log)
        program = None if options.uten_nett else await asyncio.to_thread(find_toxiproxy)
        network = await stack.enter_async_context(Network(program)) if program else None
        (folder / "data").mkdir()
        h = await stack.enter_async_context(Harness(folder / "data", seed, network, report))
        report("oppe")
        if everything or options.punkt:
            found += await crash_all(h, rounds, options.punkt)
        for _ in range(rounds):
            found += [await one.run(h) for one in (*SCENARIOS, *RECOVERIES) if everything or _is_chosen(one, options)]
        report("dømmer alt under ett")
        began = time.monotonic()
        findings = await h.settle()
        found.append(Result("alt under ett", 1, findings=findings, seconds=time.monotonic() - began))
        if options.opptak:
            await asyncio.to_thread(record, h, options.opptak)
        for _ in range(rounds):
            found += [await one.run(h) for one in LOSSES if everything or _is_chosen(one, options)]
    return found


def _is_chosen(scenario: Scenario, options: argparse.Namespace) -> bool:
    return any(part in scenario.name for part in options.scenario or ())


def record(h: Harness, folder: Path) -> None:
    """Write what the checker sees now, and the journal, for whoever wants to judge it again."""
    folder.mkdir(parents=True, exist_ok=True)
    observed = h.observe(h.journal.story)
    (folder / "sett.json").write_text(json.dumps(observed.dump()), "utf-8")
    (folder / "last.journal").write_bytes(h.journal.path.read_bytes())
    shutil.copytree(h.world.layout.fagsystem, folder / "fagsystem")


def main() -> int:
    """Run, print, and return the exit code."""
    options = parse()
    console = Console(stderr=options.json, width=None if sys.stdout.isatty() else WIDTH)
    if options.liste:
        for name, what in CRASH_POINTS.items():
            console.print(f"{name:40} {what}", highlight=False)
        for scenario in (*SCENARIOS, *RECOVERIES, *LOSSES):
            console.print(f"{scenario.name:40} {(scenario.body.__doc__ or '').partition(chr(10))[0]}", highlight=False)
        return 0
    seed = options.seed if options.seed is not None else new_seed()
    console.print(f"frø {seed}", highlight=False)
    results = asyncio.run(run(options, seed, console))
    if options.json:
        sys.stdout.write(json.dumps(as_document(results, seed), ensure_ascii=False) + "\n")
    print_table(console, results, seed)
    return 1 if any(result.findings for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
