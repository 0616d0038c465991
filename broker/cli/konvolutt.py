"""``formidler konvolutt``: seal, open and look into envelopes, without Kafka. What a vendor debugs with.

The commands check how they were called and show what came of it; ``konvolutt_seal``, ``konvolutt_open`` and
``konvolutt_inspect`` do the work. See ``docs/konvolutt.md``.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import typer

from broker.cli.konvolutt_files import STANDARD, answering
from broker.cli.konvolutt_inspect import inspect as inspect_file
from broker.cli.konvolutt_keys import (
    check_some_key,
    excludes,
    needs,
    password_source,
    recipient,
    rings,
    signer,
    trust,
)
from broker.cli.konvolutt_open import open_bare, open_files
from broker.cli.konvolutt_options import (
    BareOption,
    BareOutOption,
    CertificatesOption,
    DigisosIdOption,
    FilesArgument,
    FolderOption,
    InArgument,
    KeysOption,
    KommuneOption,
    MeldingIdOption,
    OutOption,
    OverwriteOption,
    OwnOption,
    PasswordOption,
    RecipientOption,
    RootsOption,
    SenderKeyOption,
    SenderOption,
    Sha1Option,
    TypeOption,
)
from broker.cli.konvolutt_seal import Result, seal_bare, seal_files
from broker.cli.konvolutt_show import show_inspected, show_opened, show_sealed
from broker.cli.options import JsonOption
from broker.cli.output import EXIT_REFUSED
from broker.clock import system_clock
from schemas.forsendelse import Forsendelse
from schemas.names import DigisosId, Kommunenummer, MeldingId

_BARE: Final = "gjelder ikke sammen med --bare, som er CMS alene"
_PACKAGE: Final = "når det ikke er --bare"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Konvolutter: pakk, signer og forsegl filer; åpne, kontroller og feilsøk. Trenger ingen Kafka.",
)


@app.command(
    epilog="Eksempel: formidler konvolutt seal --mottaker kommune.pem --avsender oss.pem --nokkel oss.key "
    "--ut pakke.cms soknad.json soknad.pdf"
)
def seal(
    files: FilesArgument,
    *,
    mottaker: RecipientOption,
    ut: OutOption,
    avsender: SenderOption = None,
    nokkel: SenderKeyOption = None,
    passord_fil: PasswordOption = None,
    digisos_id: DigisosIdOption = None,
    melding_id: MeldingIdOption = None,
    kommune: KommuneOption = None,
    type_: TypeOption = None,
    bare: BareOption = False,
    overskriv: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Pakk filer i ASiC-E, signer dem og forsegl dem for én mottaker.

    Med --digisos-id, --melding-id, --kommune og --type får pakken en signert forsendelse.json. Uten dem blir den som fra en
    fremmed avsender. Avslutter med 0 når UT er skrevet, 1 når det ble avvist, 2 ved feil bruk.
    """
    identity = {"--digisos-id": digisos_id, "--melding-id": melding_id, "--kommune": kommune, "--type": type_}
    now = system_clock()
    _check_seal(files, ut, identity, bare=bare, signing={"--avsender": avsender, "--nokkel": nokkel}, as_json=as_json)
    with answering(as_json=as_json):
        result = Result(ut, overskriv)
        certificate = recipient(mottaker, now)
        if avsender is None or nokkel is None:
            show_sealed(seal_bare(files[0], recipient=certificate, result=result), as_json=as_json)
            return
        document = seal_files(
            files,
            recipient=certificate,
            signer=signer(avsender, nokkel, password_source(passord_fil), now),
            forsendelse=_forsendelse(identity, now),
            result=result,
            now=now,
        )
        show_sealed(document, as_json=as_json)


def _check_seal(
    files: list[Path],
    ut: Path,
    identity: dict[str, str | None],
    *,
    bare: bool,
    signing: dict[str, Path | None],
    as_json: bool,
) -> None:
    if bare:
        for option, value in (identity | signing).items():
            excludes(value, option, _BARE)
        if len(files) != 1:
            raise typer.BadParameter("--bare tar én fil", param_hint="FILER")
        excludes(as_json and ut == STANDARD, "--json", "kan ikke skrives til stdout sammen med --ut -")
        return
    for option, value in signing.items():
        needs(value, option, _PACKAGE)
    excludes(STANDARD in (ut, *files), "-", "virker bare med --bare")
    missing = [option for option, value in identity.items() if value is None]
    if 0 < len(missing) < len(identity):
        raise typer.BadParameter(f"forsendelse.json trenger alle fire; det mangler {', '.join(missing)}")


