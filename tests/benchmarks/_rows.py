"""What every benchmark returns: rows of one table, each a measurement of ours beside its floor, measured in the same run.

Absolute times belong to one machine and one moment; the ratio of two measurements that took turns does not. So slices of ours
and of the floor are interleaved, and each side's figure is the median of its slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: What was measured, for people.
        ours: Our figure, in ``unit``.
        floor: What it is compared with, in ``unit``: the bare primitives, or the machine with nothing to do.
        ratio: What is judged: ours against the floor, or ours itself where the goal is an amount.
        goal: What the ratio should reach.
        better: Whether a lower or a higher ratio is better.
        unit: Of ``ours`` and ``floor``.
    """

    name: str
    ours: float
    floor: float
    ratio: float
    goal: float
    better: Literal["lower", "higher"]
    unit: str

    @property
    def ok(self) -> bool:
        """Whether the goal is reached."""
        return self.ratio <= self.goal if self.better == "lower" else self.ratio >= self.goal


def interleave(slices: int, *arms: Callable[[], float]) -> list[list[float]]:
    """Call the arms in turn, ``slices`` times each, every other time in reverse; return each arm's figures.

    Whatever else the machine does meanwhile then falls on all arms alike.
    """
    figures: list[list[float]] = [[] for _ in arms]
    for nr in range(slices):
        order = range(len(arms)) if nr % 2 == 0 else reversed(range(len(arms)))
        for arm in order:
            figures[arm].append(arms[arm]())
    return figures


def medians(figures: Iterable[Sequence[float]]) -> list[float]:
    """Return the median of each arm's figures."""
    return [median(arm) for arm in figures]


def print_table(rows: Iterable[Row], console: Console | None = None) -> None:
    """Print the rows as one table."""
    table = Table(title="Meldingsformidler: kostnad mot gulv", title_justify="left")
    for heading in ("måling", "vår", "gulv", "enhet", "forhold", "mål", ""):
        table.add_column(heading, justify="left" if heading in {"måling", "enhet", ""} else "right")
    for row in rows:
        goal = f"{'≤' if row.better == 'lower' else '≥'} {row.goal:g}"
        verdict = "[green]nådd[/]" if row.ok else "[yellow]ikke nådd[/]"
        table.add_row(row.name, f"{row.ours:.4g}", f"{row.floor:.4g}", row.unit, f"{row.ratio:.2f}", goal, verdict)
    (console or Console()).print(table)
