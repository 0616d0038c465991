"""``formidler connector``: run a connector process, and see which kinds there are."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from broker.cli.options import JsonOption
from broker.cli.output import console, print_json
from broker.kafka.settings import KafkaSettings
from broker.runtime import run_process
from consumers.app import load_innsyn, load_issuer, load_kommuner, load_trust, run
from consumers.dedup import DedupStore
from consumers.settings import ConnectorSettings, find_connectors

if TYPE_CHECKING:
    from consumers.connector import AnySpec

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Konnektoren mellom Kafka og et fagsystem.")

ConfigOption = Annotated[
    Path, typer.Option("--config", help="Konnektorens oppsett (YAML).", exists=True, dir_okay=False, readable=True)
]


@app.command("run")
def run_connector(
    config: ConfigOption,
    *,
    check: Annotated[bool, typer.Option("--check", help="Kontroller oppsettet, og avslutt.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Kjør en konnektor til den får Ctrl-C eller SIGTERM. Kafka nås gjennom FORMIDLER_KAFKA_* i miljøet.

    Loggen går til stdout, en JSON-linje for hver levering. Uavbrutt arbeid får noen sekunder på å bli ferdig.

    Avslutter med 0 når den er stoppet i orden, 78 når oppsettet er feil, 1 ved andre feil; med --check 0 eller 1.

    Eksempel: formidler connector run --config konnektor.yaml --check
    """
    settings = ConnectorSettings.load(config)
    if not check:
        sys.exit(run_process(f"konnektor-{settings.konnektor}", partial(_run, settings)))
    document = _checked(settings)
    if as_json:
        print_json(document)
    else:
        served = ", ".join(f"{each['kommunenummer']} ({each['type']})" for each in document["kommuner"])
        console.print(f"oppsettet er i orden: {document['konnektor']} for {served}", soft_wrap=True)


async def _run(settings: ConnectorSettings, stop: asyncio.Event) -> None:
    await run(settings, KafkaSettings.from_environment(os.environ), stop)


def _checked(settings: ConnectorSettings) -> dict[str, Any]:
    """Load everything that the settings name, and describe it."""
    load_issuer(settings)
    load_innsyn(settings)
    load_trust(settings)
    kommuner = [{"kommunenummer": str(k.kommunenummer), "type": k.spec.name} for k in load_kommuner(settings)]
    return {"konnektor": settings.konnektor, "leverandor": settings.leverandor, "kommuner": kommuner}


@app.command("godta-emne")
def accept_topic(
    config: ConfigOption,
    emne: Annotated[str, typer.Argument(help="Emnets fulle navn.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Godta at et Kafka-emne er laget på nytt, så konnektoren leser det fra begynnelsen. Stopp konnektoren først.

    Det som er kvittert for, er fortsatt kvittert for: kommer det igjen, blir det svart på som før.

    Avslutter med 0 når emnet er godtatt, 1 når konnektoren ikke kjenner det, eller kjører.

    Eksempel: formidler connector godta-emne --config konnektor.yaml fiks.0301.soknad.v1
    """
    known = asyncio.run(_forget(ConnectorSettings.load(config), emne))
    if as_json:
        print_json({"emne": emne, "godtatt": known})
    else:
        said = "er godtatt, og leses fra begynnelsen" if known else "er ikke et emne som konnektoren har lest"
        console.print(f"{escape(emne)} {said}", soft_wrap=True)
    if not known:
        raise typer.Exit(1)


async def _forget(settings: ConnectorSettings, emne: str) -> bool:
    async with DedupStore(settings.database) as store:
        return await store.forget_topic(emne)


@app.command("list")
def list_connectors(as_json: JsonOption = False) -> None:  # noqa: FBT002 - a flag
    """List slagene av konnektorer som er installert, med innstillingene deres.

    Avslutter med 0, eller 1 når et installert slag ikke kan lastes.

    Eksempel: formidler connector list --json
    """
    kinds = [_describe(spec) for spec in find_connectors().values()]
    if as_json:
        print_json(kinds)
        return
    for kind in kinds:
        console.print(f"[bold]{escape(kind['navn'])}[/]  {escape(kind['beskrivelse'])}", soft_wrap=True)
        table = Table(box=None, padding=(0, 2), show_header=False)
        for setting in kind["innstillinger"]:
            given = "må oppgis" if setting["pakrevd"] else f"ellers {setting['standard']}"
            table.add_row("", setting["navn"], escape(f"{setting['beskrivelse']} ({given})"))
        console.print(table)


def _describe(spec: AnySpec) -> dict[str, Any]:
    return {
        "navn": spec.name,
        "beskrivelse": spec.description,
        "innstillinger": [
            {
                "navn": name,
                "beskrivelse": field.description or "",
                "pakrevd": field.is_required(),
                "standard": None if field.is_required() else field.default,
            }
            for name, field in spec.settings.model_fields.items()
        ],
    }
