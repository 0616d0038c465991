"""What the demo shows: the day as it goes, each søknad's timeline, the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from broker.register import kommune_names
from producers.demo.journey import Journey
from producers.demo.verdict import Check

_STATUSES: Final = ("", "AKSEPTERT", "SENDT", "SENDT_PA_PAPIR", "MOTTATT", "UNDER_BEHANDLING", "FERDIGBEHANDLET")
_HEADINGS: Final = ("på vei inn", "akseptert", "sendt", "på papir", "mottatt", "under behandling", "ferdig behandlet")
_SHORT: Final[dict[str, str]] = dict(zip(_STATUSES, _HEADINGS, strict=True))
_WIDE: Final = 140
"""Columns for the tables where no terminal says how many there are, so that a row stays on its line in a log."""
_COLOURS: Final = {"FERDIGBEHANDLET": "green", "SENDT": "yellow", "": "dim"}


class LiveDay:
    """The table that changes while the day goes; rich renders it anew several times a second.

    Attributes:
        step: What is being done, in a few words.
    """

    def __init__(self, journeys: Sequence[Journey]) -> None:
        self._journeys = journeys
        self.step = ""

    def __rich__(self) -> RenderableType:
        """Return the table as it is now."""
        shown = Table("Kommune", *_HEADINGS, title="Søknader", title_justify="left")
        for number in sorted({journey.planned.kommunenummer for journey in self._journeys}):
            counts = Counter(j.status for j in self._journeys if j.planned.kommunenummer == number)
            cells = [
                Text(str(counts[status]) if counts[status] else "·", style=_COLOURS.get(status, ""))
                for status in _STATUSES
            ]
            shown.add_row(f"{number} {kommune_names()[number]}", *cells)
        return Group(shown, Text(self.step, style="dim"))


def show_timelines(console: Console, journeys: Sequence[Journey]) -> None:
    """Print what happened to each søknad, with seconds after it was sent."""
    shown = Table(title="Tidslinjer", title_justify="left")
    for heading in ("Søknad", "Kommune", "Slag", "Rolle"):
        shown.add_column(heading, no_wrap=True)
    shown.add_column("Tidslinje (sekunder)", overflow="fold")
    for journey in journeys:
        planned = journey.planned
        line = " → ".join(f"{_SHORT.get(what, what)} {seconds:.1f}" for seconds, what in journey.timeline())
        shown.add_row(planned.ref, planned.kommunenummer, planned.kind, planned.role.value, line)
    console.print(shown, width=None if console.is_terminal else _WIDE)


def show_verdict(console: Console, checks: Sequence[Check]) -> None:
    """Print each check with what it saw."""
    shown = Table("", "Sjekket", "Sett", title="Dom", title_justify="left")
    for check in checks:
        shown.add_row("[green]ja[/]" if check.holds else "[bold red]NEI[/]", check.claim, check.seen)
    console.print(shown, width=None if console.is_terminal else _WIDE)


def as_document(journeys: Sequence[Journey], checks: Sequence[Check], seconds: dict[str, float]) -> dict[str, Any]:
    """Return the whole day for machines."""
    return {
        "ok": all(check.holds for check in checks),
        "soknader": [
            {
                "navEksternRefId": journey.planned.ref,
                "digisosId": journey.digisos_id,
                "kommunenummer": journey.planned.kommunenummer,
                "slag": journey.planned.kind,
                "rolle": journey.planned.role.value,
                "status": journey.status,
                "tidslinje": [{"sekunder": round(s, 3), "hva": what} for s, what in journey.timeline()],
            }
            for journey in journeys
        ],
        "dom": [{"sjekket": check.claim, "holder": check.holds, "sett": check.seen} for check in checks],
        "sekunder": {name: round(value, 2) for name, value in seconds.items()},
    }
