"""The katalog: what we know about each kommune, as a view in memory that is kept from ``fiks.katalog.v1``.

``broker`` writes the topic from a file that people edit (``load_katalog``); every central process reads it from the start and
works on from its last copy when the rest is down.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import yaml
from cryptography import x509
from pydantic import AwareDatetime, Field, ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from broker.clock import to_milliseconds
from broker.durations import Duration
from broker.log import get_logger
from crypto.certificates import nokkel_id
from schemas.codec import decode
from schemas.errors import BrokerUnavailableError, CertificateError, ConfigurationError, ContractError
from schemas.model import WireModel
from schemas.names import Enhetsnummer, Kommunenummer, NokkelId, Organisasjonsnummer
from schemas.records import (
    BRUK_KRYPTERING,
    BRUK_KVITTERING,
    KANAL_KAFKA,
    PARTITIONS_PER_KOMMUNE,
    Enhet,
    KatalogRecord,
    Sertifikat,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from pathlib import Path

    from broker.kafka.subscriber import KafkaTail
    from broker.record import Incoming

UTLOPT: Final = "utlopt"
TILBAKEKALT: Final = "tilbakekalt"
IKKE_ENNA: Final = "ikke-gyldig-enna"
UKJENT: Final = "ukjent"
"""Why a certificate is not sealed for: its time is over, it was revoked, its time has not come, or the katalog has it no more."""

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 10.0


class Katalog:
    """The present entries, by kommunenummer. Not thread-safe: one event loop owns it."""

    def __init__(self, entries: Iterable[KatalogRecord] = ()) -> None:
        self._entries: dict[Kommunenummer, KatalogRecord] = {}
        self._certificates: dict[NokkelId, x509.Certificate] = {}
        for entry in entries:
            self.put(entry)

    def put(self, entry: KatalogRecord) -> None:
        """Take over ``entry`` in place of the kommune's former one.

        Raises:
            ValueError: A certificate cannot be read. The former entry stays.
        """
        self._certificates |= {
            certificate.nokkel_id: x509.load_pem_x509_certificate(certificate.pem.encode())
            for certificate in entry.sertifikater
            if certificate.nokkel_id not in self._certificates
        }
        self._entries[entry.kommunenummer] = entry

    def remove(self, kommunenummer: Kommunenummer) -> None:
        """Forget a kommune; it may be unknown already."""
        self._entries.pop(kommunenummer, None)

    def get(self, kommunenummer: Kommunenummer) -> KatalogRecord | None:
        """Return the kommune's entry, or None when it is not in the katalog."""
        return self._entries.get(kommunenummer)

    def all(self) -> tuple[KatalogRecord, ...]:
        """Return every entry, ordered by kommunenummer."""
        return tuple(self._entries[number] for number in sorted(self._entries))

    def recipient(self, kommunenummer: Kommunenummer, now: datetime) -> x509.Certificate:
        """Return the certificate to seal for: of those valid at ``now`` and not revoked, the one that became valid last.

        Raises:
            CertificateError: The kommune is unknown, or has no such certificate.
        """
        valid = [found for found in self._encrypting(kommunenummer) if _problem(found, now) is None]
        if not valid:
            raise CertificateError(f"kommune {kommunenummer} har ikke noe gyldig sertifikat å kryptere for")
        return self._certificates[max(valid, key=lambda certificate: certificate.gyldig_fra).nokkel_id]

    def recipient_problem(self, kommunenummer: Kommunenummer, certificate_id: NokkelId, now: datetime) -> str | None:
        """Return in a word why what is sealed for this certificate may not be sent to the kommune; None when it may."""
        for certificate in self._encrypting(kommunenummer):
            if certificate.nokkel_id == certificate_id:
                return _problem(certificate, now)
        return UKJENT

    def no_recipient(self, kommunenummer: Kommunenummer, now: datetime) -> str | None:
        """Return in a word why nothing can be sealed for the kommune; None when something can.

        Of several certificates the one that became valid last says why.
        """
        problems = {found.gyldig_fra: _problem(found, now) for found in self._encrypting(kommunenummer)}
        if not problems:
            return UKJENT
        return None if None in problems.values() else problems[max(problems)]

    def _encrypting(self, kommunenummer: Kommunenummer) -> list[Sertifikat]:
        entry = self._entries.get(kommunenummer)
        return [found for found in (entry.sertifikater if entry else ()) if found.bruk == BRUK_KRYPTERING]

    def signers(self, kommunenummer: Kommunenummer) -> tuple[x509.Certificate, ...]:
        """Return the certificates that may sign kvitteringer and hendelser for this kommune; empty when none."""
        entry = self._entries.get(kommunenummer)
        return tuple(
            self._certificates[certificate.nokkel_id]
            for certificate in (entry.sertifikater if entry else ())
            if certificate.bruk == BRUK_KVITTERING
        )

    def signer(self, certificate_id: NokkelId) -> tuple[KatalogRecord, x509.Certificate]:
        """Return an entry whose connector signs with this certificate, and the certificate.

        Raises:
            CertificateError: No kommune's connector has it.
        """
        for entry in self._entries.values():
            if any(c.nokkel_id == certificate_id and c.bruk == BRUK_KVITTERING for c in entry.sertifikater):
                return entry, self._certificates[certificate_id]
        raise CertificateError("sertifikatet hører ikke til noen konnektor i katalogen")


