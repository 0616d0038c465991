"""``python tests/benchmarks``: every benchmark, one table.

Each ``bench_<what>.py`` beside this file has ``rows()``. ``--only <what>`` runs one of them (may be repeated), ``--json`` writes
the rows for machines. A goal that is not reached is shown and is no failure; ``--strict`` makes it one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from _rows import print_table
from rich.console import Console

if TYPE_CHECKING:
    from _rows import Row

FOLDER = Path(__file__).parent
WIDTH = 180
"""Columns where no terminal says how many there are, so that a row stays on its line in a CI log."""


def names() -> list[str]:
    """Return what can be measured."""
    return sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))


def measure(chosen: list[str]) -> list[Row]:
    """Run the chosen benchmarks one after the other; they would disturb each other side by side."""
    found: list[Row] = []
    for name in chosen:
        started = time.monotonic()
        found += importlib.import_module(f"bench_{name}").rows()
        sys.stderr.write(f"målt: {name} ({time.monotonic() - started:.0f} s)\n")
    return found


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=names(), help="one benchmark; may be repeated")
    parser.add_argument("--json", action="store_true", help="rows for machines")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a goal is not reached")
    options = parser.parse_args()
    rows = measure(options.only or names())
    if options.json:
        sys.stdout.write(json.dumps([asdict(row) | {"ok": row.ok} for row in rows], ensure_ascii=False) + "\n")
    else:
        print_table(rows, Console() if sys.stdout.isatty() else Console(width=WIDTH))
    return 1 if options.strict and not all(row.ok for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
