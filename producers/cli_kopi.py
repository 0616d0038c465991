"""``formidler avsenderkopi``: the sender's own sealed copies, and what can be done from them.

Exit codes: 0 done · 1 refused · 2 wrong usage · 3 an address does not answer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated, Any, Final, TypeVar
from uuid import uuid4

import typer

from broker.cli.options import DataOption, JsonOption
from broker.cli.output import console, errors, print_json, table
from producers.cli_drift import KommuneOption, MeldingOption, TokenOption, UrlOption, Where, ask
from producers.drift_client import DriftClient
from producers.kopi_routes import PREFIX
from schemas.errors import InvalidNameError
from schemas.names import Kommunenummer, MeldingId, Name, Uuid

N = TypeVar("N", bound=Name)

STEP: Final = 100
DEFAULT_RATE: Final = 200.0

app = typer.Typer(
    help="Avsenderens egne forseglede kopier: se dem, send fra dem, forsegl på nytt, og vis bevis for at de er destruert.",
    no_args_is_help=True,
    add_completion=False,
)

TorrFlag = Annotated[bool, typer.Option("--torr", help="Endre ingenting; tell bare.")]
OmgangOption = Annotated[
    str | None,
    typer.Option("--omgang", help="Fortsett en omgang som ble avbrutt; id-en ble skrevet ut da den begynte."),
]
RateOption = Annotated[
    float, typer.Option("--rate", min=0, help="Høyst så mange meldinger i sekundet; 0 for ingen grense.")
]
ReasonOption = Annotated[
    str | None, typer.Option("--begrunnelse", help="Hvorfor, for revisjonen. Uten personopplysninger.")
]


@app.command("list", epilog="Eksempel: formidler avsenderkopi list --kommune 0301")
def list_copies(
    *,
    data: DataOption,
    kommune: KommuneOption = None,
    antall: Annotated[int, typer.Option("--antall", min=1, max=500, help="Høyst så mange, de eldste først.")] = 100,
    url: UrlOption = None,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """List kopier som ikke er destruert: meldinger som ingen har bekreftet å ha mottatt."""
    params: dict[str, str | int] = {"antall": antall}
    if kommune is not None:
        params["kommunenummer"] = _name(Kommunenummer, kommune, "--kommune")
    page = ask(Where(data, url, token), lambda client: client.get(PREFIX, params))
    if as_json:
        print_json(page)
        return
    names = ("meldingId", "kommunenummer", "innsendt", "kanal", "omsendinger")
    table(
        "Melding",
        "Kommune",
        "Innsendt",
        "Kanal",
        "Sendt igjen",
        rows=[tuple(str(kopi[name]) for name in names) for kopi in page["kopier"]],
    )
    console.print(f"{len(page['kopier'])} av {page['antall']} kopier")


@app.command("bevis", epilog="Eksempel: formidler avsenderkopi bevis 7b7fd0c2-7b44-4d4e-9f65-0d1d8a6d2a22")
def proof(
    melding: Annotated[str, typer.Argument(metavar="ID", help="meldingId.")],
    *,
    data: DataOption,
    url: UrlOption = None,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Vis hva som er kjent om en melding, og om kopien av den er destruert, når og for hvilken kvittering."""
    melding_id = _name(MeldingId, melding, "ID")
    view = ask(Where(data, url, token), lambda client: client.get(f"{PREFIX}/{melding_id}"))
    if as_json:
        print_json(view)
        return
    console.print(f"[bold]{view['meldingId']}[/]  kommune {view['kommunenummer']}  søknad {view['digisosId']}")
    for digest in view["forseglinger"]:
        console.print(f"  forseglet som   {digest}", soft_wrap=True)
    if view["destruert"] is None:
        console.print(f"  [bold]kopien finnes[/], kanal {view['kanal']}, sendt igjen {view['omsendinger']} ganger")
    else:
        why = f"for kvittering {view['kvitteringId']}" if view["kvitteringId"] else f"fordi: {view['arsak']}"
        console.print(f"  [bold]destruert[/] {view['destruert']} {why}", soft_wrap=True)


