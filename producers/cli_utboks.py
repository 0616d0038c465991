"""``formidler utboks``: how the sender's outbox stands, and putting right what it refuses to guess about.

Asks the running intake, as the sender's own machine: address and token come from a data folder of ``formidler up``, or from
options.

Exit codes: 0 done · 1 refused, or something is still wrong · 2 wrong usage · 3 the intake does not answer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import httpx
import orjson
import typer
from rich.markup import escape

from broker.cli.calling import run_calls, sender_token
from broker.cli.options import DataOption, JsonOption
from broker.cli.output import EXIT_REFUSED, complain, console, print_json
from broker.supervisor.layout import Layout
from broker.topic_identity import Verdict
from producers.drift_client import document_of
from producers.drift_routes import PREFIX
from producers.http_client import refused
from schemas.errors import RefusedError

T = TypeVar("T")

app = typer.Typer(
    help="Utboksen: hva som venter, og hva som må ordnes før det går videre.",
    no_args_is_help=True,
    add_completion=False,
)

UrlOption = Annotated[
    str | None, typer.Option("--intake-url", help="Mottakets adresse. Uten: fra datamappen til `formidler up`.")
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="FORMIDLER_TOKEN",
        help="Maskinens access_token. Uten: hentes fra utstederen i `formidler up`.",
    ),
]
ReasonOption = Annotated[
    str | None, typer.Option("--begrunnelse", "-b", help="Hvorfor, for revisjonen. Uten personopplysninger.")
]


@app.command("vis", epilog="Eksempel: formidler utboks vis --json")
def show(data: DataOption, url: UrlOption = None, token: TokenOption = None, as_json: JsonOption = False) -> None:  # noqa: FBT002 - a flag
    """Vis hva som venter i utboksen, og hva som holder noe tilbake."""

    async def ask() -> dict[str, Any]:
        async with _intake(data, url, token) as http:
            return document_of(await http.get(PREFIX))

    found = _run(ask())
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found["mangler"]:
        raise typer.Exit(EXIT_REFUSED)


@app.command("gjenopprett", epilog="Eksempel: formidler utboks gjenopprett")
def restore(
    *,
    data: DataOption,
    begrunnelse: ReasonOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Les tilbake fra Kafka det en gjenopprettet database mangler: referanser, id-er, eier og kontrollsum.

    Kan kjøres på nytt; det som er der fra før, endres ikke.
    """

    async def read() -> dict[str, Any]:
        last: dict[str, Any] = {}
        async with (
            _intake(data, url, token) as http,
            http.stream("POST", f"{PREFIX}/gjenopprett", json={"begrunnelse": begrunnelse}) as answer,
        ):
            if not answer.is_success:
                await answer.aread()
                raise refused(answer)
            async for line in answer.aiter_lines():
                last = orjson.loads(line)
                if not as_json and not last.get("done"):
                    console.print(f"  lest {last.get('read', 0)}, gjenopprettet {last.get('restored', 0)}", end="\r")
        return last

    last = _run(read())
    if as_json:
        print_json(last)
    if not last.get("done"):
        complain(last.get("feil") or "lesingen ble avbrutt; kjør kommandoen på nytt")
        raise typer.Exit(EXIT_REFUSED)
    if not as_json:
        console.print(
            f"Lest {last['read']} mottak: {last['restored']} referanser gjenopprettet, {last['packages']} pakker funnet igjen,"
            f" {last['conflicts']} i konflikt (databasens egen står)."
        )


@app.command("godta-emne", epilog="Eksempel: formidler utboks godta-emne fiks.0301.soknad.v1")
def accept(
    *,
    data: DataOption,
    emne: Annotated[str | None, typer.Argument(help="Emnets fulle navn.")] = None,
    alle: Annotated[bool, typer.Option("--alle", help="Alle som er laget på nytt, som når Kafka gikk tapt.")] = False,
    begrunnelse: ReasonOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Godta at et Kafka-emne er laget på nytt, så det som venter på det, kan sendes."""
    if (emne is None) is not alle:
        raise typer.BadParameter("oppgi ett emne, eller --alle", param_hint="EMNE")

    async def ask() -> list[dict[str, Any]]:
        async with _intake(data, url, token) as http:
            topics = [emne] if emne else _recreated(document_of(await http.get(PREFIX)))
            body = {"begrunnelse": begrunnelse}
            return [document_of(await http.post(f"{PREFIX}/emner/{topic}/godta", json=body)) for topic in topics]

    found = _run(ask())
    if as_json:
        print_json(found if alle else found[0])
    else:
        for one in found:
            console.print(f"{escape(one['emne'])}: {escape(one['dom'])}")
    if any(one["dom"] not in {"nytt", "samme"} for one in found):
        raise typer.Exit(EXIT_REFUSED)


def _recreated(found: dict[str, Any]) -> list[str]:
    return [topic["emne"] for topic in found["emner"] if topic["dom"] == Verdict.RECREATED.value]


def _print(found: dict[str, Any]) -> None:
    since = f", den eldste siden {found['eldste']}" if found["eldste"] else ""
    console.print(f"{found['venter']} meldinger venter{since}")
    for name, text in found["mangler"].items():
        console.print(f"  [yellow]{escape(name)}[/]  {escape(text)}")
    for topic in found["emner"]:
        if topic["tiltak"]:
            console.print(f"  [red]{escape(topic['emne'])}[/]  {escape(topic['tiltak'])}")


@asynccontextmanager
async def _intake(data: Path, url: str | None, token: str | None) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=httpx.Timeout(10.0, read=None)) as http:
        if url is None or token is None:
            layout = Layout.load(data)
            url = url or layout.address("producers")
            token = token or await sender_token(http, layout)
        http.base_url = httpx.URL(url)
        http.headers["Authorization"] = f"Bearer {token}"
        yield http


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return run_calls(work)
    except RefusedError as error:
        complain(error.message)
        raise typer.Exit(EXIT_REFUSED) from None
