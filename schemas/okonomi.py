"""The økonomi part of soknad.json: what the citizen has, owes, gets and pays.

Every row has a ``type`` from an open code list, which a receiver must handle dynamically, and a ``tittel`` that must be
shown with it. Amounts are whole kroner where the citizen writes them and numbers with decimals where a register does;
both are read as the number that stands there.

Source: NAV's format soknad.json 1.0.11, ``data.okonomi``.
"""

from __future__ import annotations

from schemas.documents import Document, Tall, Tidspunkt


class Rad(Document):
    """What every row of an amount has."""

    kilde: str
    type: str
    tittel: str
    overstyrt_av_bruker: bool


class Utgift(Rad):
    """One expense."""

    belop: Tall | None = None


class Inntekt(Rad):
    """One monthly income."""

    brutto: Tall | None = None
    netto: Tall | None = None


class Formue(Rad):
    """One asset."""

    belop: Tall | None = None


class Organisasjon(Document):
    """Who paid."""

    navn: str | None = None
    organisasjonsnummer: str | None = None


class Utbetalingskomponent(Document):
    """One part of a payment."""

    type: str | None = None
    belop: Tall | None = None
    sats_type: str | None = None
    sats_antall: Tall | None = None
    sats_belop: Tall | None = None


class Utbetaling(Rad):
    """One payment, from the citizen or from a register. Dates are ``YYYY-MM-DD``."""

    belop: Tall | None = None
    netto: Tall | None = None
    brutto: Tall | None = None
    skattetrekk: Tall | None = None
    andre_trekk: Tall | None = None
    utbetalingsdato: str | None = None
    periode_fom: str | None = None
    periode_tom: str | None = None
    komponenter: tuple[Utbetalingskomponent, ...] | None = None
    organisasjon: Organisasjon | None = None
    mottaker: str | None = None
    """``Husstand`` or ``Kommune``."""


class Bekreftelse(Document):
    """A yes, a no or a consent of the citizen."""

    kilde: str
    type: str
    tittel: str
    verdi: bool | None = None
    bekreftelses_dato: Tidspunkt | None = None


class BeskrivelseAvAnnet(Document):
    """Free text beside the rows; on its way out of the format."""

    kilde: str | None = None
    verdi: str | None = None
    sparing: str | None = None
    utbetaling: str | None = None
    boutgifter: str | None = None
    barneutgifter: str | None = None


class BostotteSak(Document):
    """One case at Husbanken."""

    kilde: str
    type: str
    dato: str
    status: str
    beskrivelse: str | None = None
    vedtaksstatus: str | None = None
    """``INNVILGET``, ``AVSLAG`` or ``AVVIST``."""


class Bostotte(Document):
    """What Husbanken said."""

    saker: tuple[BostotteSak, ...] | None = None


class Opplysninger(Document):
    """What does not fit in the monthly overview."""

    utbetaling: tuple[Utbetaling, ...]
    utgift: tuple[Utgift, ...] | None = None
    bekreftelse: tuple[Bekreftelse, ...] | None = None
    beskrivelse_av_annet: BeskrivelseAvAnnet | None = None
    bostotte: Bostotte | None = None


class Oversikt(Document):
    """The monthly overview."""

    inntekt: tuple[Inntekt, ...]
    utgift: tuple[Utgift, ...] | None = None
    formue: tuple[Formue, ...] | None = None


class Okonomi(Document):
    """``data.okonomi``."""

    opplysninger: Opplysninger
    oversikt: Oversikt
