"""``formidler utskrift``: the letters that wait to be printed. Works on the folder alone, on the printer's machine.

Exit codes: 0 done · 1 no such letter set, or a set that cannot be read · 2 wrong usage.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from broker.cli.options import DataOption, JsonOption
from broker.cli.output import console, print_json, table
from broker.files import sync_folder
from broker.supervisor.layout import Layout
from producers.utskrift import DONE, MANIFEST, QUEUE
from schemas.errors import ChannelUnavailableError, ConfigurationError, InvalidNameError
from schemas.names import MeldingId

app = typer.Typer(help="Utskrift: brevene som venter på å bli skrevet ut.", no_args_is_help=True, add_completion=False)

FolderOption = Annotated[
    Path | None,
    typer.Option("--mappe", envvar="FORMIDLER_PRODUCERS_UTSKRIFT", help="Utskriftsmappen, i stedet for --data."),
]


@dataclass(frozen=True, slots=True)
class _Set:
    """A letter set in the queue, as its ``brevsett.json`` says; nothing of what is in it."""

    melding_id: str
    kommunenummer: str
    nodhjelp: bool
    laget: str
    sider: int | None
    filer: int
    skadet: int
    mappe: str

    def document(self) -> dict[str, Any]:
        return {
            "meldingId": self.melding_id,
            "kommunenummer": self.kommunenummer,
            "nodhjelp": self.nodhjelp,
            "laget": self.laget,
            "filer": self.filer,
            "sider": self.sider,
            "skadet": self.skadet,
            "mappe": self.mappe,
        }


@app.command("list", epilog="Eksempel: formidler utskrift list --json")
def list_sets(*, data: DataOption, mappe: FolderOption = None, as_json: JsonOption = False) -> None:
    """List brevsettene i køen: nødhjelp først, så de eldste."""
    folder = _folder(data, mappe)
    found = sorted(
        (_read(path) for path in (folder / QUEUE).glob(f"*/{MANIFEST}")), key=lambda one: (not one.nodhjelp, one.laget)
    )
    if as_json:
        print_json([one.document() for one in found])
        return
    rows = [
        (
            "[bold red]NØDHJELP[/]" if one.nodhjelp else "",
            escape(one.kommunenummer),
            escape(one.laget),
            f"{one.sider if one.sider is not None else '?'} sider, {one.filer} filer",
            f"{one.skadet} må ses på" if one.skadet else "",
            escape(one.melding_id),
        )
        for one in found
    ]
    if rows:
        table("", "Kommune", "Laget", "Omfang", "Merknad", "meldingId", rows=rows)
    console.print(f"{len(rows)} brevsett i {folder / QUEUE}", soft_wrap=True)


@app.command("ferdig", epilog="Eksempel: formidler utskrift ferdig 9b2c0d7e-1f4a-4c3b-8d6e-5a7f8091a2b3")
def finish(
    *,
    melding_id: Annotated[str, typer.Argument(metavar="ID", help="Brevsettets meldingId, som er navnet på mappen.")],
    data: DataOption,
    mappe: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Si at et brevsett er skrevet ut og overlevert: det flyttes fra ko/ til ferdig/.

    Da vises søknaden som sendt på papir, og avsenderens egen kopi destrueres. Det kan ikke gjøres om.
    """
    try:
        number = MeldingId(melding_id)
    except InvalidNameError as error:
        raise typer.BadParameter(str(error), param_hint="ID") from None
    folder = _folder(data, mappe)
    source, target = folder / QUEUE / number, folder / DONE / number
    if target.exists():
        raise ConfigurationError(f"{number} er meldt ferdig før")
    if not source.is_dir():
        raise ConfigurationError(f"{number} er ikke i køen; se `formidler utskrift list`")
    _read(source / MANIFEST)
    try:
        source.rename(target)
        sync_folder(folder / DONE)
        sync_folder(folder / QUEUE)
    except OSError as error:
        raise ChannelUnavailableError(f"brevsettet kan ikke flyttes ({type(error).__name__})") from error
    if as_json:
        print_json({"meldingId": number, "ferdig": True, "tidspunkt": datetime.now(UTC)})
    else:
        console.print(f"{number} er meldt skrevet ut og overlevert", soft_wrap=True)


def _folder(data: Path, mappe: Path | None) -> Path:
    folder = mappe or Layout.load(data).utskrift
    if not (folder / QUEUE).is_dir():
        raise ConfigurationError(f"{folder} er ingen utskriftsmappe; producers lager den når den starter")
    return folder


def _read(path: Path) -> _Set:
    try:
        document = json.loads(path.read_bytes())
        pages = [one["sider"] for one in document["filer"]]
        return _Set(
            melding_id=str(document["meldingId"]),
            kommunenummer=str(document["kommunenummer"]),
            nodhjelp=document["hastegrad"] == "NODHJELP",
            laget=str(document["laget"]),
            sider=None if None in pages else sum(pages),
            filer=len(pages),
            skadet=sum(one["merknad"] is not None for one in document["filer"]),
            mappe=str(path.parent),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} kan ikke leses som brevsett ({type(error).__name__})") from None
