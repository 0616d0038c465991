"""``formidler operator``: who may act on søknader, and with which key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from broker.cli.acting import clock_of
from broker.cli.options import DataOption, JsonOption
from broker.cli.output import console, print_json, table
from broker.clock import timestamp
from broker.operator_register import OperatorEntry
from broker.operatorer import Operatorer
from crypto.certificates import nokkel_id
from schemas.errors import KeyFileError

app = typer.Typer(
    help="Operatører: hvem som kan gjenkjøre, lukke og tilbakekalle, og med hvilken nøkkel.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command("ny", epilog="Eksempel: formidler operator ny kari")
def new(
    navn: Annotated[str, typer.Argument(help="1 til 32 tegn av a-z, 0-9 og -, med en bokstav først.")],
    data: DataOption,
    sertifikat: Annotated[
        Path | None,
        typer.Option(
            help="PEM med sertifikatet til en P-256-nøkkel som blir der den er. Uten: en ny nøkkel lages her.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag
) -> None:
    """Innfør en operatør. Nøkkelen lages i nokler/, og kan bare leses av deg.

    Fire øyne krever to mennesker med hver sin nøkkel: la den andre lage sin på sin egen maskin, og innfør bare sertifikatet.
    """
    pem = None if sertifikat is None else _read(sertifikat)
    operatorer = Operatorer(data)
    entry = operatorer.add(navn, clock_of(data)(), certificate_pem=pem)
    if as_json:
        print_json(_document(operatorer, entry))
        return
    console.print(f"{entry.navn} er operatør fra nå", soft_wrap=True)
    if pem is None:
        console.print(f"nøkkelen: {operatorer.key_path(navn)}", soft_wrap=True)


@app.command("list", epilog="Eksempel: formidler operator list --json")
def list_operators(data: DataOption, as_json: JsonOption = False) -> None:  # noqa: FBT002 - a flag
    """List operatørene, også de som er fjernet, og hva én kan gjøre alene."""
    operatorer = Operatorer(data)
    register = operatorer.load()
    documents = [_document(operatorer, entry) for entry in register.operatorer]
    if as_json:
        print_json({"grense": register.grense, "maksRunder": register.maks_runder, "operatorer": documents})
        return
    rows = [
        (
            d["navn"],
            "ja" if d["nokkelHer"] else "nei",
            d["innfort"][:16],
            (d["fjernet"] or "–")[:16],
            d["nokkelId"][:16] + "…",
        )
        for d in documents
    ]
    table("Navn", "Nøkkel her", "Innført", "Fjernet", "Nøkkel-id", rows=rows)
    console.print(
        f"Mer enn {register.grense} meldinger krever en annens godkjenning. Løkkevern etter {register.maks_runder} runder. "
        f"Begge settes i {escape(str(operatorer.path))}.",
        soft_wrap=True,
    )


@app.command("fjern", epilog="Eksempel: formidler operator fjern kari")
def remove(
    navn: Annotated[str, typer.Argument(help="Hvem.")],
    data: DataOption,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag
) -> None:
    """Fjern en operatør: det som signeres fra nå av teller ikke. Nøkkelfilen slettes; tidligere handlinger står."""
    operatorer = Operatorer(data)
    entry = operatorer.remove(navn, clock_of(data)())
    if as_json:
        print_json(_document(operatorer, entry))
    else:
        console.print(f"{entry.navn} er ikke lenger operatør")


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path}: kan ikke leses ({type(error).__name__})") from error


def _document(operatorer: Operatorer, entry: OperatorEntry) -> dict[str, Any]:
    return {
        "navn": entry.navn,
        "nokkelId": nokkel_id(entry.certificate),
        "nokkelHer": operatorer.key_path(entry.navn).exists(),
        "innfort": timestamp(entry.innfort),
        "fjernet": None if entry.fjernet is None else timestamp(entry.fjernet),
    }
