"""Work, education, family and home in soknad.json: the optional parts of ``data``.

Most of it may be absent, which means that the citizen did not answer or that a register did not. Codes are strings,
with the values of today as constants where they are closed in the format.

Source: NAV's format soknad.json 1.0.11.
"""

from __future__ import annotations

from typing import Final, Self

from pydantic import model_validator

from schemas.documents import Document, ElleveSiffer, Tall, required_here

SIVILSTATUSER: Final = ("gift", "ugift", "samboer", "enke", "skilt", "separert")
BARNEBIDRAG: Final = ("betaler", "mottar", "begge", "ingen")
BOTYPER: Final = (
    "eier",
    "leier",
    "kommunal",
    "ingen",
    "institusjon",
    "krisesenter",
    "fengsel",
    "venner",
    "foreldre",
    "familie",
    "annet",
)


class Navn(Document):
    """A person's name; parts that a person does not have are empty, not absent."""

    fornavn: str
    mellomnavn: str
    etternavn: str


class TekstSvar(Document):
    """An answer in words."""

    kilde: str
    verdi: str | None = None


class JaNeiSvar(Document):
    """An answer of yes or no."""

    kilde: str
    verdi: bool | None = None


class TallSvar(Document):
    """An answer in numbers."""

    kilde: str
    verdi: Tall | None = None


class Arbeidsforhold(Document):
    """One employment. Dates are ``YYYY-MM-DD`` as the register wrote them, impossible ones too."""

    kilde: str | None = None
    arbeidsgivernavn: str | None = None
    fom: str | None = None
    tom: str | None = None
    stillingsprosent: Tall | None = None
    stillingstype: str | None = None
    overstyrt_av_bruker: bool | None = None


class Arbeidssituasjon(Document):
    """The citizen's own words on work, when the register gave none."""

    kilde: str | None = None
    er_i_jobb: bool | None = None
    jobb_grad: str | None = None


class Arbeid(Document):
    """``data.arbeid``."""

    forhold: tuple[Arbeidsforhold, ...] | None = None
    situasjon: Arbeidssituasjon | None = None
    kommentar_til_arbeidsforhold: TekstSvar | None = None


class Utdanning(Document):
    """``data.utdanning``."""

    kilde: str
    er_student: bool | None = None
    studentgrad: str | None = None


class Ektefelle(Document):
    """The spouse."""

    navn: Navn
    fodselsdato: str | None = None
    person_identifikator: ElleveSiffer | None = None


class Sivilstatus(Document):
    """Marital status; whoever is ``gift`` has an ``ektefelle``."""

    kilde: str
    status: str
    ektefelle: Ektefelle | None = None
    ektefelle_har_diskresjonskode: bool | None = None
    folkeregistrert_med_ektefelle: bool | None = None
    bor_sammen_med: bool | None = None
    bor_ikke_sammen_med_begrunnelse: str | None = None

    @model_validator(mode="after")
    def _gift_has_ektefelle(self) -> Self:
        if self.status == "gift" and self.ektefelle is None:
            raise required_here("ektefelle")
        return self


class Barn(Document):
    """One child."""

    kilde: str
    navn: Navn
    fodselsdato: str | None = None
    person_identifikator: ElleveSiffer | None = None
    har_diskresjonskode: bool | None = None


class Ansvar(Document):
    """One child and how the citizen lives with it."""

    barn: Barn | None = None
    bor_sammen_med: JaNeiSvar | None = None
    er_folkeregistrert_sammen: JaNeiSvar | None = None
    har_delt_bosted: JaNeiSvar | None = None
    samvarsgrad: TallSvar | None = None


class Barnebidrag(Document):
    """Child support, paid or received."""

    kilde: str | None = None
    verdi: str | None = None


class Forsorgerplikt(Document):
    """Whom the citizen provides for."""

    har_forsorgerplikt: JaNeiSvar | None = None
    barnebidrag: Barnebidrag | None = None
    ansvar: tuple[Ansvar, ...] | None = None


class Familie(Document):
    """``data.familie``."""

    forsorgerplikt: Forsorgerplikt
    sivilstatus: Sivilstatus | None = None
    folkeregistrert_med_ektefelle_avviksforklaring: TekstSvar | None = None


class Bosituasjon(Document):
    """``data.bosituasjon``."""

    kilde: str
    botype: str | None = None
    antall_personer: Tall | None = None


class Situasjonendring(Document):
    """``data.situasjonendring``: what is new since the last søknad, in a kort søknad."""

    kilde: str
    har_noe_endret_seg: bool
    hva_har_endret_seg: str | None = None
