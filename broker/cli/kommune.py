"""``formidler kommune``: who can receive søknader."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from broker.cli.options import DataOption, JsonOption
from broker.cli.output import console, print_json, table
from broker.katalog import Katalog, load_katalog
from broker.register import kommune_names, offices
from broker.supervisor.layout import Layout
from schemas.errors import ConfigurationError
from schemas.names import Kommunenummer
from schemas.records import KatalogRecord

app = typer.Typer(help="Kommuner: hvem som kan motta søknader, og hvordan.", no_args_is_help=True, add_completion=False)


@app.command("list", epilog="Eksempel: formidler kommune list --alle --json")
def list_kommuner(
    data: DataOption,
    alle: Annotated[bool, typer.Option("--alle", help="Alle Norges 357 kommuner, ikke bare de i katalogen.")] = False,  # noqa: FBT002 - a flag
    as_json: JsonOption = False,  # noqa: FBT002 - a flag
) -> None:
    """List kommunene i katalogen."""
    katalog = _katalog(data, needed=not alle)
    numbers = sorted(kommune_names()) if alle else [entry.kommunenummer for entry in katalog.all()]
    documents = [_summary(number, katalog.get(number)) for number in numbers]
    if as_json:
        print_json(documents)
        return
    rows = [
        tuple(escape(d[name] or "–") for name in ("kommunenummer", "navn", "konnektor", "leverandor", "mottar"))
        for d in documents
    ]
    table("Nummer", "Navn", "Konnektor", "Leverandør", "Mottar", rows=rows)


@app.command("show", epilog="Eksempel: formidler kommune show 0301")
def show(
    kommunenummer: Annotated[str, typer.Argument(help="Fire siffer, for eksempel 0301.")],
    data: DataOption,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag
) -> None:
    """Vis én kommune: sertifikater, konnektor og Nav-kontorer."""
    number = Kommunenummer(kommunenummer)
    if number not in kommune_names():
        raise ConfigurationError(f"{number} er ikke blant de 357 kommunene av 2024; se `formidler kommune list --alle`")
    entry = _katalog(data, needed=False).get(number)
    document = _summary(number, entry) | _details(number, entry)
    if as_json:
        print_json(document)
        return
    console.print(f"[bold]{number} {escape(document['navn'])}[/]")
    for name in ("organisasjonsnummer", "konnektor", "leverandor", "kanal", "mottar"):
        console.print(f"  {name:22}{escape(document.get(name) or '–')}")
    for certificate in document["sertifikater"]:
        until, key_id = certificate["gyldigTil"][:10], certificate["nokkelId"][:16]
        revoked = f"  [red]tilbakekalt {certificate['tilbakekalt']}[/]" if certificate.get("tilbakekalt") else ""
        console.print(f"  {'sertifikat':22}{certificate['bruk']:11} til {until}  {key_id}…{revoked}")
    for office in document["enheter"]:
        console.print(f"  enhet                 {office['enhetsnummer']} {escape(office['navn'])}")


def _katalog(data: Path, *, needed: bool) -> Katalog:
    if not Layout.exists(data):
        if needed:
            Layout.load(data)  # says what to do
        return Katalog()
    return load_katalog(Layout.load(data).katalog)


def _summary(number: Kommunenummer, entry: KatalogRecord | None) -> dict[str, Any]:
    receiving = entry is not None and entry.kan_motta_soknader and not entry.har_midlertidig_deaktivert_mottak
    return {
        "kommunenummer": str(number),
        "navn": entry.navn if entry else kommune_names()[number],
        "iKatalogen": entry is not None,
        "konnektor": entry.konnektor if entry else None,
        "leverandor": entry.leverandor if entry else None,
        "mottar": "ja" if receiving else "nei",
    }


def _details(number: Kommunenummer, entry: KatalogRecord | None) -> dict[str, Any]:
    known = entry.model_dump(mode="json", by_alias=True) if entry else {}
    return {
        "organisasjonsnummer": known.get("organisasjonsnummer"),
        "kanal": known.get("kanal"),
        "sertifikater": known.get("sertifikater", []),
        "enheter": known.get("enheter") or [{"enhetsnummer": e, "navn": n} for e, n in offices(number).items()],
    }
