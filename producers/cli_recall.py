"""``formidler recall``: which søknader are affected by a mistake, and withdrawing or re-sending them.

The command signs as an operator; the ``producers`` process judges the signature and does the work. An act that was broken off
goes on with the same command by the same operator: it keeps the act's id, and with it the exact meldinger that were signed then.

Exit codes: 0 done, or proposed · 1 refused · 2 wrong usage · 3 an address does not answer.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.markup import escape

from broker.cli.acting import OperatorOption, ReasonOption, clock_of, parsed, reason
from broker.cli.options import DataOption, JsonOption
from broker.cli.output import console, errors, print_json, table
from broker.krav import Godkjenning, Krav, sign
from broker.operatorer import Operatorer
from broker.styring import VALID_FOR
from producers.cli_drift import KommuneOption, MeldingOption, TokenOption, UrlOption, Where, ask
from producers.drift_client import DriftClient
from producers.recall import SEND, TREKK, RecallUtvalg
from producers.recall_routes import PREFIX
from producers.recall_rows import FORESLATT, GODKJENT
from schemas.errors import ApprovalError, SelectionError
from schemas.names import DigisosId, Kommunenummer, MeldingId, NokkelId, Sha256, Uuid

T = TypeVar("T")
SHOWN: Final = 100

app = typer.Typer(
    help="Tilbakekalling: finn de søknadene som er berørt av en feil, trekk dem eller send dem på nytt.",
    no_args_is_help=True,
    add_completion=False,
)

SoknadOption = Annotated[str | None, typer.Option("--soknad", help="Bare denne søknadens, digisosId.")]
NokkelOption = Annotated[str | None, typer.Option("--nokkel", help="Bare det som er forseglet for dette sertifikatet.")]
FraOption = Annotated[datetime | None, typer.Option("--fra", help="Innsendt fra og med dette tidspunktet (UTC).")]
TilOption = Annotated[datetime | None, typer.Option("--til", help="Innsendt før dette tidspunktet (UTC).")]
VersjonOption = Annotated[str | None, typer.Option("--avsenderversjon", help="Bare fra denne versjonen av avsenderen.")]
SkjemaOption = Annotated[str | None, typer.Option("--skjemaversjon", help="Bare med denne versjonen av soknad.json.")]
TorrFlag = Annotated[bool, typer.Option("--torr", help="Endre ingenting; vis hva som er berørt.")]


@app.command("sok", epilog="Eksempel: formidler recall sok --avsenderversjon 2.4.1 --fra 2026-11-20")
def search(
    *,
    data: DataOption,
    kommune: KommuneOption = None,
    melding: MeldingOption = None,
    soknad: SoknadOption = None,
    nokkel: NokkelOption = None,
    fra: FraOption = None,
    til: TilOption = None,
    avsenderversjon: VersjonOption = None,
    skjemaversjon: SkjemaOption = None,
    antall: Annotated[int, typer.Option("--antall", min=1, max=500, help="Vis høyst så mange.")] = SHOWN,
    url: UrlOption = None,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Finn søknadene som er berørt, og hvor langt hver av dem har kommet. Også de som er mottatt, er berørt."""
    utvalg = _utvalg(
        kommune=kommune,
        melding=melding,
        soknad=soknad,
        nokkel=nokkel,
        fra=fra,
        til=til,
        avsenderversjon=avsenderversjon,
        skjemaversjon=skjemaversjon,
    )
    found = ask(Where(data, url, token), lambda client: _look(client, utvalg, TREKK, antall))
    _show(found, as_json=as_json)


