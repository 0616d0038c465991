"""The records of our topics as frozen models, one for each Avro schema in ``schemas/avro``.

The Avro files say what each field means; here they get the types that our own code works with. ``KIND`` ties a model to
its schema (``schemas.registry``), and ``schemas.codec`` turns one into the other. Open code lists are plain strings with
the values that we know as constants beside them, since a newer sender may know more.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from pydantic import AwareDatetime, Field

from schemas.forsendelse import Forsendelse
from schemas.model import WireModel
from schemas.names import (
    DigisosId,
    DokumentlagerId,
    Eier,
    Enhetsnummer,
    Kommunenummer,
    MeldingId,
    NavEksternRefId,
    NokkelId,
    Organisasjonsnummer,
    Sha256,
    Uuid,
)

SOKNAD: Final = "SOKNAD"
ETTERSENDELSE: Final = "ETTERSENDELSE"

TILBAKEKALL: Final = "TILBAKEKALL"
"""A SoknadRecord of this type withdraws the message with its ``melding_id``: it carries no package of its own, only the digest of
the one that it withdraws."""

KANAL_KAFKA: Final = "KAFKA"
KANAL_SVARINN: Final = "SVARINN"
KANAL_PRINT: Final = "PRINT"
PARTITIONS_PER_KOMMUNE: Final = 2
"""How many each of a kommune's topics has, unless the katalog says another number when the kommune is created."""

BRUK_KRYPTERING: Final = "KRYPTERING"
BRUK_KVITTERING: Final = "KVITTERING"

TRANSPORT_AKSEPTERT: Final = "AKSEPTERT"
TRANSPORT_SENDT: Final = "SENDT"
TRANSPORT_BEKREFTET: Final = "BEKREFTET"
TRANSPORT_TTL_TIDSAVBRUDD: Final = "TTL_TIDSAVBRUDD"
"""The watch: no answer on ``kanal`` in time. The message is withdrawn from it, and the next channel takes over."""
TRANSPORT_MAX_RETRIESAVBRUDD: Final = "MAX_RETRIESAVBRUDD"
"""The watch: the deadline passed while the message was rejected or a dead letter on ``kanal``; otherwise as TTL_TIDSAVBRUDD."""
TRANSPORT_IKKE_SENDT: Final = "IKKE_SENDT"
"""A channel could not take the message, or there is no channel left."""
TRANSPORT_SVARUT_FEIL: Final = "SVARUT_FEIL"
TRANSPORT_STOPPET: Final = "STOPPET"
"""A person stopped it; terminal for transport."""
TRANSPORT_OMFORSEGLET: Final = "OMFORSEGLET"
"""The package was sealed anew, from the sender's copy: ``sha256`` is its digest from now on, beside the former ones."""
TRANSPORT_TILBAKEKALT: Final = "TILBAKEKALT"
"""A person recalled it."""
TRANSPORT_UTSKREVET: Final = "UTSKREVET"
"""The print channel's closing receipt: printed and handed over. The citizen sees it as sent on paper, never as mottatt."""

HENDELSE_DIGISOS_SOKER: Final = "no.nav.digisos.digisos.soker.v1"

MAX_INLINE_PACKAGE_BYTES: Final = 512 * 1024
"""A larger package goes to the dokumentlager by reference; Kafka's own limit of 1 MB is never near."""


class Record(WireModel):
    """What stands on a topic."""

    KIND: ClassVar[str]


class Package(Record):
    """A record that carries a sealed package, inline or by reference."""

    nokkel_id: NokkelId
    sha256: Sha256
    storrelse: int = Field(ge=0)
    pakke: bytes | None = Field(default=None, repr=False)
    dokumentlager_id: DokumentlagerId | None = None


class SoknadRecord(Package):
    """A søknad or ettersendelse, sealed for one kommune."""

    KIND: ClassVar[str] = "soknad"

    melding_id: MeldingId
    digisos_id: DigisosId
    kommunenummer: Kommunenummer
    nav_ekstern_ref_id: NavEksternRefId
    enhetsnummer: Enhetsnummer | None = None
    type: str = SOKNAD
    hastegrad: Literal["VANLIG", "NODHJELP"] = "VANLIG"
    innsendt: AwareDatetime
    avsender: Organisasjonsnummer
    gyldig_til: AwareDatetime | None = None
    avsenderversjon: str | None = None
    skjemaversjon: str | None = None

    def forsendelse(self) -> Forsendelse:
        """Return what the package's own ``forsendelse.json`` must say."""
        return Forsendelse(
            digisos_id=self.digisos_id,
            melding_id=self.melding_id,
            kommunenummer=self.kommunenummer,
            type=self.type,
            opprettet=self.innsendt,
            enhetsnummer=self.enhetsnummer,
            nav_ekstern_ref_id=self.nav_ekstern_ref_id,
            hastegrad=self.hastegrad,
        )


