"""``formidler kvittering``: what kvitteringer prove, for whoever has only the files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

import typer
from rich.markup import escape

from broker.cli.options import JsonOption
from broker.cli.output import EXIT_OK, EXIT_REFUSED, console, print_json
from broker.clock import timestamp
from crypto.certificates import load_certificates, parse_certificates
from kvittering.verification import Check, Finding, Report, verify_chain
from schemas.errors import DecodeError, KeyFileError
from schemas.names import Sha256

MAX_INPUT_BYTES = 16 * 1024 * 1024
_JWS_DOTS = 2

LOOSE = "oppgitt"
"""What the chain of loose kvitteringer is called."""


class _Kjede(NamedTuple):
    """What is verified together: where it came from, its JWSs, and the certificates that came along."""

    name: str
    tokens: list[str]
    enclosed: list[str]


app = typer.Typer(no_args_is_help=True, help="Kvitteringer: kontroller hva de beviser.")


@app.callback()
def root() -> None:
    """Kvitteringer: kontroller hva de beviser."""


@app.command(
    epilog="Eksempel: `formidler kvittering verify bunt.json --rot ca.pem --pakke soknad.cms` — "
    "bunten hentes fra GET /innsyn/v1/soknader/ID/kvitteringer."
)
def verify(
    kvitteringer: Annotated[
        list[str],
        typer.Argument(help="Bunter (JSON), filer med kvitteringer (kompakte JWS), eller kvitteringene selv."),
    ],
    *,
    sertifikat: Annotated[
        list[Path] | None,
        typer.Option(help="Sertifikat (PEM) som kan ha signert. Kan gjentas.", exists=True, dir_okay=False),
    ] = None,
    rot: Annotated[
        list[Path] | None,
        typer.Option(
            help="Rotsertifikat (PEM) som signaturens sertifikat må kjede til. Kan gjentas.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    pakke: Annotated[
        Path | None, typer.Option(help="Den forseglede pakken som det er kvittert for.", exists=True, dir_okay=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Kontroller kjeder av kvitteringer uten nett: signaturer, lenker, én utsteder, én søknad.

    Hver bunt er sin egen kjede; alt annet som oppgis er til sammen én. Sertifikatene i en bunt brukes bare med --rot, for en
    bunt kan ikke gå god for seg selv. Avslutter med 0 bare hvis alt holder.
    """
    if not sertifikat and not rot:
        raise typer.BadParameter("oppgi --sertifikat eller --rot: en bunt kan ikke gå god for seg selv")
    given = [one for path in sertifikat or () for one in load_certificates(path)]
    roots = [one for path in rot or () for one in load_certificates(path)]
    package = None if pakke is None else _digest(pakke)
    reports = {
        name: verify_chain(
            tokens, given or [one for pem in enclosed for one in _enclosed(pem)], roots=roots, package=package
        )
        for name, tokens, enclosed in _read_all(kvitteringer)
    }
    if as_json:
        print_json(to_json(reports))
    else:
        for name, report in reports.items():
            _show(name, report)
    raise typer.Exit(EXIT_OK if all(report.holder for report in reports.values()) else EXIT_REFUSED)


def _read_all(arguments: list[str]) -> list[_Kjede]:
    """Return the chains of everything that was named: one for each bundle, and one of all that is loose."""
    bundles: list[_Kjede] = []
    loose: list[str] = []
    for argument in arguments:
        if argument.count(".") == _JWS_DOTS and argument.startswith("ey"):
            loose.append(argument)
            continue
        text = _read_text(Path(argument))
        if text.lstrip().startswith("{"):
            bundles.append(_Kjede(argument, *_read_bundle(text, argument)))
        else:
            loose += text.split()
    found = [*bundles, *([_Kjede(LOOSE, loose, [])] if loose else [])]
    if not any(kjede.tokens for kjede in found):
        raise DecodeError("det er ingen kvitteringer i det som ble oppgitt")
    return found


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_INPUT_BYTES:
            raise DecodeError(f"{path}: filen er større enn {MAX_INPUT_BYTES} byte")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path}: kan ikke leses ({type(error).__name__})") from error


def _read_bundle(text: str, name: str) -> tuple[list[str], list[str]]:
    try:
        document = json.loads(text)
    except ValueError:
        raise DecodeError(f"{name}: er ikke gyldig JSON") from None
    return _texts(document, "kvitteringer", name), _texts(document, "sertifikater", name)


def _texts(document: Any, field: str, name: str) -> list[str]:
    values = document.get(field, [])
    if not isinstance(values, list) or not all(isinstance(one, str) for one in cast("list[object]", values)):
        raise DecodeError(f"{name}: {field} skal være en liste av tekster")
    return cast("list[str]", values)


def _enclosed(pem: str) -> list[Any]:
    try:
        return list(parse_certificates(pem.encode()))
    except ValueError:
        raise DecodeError("bunten har et sertifikat som ikke kan leses") from None


def _digest(path: Path) -> Sha256:
    with path.open("rb") as file:
        return Sha256(hashlib.file_digest(file, "sha256").hexdigest())


def to_json(reports: Mapping[str, Report]) -> dict[str, Any]:
    """Return the reports for machines.

    Returns:
        ``{holder, kjeder: [{navn, holder, kvitteringer: [{…, kontroller: [{navn, holder, detalj}]}], felles}]}``.
    """
    return {
        "holder": all(report.holder for report in reports.values()),
        "kjeder": [
            {
                "navn": name,
                "holder": report.holder,
                "kvitteringer": [_finding_json(one) for one in report.funn],
                "felles": [_check_json(one) for one in report.felles],
            }
            for name, report in reports.items()
        ],
    }


def _finding_json(found: Finding) -> dict[str, Any]:
    checks = {"holder": found.holder, "kontroller": [_check_json(one) for one in found.kontroller]}
    if found.ledd is None:
        return checks
    claims: dict[str, Any] = json.loads(found.ledd.claims.to_json())
    return claims | {"sertifikat": found.ledd.nokkel_id} | checks


def _check_json(check: Check) -> dict[str, Any]:
    return {"navn": check.navn, "holder": check.holder, "detalj": check.detalj}


def _show(name: str, report: Report) -> None:
    console.print(f"[dim]{escape(name)}[/]", soft_wrap=True)
    for found in report.funn:
        claims = found.ledd.claims if found.ledd else None
        title = (
            f"nr {claims.nr} {claims.status} {timestamp(claims.tidspunkt)} {claims.utsteder}" if claims else "uleselig"
        )
        console.print(f"[bold]{title}[/]", soft_wrap=True)
        for check in found.kontroller:
            _show_check(check)
    for check in report.felles:
        _show_check(check)
    console.print("[green]alt holder[/]" if report.holder else "[red]ikke alt holder[/]")


def _show_check(check: Check) -> None:
    mark = "[green]✓[/]" if check.holder else "[red]✗[/]"
    console.print(f"  {mark} {check.navn}" + (f": {check.detalj}" if check.detalj else ""), soft_wrap=True)