@app.command("trekk", epilog="Eksempel: formidler recall trekk --avsenderversjon 2.4.1 -b 'feil i skjemaet' --torr")
def withdraw(
    *,
    data: DataOption,
    kommune: KommuneOption = None,
    melding: MeldingOption = None,
    soknad: SoknadOption = None,
    nokkel: NokkelOption = None,
    fra: FraOption = None,
    til: TilOption = None,
    avsenderversjon: VersjonOption = None,
    skjemaversjon: SkjemaOption = None,
    torr: TorrFlag = False,
    begrunnelse: ReasonOption = None,
    operator: OperatorOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Trekk tilbake det som ikke er mottatt, og si hva det er for sent for.

    Flere enn grensen (`formidler operator list`) blir et forslag som en annen operatør må godkjenne; det du har gjort alene siste
    24 timer, telles med. Ble kommandoen avbrutt, fortsetter den samme kommandoen der den sluttet.
    """
    utvalg = _utvalg(
        kommune=kommune,
        melding=melding,
        soknad=soknad,
        nokkel=nokkel,
        fra=fra,
        til=til,
        avsenderversjon=avsenderversjon,
        skjemaversjon=skjemaversjon,
    )
    _act(TREKK, utvalg, Where(data, url, token), operator, begrunnelse, torr=torr, as_json=as_json)


@app.command("send", epilog="Eksempel: formidler recall send --kommune 0301 --fra 2026-11-20 -b 'mistet i fagsystemet'")
def send(
    *,
    data: DataOption,
    kommune: KommuneOption = None,
    melding: MeldingOption = None,
    soknad: SoknadOption = None,
    nokkel: NokkelOption = None,
    fra: FraOption = None,
    til: TilOption = None,
    avsenderversjon: VersjonOption = None,
    skjemaversjon: SkjemaOption = None,
    torr: TorrFlag = False,
    begrunnelse: ReasonOption = None,
    operator: OperatorOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send på nytt fra avsenderens kopier det som ikke er mottatt. Kopien av det som er mottatt, er destruert.

    Grensen er den samme som for `recall trekk`. Ble kommandoen avbrutt, fortsetter den samme kommandoen der den sluttet.
    """
    utvalg = _utvalg(
        kommune=kommune,
        melding=melding,
        soknad=soknad,
        nokkel=nokkel,
        fra=fra,
        til=til,
        avsenderversjon=avsenderversjon,
        skjemaversjon=skjemaversjon,
    )
    _act(SEND, utvalg, Where(data, url, token), operator, begrunnelse, torr=torr, as_json=as_json)


@app.command("approve", epilog="Eksempel: formidler recall approve 0d2c7f5e-3a51-4d0e-8a3c-0a6a5f7a2b11 --operator ola")
def approve(
    tilbakekalling: Annotated[str, typer.Argument(metavar="ID", help="Forslaget, fra `recall list`.")],
    *,
    data: DataOption,
    operator: OperatorOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Godkjenn en annens forslag, og utfør det på nøyaktig de meldingene det ble laget for."""
    (wanted,) = parsed([tilbakekalling], Uuid, "ID")
    now = clock_of(data)()
    who = Operatorer(data).choose(operator, now)

    async def work(client: DriftClient) -> dict[str, Any]:
        recall = next((one for one in await _recalls(client) if one["id"] == wanted), None)
        if recall is None:
            raise ApprovalError("det er ingen slik tilbakekalling; se `formidler recall list`")
        given = Godkjenning(
            aktor=who.aktor,
            tidspunkt=now,
            id=wanted,
            digest=Sha256(recall["digest"]),
            krav=Sha256.of(recall["krav"].encode()),
        )
        return await client.post(f"{PREFIX}/{wanted}/godkjenn", {"jws": sign(given, who)})

    _finish(ask(Where(data, url, token), work), as_json=as_json)


@app.command("list", epilog="Eksempel: formidler recall list")
def list_recalls(
    *, data: DataOption, url: UrlOption = None, token: TokenOption = None, as_json: JsonOption = False
) -> None:
    """List tilbakekallinger: forslag, og det som er utført."""
    found = ask(Where(data, url, token), _recalls)
    if as_json:
        print_json(found)
        return
    names = ("id", "handling", "tilstand", "antall", "aktor", "godkjentAv", "begrunnelse")
    table(
        "Id", "Handling", "Tilstand", "Antall", "Av", "Godkjent av", "Hvorfor",
        rows=[tuple(escape(str(one[name] or "–")) for name in names) for one in found],
    )  # fmt: skip


def _utvalg(
    *,
    kommune: str | None,
    melding: list[str] | None,
    soknad: str | None,
    nokkel: str | None,
    fra: datetime | None,
    til: datetime | None,
    avsenderversjon: str | None,
    skjemaversjon: str | None,
) -> RecallUtvalg:
    return RecallUtvalg(
        kommunenummer=_one(kommune, Kommunenummer, "--kommune"),
        meldinger=parsed(melding, MeldingId, "--melding"),
        digisos_id=_one(soknad, DigisosId, "--soknad"),
        nokkel_id=_one(nokkel, NokkelId, "--nokkel"),
        fra=None if fra is None else fra.replace(tzinfo=UTC),
        til=None if til is None else til.replace(tzinfo=UTC),
        avsenderversjon=avsenderversjon,
        skjemaversjon=skjemaversjon,
    )


def _one(text: str | None, form: Callable[[str], T], option: str) -> T | None:
    return None if text is None else parsed([text], form, option)[0]


async def _look(client: DriftClient, utvalg: RecallUtvalg, handling: str, antall: int) -> dict[str, Any]:
    body = {"utvalg": utvalg.model_dump(mode="json", by_alias=True), "handling": handling, "antall": antall}
    return await client.post(f"{PREFIX}/sok", body)


async def _recalls(client: DriftClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get(PREFIX))["tilbakekallinger"]
    return found


def _act(
    handling: str,
    utvalg: RecallUtvalg,
    where: Where,
    operator: str | None,
    begrunnelse: str | None,
    *,
    torr: bool,
    as_json: bool,
) -> None:
    if utvalg == RecallUtvalg():
        raise typer.BadParameter("oppgi hvilke søknader det gjelder")
    if torr:
        _show(ask(where, lambda client: _look(client, utvalg, handling, SHOWN)), as_json=as_json)
        return
    why, now = reason(begrunnelse), clock_of(where.data)()
    who = Operatorer(where.data).choose(operator, now)

    async def work(client: DriftClient) -> dict[str, Any]:
        found = await _look(client, utvalg, handling, 1)
        begun = _unfinished(await _recalls(client), (who.aktor, handling), utvalg, found["digest"], now)
        if begun is not None:
            errors.print(f"fortsetter {begun['id']}, med de meldingene den ble signert for", soft_wrap=True)
        else:
            signed = utvalg.model_copy(update={"til_nr": found["tilNr"]}).to_json()
            begun = dict[str, Any](found, id=Uuid.new(), utvalg=signed, begrunnelse=why)
        krav = Krav(
            aktor=who.aktor,
            tidspunkt=now,
            id=Uuid(begun["id"]),
            handling=handling,
            utvalg=begun["utvalg"],
            digest=Sha256(begun["digest"]),
            antall=begun["antall"],
            begrunnelse=begun["begrunnelse"],
        )
        return await client.post(PREFIX, {"jws": sign(krav, who)})

    _finish(ask(where, work), as_json=as_json)


def _unfinished(
    recalls: list[dict[str, Any]], act: tuple[str, str], utvalg: RecallUtvalg, digest: str, now: datetime
) -> dict[str, Any] | None:
    """Return what this operator began with the same act and selection, and has not finished.

    Either it was broken off; or it is a proposal, and of exactly what would be proposed now.
    """
    for one in recalls:
        waits = one["tilstand"] == GODKJENT or (one["tilstand"] == FORESLATT and one["digest"] == digest)
        recent = now - datetime.fromisoformat(one["tidspunkt"]) <= VALID_FOR
        if waits and recent and (one["aktor"], one["handling"]) == act and _is_of(one["utvalg"], utvalg):
            return one
    return None


def _is_of(signed: str, utvalg: RecallUtvalg) -> bool:
    try:
        return RecallUtvalg.of(signed).model_copy(update={"til_nr": None}) == utvalg
    except SelectionError:  # of an older version
        return False


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    names = ("meldingId", "kommunenummer", "innsendt", "kanal", "avsenderversjon", "skjemaversjon", "stand")
    rows = [tuple(escape(str(one[name] or "–")) for name in names) for one in found["meldinger"]]
    table("Melding", "Kommune", "Innsendt", "Kanal", "Avsender", "Skjema", "Hvor langt", rows=rows)
    console.print(f"{found['antall']} meldinger er berørt; {len(rows)} vises")


def _finish(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    if result["tilstand"] == "FORESLATT":
        console.print(
            "Det er flere enn du kan gjøre alene i løpet av 24 timer. "
            f"Forslaget er [bold]{result['id']}[/]; en annen operatør kjører:\n"
            f"  formidler recall approve {result['id']}",
            soft_wrap=True,
        )
        return
    for what, count in sorted(result["antall"].items()):
        console.print(f"{count} {escape(what)}")
    if "TRUKKET" in result["antall"]:
        console.print("om det var i tide, vises med `formidler recall sok`: MOTTATT betyr at fagsystemet var raskere")
    for melding in result["forSent"]:
        console.print(f"for sent, er mottatt: {melding}")
    for melding in result["endret"]:
        console.print(f"ikke rørt, er endret siden utvalget ble signert: {melding}")
