"""``digisos-soker.json``: what a kommune tells the citizen about the case. Each file replaces the whole history.

Rules beyond those of ``schemas.documents``:

* A type of hendelse that we do not know passes as a plain ``Hendelse``: one new type must never hide a whole case.
* Order is by instant, not by text: vendors write different numbers of fraction digits.
* ``check_first`` holds the rule for the very first file, which the format states in words only.

Source: NAV's format digisos-soker.json 1.3.0.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias, cast

from pydantic import Discriminator, Field, Tag

from schemas.documents import (
    Document,
    ElleveSiffer,
    FireSiffer,
    Tall,
    Tidspunkt,
    UuidTekst,
    Versjon,
    instant,
    parse_document,
)
from schemas.errors import InvalidDocumentError

FILENAME: Final = "digisos-soker.json"

MOTTATT: Final = "MOTTATT"
UNDER_BEHANDLING: Final = "UNDER_BEHANDLING"
FERDIGBEHANDLET: Final = "FERDIGBEHANDLET"
BEHANDLES_IKKE: Final = "BEHANDLES_IKKE"
SOKNADSSTATUSER: Final = (MOTTATT, UNDER_BEHANDLING, FERDIGBEHANDLET, BEHANDLES_IKKE)
SAKSSTATUSER: Final = (UNDER_BEHANDLING, "IKKE_INNSYN", BEHANDLES_IKKE, "FEILREGISTRERT")
UTFALL: Final = ("INNVILGET", "DELVIS_INNVILGET", "AVSLATT", "AVVIST")
UTBETALINGSSTATUSER: Final = ("PLANLAGT_UTBETALING", "UTBETALT", "STOPPET", "ANNULLERT")
VILKARSTATUSER: Final = ("RELEVANT", "ANNULLERT", "OPPFYLT", "IKKE_OPPFYLT")
"""The last two are deprecated, and read as ``RELEVANT``."""
DOKUMENTASJONKRAVSTATUSER: Final = ("RELEVANT", "LEVERT_TIDLIGERE", "ANNULLERT", "OPPFYLT", "IKKE_OPPFYLT")


def _tag(value: object, known: frozenset[str]) -> str:
    """Return the union's tag for a dict under validation or a model under serialisation."""
    found = cast("dict[str, object]", value).get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"#{found}" if isinstance(found, str) and found in known else "#"


class Filreferanse(Document):
    """Where a file lies; ``type`` says in which store. One of a store that we do not know passes as it is."""

    type: str


class DokumentlagerFil(Filreferanse):
    """A file in Fiks' dokumentlager."""

    id: UuidTekst


class SvarUtFil(Filreferanse):
    """File number ``nr``, counted from 1, of a SvarUt forsendelse."""

    id: UuidTekst
    nr: int


_FILTYPER: Final = frozenset({"dokumentlager", "svarut"})
Referanse: TypeAlias = Annotated[
    Annotated[DokumentlagerFil, Tag("#dokumentlager")]
    | Annotated[SvarUtFil, Tag("#svarut")]
    | Annotated[Filreferanse, Tag("#")],
    Discriminator(lambda value: _tag(value, _FILTYPER)),
]


class Fil(Document):
    """A letter, which must be a PDF."""

    referanse: Referanse


class Vedlegg(Document):
    """An attachment to a letter."""

    tittel: str
    referanse: Referanse


class Hendelse(Document):
    """What happened, and when; a hendelse of a type that we do not know is no more than this."""

    type: str
    hendelsestidspunkt: Tidspunkt

    def referanser(self) -> tuple[Filreferanse, ...]:
        """Return the files that the hendelse refers to."""
        return ()


class SoknadsStatus(Hendelse):
    """The søknad's status, one of ``SOKNADSSTATUSER`` or newer."""

    status: str


class TildeltNavKontor(Hendelse):
    """The NAV office that has the case: enhetsnummer, per kommune and bydel."""

    nav_kontor: FireSiffer


class SaksStatus(Hendelse):
    """A sak, and its status; a sak is done when it has a vedtak, which this never says."""

    referanse: str
    tittel: str | None = None
    status: str | None = None


class VedtakFattet(Hendelse):
    """A decision."""

    vedtaksfil: Fil
    saksreferanse: str
    utfall: str | None = None
    vedlegg: tuple[Vedlegg, ...] | None = None

    def referanser(self) -> tuple[Filreferanse, ...]:
        """Return the decision and its attachments."""
        return (self.vedtaksfil.referanse, *(vedlegg.referanse for vedlegg in self.vedlegg or ()))


class Dokument(Document):
    """A document that the citizen is asked for."""

    dokumenttype: str
    innsendelsesfrist: Tidspunkt
    tilleggsinformasjon: str | None = None
    dokumentreferanse: str | None = None


class DokumentasjonEtterspurt(Hendelse):
    """The citizen is asked for documents; replaces every earlier request."""

    dokumenter: tuple[Dokument, ...]
    forvaltningsbrev: Fil | None = None
    vedlegg: tuple[Vedlegg, ...] | None = None

    def referanser(self) -> tuple[Filreferanse, ...]:
        """Return the letter, if there is one, and its attachments."""
        brev = (self.forvaltningsbrev.referanse,) if self.forvaltningsbrev else ()
        return (*brev, *(vedlegg.referanse for vedlegg in self.vedlegg or ()))