def _problem(certificate: Sertifikat, now: datetime) -> str | None:
    if certificate.tilbakekalt is not None and certificate.tilbakekalt <= now:
        return TILBAKEKALT
    if now < certificate.gyldig_fra:
        return IKKE_ENNA
    return None if now < certificate.gyldig_til else UTLOPT


class KatalogFollower:
    """Keeps a ``Katalog`` from the topic, through outages.

    Args:
        katalog: What to keep.
        open_topic: Returns a fresh reader of ``fiks.katalog.v1`` from its start.

    Attributes:
        caught_up: Set when all that was on the topic at the start has been read; stays set.
        changed: Set at every record; whoever waits for it clears it.
    """

    def __init__(self, katalog: Katalog, open_topic: Callable[[], KafkaTail]) -> None:
        self._katalog = katalog
        self._open_topic = open_topic
        self.caught_up = asyncio.Event()
        self.changed = asyncio.Event()
        self._listeners: list[asyncio.Event] = []

    def problem(self) -> str | None:
        """Return why the katalog is not there yet, for ``/isready``."""
        return None if self.caught_up.is_set() else "katalogen er ikke lest ferdig"

    def listen(self) -> asyncio.Event:
        """Return an event like ``changed`` for one more who clears it."""
        event = asyncio.Event()
        self._listeners.append(event)
        return event

    async def run(self) -> None:
        """Follow the topic until cancelled; when Kafka is away, try again and work on from the last copy."""
        outage = AsyncRetrying(
            retry=retry_if_exception_type(BrokerUnavailableError),
            wait=wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
            before_sleep=_tell_outage,
        )
        await outage(self._follow)

    async def _follow(self) -> None:
        async with self._open_topic() as tail:
            # Not a task group: it would wrap the reader's error, and whoever rides out outages would not know it.
            waiting = asyncio.create_task(self._note_when(tail.caught_up))
            try:
                async for batch in tail:
                    for record in batch:
                        apply_record(self._katalog, record)
                    for event in (self.changed, *self._listeners):
                        event.set()
            finally:
                waiting.cancel()
        raise BrokerUnavailableError("leseren av katalogen sluttet; den begynner på nytt")

    async def _note_when(self, caught_up: asyncio.Event) -> None:
        await caught_up.wait()
        self.caught_up.set()


def apply_record(katalog: Katalog, record: Incoming) -> None:
    """Take over what a record of ``fiks.katalog.v1`` says; one that cannot be read changes nothing and is told."""
    try:
        if record.value:
            katalog.put(decode(KatalogRecord, record.value))
        else:
            katalog.remove(Kommunenummer(record.key.decode("ascii", "replace")))
    except (ContractError, ValueError) as error:
        get_logger().error("katalog_entry_unreadable", partition=record.partition, offset=record.offset, exc_info=error)


