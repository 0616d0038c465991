"""``formidler frister``: what waits too long, and why."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.markup import escape

from broker.cli.calling import run_calls, sender_token
from broker.cli.options import DataOption, JsonOption
from broker.cli.output import console, print_json, table
from broker.durations import format_duration, parse_duration
from broker.supervisor.layout import Layout
from kvittering.frist_routes import MAX_LISTED, PATH
from schemas.errors import ConfigurationError
from schemas.names import Kommunenummer

TIMEOUT_S = 30.0
MINUTE_S = 60

app = typer.Typer(
    help="Frister: hvilke søknader som har ventet for lenge, og hvorfor.", no_args_is_help=True, add_completion=False
)


@app.callback()
def root() -> None:
    """Frister: hvilke søknader som har ventet for lenge, og hvorfor."""


@app.command("list", epilog="Eksempel: formidler frister list --kommune 0301 --innen 6h")
def list_frister(
    *,
    data: DataOption,
    kommune: Annotated[str | None, typer.Option("--kommune", help="Bare denne kommunen, fire siffer.")] = None,
    innen: Annotated[str, typer.Option("--innen", help="Ta med det som går ut innen så lenge: 6h, 1d, PT30M.")] = "0s",
    antall: Annotated[int, typer.Option("--antall", min=1, max=MAX_LISTED, help="Høyst så mange linjer.")] = 100,
    status_url: Annotated[
        str | None,
        typer.Option("--status-url", envvar="FORMIDLER_STATUS_URL", help="Statusens adresse, i stedet for --data."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="FORMIDLER_TOKEN", help="Avsenderens access_token. Uten: nøkkelen i --data."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List meldinger som har gått over fristen, den som har ventet lengst først.

    Årsaken er ikke-sendt, ikke-bekreftet, ikke-mottatt, avvist, dodt-brev eller kanal-feil, med koden der det er en.
    """
    asked = {"innen": format_duration(parse_duration(innen)), "antall": str(antall)}
    if kommune is not None:
        asked["kommunenummer"] = Kommunenummer(kommune)
    view = run_calls(_ask(data, status_url, token, asked))
    if as_json:
        print_json(view)
    else:
        _show(view)


async def _ask(data: Path, status_url: str | None, token: str | None, asked: dict[str, str]) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=httpx.Timeout(TIMEOUT_S, connect=10.0)) as http:
        address = status_url or Layout.load(data).address("kvittering")
        bearer = token or await sender_token(http, Layout.load(data))
        headers = {"Authorization": f"Bearer {bearer}"}
        answer = await http.get(f"{address.rstrip('/')}{PATH}", params=asked, headers=headers)
    if not answer.is_success:
        raise ConfigurationError(f"{PATH} svarte {answer.status_code}: har dere lov til å spørre?")
    view: dict[str, Any] = answer.json()
    return view


def _show(view: dict[str, Any]) -> None:
    rows = [
        (
            one["kommunenummer"],
            _duration(one["ventetS"]),
            _duration(one["overS"]) if one["overS"] >= 0 else f"om {_duration(-one['overS'])}",
            one["kanal"],
            escape(f"{one['arsak']}: {one['kode']}" if one["kode"] else one["arsak"]),
            one["digisosId"],
        )
        for one in view["frister"]
    ]
    if rows:
        table("Kommune", "Ventet", "Over fristen", "Kanal", "Årsak", "digisosId", rows=rows)
    console.print(f"{view['antall']} over fristen" if view["antall"] else "ingen er over fristen")


def _duration(seconds: int) -> str:
    """Return a duration in whole minutes, once it is more than one."""
    whole = seconds if seconds < MINUTE_S else seconds // MINUTE_S * MINUTE_S
    return format_duration(timedelta(seconds=whole))
