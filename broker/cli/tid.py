"""``formidler tid``: the time of a local set-up, which may be moved forwards."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from broker.cli.options import DataOption, JsonOption
from broker.cli.output import console, print_json
from broker.clock import system_clock, timestamp
from broker.durations import format_duration, parse_duration
from broker.process_clock import read_offset, write_offset
from broker.supervisor.layout import Layout
from schemas.errors import ConfigurationError

app = typer.Typer(
    help="Tiden i et lokalt oppsett: se den, og flytt den fremover.", no_args_is_help=True, add_completion=False
)


@app.command("vis", epilog="Eksempel: formidler tid vis")
def show(data: DataOption, as_json: JsonOption = False) -> None:  # noqa: FBT002 - a flag
    """Vis hva klokken er i oppsettet, og hvor langt den er foran maskinens."""
    layout = Layout.load(data)
    _tell(read_offset(layout.clock), as_json=as_json)


@app.command("frem", epilog="Eksempel: formidler tid frem 20d")
def forward(
    varighet: Annotated[str, typer.Argument(help="Hvor langt: 20d, 36h, 1d12h, 90m, P20D.")],
    data: DataOption,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag
) -> None:
    """Flytt tiden fremover for alle prosesser i oppsettet. Den kan ikke flyttes tilbake.

    Frister, oppbevaring og gyldigheten til sertifikater og tokener følger med, i dem som kjører og dem som startes senere.
    Kafkas egne tidsstempler er fortsatt maskinens. Bare et lokalt oppsett har en slik klokke; i drift er den maskinens.
    """
    layout = Layout.load(data)
    step = parse_duration(varighet)
    offset = read_offset(layout.clock) + step
    try:
        _ = system_clock() + offset + timedelta(days=366)
    except OverflowError:
        raise ConfigurationError("så langt frem finnes det ingen datoer") from None
    write_offset(layout.clock, offset)
    _tell(offset, as_json=as_json)


def _tell(offset: timedelta, *, as_json: bool) -> None:
    now = timestamp(system_clock() + offset)
    if as_json:
        print_json({"tidspunkt": now, "forskyvningS": offset.total_seconds()})
        return
    ahead = f", {format_duration(offset)} foran maskinens" if offset else ", som maskinens"
    console.print(f"klokken er {now}{ahead}")