def _forsendelse(identity: dict[str, str | None], now: datetime) -> Forsendelse | None:
    digisos_id, melding_id, kommune, type_ = identity.values()
    if digisos_id is None or melding_id is None or kommune is None or type_ is None:
        return None
    return Forsendelse(
        digisos_id=DigisosId(digisos_id),
        melding_id=MeldingId(melding_id),
        kommunenummer=Kommunenummer(kommune),
        type=type_,
        opprettet=now,
    )


@app.command(
    "open",
    epilog="Eksempel: formidler konvolutt open --nokkel kommune.key --rot ca.pem --mappe ut pakke.cms",
)
def open_command(
    file: InArgument,
    *,
    nokkel: KeysOption = None,
    sertifikat: CertificatesOption = None,
    rot: RootsOption = None,
    mappe: FolderOption = None,
    ut: BareOutOption = None,
    passord_fil: PasswordOption = None,
    tillat_sha1_fra: Sha1Option = None,
    krev_forsendelse: OwnOption = False,
    bare: BareOption = False,
    overskriv: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Åpne en konvolutt, kontroller alt i den, og legg filene i en mappe.

    Ingenting skrives før hver digest, signaturen og avsenderen er kontrollert; ved feil blir ingenting liggende.
    Avslutter med 0 når filene er skrevet, 1 når pakken eller nøkkelen ble avvist, 2 ved feil bruk.
    """
    needs(nokkel, "--nokkel", "for å åpne")
    roots = [part for path in rot or [] for part in ("--rot", str(path))]
    look = shlex.join(
        ["formidler", "konvolutt", "inspect", str(file), "--nokkel", *map(str, (nokkel or [])[:1]), *roots]
    )
    only_package = {
        "--mappe": mappe,
        "--rot": rot,
        "--tillat-sha1-fra": tillat_sha1_fra,
        "--krev-forsendelse": krev_forsendelse,
    }
    _check_open(only_package, {"--ut": ut, "--overskriv": overskriv}, bare=bare)
    excludes(as_json and ut == STANDARD, "--json", "kan ikke skrives til stdout sammen med --ut -")
    with answering(as_json=as_json, hint=f"Se hva som er galt: {look}"):
        check_some_key(nokkel or [])
        keys = rings(nokkel or [], sertifikat or [], password_source(passord_fil))
        if mappe is not None:
            document = open_files(
                file,
                mappe,
                rings=keys,
                trust=trust(rot or [], tillat_sha1_fra or []),
                now=system_clock(),
                require_forsendelse=krev_forsendelse,
            )
        else:
            document = open_bare(file, ut or STANDARD, rings=keys, overwrite=overskriv)
        show_opened(document, as_json=as_json)


def _check_open(only_package: Mapping[str, object], only_bare: Mapping[str, object], *, bare: bool) -> None:
    if bare:
        for option, value in only_package.items():
            excludes(value, option, _BARE)
        needs(only_bare["--ut"], "--ut", "med --bare")
        return
    for option in ("--mappe", "--rot"):
        needs(only_package[option], option, _PACKAGE)
    for option, value in only_bare.items():
        excludes(value, option, "gjelder bare med --bare")


@app.command(
    epilog="Eksempel: formidler konvolutt inspect pakke.cms --nokkel kommune.key --rot ca.pem",
)
def inspect(
    file: InArgument,
    *,
    nokkel: KeysOption = None,
    sertifikat: CertificatesOption = None,
    rot: RootsOption = None,
    passord_fil: PasswordOption = None,
    tillat_sha1_fra: Sha1Option = None,
    as_json: JsonOption = False,
) -> None:
    """Vis hva en konvolutt er, hvem den er til, og hva som er galt med den.

    Uten --nokkel vises CMS-laget. Med --nokkel vises også filene, hvem som har signert, og hvilken kontroll som feiler:
    det er for nøkkelens eier, og skal aldri sendes tilbake til avsenderen. Ingenting skrives til disk i klartekst.
    Avslutter med 0 når ingenting er galt, 1 når noe er det, 2 ved feil bruk.
    """
    if not nokkel:
        for option, value in (("--sertifikat", sertifikat), ("--rot", rot), ("--tillat-sha1-fra", tillat_sha1_fra)):
            excludes(value, option, "trenger --nokkel")
    with answering(as_json=as_json):
        check_some_key(nokkel or [])
        keys = rings(nokkel or [], sertifikat or [], password_source(passord_fil)) if nokkel else []
        whom = trust(rot, tillat_sha1_fra or []) if rot else None
        document = inspect_file(file, rings=keys, trust=whom, now=system_clock())
        show_inspected(document, as_json=as_json)
    if not document["ok"]:
        raise typer.Exit(EXIT_REFUSED)
