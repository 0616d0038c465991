"""``formidler dlq``: dead letters, and what an operator can do about them.

The commands reach Kafka as ``broker``. Nothing is ever opened: a letter is sent again byte for byte as it came.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.cli import dlq_show as shown
from broker.cli.acting import OperatorOption, ReasonOption, clock_of, parsed, reason, stopping
from broker.cli.kafka_access import kafka_access, read_katalog
from broker.cli.options import DataOption, JsonOption
from broker.cli.output import EXIT_OK, EXIT_REFUSED, console, errors, print_json, table
from broker.dlq.desk import Desk, Gang, Resultat
from broker.dlq.plan import Utvalg, plan_redrive
from broker.dlq.redrive import DEFAULT_RATE, Utfall
from broker.dlq.state import Sak, Tvil
from broker.kafka.fetcher import KafkaFetcher
from broker.operatorer import Operator, Operatorer
from broker.runtime import run_command
from schemas.codec import decode
from schemas.errors import GovernedActError
from schemas.names import Kommunenummer, Uuid
from schemas.records import DeadLetterRecord

app = typer.Typer(
    help="Døde brev: se dem, send dem på nytt, parker dem eller lukk dem.", no_args_is_help=True, add_completion=False
)

IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Brev, fra `dlq list --detaljer`.")]
KommuneOption = Annotated[list[str] | None, typer.Option("--kommune", help="Kommunenummer. Kan gjentas.")]
KodeOption = Annotated[list[str] | None, typer.Option("--kode", help="Feilkode, som krypto.apning. Kan gjentas.")]
SkjemaOption = Annotated[
    list[str] | None, typer.Option("--skjema", help="Skjemaet den opprinnelige ble skrevet med, som soknad:2.")
]
FraOption = Annotated[datetime | None, typer.Option("--fra", help="Døde fra og med dette tidspunktet (UTC).")]
TilOption = Annotated[datetime | None, typer.Option("--til", help="Døde før dette tidspunktet (UTC).")]
AlleFlag = Annotated[bool, typer.Option("--alle", help="Alle brev, uten noe filter.")]
RateOption = Annotated[float, typer.Option("--rate", min=0, help="Høyst så mange brev i sekundet; 0 for ingen grense.")]


@app.command("list", epilog="Eksempel: formidler dlq list --kommune 0301 --kode krypto.apning")
def list_letters(
    *,
    data: DataOption,
    kommune: KommuneOption = None,
    kode: KodeOption = None,
    skjema: SkjemaOption = None,
    fra: FraOption = None,
    til: TilOption = None,
    detaljer: Annotated[bool, typer.Option("--detaljer", help="Hvert brev, ikke bare grupper.")] = False,
    alle: Annotated[bool, typer.Option("--alle", help="Også de som er lukket.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List døde brev etter årsak: kode, trinn og kommune. Lukkede vises bare med --alle."""
    utvalg = _utvalg(brev=None, kommune=kommune, kode=kode, skjema=skjema, fra=fra, til=til)
    saker, unreadable, found = run_command(_listed(data, utvalg, closed=alle))
    now = clock_of(data)()
    if as_json:
        document: dict[str, Any] = {
            "grupper": shown.groups(saker, now),
            "uleselige": unreadable,
            "utenVirkning": len(found),
        }
        print_json(document | ({"brev": [shown.sak_document(sak) for sak in saker]} if detaljer else {}))
    elif detaljer:
        shown.show_details(saker, found)
    else:
        shown.show_groups(shown.groups(saker, now), unreadable, found)


@app.command("show", epilog="Eksempel: formidler dlq show 0d2c7f5e-3a51-5d0e-8a3c-0a6a5f7a2b11")
def show(
    brev: Annotated[str, typer.Argument(metavar="ID", help="Et brev, fra `dlq list --detaljer`.")],
    data: DataOption,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag
) -> None:
    """Vis ett dødt brev: alle headere, forsøk, runder, hva som er gjort, og hva som venter bak det. Aldri innholdet."""
    (wanted,) = parsed([brev], Uuid, "ID")
    document = run_command(_shown(data, wanted))
    if as_json:
        print_json(document)
    else:
        shown.show_sak(document)


