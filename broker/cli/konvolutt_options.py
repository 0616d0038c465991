"""The arguments and options of ``formidler konvolutt``, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_FORSENDELSE = "Til forsendelse.json"

FilesArgument = Annotated[
    list[Path], typer.Argument(metavar="FILER", help="Filene; en sti blir til det siste leddet.", show_default=False)
]
InArgument = Annotated[
    Path, typer.Argument(metavar="INN", help="Den forseglede filen; - er stdin.", show_default=False)
]

RecipientOption = Annotated[
    Path,
    typer.Option("--mottaker", metavar="SERT.pem", help="Mottakerens krypteringssertifikat.", show_default=False),
]
SenderOption = Annotated[
    Path | None,
    typer.Option("--avsender", metavar="SERT.pem", help="Signeringssertifikatet; kjeden kan stå i samme fil."),
]
SenderKeyOption = Annotated[
    Path | None, typer.Option("--nokkel", metavar="NØKKEL.pem", help="Avsenderens private nøkkel, RSA eller P-256.")
]
OutOption = Annotated[Path, typer.Option("--ut", metavar="UT", help="Den forseglede filen.", show_default=False)]
BareOutOption = Annotated[
    Path | None, typer.Option("--ut", metavar="UT", help="Med --bare: filen som innholdet skrives til.")
]
FolderOption = Annotated[
    Path | None, typer.Option("--mappe", metavar="MAPPE", help="Hvor filene legges: tom, eller finnes ikke.")
]
DigisosIdOption = Annotated[str | None, typer.Option("--digisos-id", metavar="UUID", help=f"{_FORSENDELSE}.")]
MeldingIdOption = Annotated[str | None, typer.Option("--melding-id", metavar="UUID", help=f"{_FORSENDELSE}.")]
KommuneOption = Annotated[
    str | None, typer.Option("--kommune", metavar="NNNN", help=f"{_FORSENDELSE}: kommunenummeret.")
]
TypeOption = Annotated[str | None, typer.Option("--type", metavar="TYPE", help=f"{_FORSENDELSE}, for eksempel SOKNAD.")]
OwnOption = Annotated[
    bool,
    typer.Option("--krev-forsendelse", help="Avvis pakker uten forsendelse.json, slik konnektorene våre gjør."),
]
PasswordOption = Annotated[
    Path | None,
    typer.Option(
        "--passord-fil",
        metavar="FIL",
        help="Fil med passordet til en kryptert nøkkel. Ellers FORMIDLER_NOKKEL_PASSORD, ellers spør vi i terminalen.",
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overskriv", help="Erstatt resultatet hvis det finnes.")]
BareOption = Annotated[
    bool, typer.Option("--bare", help="CMS-laget alene: én fil inn, én fil ut; - er stdin og stdout.")
]
KeysOption = Annotated[
    list[Path] | None,
    typer.Option("--nokkel", metavar="NØKKEL.pem", help="Mottakerens private RSA-nøkkel. Flere prøves i rekkefølge."),
]
CertificatesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--sertifikat",
        metavar="SERT.pem",
        help="Sertifikatet til en nøkkel: da prøves nøkkelen bare på sin egen mottaker. Kan utelates.",
    ),
]
RootsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--rot",
        metavar="CA.pem",
        help="Hvem som får signere: en CA, eller avsenderens eget sertifikat (festet). Kan gjentas.",
    ),
]
Sha1Option = Annotated[
    list[str] | None,
    typer.Option(
        "--tillat-sha1-fra",
        metavar="ORGNR",
        help="Godta SHA-1-signatur fra denne avsenderen (KS' Java-klient). Kan gjentas.",
    ),
]
