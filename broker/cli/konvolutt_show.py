"""What ``formidler konvolutt`` answers, for people; ``--json`` prints the same documents as they are.

Names, types and subjects come from whoever made the package, so they pass through ``plain`` on their way to a terminal.
"""

from __future__ import annotations

from typing import Any

from broker.cli.konvolutt_files import STANDARD, plain
from broker.cli.output import console, errors, print_json, table


def show_sealed(document: dict[str, Any], *, as_json: bool) -> None:
    """Show what ``konvolutt_seal`` answered."""
    if as_json:
        print_json(document)
        return
    if document["ut"] == str(STANDARD):
        return
    console.print(f"[bold]{plain(document['ut'])}[/]  {document['storrelse']} byte", soft_wrap=True)
    console.print(
        f"  sha256     {document['sha256']}\n  forseglet for {plain(document['mottaker']['subjekt'])}", soft_wrap=True
    )
    if "filer" in document:
        console.print(f"  signert av {plain(document['avsender']['subjekt'])}", soft_wrap=True)
        _show_files(document["filer"])


def show_opened(document: dict[str, Any], *, as_json: bool) -> None:
    """Show what ``konvolutt_open`` answered."""
    if as_json:
        print_json(document)
        return
    for warning in document["advarsler"]:
        errors.print(f"[yellow]{plain(warning)}[/]", soft_wrap=True)
    if "mappe" not in document:
        if document["ut"] != str(STANDARD):
            console.print(f"[bold]{plain(document['ut'])}[/]  {document['storrelse']} byte", soft_wrap=True)
        return
    sender = document["avsender"]
    console.print(f"[bold]{plain(document['mappe'])}[/]  åpnet og kontrollert", soft_wrap=True)
    console.print(
        f"  signert av {plain(sender['subjekt'])} ({sender['organisasjonsnummer'] or 'uten orgnr'})", soft_wrap=True
    )
    if document["forsendelse"] is None:
        console.print(
            "  merk: pakken har ingen forsendelse.json, så ingenting i den sier hvor den hører til", soft_wrap=True
        )
    _show_forsendelse(document["forsendelse"])
    _show_files(document["filer"])


def show_inspected(document: dict[str, Any], *, as_json: bool) -> None:
    """Show what ``konvolutt_inspect`` answered."""
    if as_json:
        print_json(document)
        return
    console.print(f"[bold]{plain(document['fil'])}[/]  {document['storrelse']} byte", soft_wrap=True)
    console.print(f"  sha256     {document['sha256']}", soft_wrap=True)
    if envelope := document["konvolutt"]:
        cipher = f", {plain(envelope['innholdskryptering'])}" if envelope["innholdskryptering"] else ""
        console.print(f"  konvolutt  CMS {plain(envelope['type'])}, {envelope['koding']}{cipher}", soft_wrap=True)
        for recipient_ in envelope["mottakere"]:
            _show_recipient(recipient_)
    if package := document["pakke"]:
        for each in package["underskrivere"]:
            _show_signer(each)
        _show_forsendelse(package["forsendelse"])
        _show_files(package["filer"])
    for finding in document["funn"]:
        mark = "[red]feil[/]" if finding["feil"] else "[yellow]merk[/]"
        console.print(f"  {mark}  {finding['hvor']}: {plain(finding['tekst'])}", soft_wrap=True)
    if document["ok"]:
        console.print("[green]Ingenting galt funnet.[/]")


def _show_recipient(document: dict[str, Any]) -> None:
    name = document["utsteder"] or f"nøkkelidentifikator {document['nokkelIdentifikator']}"
    serial = f" serienummer {document['serienummer']}" if document["serienummer"] else ""
    console.print(f"  mottaker   {plain(name)}{serial}", soft_wrap=True)
    console.print(f"             {plain(document['nokkeltransport'])}, {document['nokkelBit']} bit", soft_wrap=True)
    for key in document["nokler"]:
        verdict = {True: "passer", False: "passer ikke", None: "passer kanskje"}[key["passer"]]
        console.print(f"             {plain(key['fil'])}: {verdict}", soft_wrap=True)


def _show_signer(document: dict[str, Any]) -> None:
    if certificate := document["sertifikat"]:
        until = certificate["gyldigTil"][:10]
        console.print(f"  signert av {plain(certificate['subjekt'])}", soft_wrap=True)
        console.print(
            f"             orgnr {certificate['organisasjonsnummer'] or '–'}, {certificate['nokkel']}, "
            f"gyldig {certificate['gyldigFra'][:10]} til {until}",
            soft_wrap=True,
        )
    console.print(
        f"             digest {plain(document['digest'])}, tidspunkt {document['tidspunkt'] or '–'}", soft_wrap=True
    )


def _show_forsendelse(document: dict[str, Any] | None) -> None:
    for name, value in (document or {}).items():
        console.print(f"  {plain(name):22} {plain(value)}", soft_wrap=True)


def _show_files(files: list[dict[str, Any]]) -> None:
    rows = [
        (
            plain(file["navn"]),
            plain(file["mimetype"] or "–"),
            "–" if file["storrelse"] is None else str(file["storrelse"]),
            f"{file['sha256'][:16]}…" if file["sha256"] else "–",
        )
        for file in files
    ]
    if rows:
        table("Fil", "Type", "Byte", "SHA-256", rows=rows)
