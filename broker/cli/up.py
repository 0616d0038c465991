"""``formidler up``: everything on this machine, for as long as you want."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from broker.cli.options import DataOption, JsonOption
from broker.cli.output import console, print_json
from broker.clock import system_clock
from broker.files import open_private
from broker.kafka.settings import KafkaSettings
from broker.log import configure_logging
from broker.runtime import run_command
from broker.supervisor.bootstrap import DEFAULT_KOMMUNER, bootstrap, choose_connectors
from broker.supervisor.layout import Layout
from broker.supervisor.up import Running, running
from schemas.errors import ConfigurationError
from schemas.names import Kommunenummer


def up(
    data: DataOption,
    kommuner: Annotated[
        str | None,
        typer.Option(
            "--kommuner", help="Kommunenummer med komma mellom; bare ved første oppstart. Uten: seks kommuner."
        ),
    ] = None,
    kafka: Annotated[
        str | None,
        typer.Option(
            "--kafka",
            help="HOST:PORT til en Kafka som finnes, i stedet for vår egen; KAFKA_BROKERS virker også. Innlogging settes med "
            "FORMIDLER_KAFKA_SECURITY_PROTOCOL (for eksempel SASL_PLAINTEXT), _USERNAME og _PASSWORD.",
        ),
    ] = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag
) -> None:
    """Start Kafka og alle prosessene, og hold dem i gang til Ctrl-C.

    Data ligger i en mappe; neste `up` fortsetter der den forrige sluttet.

    Eksempel: formidler up --kommuner 0301,4601
    """
    report = _silent if as_json else console.print
    layout = open_layout(data, kommuner, report)
    with open_private(layout.log("up")) as log:
        configure_logging("up", stream=log)
        run_command(_run(layout, external_kafka(kafka), report, as_json=as_json))


def open_layout(data: Path, kommuner: str | None, report: Callable[[str], None]) -> Layout:
    """Return the set-up in ``data``, made now if there is none.

    Raises:
        ConfigurationError: Other kommuner are asked for than the set-up has, or a number is unknown.
    """
    asked = tuple(Kommunenummer(number.strip()) for number in kommuner.split(",")) if kommuner else None
    if not Layout.exists(data):
        report(f"lager nytt oppsett i {data}")
        return bootstrap(data, choose_connectors(asked or DEFAULT_KOMMUNER), system_clock())
    layout = Layout.load(data)
    if asked and set(asked) != set(layout.setup.kommuner()):
        present = ",".join(layout.setup.kommuner())
        raise ConfigurationError(f"{data} er satt opp med {present}; velg en annen mappe med --data for andre kommuner")
    return layout


def external_kafka(address: str | None) -> KafkaSettings | None:
    """Return how to reach a cluster that is not ours, from ``--kafka`` and the environment; None for the embedded one."""
    environment = dict(os.environ)
    if address:
        environment["FORMIDLER_KAFKA_BOOTSTRAP"] = address
    if "FORMIDLER_KAFKA_BOOTSTRAP" in environment or "KAFKA_BROKERS" in environment:
        return KafkaSettings.from_environment(environment)
    return None


async def _run(layout: Layout, external: KafkaSettings | None, report: Callable[[str], None], *, as_json: bool) -> None:
    stop, is_up = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async def stay_up() -> None:
        async with running(layout, external=external, report=report, strict=False) as started:
            is_up.set()
            _show(started, as_json=as_json)
            await stop.wait()

    staying, asked = asyncio.create_task(stay_up()), asyncio.create_task(stop.wait())
    await asyncio.wait((staying, asked), return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not is_up.is_set():
        staying.cancel()  # nobody waits for what was asked to stop
    with suppress(asyncio.CancelledError):
        await staying


def _show(started: Running, *, as_json: bool) -> None:
    addresses = {name: started.layout.address(name) for name in started.children}
    document: dict[str, object] = {
        "mappe": str(started.layout.folder),
        "kafka": started.kafka.bootstrap,
        "adresser": addresses,
        "ikke_klare": started.not_ready,
    }
    if as_json:
        print_json(document)
        return
    state = "[bold yellow]Delvis oppe.[/]" if started.not_ready else "[bold green]Oppe.[/]"
    console.print(f"\n{state} Data i {document['mappe']}\n  {'Kafka':22} {started.kafka.bootstrap}")
    number = started.layout.setup.kommuner()[0]
    for name, address in addresses.items():
        console.print(f"  {name:22} {address}" + ("  [yellow]ikke klar[/]" if name in started.not_ready else ""))
    console.print(
        f"\nPrøv: formidler soknad eksempel --mappe eksempel --kommune {number}\n"
        f"      formidler soknad send eksempel/* --kommune {number} --ref abc-1\nCtrl-C stopper."
    )


def _silent(_: str) -> None:
    """Say nothing: the reader is a machine."""
