"""``formidler soknad``: send a søknad as the portal does, and follow what becomes of it as the citizen does.

Addresses come from a data folder of ``formidler up``, or from options; so does the token: given, or minted by the local issuer
for the person in ``soknad.json``. A fødselsnummer is never printed and never stored.

Exit codes: 0 sent, or had been sent before · 1 refused · 2 wrong usage · 3 an address does not answer.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any, Final, TypeVar

import httpx
import orjson
import typer

from broker.cli.calling import run_calls, sender_token
from broker.cli.options import DataOption, JsonOption
from broker.cli.output import console, print_json
from broker.supervisor.layout import Layout
from producers.dokument import Dokument
from producers.http_client import TIMEOUT_S, Sent, SoknadClient
from producers.status_client import SenderStatusClient, StatusClient, is_final
from schemas.errors import ConfigurationError, InvalidNameError
from schemas.examples import make_pdf, make_soknad, make_vedlegg
from schemas.names import DigisosId, Enhetsnummer, Fodselsnummer, Kommunenummer, Name, NavEksternRefId
from schemas.soknad_json import FILENAME as SOKNAD_JSON
from schemas.soknad_json import parse_soknad
from schemas.vedlegg_json import FILENAME as VEDLEGG_JSON
from schemas.vedlegg_json import STATUS_LASTET_OPP

GENERATED: Final = frozenset({"soknad.pdf", "soknad-juridisk.pdf", "brukerkvittering.pdf"})
"""What a portal makes itself, and ``vedlegg.json`` therefore does not list."""

EXAMPLE_PDF_BYTES: Final = 30_000

N = TypeVar("N", bound=Name)

app = typer.Typer(help="Søknader: send en, og følg hva som skjer med den.", no_args_is_help=True)

TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="FORMIDLER_TOKEN",
        help="Borgerens access_token. Uten: hentes fra utstederen i `formidler up`.",
    ),
]


@dataclass(frozen=True)
class _Submission:
    """What ``send`` was asked to send."""

    kommunenummer: Kommunenummer
    nav_ekstern_ref_id: NavEksternRefId
    soknad_json: bytes
    vedlegg_json: bytes
    files: list[Dokument]
    enhetsnummer: Enhetsnummer | None


@app.command(
    "send", epilog="Eksempel: formidler soknad send soknad.json soknad.pdf lonn.pdf --kommune 0301 --ref abc-1"
)
def send(
    *,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILER...",
            help="soknad.json, kanskje vedlegg.json, og dokumentene med soknad.pdf først (PDF, PNG, JPEG).",
            exists=True,
            dir_okay=False,
            readable=True,
        ),
    ],
    kommune: Annotated[str, typer.Option("--kommune", help="Mottakerens kommunenummer, fire siffer.")],
    ref: Annotated[
        str, typer.Option("--ref", help="Din egen id for sendingen. Den samme en gang til er den samme søknaden.")
    ],
    data: DataOption,
    enhet: Annotated[str | None, typer.Option("--enhet", help="Nav-kontorets enhetsnummer, fire siffer.")] = None,
    intake_url: Annotated[
        str | None,
        typer.Option("--intake-url", envvar="FORMIDLER_INTAKE_URL", help="Mottakets adresse, i stedet for --data."),
    ] = None,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send en søknad. Å sende den samme på nytt er trygt.

    Uten vedlegg.json lages den, med sha512 av hvert dokument som ikke er portalens egne PDF-er.
    """
    kommunenummer, reference = _name(Kommunenummer, kommune, "--kommune"), _name(NavEksternRefId, ref, "--ref")
    enhetsnummer = None if enhet is None else _name(Enhetsnummer, enhet, "--enhet")
    soknad_json, vedlegg_json, documents = _sort(files)
    submission = _Submission(kommunenummer, reference, soknad_json, vedlegg_json, documents, enhetsnummer)
    sent = run_calls(_send(submission, data, intake_url, token))
    if as_json:
        print_json(
            {
                "digisosId": sent.digisos_id,
                "kommunenummer": kommunenummer,
                "navEksternRefId": reference,
                "duplikat": sent.duplicate,
            }
        )
        return
    told = "er sendt før, og har digisosId" if sent.duplicate else "er tatt imot, og har fått digisosId"
    console.print(f"Søknaden {told} [bold]{sent.digisos_id}[/]", soft_wrap=True)