class ForelopigSvar(Hendelse):
    """A letter about the time it takes."""

    forvaltningsbrev: Fil
    vedlegg: tuple[Vedlegg, ...] | None = None

    def referanser(self) -> tuple[Filreferanse, ...]:
        """Return the letter and its attachments."""
        return (self.forvaltningsbrev.referanse, *(vedlegg.referanse for vedlegg in self.vedlegg or ()))


class Utbetaling(Hendelse):
    """A payment; the latest of a utbetalingsreferanse counts. Kroner; dates are ``YYYY-MM-DD``."""

    utbetalingsreferanse: str
    saksreferanse: str | None = None
    rammevedtaksreferanse: str | None = None
    status: str | None = None
    belop: Tall | None = None
    beskrivelse: str | None = None
    forfallsdato: str | None = None
    utbetalingsdato: str | None = None
    fom: str | None = None
    tom: str | None = None
    annen_mottaker: bool | None = None
    mottaker: str | None = None
    kontonummer: ElleveSiffer | None = None
    utbetalingsmetode: str | None = None


class Vilkar(Hendelse):
    """A condition for payments."""

    vilkarreferanse: str
    saksreferanse: str | None = None
    utbetalingsreferanse: tuple[str, ...] | None = None
    tittel: str | None = None
    beskrivelse: str | None = None
    status: str | None = None


class Dokumentasjonkrav(Hendelse):
    """Documentation that payments depend on."""

    dokumentasjonkravreferanse: str
    saksreferanse: str | None = None
    utbetalingsreferanse: tuple[str, ...] | None = None
    tittel: str | None = None
    beskrivelse: str | None = None
    frist: Tidspunkt | None = None
    status: str | None = None


class Rammevedtak(Hendelse):
    """A framework decision; never shown to the citizen."""

    rammevedtaksreferanse: str
    saksreferanse: str | None = None
    beskrivelse: str | None = None
    belop: Tall | None = None
    fom: str | None = None
    tom: str | None = None


HENDELSETYPER: Final = frozenset(
    {
        "soknadsStatus",
        "tildeltNavKontor",
        "saksStatus",
        "vedtakFattet",
        "dokumentasjonEtterspurt",
        "forelopigSvar",
        "utbetaling",
        "vilkar",
        "dokumentasjonkrav",
        "rammevedtak",
    }
)
"""The types that have a model of their own."""

EnHendelse: TypeAlias = Annotated[
    Annotated[SoknadsStatus, Tag("#soknadsStatus")]
    | Annotated[TildeltNavKontor, Tag("#tildeltNavKontor")]
    | Annotated[SaksStatus, Tag("#saksStatus")]
    | Annotated[VedtakFattet, Tag("#vedtakFattet")]
    | Annotated[DokumentasjonEtterspurt, Tag("#dokumentasjonEtterspurt")]
    | Annotated[ForelopigSvar, Tag("#forelopigSvar")]
    | Annotated[Utbetaling, Tag("#utbetaling")]
    | Annotated[Vilkar, Tag("#vilkar")]
    | Annotated[Dokumentasjonkrav, Tag("#dokumentasjonkrav")]
    | Annotated[Rammevedtak, Tag("#rammevedtak")]
    | Annotated[Hendelse, Tag("#")],
    Discriminator(lambda value: _tag(value, HENDELSETYPER)),
]


class Avsender(Document):
    """The fagsystem and its version: what a vendor can do is known by this pair."""

    systemnavn: str
    systemversjon: str


class DigisosSoker(Document):
    """The whole document."""

    version: Versjon
    avsender: Avsender
    hendelser: Annotated[tuple[EnHendelse, ...], Field(min_length=1)]

    def in_order(self) -> tuple[Hendelse, ...]:
        """Return the hendelser by instant.

        At the same instant a utbetaling comes before the vilkår and dokumentasjonkrav that name it, MOTTATT before any
        other status, and for the rest the document's order decides.
        """
        return tuple(sorted(self.hendelser, key=lambda h: (instant(h.hendelsestidspunkt), _rank(h))))

    def latest_status(self) -> str | None:
        """Return the latest soknadsStatus, or None before there is one.

        The latest decides whatever came before it: a kommune may reopen a case.
        """
        statuses = [hendelse.status for hendelse in self.in_order() if isinstance(hendelse, SoknadsStatus)]
        return statuses[-1] if statuses else None

    def referanser(self) -> tuple[Filreferanse, ...]:
        """Return every file that the document refers to, in document order."""
        return tuple(referanse for hendelse in self.hendelser for referanse in hendelse.referanser())


def _rank(hendelse: Hendelse) -> int:
    if isinstance(hendelse, SoknadsStatus):
        return 0 if hendelse.status == MOTTATT else 1
    return 2 if isinstance(hendelse, Vilkar | Dokumentasjonkrav) else 1


def parse_digisos_soker(data: bytes) -> DigisosSoker:
    """Read ``digisos-soker.json``, UTF-8.

    Raises:
        InvalidDocumentError: It breaks the format. The error has the path and never the value.
    """
    return parse_document(DigisosSoker, data, FILENAME)


def check_first(document: DigisosSoker) -> None:
    """Check the rule for the first file of a case: it must already say that the søknad is MOTTATT.

    Raises:
        InvalidDocumentError: No hendelse says so.
    """
    if not any(isinstance(hendelse, SoknadsStatus) and hendelse.status == MOTTATT for hendelse in document.hendelser):
        raise InvalidDocumentError(FILENAME, "hendelser", "første innsynsfil skal ha soknadsStatus MOTTATT")
