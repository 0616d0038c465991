"""What the day holds: drawn from a seed, so that the same seed gives the same søknader to the last byte.

Pure: no IO, no clock. Four of the søknader have a part to play besides being sent.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from random import Random
from typing import Final, Literal

from broker.register import offices
from broker.supervisor.bootstrap import FILEDROP_CONNECTOR, HTTP_CONNECTOR
from broker.supervisor.layout import ConnectorSetup
from schemas.errors import ConfigurationError
from schemas.examples import Kind, make_jpeg, make_pdf, make_png, make_soknad, make_vedlegg, synthetic_fodselsnummer
from schemas.names import Enhetsnummer, Fodselsnummer, Kommunenummer, NavEksternRefId
from schemas.soknad_json import parse_soknad

MARKER: Final = b"DEMO-KLARTEKST-SOM-INGEN-SKAL-SE"
"""Stands in every document of the day, so that one search finds any plaintext that got out."""

LATE_CONNECTOR: Final = "nordsak"
MIN_KOMMUNER: Final = 3
MIN_SOKNADER: Final = 6

PDF: Final = "application/pdf"
_MIB: Final = 1024 * 1024
_EXTRAS: Final = (
    ("lonnslipp", "arbeid", "lonnslipp.pdf", PDF),
    ("kontooversikt", "brukskonto", "kontooversikt.jpg", "image/jpeg"),
    ("faktura", "strom", "faktura.png", "image/png"),
)


class Role(StrEnum):
    """What happens to a søknad besides being sent."""

    VANLIG = "vanlig"
    DOBBEL = "sendes to ganger"
    NEDE = "fagsystemet er nede"
    AVVISES = "avvises av fagsystemet"
    ENDRES = "endres underveis"


@dataclass(frozen=True)
class Document:
    """One file of a submission, in clear."""

    filnavn: str
    mimetype: str
    data: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """Digest in hex."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class PlannedSoknad:
    """One søknad of the day.

    Attributes:
        ref: Its navEksternRefId.
        enhetsnummer: The receiving NAV office: in Oslo, Bergen and Trondheim the bydel's.
        kind: ``kort``, ``standard`` or ``vedlegg``.
        person: Whose it is; made up.
        soknad_json: UTF-8.
        vedlegg_json: UTF-8.
        documents: soknad.pdf first.
    """

    ref: NavEksternRefId
    kommunenummer: Kommunenummer
    enhetsnummer: Enhetsnummer | None
    kind: Literal["kort", "standard", "vedlegg"]
    role: Role
    person: Fodselsnummer = field(repr=False)
    soknad_json: bytes = field(repr=False)
    vedlegg_json: bytes = field(repr=False)
    documents: tuple[Document, ...] = field(repr=False)

    def files(self) -> dict[str, str]:
        """Return the digest of each file that the fagsystem must end up with, by name."""
        ours = {
            "soknad.json": hashlib.sha256(self.soknad_json).hexdigest(),
            "vedlegg.json": hashlib.sha256(self.vedlegg_json).hexdigest(),
        }
        return ours | {document.filnavn: document.sha256 for document in self.documents}


@dataclass(frozen=True)
class Day:
    """The whole plan.

    Attributes:
        connectors: Who serves whom. ``LATE_CONNECTOR`` starts when the tampering is done.
        down: The kommune whose fagsystem is down at first.
        tampered: The kommune one of whose messages is tampered with.
        soknader: In the order in which they are sent.
    """

    connectors: dict[str, ConnectorSetup]
    down: Kommunenummer
    tampered: Kommunenummer
    soknader: tuple[PlannedSoknad, ...]


def plan_day(seed: int, count: int, kommuner: tuple[Kommunenummer, ...], now: datetime) -> Day:
    """Return the day of this seed.

    Args:
        seed: Decides everything.
        count: How many søknader, at least six.
        kommuner: At least three: the last is tampered with, the one before it drops files, the third last is down at first.
        now: When the documents say they were made.

    Raises:
        ConfigurationError: Too few kommuner or søknader.
    """
    if len(kommuner) < MIN_KOMMUNER or count < MIN_SOKNADER:
        raise ConfigurationError(f"demoen trenger minst {MIN_KOMMUNER} kommuner og {MIN_SOKNADER} søknader")
    rng = Random(seed)  # noqa: S311 - made-up data that must be the same each time
    *speaking, down, dropping, tampered = kommuner
    drops = (dropping, *speaking[2::3])
    talks = tuple(number for number in (*speaking, down) if number not in drops)
    connectors = {
        HTTP_CONNECTOR: ConnectorSetup(leverandor=HTTP_CONNECTOR, type="http", kommuner=talks),
        FILEDROP_CONNECTOR: ConnectorSetup(leverandor=FILEDROP_CONNECTOR, type="filedrop", kommuner=drops),
        LATE_CONNECTOR: ConnectorSetup(leverandor=LATE_CONNECTOR, type="http", kommuner=(tampered,)),
    }
    roles = [Role.ENDRES, Role.NEDE, Role.AVVISES, Role.DOBBEL] + [Role.VANLIG] * (count - 4)
    places = {Role.ENDRES: tampered, Role.NEDE: down, Role.AVVISES: talks[0], Role.DOBBEL: kommuner[0]}
    soknader = tuple(
        _soknad(rng, index, role, places.get(role, kommuner[index % len(kommuner)]), now)
        for index, role in enumerate(roles)
    )
    return Day(connectors, down, tampered, soknader)


def _soknad(rng: Random, index: int, role: Role, kommunenummer: Kommunenummer, now: datetime) -> PlannedSoknad:
    kinds: tuple[Literal["kort", "standard", "vedlegg"], ...] = ("kort", "standard", "vedlegg")
    kind = kinds[index % 3]
    person = Fodselsnummer(synthetic_fodselsnummer(rng))
    office = rng.choice(sorted(offices(kommunenummer))) if offices(kommunenummer) else None
    form: Kind = "kort" if kind == "kort" else "nodhjelp" if index % 10 == 1 else "standard"
    soknad = make_soknad(
        rng, kind=form, fodselsnummer=person, kommunenummer=kommunenummer, enhetsnummer=office, now=now
    )
    extras = [_extra(rng, extra, large=kind == "vedlegg") for extra in (_EXTRAS if kind == "vedlegg" else _EXTRAS[:1])]
    sheet = make_vedlegg(
        [
            (type_, about, document.filnavn, hashlib.sha512(document.data).hexdigest())
            for (type_, about, _, _), document in zip(_EXTRAS, extras, strict=False)
        ]
    )
    documents = (_marked(Document("Soknad.pdf", PDF, make_pdf(rng, 40_000))), *extras)
    ref = NavEksternRefId(f"demo-{index:03d}-{rng.getrandbits(32):08x}")
    return PlannedSoknad(
        ref, kommunenummer, parse_soknad(soknad).enhetsnummer(), kind, role, person, soknad, sheet, documents
    )


def _extra(rng: Random, extra: tuple[str, str, str, str], *, large: bool) -> Document:
    _, _, filnavn, mimetype = extra
    make = {PDF: make_pdf, "image/jpeg": make_jpeg, "image/png": make_png}[mimetype]
    size = rng.randint(_MIB, 2 * _MIB) if large else rng.randint(20_000, 80_000)
    return _marked(Document(filnavn, mimetype, make(rng, size)))


def _marked(document: Document) -> Document:
    """Hang the marker on behind the end, where readers of PDF, PNG and JPEG do not look."""
    return Document(document.filnavn, document.mimetype, document.data + b"\n%" + MARKER + b"\n")
