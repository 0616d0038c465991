"""The table at the end, for people and for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness import Result
    from rich.console import Console

_COUNTED = (("tapt",), ("doblet",), ("rekkefolge",), ("usann",), ("kjede", "fremmed", "uforklart"))
_HEADINGS = (
    "Scenario",
    "Kjørt",
    "Drept",
    "Meldinger",
    "Ødelagte",
    "Tapt",
    "Doblet",
    "Feil orden",
    "Usann",
    "Annet",
    "s",
)


def print_table(console: Console, results: Sequence[Result], seed: int) -> None:
    """Print a row for each scenario, the findings, and the sums."""
    table = Table(title=f"Kaos med frø {seed}", title_justify="left")
    for number, heading in enumerate(_HEADINGS):
        table.add_column(heading, justify="left" if number == 0 else "right", no_wrap=True)
    for result in results:
        table.add_row(*_cells(result))
    table.add_section()
    table.add_row(*_cells(total(results)))
    console.print(table)
    for result in results:
        for finding in result.findings:
            console.print(f"[red]{result.name}[/]: {finding.kind}: {finding.ref}: {finding.text}", highlight=False)
    for result in results:
        if result.skipped:
            console.print(f"[yellow]ikke kjørt[/] {result.name}: {result.skipped}", highlight=False)


def total(results: Sequence[Result]) -> Result:
    """Return the sums of all."""
    whole = type(results[0])("alt")
    for result in results:
        whole.add(result)
    return whole


def _cells(result: Result) -> list[str]:
    counts = [result.count(*kinds) for kinds in _COUNTED]
    return [
        result.name + (" (ikke kjørt)" if result.skipped else ""),
        *map(str, (result.runs, result.kills, result.soknader, result.poison)),
        *(f"[bold red]{count}[/]" if count else "0" for count in counts),
        f"{result.seconds:.0f}",
    ]


def as_document(results: Sequence[Result], seed: int) -> dict[str, Any]:
    """Return the whole run for machines."""
    return {
        "ok": not any(result.findings for result in results),
        "fro": seed,
        "scenarier": [
            {
                "navn": result.name,
                "kjoringer": result.runs,
                "drept": result.kills,
                "meldinger": result.soknader,
                "odelagte": result.poison,
                "tapt": result.count("tapt"),
                "doblet": result.count("doblet"),
                "feilRekkefolge": result.count("rekkefolge"),
                "usannStatus": result.count("usann"),
                "annet": result.count("kjede", "fremmed", "uforklart"),
                "sekunder": round(result.seconds, 1),
                "ikkeKjort": result.skipped or None,
                "funn": [{"slag": one.kind, "gjelder": one.ref, "hva": one.text} for one in result.findings],
            }
            for result in results
        ],
    }