@app.command("send", epilog="Eksempel: formidler avsenderkopi send --alle-ikke-mottatt --torr")
def send(
    *,
    data: DataOption,
    alle: Annotated[
        bool, typer.Option("--alle-ikke-mottatt", help="Alt som ingen har bekreftet å ha mottatt, for alle kommuner.")
    ] = False,
    kommune: KommuneOption = None,
    melding: MeldingOption = None,
    begrunnelse: ReasonOption = None,
    torr: TorrFlag = False,
    omgang: OmgangOption = None,
    rate: RateOption = DEFAULT_RATE,
    url: UrlOption = None,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send meldinger igjen fra kopiene, slik de sist ble forseglet. Brukes når Kafka har mistet data.

    En mottaker som har meldingen fra før, leverer den ikke en gang til, men gjentar kvitteringen sin.
    """
    if not (alle or kommune or melding):
        raise typer.BadParameter("si hvilke: --alle-ikke-mottatt, --kommune eller --melding")
    order = _order(kommune, melding, begrunnelse, omgang, torr=torr)
    _finish(ask(Where(data, url, token), lambda client: _work(client, "send", order, rate)), order, as_json=as_json)


@app.command("forsegl", epilog="Eksempel: formidler avsenderkopi forsegl --kommune 0301 --torr")
def forsegl(
    *,
    data: DataOption,
    kommune: Annotated[str, typer.Option("--kommune", help="Kommunen med nytt sertifikat, fire siffer.")],
    melding: MeldingOption = None,
    begrunnelse: ReasonOption = None,
    torr: TorrFlag = False,
    omgang: OmgangOption = None,
    rate: RateOption = DEFAULT_RATE,
    url: UrlOption = None,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forsegl det kommunen ikke har mottatt, for dens nyeste sertifikat, og send det igjen. Brukes når nøkkelen er tapt.

    Legg det nye sertifikatet i katalogen først.
    """
    order = _order(kommune, melding, begrunnelse, omgang, torr=torr)
    _finish(ask(Where(data, url, token), lambda client: _work(client, "forsegl", order, rate)), order, as_json=as_json)


def _order(
    kommune: str | None, melding: list[str] | None, begrunnelse: str | None, omgang: str | None, *, torr: bool
) -> dict[str, Any]:
    return {
        "omgang": str(uuid4()) if omgang is None else _name(Uuid, omgang, "--omgang"),
        "kommunenummer": None if kommune is None else _name(Kommunenummer, kommune, "--kommune"),
        "meldinger": [_name(MeldingId, each, "--melding") for each in melding or ()],
        "begrunnelse": begrunnelse,
        "torr": torr,
    }


async def _work(client: DriftClient, verb: str, order: dict[str, Any], rate: float) -> dict[str, Any]:
    """Run one step after the other until nothing is left; return the sum."""
    sent, passed_over, after = 0, Counter[str](), 0
    if not order["torr"]:
        errors.print(
            f"Omgang {order['omgang']}; blir den avbrutt, fortsett med --omgang {order['omgang']}", soft_wrap=True
        )
    while True:
        step = await client.post(f"{PREFIX}/{verb}", order | {"etter": after, "antall": STEP})
        sent += step["sendt"]
        passed_over.update(step["hoppetOver"])
        after = step["etter"]
        if step["ferdig"]:
            return {
                "omgang": order["omgang"],
                "torr": order["torr"],
                "sendt": sent,
                "hoppetOver": dict(passed_over),
            }
        errors.print(f"  {sent} meldinger")
        if rate and step["sendt"] and not order["torr"]:
            await asyncio.sleep(step["sendt"] / rate)


def _finish(result: dict[str, Any], order: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    said = "ville blitt lagt i utboksen" if order["torr"] else "er lagt i utboksen"
    console.print(f"[bold]{result['sendt']}[/] meldinger {said}")
    for why, count in sorted(result["hoppetOver"].items()):
        console.print(f"  {count} hoppet over: {why}")


def _name(kind: type[N], text: str, option: str) -> N:
    try:
        return kind(text)
    except InvalidNameError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