class HendelseRecord(Package):
    """A case update from the fagsystem, sealed for the sender's innsyn."""

    KIND: ClassVar[str] = "hendelse"

    melding_id: MeldingId
    digisos_id: DigisosId
    kommunenummer: Kommunenummer
    type: str = HENDELSE_DIGISOS_SOKER
    tidspunkt: AwareDatetime
    avsender: str

    def forsendelse(self) -> Forsendelse:
        """Return what the package's own ``forsendelse.json`` must say."""
        return Forsendelse(
            digisos_id=self.digisos_id,
            melding_id=self.melding_id,
            kommunenummer=self.kommunenummer,
            type=self.type,
            opprettet=self.tidspunkt,
        )


class KvitteringRecord(Record):
    """A signed answer; ``jws`` is the truth, and the clear fields must be equal to it."""

    KIND: ClassVar[str] = "kvittering"

    kvittering_id: Uuid
    digisos_id: DigisosId
    melding_id: MeldingId | None
    kommunenummer: Kommunenummer
    status: str
    tidspunkt: AwareDatetime
    jws: str


class Forsok(WireModel):
    """One attempt at a delivery that failed."""

    nr: int
    tidspunkt: AwareDatetime
    kode: str


class Header(WireModel):
    """A Kafka header."""

    navn: str
    verdi: bytes | None = None


class Opprinnelig(WireModel):
    """The record as it was read, byte for byte."""

    topic: str
    partisjon: int
    offset: int
    tidsstempel: AwareDatetime
    nokkel: bytes | None = Field(default=None, repr=False)
    verdi: bytes | None = Field(default=None, repr=False)
    headere: tuple[Header, ...] = ()


class DeadLetterRecord(Record):
    """A record that could not be delivered."""

    KIND: ClassVar[str] = "dlq"

    dead_letter_id: Uuid
    digisos_id: DigisosId | None
    melding_id: MeldingId | None
    kommunenummer: Kommunenummer | None
    kode: str
    trinn: str
    tidspunkt: AwareDatetime
    forsok: tuple[Forsok, ...]
    gjenkjoringer: int = 0
    opprinnelig: Opprinnelig


class Sertifikat(WireModel):
    """A certificate in the katalog; ``pem`` is X.509 in PEM, ``konnektor`` who signs with it, when not the entry's own."""

    nokkel_id: NokkelId
    bruk: str
    pem: str = Field(repr=False)
    gyldig_fra: AwareDatetime
    gyldig_til: AwareDatetime
    tilbakekalt: AwareDatetime | None = None
    konnektor: str | None = None


class Enhet(WireModel):
    """A NAV office."""

    enhetsnummer: Enhetsnummer
    navn: str


class KatalogRecord(Record):
    """What the central processes need to know about one kommune."""

    KIND: ClassVar[str] = "katalog"

    kommunenummer: Kommunenummer
    navn: str
    organisasjonsnummer: Organisasjonsnummer
    leverandor: str
    konnektor: str
    kanal: str = KANAL_KAFKA
    kan_motta_soknader: bool = True
    kan_oppdatere_status: bool = True
    har_midlertidig_deaktivert_mottak: bool = False
    partisjoner: int = PARTITIONS_PER_KOMMUNE
    sertifikater: tuple[Sertifikat, ...] = ()
    enheter: tuple[Enhet, ...] = ()
    endret: AwareDatetime
    kanaler: tuple[str, ...] = ()
    frist_bekreftet_s: int | None = None
    frist_mottatt_s: int | None = None
    postadresse: tuple[str, ...] = ()

    def channels(self) -> tuple[str, ...]:
        """Return the channels in the order in which they are tried."""
        return self.kanaler or (self.kanal, *((KANAL_PRINT,) if self.kanal != KANAL_PRINT else ()))


class StatusRecord(Record):
    """What the citizen sees of one søknad."""

    KIND: ClassVar[str] = "status"

    digisos_id: DigisosId
    kommunenummer: Kommunenummer
    status: str
    oppdatert: AwareDatetime
    kode: str | None = None


class TransportRecord(Record):
    """What happens to a message on its way."""

    KIND: ClassVar[str] = "transport"

    hendelse_id: Uuid
    melding_id: MeldingId
    digisos_id: DigisosId
    kommunenummer: Kommunenummer
    type: str
    kanal: str = KANAL_KAFKA
    tidspunkt: AwareDatetime
    nav_ekstern_ref_id: NavEksternRefId
    eier: Eier | None = None
    sha256: Sha256 | None = None
    kode: str | None = None
    gyldig_til: AwareDatetime | None = None


class RevisjonRecord(Record):
    """Who did what, when and why."""

    KIND: ClassVar[str] = "revisjon"

    revisjon_id: Uuid
    aktor: str
    handling: str
    objekt: str
    tidspunkt: AwareDatetime
    begrunnelse: str | None = None
    forrige: Sha256 | None = None
    detaljer: dict[str, str] = Field(default_factory=dict[str, str])
    signatur: str | None = Field(default=None, repr=False)


RECORD_TYPES: Final[dict[str, type[Record]]] = {
    model.KIND: model
    for model in (
        SoknadRecord,
        KvitteringRecord,
        HendelseRecord,
        DeadLetterRecord,
        KatalogRecord,
        StatusRecord,
        TransportRecord,
        RevisjonRecord,
    )
}
"""Every record model by its kind, which is also the first part of its subject (``<kind>-value``)."""
