"""``formidler revisjon``: who did what, and whether the record of it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from broker.cli.acting import clock_of
from broker.cli.kafka_access import kafka_access
from broker.cli.options import DataOption, JsonOption
from broker.cli.output import EXIT_OK, EXIT_REFUSED, console, print_json, table
from broker.clock import timestamp
from broker.durations import parse_duration
from broker.operatorer import Operatorer
from broker.revisjon_reading import read_acts, read_records
from broker.revisjonskontroll import Act, Kontroll, verify_revisjon
from broker.routing import REVISJON
from broker.runtime import run_command

MOST_SHOWN: Final = 100

app = typer.Typer(
    help="Revisjonen: hvem som gjorde hva, når og hvorfor, og om det holder.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command("list", epilog="Eksempel: formidler revisjon list --aktor operator-kari --siste 7d")
def list_acts(
    *,
    data: DataOption,
    aktor: Annotated[str | None, typer.Option(help="Bare denne: en prosess, eller operator-NAVN.")] = None,
    handling: Annotated[str | None, typer.Option(help="Bare handlinger som begynner slik, for eksempel dlq.")] = None,
    objekt: Annotated[str | None, typer.Option(help="Bare det som ble gjort med denne id-en.")] = None,
    siste: Annotated[str | None, typer.Option(help="Bare det siste så lenge, for eksempel 7d.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List handlinger, eldste først. For mennesker vises de siste 100."""
    since = None if siste is None else clock_of(data)() - parse_duration(siste)
    wanted = [
        act
        for act in run_command(read_acts(kafka_access(data)))
        if (aktor is None or act.record.aktor == aktor)
        and (handling is None or act.record.handling.startswith(handling))
        and (objekt is None or act.record.objekt == objekt)
        and (since is None or act.record.tidspunkt >= since)
    ]
    if as_json:
        print_json([_document(act) for act in wanted])
        return
    rows = [
        tuple(
            escape(text) for text in (timestamp(a.tidspunkt)[:19], a.aktor, a.handling, a.objekt, a.begrunnelse or "")
        )
        for a in (act.record for act in wanted[-MOST_SHOWN:])
    ]
    table("Når", "Hvem", "Hva", "Med", "Hvorfor", rows=rows)
    if len(wanted) > MOST_SHOWN:
        console.print(f"… og {len(wanted) - MOST_SHOWN} eldre; --json viser alle")


@app.command("verify", epilog="Eksempel: formidler revisjon verify --json")
def verify(data: DataOption, as_json: JsonOption = False) -> None:  # noqa: FBT002 - a flag
    """Kontroller hele revisjonen: kjeden til hver aktør, og operatørenes signaturer.

    Avslutter med 0 bare hvis alt holder. At noe er kuttet av på slutten av en kjede kan ikke ses herfra; mot det står
    rettighetene i Kafka.
    """
    found = run_command(_verify(data))
    if as_json:
        print_json(
            {
                "holder": found.holder,
                "antall": found.antall,
                "signerte": found.signerte,
                "problemer": [
                    {"kode": p.kode, "aktor": p.aktor, "offset": p.offset, "tekst": p.tekst} for p in found.problemer
                ],
            }
        )
    else:
        _show(found)
    raise typer.Exit(EXIT_OK if found.holder else EXIT_REFUSED)


async def _verify(data: Path) -> Kontroll:
    return verify_revisjon(await read_records(kafka_access(data), [REVISJON]), Operatorer(data).load())


def _show(found: Kontroll) -> None:
    table("Aktør", "Handlinger", rows=[(escape(aktor), str(count)) for aktor, count in found.antall.items()])
    for problem in found.problemer:
        where = f"{escape(problem.aktor)}, offset {problem.offset}"
        console.print(f"[red]{problem.kode}[/]: {escape(problem.tekst)} ({where})", soft_wrap=True)
    console.print("alt holder" if found.holder else f"{len(found.problemer)} ting holder ikke")


def _document(act: Act) -> dict[str, Any]:
    document: dict[str, Any] = act.record.model_dump(mode="json", by_alias=True)
    return document | {"digest": act.digest, "offset": act.offset}
