"""``soknad.json``: the søknad itself, as NAV's portal writes it and the kommune's fagsystem reads it.

Only what routing and checks need is lifted out by the methods of ``SoknadJson``; the rest is checked for form and goes
through. What is read where stands in ``schemas.documents``; økonomi is in ``schemas.okonomi``, work, family and home in
``schemas.livssituasjon``.

Source: NAV's format soknad.json 1.0.11 (JSON Schema draft-06, UTF-8).
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeVar

from schemas.documents import Document, ElleveSiffer, Telefon, Tidspunkt, Versjon, parse_document
from schemas.errors import InvalidDocumentError, InvalidNameError
from schemas.livssituasjon import (
    Arbeid,
    Bosituasjon,
    Familie,
    JaNeiSvar,
    Navn,
    Situasjonendring,
    TekstSvar,
    Utdanning,
)
from schemas.names import Enhetsnummer, Fodselsnummer, Kommunenummer, Name
from schemas.okonomi import Okonomi

FILENAME: Final = "soknad.json"

KILDE_BRUKER: Final = "bruker"
KILDE_SYSTEM: Final = "system"
KILDE_UTDATERT: Final = "utdatert"
"""From a former lookup; must not be shown to the caseworker."""

SOKNADSTYPE_KORT: Final = "kort"
SOKNADSTYPE_STANDARD: Final = "standard"

NODHJELP: Final = "NODHJELP"
VANLIG: Final = "VANLIG"

_NODHJELP_BLOCK: Final = re.compile(r"^[ \t]*Nødhjelp:", re.MULTILINE)

N = TypeVar("N", bound=Name)


class PersonIdentifikator(Document):
    """The citizen's fødselsnummer or D-nummer: eleven digits. The control digits are not checked here."""

    kilde: str
    verdi: ElleveSiffer


class Sokernavn(Navn):
    """The citizen's name, from the register."""

    kilde: str


class Kontonummer(Document):
    """Where money may be paid."""

    kilde: str
    har_ikke_konto: bool | None = None
    verdi: ElleveSiffer | None = None


class Telefonnummer(Document):
    """A telephone number in E.164 form."""

    kilde: str
    verdi: Telefon


class Adresse(Document):
    """An address; ``type`` says which of the other fields are in use.

    ``gateadresse``: landkode to husbokstav. ``matrikkeladresse``: gaardsnummer to undernummer. ``postboks``: postboks.
    ``ustrukturert``: adresse. A bydel is not in the format; it reaches the receiver only as ``mottaker.enhetsnummer``.
    """

    kilde: str
    type: str
    adresse_valg: str | None = None
    landkode: str | None = None
    kommunenummer: str | None = None
    adresselinjer: tuple[str, ...] | None = None
    bolignummer: str | None = None
    postnummer: str | None = None
    poststed: str | None = None
    gatenavn: str | None = None
    husnummer: str | None = None
    husbokstav: str | None = None
    gaardsnummer: str | None = None
    bruksnummer: str | None = None
    festenummer: str | None = None
    seksjonsnummer: str | None = None
    undernummer: str | None = None
    postboks: str | None = None
    adresse: tuple[str, ...] | None = None


class Personalia(Document):
    """``data.personalia``."""

    person_identifikator: PersonIdentifikator
    navn: Sokernavn
    kontonummer: Kontonummer
    statsborgerskap: TekstSvar | None = None
    """ISO 3166-1 alpha-3, and the register's own codes for unknown and stateless."""
    nordisk_borger: JaNeiSvar | None = None
    telefonnummer: Telefonnummer | None = None
    folkeregistrert_adresse: Adresse | None = None
    oppholdsadresse: Adresse | None = None
    postadresse: Adresse | None = None
    fodselsdato: str | None = None


class Begrunnelse(Document):
    """``data.begrunnelse``: the citizen's own words, line breaks included."""

    kilde: str
    hva_sokes_om: str
    hvorfor_soke: str | None = None


class Data(Document):
    """The søknad without what surrounds it."""

    personalia: Personalia
    begrunnelse: Begrunnelse
    okonomi: Okonomi
    soknadstype: str | None = None
    arbeid: Arbeid | None = None
    utdanning: Utdanning | None = None
    familie: Familie | None = None
    situasjonendring: Situasjonendring | None = None
    bosituasjon: Bosituasjon | None = None


class Mottaker(Document):
    """Where the søknad goes. Optional strings without a form, and empty ones are in use."""

    kommunenummer: str | None = None
    enhetsnummer: str | None = None
    nav_enhetsnavn: str | None = None


class Driftsinformasjon(Document):
    """Which lookups failed while the citizen wrote. An object since format 1.0.8."""

    utbetalinger_fra_nav_feilet: bool
    inntekt_fra_skatteetaten_feilet: bool
    stotte_fra_husbanken_feilet: bool | None = None


class Kompatibilitet(Document):
    """A text that a reader of an older version must show. Markdown."""

    min_version: str | None = None
    max_version: str | None = None
    text: str | None = None


class SoknadJson(Document):
    """The whole document."""

    version: Versjon
    data: Data
    mottaker: Mottaker
    driftsinformasjon: Driftsinformasjon
    kompatibilitet: tuple[Kompatibilitet, ...]
    innsendingstidspunkt: Tidspunkt | None = None

    def person(self) -> Fodselsnummer:
        """Return whose søknad it is."""
        return Fodselsnummer(self.data.personalia.person_identifikator.verdi)

    def kommunenummer(self) -> Kommunenummer | None:
        """Return the receiving kommune, or None where the field is absent or empty.

        Raises:
            InvalidDocumentError: It is neither empty nor four digits.
        """
        return _named(Kommunenummer, self.mottaker.kommunenummer, "mottaker.kommunenummer")

    def enhetsnummer(self) -> Enhetsnummer | None:
        """Return the receiving NAV office, which is how a bydel is named, or None where the field is absent or empty.

        Raises:
            InvalidDocumentError: It is neither empty nor four digits.
        """
        return _named(Enhetsnummer, self.mottaker.enhetsnummer, "mottaker.enhetsnummer")

    def soknadstype(self) -> str | None:
        """Return ``kort``, ``standard``, a code that is newer than this text, or None."""
        return self.data.soknadstype

    def hastegrad(self) -> Literal["NODHJELP", "VANLIG"]:
        """Return whether the citizen asks for nødhjelp.

        The format has no field for it. The portal flattens the categories that the citizen ticked into
        ``begrunnelse.hvaSokesOm``, and a line that starts with "Nødhjelp:" lists the urgent ones: the only trace of
        urgency that a machine can read. A citizen who writes such a line by hand is believed: a søknad too many that
        stands out does less harm than one too few.
        """
        return "NODHJELP" if _NODHJELP_BLOCK.search(self.data.begrunnelse.hva_sokes_om) else "VANLIG"


def parse_soknad(data: bytes) -> SoknadJson:
    """Read ``soknad.json``, UTF-8.

    Raises:
        InvalidDocumentError: It breaks the format. The error has the path and never the value.
    """
    return parse_document(SoknadJson, data, FILENAME)


def _named(kind: type[N], text: str | None, path: str) -> N | None:
    if not text:
        return None
    try:
        return kind(text)
    except InvalidNameError:
        reason = f"skal være {kind.FORM}"
    raise InvalidDocumentError(FILENAME, path, reason)