@app.command(
    "redrive", epilog="Eksempel: formidler dlq redrive --kode krypto.apning --kommune 0301 -b 'ny nøkkel på plass'"
)
def redrive(
    *,
    brev: IdsArgument = None,
    data: DataOption,
    kommune: KommuneOption = None,
    kode: KodeOption = None,
    skjema: SkjemaOption = None,
    fra: FraOption = None,
    til: TilOption = None,
    alle: AlleFlag = False,
    torr: Annotated[bool, typer.Option("--torr", help="Vis bare hva som ville skje.")] = False,
    tving: Annotated[bool, typer.Option("--tving", help="Også parkerte, og de som løkkevernet holder.")] = False,
    rate: RateOption = DEFAULT_RATE,
    begrunnelse: ReasonOption = None,
    operator: OperatorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send døde brev på nytt, slik de kom. Rekkefølgen i hver søknad holdes: det som venter bak et brev, går etter det.

    Flere enn grensen (`formidler operator list`) blir et forslag som en annen operatør må godkjenne; det du har gjort alene siste
    24 timer, telles med. Ctrl-C stopper i orden, og den samme kommandoen fortsetter der den sluttet. Avslutter med 1 når noe ikke
    gikk eller er igjen.
    """
    utvalg = _utvalg(brev=brev, kommune=kommune, kode=kode, skjema=skjema, fra=fra, til=til, tving=tving)
    _demand_choice(utvalg, alle=alle)
    if torr:
        plan = run_command(_planned(data, utvalg))
        if as_json:
            print_json(shown.plan_document(plan))
        else:
            shown.show_plan(plan)
        return
    why = reason(begrunnelse)

    async def act(desk: Desk, who: Operator, gang: Gang) -> Resultat:
        return await desk.redrive(utvalg, who, why, gang)

    _finish(_acted(data, operator, rate, act, as_json=as_json), "sendt på nytt", as_json=as_json)


@app.command(
    "park", epilog="Eksempel: formidler dlq park 0d2c7f5e-3a51-5d0e-8a3c-0a6a5f7a2b11 -b 'venter på leverandøren'"
)
def park(
    *,
    brev: IdsArgument = None,
    data: DataOption,
    kommune: KommuneOption = None,
    kode: KodeOption = None,
    skjema: SkjemaOption = None,
    fra: FraOption = None,
    til: TilOption = None,
    alle: AlleFlag = False,
    opphev: Annotated[bool, typer.Option("--opphev", help="Åpne parkerte brev igjen.")] = False,
    begrunnelse: ReasonOption = None,
    operator: OperatorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sett døde brev til side: de gjenkjøres ikke uten --tving. Det som venter bak dem, venter videre."""
    utvalg = _utvalg(brev=brev, kommune=kommune, kode=kode, skjema=skjema, fra=fra, til=til)
    _demand_choice(utvalg, alle=alle)
    handling = "dlq.apne" if opphev else "dlq.park"
    resultat = _marked(data, operator, handling, utvalg, reason(begrunnelse), as_json=as_json)
    _finish(resultat, "åpnet igjen" if opphev else "parkert", as_json=as_json)


@app.command("lukk", epilog="Eksempel: formidler dlq lukk 0d2c7f5e-3a51-5d0e-8a3c-0a6a5f7a2b11 -b 'sendt på papir'")
def close(
    *,
    brev: IdsArgument = None,
    data: DataOption,
    kommune: KommuneOption = None,
    kode: KodeOption = None,
    skjema: SkjemaOption = None,
    fra: FraOption = None,
    til: TilOption = None,
    alle: AlleFlag = False,
    begrunnelse: ReasonOption = None,
    operator: OperatorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lukk døde brev for godt: de gjenkjøres aldri mer. Det som venter bak dem, kan gjenkjøres forbi."""
    utvalg = _utvalg(brev=brev, kommune=kommune, kode=kode, skjema=skjema, fra=fra, til=til)
    _demand_choice(utvalg, alle=alle)
    resultat = _marked(data, operator, "dlq.lukk", utvalg, reason(begrunnelse), as_json=as_json)
    _finish(resultat, "lukket", as_json=as_json)


@app.command("approve", epilog="Eksempel: formidler dlq approve 0d2c7f5e-3a51-4d0e-8a3c-0a6a5f7a2b11 --operator ola")
def approve(
    forslag: Annotated[str, typer.Argument(metavar="ID", help="Forslaget, fra `dlq forslag`.")],
    *,
    data: DataOption,
    rate: RateOption = DEFAULT_RATE,
    operator: OperatorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Godkjenn en annens forslag og utfør det, på nøyaktig de brevene det ble laget for. Er de endret, gjøres ingenting.

    Et forslag som ble avbrutt underveis, fortsetter med den samme kommandoen.
    """
    (wanted,) = parsed([forslag], Uuid, "ID")

    async def act(desk: Desk, who: Operator, gang: Gang) -> Resultat:
        return await desk.approve(wanted, who, gang)

    _finish(_acted(data, operator, rate, act, as_json=as_json), "behandlet", as_json=as_json)


@app.command("forslag", epilog="Eksempel: formidler dlq forslag")
def list_proposals(
    *,
    data: DataOption,
    alle: Annotated[bool, typer.Option("--alle", help="Også de som er utført eller trukket.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List forslag som venter på en annen operatør."""
    found = run_command(_proposals(data))
    documents = [
        shown.forslag_document(one) for one in found.values() if alle or one.tilstand in {"FORESLATT", "GODKJENT"}
    ]
    if as_json:
        print_json(documents)
        return
    rows = [
        (d["id"], d["handling"], d["tilstand"], d["foreslattAv"], str(d["antall"]), d["begrunnelse"] or "")
        for d in documents
    ]
    table("Forslag", "Handling", "Tilstand", "Av", "Antall", "Hvorfor", rows=rows)


@app.command(
    "trekk", epilog="Eksempel: formidler dlq trekk 0d2c7f5e-3a51-4d0e-8a3c-0a6a5f7a2b11 -b 'løst på annen måte'"
)
def withdraw(
    forslag: Annotated[str, typer.Argument(metavar="ID", help="Forslaget, fra `dlq forslag`.")],
    *,
    data: DataOption,
    begrunnelse: ReasonOption = None,
    operator: OperatorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Trekk et forslag, så det ikke kan utføres."""
    (wanted,) = parsed([forslag], Uuid, "ID")
    why = reason(begrunnelse)

    async def act(desk: Desk, who: Operator, _: Gang) -> Resultat:
        await desk.withdraw(wanted, who, why)
        return Resultat(forslag=wanted, utfort=True)

    _acted(data, operator, 0, act, as_json=as_json)
    if as_json:
        print_json({"forslag": wanted, "tilstand": "TRUKKET"})
    else:
        console.print("forslaget er trukket")


def _utvalg(
    *,
    brev: list[str] | None,
    kommune: list[str] | None,
    kode: list[str] | None,
    skjema: list[str] | None,
    fra: datetime | None,
    til: datetime | None,
    tving: bool = False,
) -> Utvalg:
    return Utvalg(
        brev=parsed(brev, Uuid, "ID"),
        kommuner=parsed(kommune, Kommunenummer, "--kommune"),
        koder=parsed(kode, str, "--kode"),
        skjemaer=parsed(skjema, str, "--skjema"),
        fra=None if fra is None else fra.replace(tzinfo=UTC),
        til=None if til is None else til.replace(tzinfo=UTC),
        tving=tving,
    )


def _demand_choice(utvalg: Utvalg, *, alle: bool) -> None:
    if utvalg.is_empty and not alle:
        raise typer.BadParameter("oppgi brev eller et filter, eller --alle")


async def _desk(data: Path) -> Desk:
    kafka = kafka_access(data)
    return Desk(data, kafka, await read_katalog(kafka), Operatorer(data), clock_of(data))


async def _listed(data: Path, utvalg: Utvalg, *, closed: bool) -> tuple[list[Sak], int, list[Tvil]]:
    brev = (await (await _desk(data)).read(utvalg.kommuner)).brev
    chosen = [sak for sak in brev.saker if utvalg.matches(sak)]
    saker = [sak for sak in chosen if closed or sak.tilstand != "LUKKET"]
    return saker, sum(brev.uleselige.values()), shown.doubts(chosen)


async def _planned(data: Path, utvalg: Utvalg) -> Any:
    return plan_redrive((await (await _desk(data)).read(utvalg.kommuner)).brev, utvalg)


async def _proposals(data: Path) -> Any:
    return await (await _desk(data)).proposals()


async def _shown(data: Path, wanted: Uuid) -> dict[str, Any]:
    desk = await _desk(data)
    sak = (await desk.read()).brev.find(wanted)
    if sak is None:
        raise GovernedActError("det er ikke noe dødt brev med den id-en; se `formidler dlq list --detaljer --alle`")
    rounds: list[dict[str, Any]] = []
    async with KafkaFetcher(desk.kafka) as fetcher:
        for letter in sak.brev:
            place = letter.position
            record = await fetcher.fetch(place.topic, place.partition, place.offset)
            headers = {"headere": shown.header_document(record.headers)}
            rounds.append(shown.letter_document(decode(DeadLetterRecord, record.value)) | headers)
    return shown.sak_document(sak) | {"brev": rounds, "handlinger": shown.act_documents(sak)}


def _marked(data: Path, operator: str | None, handling: str, utvalg: Utvalg, why: str, *, as_json: bool) -> Resultat:
    async def act(desk: Desk, who: Operator, _: Gang) -> Resultat:
        return await desk.mark(handling, utvalg, who, why)

    return _acted(data, operator, 0, act, as_json=as_json)


def _acted(
    data: Path,
    operator: str | None,
    rate: float,
    act: Callable[[Desk, Operator, Gang], Awaitable[Resultat]],
    *,
    as_json: bool,
) -> Resultat:
    async def run() -> Resultat:
        desk = await _desk(data)
        who = desk.operatorer.choose(operator, desk.clock())
        with stopping() as stop:
            return await act(desk, who, Gang(rate, stop, _silent if as_json else _progress))

    return run_command(run())


def _finish(resultat: Resultat, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(shown.result_document(resultat))
    else:
        shown.show_result(resultat, what)
    utfall = resultat.utfall
    whole = utfall is None or not (utfall.feilet or utfall.igjen)
    raise typer.Exit(EXIT_OK if whole else EXIT_REFUSED)


def _progress(utfall: Utfall) -> None:
    errors.print(f"{utfall.sendt} sendt …", end="\r")


def _silent(utfall: Utfall) -> None:
    _ = utfall