async def _send(submission: _Submission, data: Path, intake_url: str | None, token: str | None) -> Sent:
    async with _http() as http:
        address = intake_url or Layout.load(data).address("producers")
        bearer = token or await _local_token(http, data, parse_soknad(submission.soknad_json).person())
        return await SoknadClient(address, http).send(
            submission.kommunenummer,
            submission.nav_ekstern_ref_id,
            soknad_json=submission.soknad_json,
            vedlegg_json=submission.vedlegg_json,
            files=submission.files,
            token=bearer,
            enhetsnummer=submission.enhetsnummer,
        )


@app.command(
    "eksempel",
    epilog="Eksempel: formidler soknad eksempel --mappe eksempel --kommune 0301, og så: "
    "formidler soknad send eksempel/* --kommune 0301 --ref abc-1",
)
def eksempel(
    *,
    mappe: Annotated[Path, typer.Option("--mappe", help="Mappen filene legges i; lages om den ikke finnes.")],
    kommune: Annotated[str, typer.Option("--kommune", help="Mottakende kommune, fire siffer.")] = "0301",
    seed: Annotated[int, typer.Option("--seed", help="Samme frø gir de samme filene.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Lag en oppdiktet søknad med vedlegg, til å prøve seg med: soknad.json, vedlegg.json og to PDF-er."""
    rng = Random(seed)  # noqa: S311 - invented data that a seed must give again
    files = make_example(rng, _name(Kommunenummer, kommune, "--kommune"))
    mappe.mkdir(parents=True, exist_ok=True)
    taken = [name for name in files if (mappe / name).exists()]
    if taken:
        raise ConfigurationError(f"{mappe} har allerede {', '.join(taken)}; velg en annen mappe")
    for name, content in files.items():
        (mappe / name).write_bytes(content)
    if as_json:
        print_json({"mappe": str(mappe), "filer": sorted(files)})
    else:
        console.print(f"{', '.join(sorted(files))} ligger i {mappe}", soft_wrap=True)


def make_example(rng: Random, kommunenummer: Kommunenummer) -> dict[str, bytes]:
    """Return an invented søknad with one attachment, by file name. Nobody is the person in it."""
    soknad, lonn = make_pdf(rng, EXAMPLE_PDF_BYTES), make_pdf(rng, EXAMPLE_PDF_BYTES)
    rows = [("lonnslipp", "arbeid", "lonnslipp.pdf", hashlib.sha512(lonn).hexdigest())]
    return {
        SOKNAD_JSON: make_soknad(rng, kommunenummer=kommunenummer),
        VEDLEGG_JSON: make_vedlegg(rows),
        "soknad.pdf": soknad,
        "lonnslipp.pdf": lonn,
    }


@app.command(
    "status",
    epilog="Eksempel: formidler soknad status 3fa85f64-5717-4562-b3fc-2c963f66afa6 --follow",
)
def status(
    *,
    digisos_id: Annotated[str, typer.Argument(metavar="ID", help="Søknadens digisosId.")],
    data: DataOption,
    follow: Annotated[
        bool, typer.Option("--follow", help="Vis hver endring til søknaden er ferdig behandlet.")
    ] = False,
    soknad: Annotated[
        Path | None,
        typer.Option(
            "--soknad", help="soknad.json; token hentes for personen i den.", exists=True, dir_okay=False, readable=True
        ),
    ] = None,
    status_url: Annotated[
        str | None,
        typer.Option("--status-url", envvar="FORMIDLER_STATUS_URL", help="Innsynets adresse, i stedet for --data."),
    ] = None,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Vis hva som har skjedd med en søknad.

    Med --token eller --soknad slik borgeren ser det; ellers slik avsenderens egne maskiner ser det, med nøkkelen i --data.
    """
    soknad_id = _name(DigisosId, digisos_id, "ID")

    async def work() -> None:
        async with _http() as http:
            address = status_url or Layout.load(data).address("kvittering")
            client = await _status_client(address, http, data, soknad=soknad, token=token)
            if not follow:
                _show(await client.get(soknad_id), as_json=as_json)
                return
            seen = 0
            async for view in client.follow(soknad_id):
                seen = _show(view, as_json=as_json, seen=seen)
                if is_final(view):
                    return

    run_calls(work())


async def _status_client(
    address: str, http: httpx.AsyncClient, data: Path, *, soknad: Path | None, token: str | None
) -> StatusClient:
    if token is not None:
        return StatusClient(address, http, token)
    if soknad is not None:
        person = parse_soknad(await asyncio.to_thread(soknad.read_bytes)).person()
        return StatusClient(address, http, await _local_token(http, data, person))
    return SenderStatusClient(address, http, await sender_token(http, Layout.load(data)))


def _show(view: dict[str, Any], *, as_json: bool, seen: int = 0) -> int:
    """Print a status, its history from line ``seen`` on; return how many lines have been shown."""
    history = view["historikk"]
    if as_json:
        print_json(view)
        return len(history)
    if not seen:
        console.print(f"[bold]{view['digisosId']}[/]  kommune {view['kommunenummer'] or '–'}")
    for line in history[seen:]:
        details = "  ".join(str(line[key]) for key in ("kanal", "kode", "utsteder") if line.get(key))
        details += "  [yellow]for sent, endrer ingenting[/]" if line.get("forSent") else ""
        console.print(f"  {line['tidspunkt']}  {line['type']:10} {line['verdi'] or '':20} [dim]{details}[/]")
    console.print(f"  [bold]{view['status'] or 'UKJENT'}[/]  {len(view['kvitteringer'])} kvitteringer")
    return len(history)


def _sort(files: list[Path]) -> tuple[bytes, bytes, list[Dokument]]:
    """Return soknad.json, vedlegg.json and the documents in order."""
    by_name = {path.name.lower(): path for path in files}
    if SOKNAD_JSON not in by_name:
        raise typer.BadParameter(f"{SOKNAD_JSON} mangler blant filene", param_hint="FILER")
    documents = [Dokument.of_path(path) for path in files if path.name.lower() not in {SOKNAD_JSON, VEDLEGG_JSON}]
    documents.sort(key=lambda document: document.filnavn.lower() != "soknad.pdf")  # stable: the rest keeps its order
    if not documents:
        raise typer.BadParameter("ingen dokumenter; soknad.pdf skal være med, først", param_hint="FILER")
    vedlegg = by_name.get(VEDLEGG_JSON)
    vedlegg_json = _make_vedlegg(documents) if vedlegg is None else vedlegg.read_bytes()
    return by_name[SOKNAD_JSON].read_bytes(), vedlegg_json, documents


def _make_vedlegg(documents: list[Dokument]) -> bytes:
    rows = [
        {
            "type": "annet",
            "tilleggsinfo": "annet",
            "status": STATUS_LASTET_OPP,
            "hendelseType": "soknad",
            "filer": [{"filnavn": document.filnavn, "sha512": document.sha512()}],
        }
        for document in documents
        if document.filnavn.lower() not in GENERATED
    ]
    return orjson.dumps({"vedlegg": rows})


def _name(kind: type[N], text: str, option: str) -> N:
    try:
        return kind(text)
    except InvalidNameError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


async def _local_token(http: httpx.AsyncClient, data: Path, person: Fodselsnummer) -> str:
    """Return a citizen's token from the issuer of a running ``formidler up``.

    Raises:
        ConfigurationError: There is no set-up there, or its issuer does not issue such tokens.
    """
    answer = await http.post(f"{Layout.load(data).issuer_url}/utvikling/borgertoken", json={"pid": str(person)})
    if not answer.is_success:
        raise ConfigurationError("utstederen gir ikke ut token her; oppgi --token")
    return str(answer.json()["access_token"])


@asynccontextmanager
async def _http() -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=httpx.Timeout(TIMEOUT_S, connect=10.0)) as http:
        yield http