def _tell_outage(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    get_logger().warning(
        "katalog_unavailable", forsok=state.attempt_number, vent_s=state.upcoming_sleep, exc_info=error
    )


class CertificateFile(WireModel):
    """A certificate that its owner has revoked, or that was a former connector's, as a map in place of the file's name.

    Attributes:
        fil: The file.
        tilbakekalt: From when on nothing is sealed for it, and nothing is signed with it.
        konnektor: Who signs with it, when it is not the kommune's connector of today: a kommune that changes its vendor keeps
            the former one's certificates here, or what that one signed could never be verified again.
    """

    fil: str
    tilbakekalt: AwareDatetime | None = None
    konnektor: str | None = None


Frist = Annotated[Duration, Field(ge=timedelta(seconds=1))]
"""A deadline as people write it: ``24h``, ``P2D``."""


class KommuneEntry(WireModel):
    """One kommune in the katalog file; certificate paths are relative to the file."""

    kommunenummer: Kommunenummer
    navn: str
    organisasjonsnummer: Organisasjonsnummer
    leverandor: str
    konnektor: str
    kanal: str = KANAL_KAFKA
    kan_motta_soknader: bool = True
    kan_oppdatere_status: bool = True
    har_midlertidig_deaktivert_mottak: bool = False
    partisjoner: int = Field(default=PARTITIONS_PER_KOMMUNE, ge=1, le=64)
    krypteringssertifikater: tuple[str | CertificateFile, ...] = Field(min_length=1)
    kvitteringssertifikater: tuple[str | CertificateFile, ...] = Field(min_length=1)
    kanaler: tuple[str, ...] = ()
    frist_bekreftet: Frist | None = None
    frist_mottatt: Frist | None = None
    postadresse: tuple[str, ...] = ()
    enheter: dict[Enhetsnummer, str] = Field(default_factory=dict[Enhetsnummer, str])
    endret: AwareDatetime


class KatalogFile(WireModel):
    """The katalog as people write it: YAML with a list ``kommuner``."""

    kommuner: tuple[KommuneEntry, ...]


def load_katalog(path: Path) -> Katalog:
    """Read the katalog file.

    Raises:
        ConfigurationError: The file is missing, is not YAML, breaks a rule, or names a certificate that cannot be read;
            the text says where.
    """
    document = _parse_yaml(path)
    try:
        entries = KatalogFile.model_validate(document).kommuner
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}"
            for e in error.errors(include_url=False, include_input=False)
        )
        raise ConfigurationError(f"{path}: {problems}") from None
    numbers = [entry.kommunenummer for entry in entries]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise ConfigurationError(f"{path}: kommunenummer står to ganger: {', '.join(twice)}")
    return Katalog(_to_record(entry, path.parent) for entry in entries)


def _parse_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} kan ikke leses: {type(error).__name__}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} er ikke gyldig YAML: {error}") from error


def _to_record(entry: KommuneEntry, folder: Path) -> KatalogRecord:
    certificates = [_load_certificate(folder, each, BRUK_KRYPTERING) for each in entry.krypteringssertifikater]
    certificates += [_load_certificate(folder, each, BRUK_KVITTERING) for each in entry.kvitteringssertifikater]
    other_here = {"krypteringssertifikater", "kvitteringssertifikater", "enheter", "frist_bekreftet", "frist_mottatt"}
    common = entry.model_dump(exclude=other_here)
    common["frist_bekreftet_s"], common["frist_mottatt_s"] = (
        _seconds(entry.frist_bekreftet),
        _seconds(entry.frist_mottatt),
    )
    # Avro keeps milliseconds: with more, an entry would differ from itself as it comes back from the topic.
    common["endret"] = to_milliseconds(entry.endret)
    offices = tuple(Enhet(enhetsnummer=number, navn=name) for number, name in sorted(entry.enheter.items()))
    return KatalogRecord(**common, sertifikater=tuple(certificates), enheter=offices)


def _seconds(frist: timedelta | None) -> int | None:
    return None if frist is None else round(frist.total_seconds())


def _load_certificate(folder: Path, named: str | CertificateFile, use: str) -> Sertifikat:
    file = named if isinstance(named, CertificateFile) else CertificateFile(fil=named)
    path = folder / file.fil
    try:
        pem = path.read_text("ascii")
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: kan ikke leses som X.509-sertifikat i PEM") from error
    return Sertifikat(
        nokkel_id=nokkel_id(certificate),
        bruk=use,
        pem=pem,
        gyldig_fra=certificate.not_valid_before_utc,
        gyldig_til=certificate.not_valid_after_utc,
        tilbakekalt=None if file.tilbakekalt is None else to_milliseconds(file.tilbakekalt),
        konnektor=file.konnektor,
    )
