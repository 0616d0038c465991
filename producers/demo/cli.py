"""``formidler demo``."""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer
from rich.console import Console
from rich.live import Live

from broker.cli.options import JsonOption
from broker.cli.output import EXIT_OK, EXIT_REFUSED, print_json
from broker.clock import system_clock
from broker.log import configure_logging
from broker.runtime import run_command
from broker.supervisor.bootstrap import DEFAULT_KOMMUNER, bootstrap, check_kommuner
from broker.supervisor.layout import Layout
from broker.supervisor.up import Running, running
from producers.demo.fagsystem import Fagsystem
from producers.demo.journey import Journey
from producers.demo.plan import LATE_CONNECTOR, Day, plan_day
from producers.demo.play import DayPlay
from producers.demo.portal import TIMEOUT_S, Portal
from producers.demo.show import LiveDay, as_document, show_timelines, show_verdict
from producers.demo.verdict import Check, judge
from schemas.errors import ConfigurationError
from schemas.names import Kommunenummer

DEFAULT_SOKNADER: Final = 30
_CONNECTIONS: Final = 400


def demo(
    kommuner: Annotated[str, typer.Option("--kommuner", help="Kommunenummer med komma mellom, minst tre.")] = ",".join(
        DEFAULT_KOMMUNER
    ),
    soknader: Annotated[int, typer.Option("--soknader", help="Hvor mange søknader, minst seks.")] = DEFAULT_SOKNADER,
    seed: Annotated[int, typer.Option("--seed", help="Samme frø gir de samme søknadene.")] = 1,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Behold alt i denne mappen; uten brukes en midlertidig.", file_okay=False),
    ] = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag
) -> None:
    """Spill en dag: søknader inn, til kommunene, kvitteringer tilbake, og en dom der hver linje er sjekket.

    Avslutter med 0 bare når alt holder.

    Eksempel: formidler demo --soknader 60 --seed 7
    """
    numbers = tuple(Kommunenummer(number.strip()) for number in kommuner.split(","))
    check_kommuner(numbers)
    if data is not None and Layout.exists(data):
        raise ConfigurationError(f"{data} er i bruk; demoen vil ha en ny mappe")
    day = plan_day(seed, soknader, numbers, system_clock())
    place = nullcontext(str(data)) if data else tempfile.TemporaryDirectory(prefix="formidler-demo-")
    with place as folder:
        holds = run_command(_demo(day, Path(folder), as_json=as_json))
    raise typer.Exit(EXIT_OK if holds else EXIT_REFUSED)


async def _demo(day: Day, folder: Path, *, as_json: bool) -> bool:
    console = Console(stderr=as_json, quiet=as_json)
    began = time.monotonic()
    layout = bootstrap(folder, day.connectors, system_clock())
    with layout.log("up").open("a", encoding="utf-8") as log:
        configure_logging("demo", stream=log)
        late = frozenset({f"konnektor-{LATE_CONNECTOR}"})
        async with running(layout, external=None, report=console.print, leave_out=late) as up:
            ready = time.monotonic()
            journeys, checks, ended = await _play_and_judge(day, up, console)
    show_timelines(console, journeys)
    show_verdict(console, checks)
    now = time.monotonic()
    seconds = {"oppstart": ready - began, "dagen": ended - ready, "dommen": now - ended, "alt": now - began}
    console.print("  ".join(f"{name} {value:.1f} s" for name, value in seconds.items()), style="dim")
    if as_json:
        print_json(as_document(journeys, checks, seconds))
    sys.stdout.flush()
    return all(check.holds for check in checks)


async def _play_and_judge(day: Day, up: Running, console: Console) -> tuple[list[Journey], list[Check], float]:
    limits = httpx.Limits(max_connections=_CONNECTIONS)
    journeys = [Journey(soknad, system_clock()) for soknad in day.soknader]
    live = LiveDay(journeys)
    async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits) as http:
        portal, fagsystem = Portal.of(up.layout, http), Fagsystem(up.layout, http)
        play = DayPlay(
            day, journeys, up=up, portal=portal, fagsystem=fagsystem, step=lambda text: setattr(live, "step", text)
        )
        with Live(live, console=console, refresh_per_second=8, transient=not console.is_terminal):
            await play.run()
        ended = time.monotonic()
        console.print("dømmer")
        checks = await judge(
            day,
            journeys,
            layout=up.layout,
            kafka=up.kafka,
            portal=portal,
            fagsystem=fagsystem,
            seen_while_down=play.seen_while_down,
        )
    return journeys, checks, ended
