from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from broker.record import Incoming
from broker.routing import TRANSPORT, kvittering_topic
from crypto.authority import Authority
from crypto.certificates import certificate_pem, nokkel_id
from crypto.jws import sign_jws
from crypto.keys import KeyRing
from kvittering.chain import Konnektor, verify_ledd
from kvittering.facts import Ledd, Sakshendelse, Statusendring
from kvittering.reading import ReadRecord, read_record
from schemas.codec import encode
from schemas.kvittering import GRAD_INGEN, GRAD_LAGRET, MOTTATT, KvitteringClaims
from schemas.names import (
    DigisosId,
    Eier,
    Fodselsnummer,
    Kommunenummer,
    MeldingId,
    NavEksternRefId,
    Organisasjonsnummer,
    Sha256,
    Uuid,
)
from schemas.records import BRUK_KVITTERING, KatalogRecord, Sertifikat, TransportRecord

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
OSLO = Kommunenummer("0301")
BERGEN = Kommunenummer("4601")
TRONDHEIM = Kommunenummer("5001")
OTHER_PERSON = Fodselsnummer("16076500138")


@dataclass
class Issuer:
    """A connector's signing key, and the chain that it is writing."""

    name: str = "konnektor-oslo"
    kommunenummer: Kommunenummer = OSLO
    authority: Authority = field(init=False)
    certificate: x509.Certificate = field(init=False)
    key: EllipticCurvePrivateKey = field(init=False)
    heads: dict[str, tuple[int, Sha256]] = field(default_factory=dict)
    revoked: datetime | None = None

    def __post_init__(self) -> None:
        self.authority = Authority.create(NOW - timedelta(days=30))
        certificate, key = self.authority.issue(
            self.name, Organisasjonsnummer("958935420"), purpose="signering", now=NOW - timedelta(days=1), key="p256"
        )
        self.certificate, self.key = certificate, cast("EllipticCurvePrivateKey", key)

    def sign(self, claims: KvitteringClaims) -> str:
        return sign_jws(claims.to_json(), self.key, self.certificate)

    def claims(self, soknad: Soknad, status: str = MOTTATT, **changes: Any) -> KvitteringClaims:
        nr, forrige = self.heads.get(soknad.digisos_id, (0, None))
        fields: dict[str, Any] = {
            "kvittering_id": Uuid.new(),
            "digisos_id": soknad.digisos_id,
            "melding_id": soknad.melding_id,
            "kommunenummer": self.kommunenummer,
            "utsteder": self.name,
            "status": status,
            "grad": GRAD_LAGRET if status == MOTTATT else GRAD_INGEN,
            "sha256": soknad.sha256,
            "tidspunkt": NOW + timedelta(seconds=10 + nr),
            "nr": nr + 1,
            "forrige": forrige,
        }
        return KvitteringClaims(**(fields | changes))

    def issue(self, soknad: Soknad, status: str = MOTTATT, **changes: Any) -> Ledd:
        claims = self.claims(soknad, status, **changes)
        ledd = verify_ledd(self.sign(claims), [self.certificate])
        self.heads[soknad.digisos_id] = (claims.nr, ledd.digest)
        return ledd

    def konnektor(self) -> Konnektor:
        revoked = {} if self.revoked is None else {nokkel_id(self.certificate): self.revoked}
        return Konnektor(self.name, [self.certificate], revoked)

    def entry(self) -> KatalogRecord:
        certificate = Sertifikat(
            nokkel_id=nokkel_id(self.certificate),
            bruk=BRUK_KVITTERING,
            pem=certificate_pem(self.certificate).decode(),
            gyldig_fra=self.certificate.not_valid_before_utc,
            gyldig_til=self.certificate.not_valid_after_utc,
            tilbakekalt=self.revoked,
        )
        return KatalogRecord(
            kommunenummer=self.kommunenummer,
            navn="En kommune",
            organisasjonsnummer=Organisasjonsnummer("958935420"),
            leverandor="acme",
            konnektor=self.name,
            sertifikater=(certificate,),
            endret=NOW,
        )


@dataclass
class Soknad:
    """A søknad and the facts about it, as its sender and its kommune would state them."""

    digisos_id: DigisosId = field(default_factory=DigisosId.new)
    melding_id: MeldingId = field(default_factory=MeldingId.new)
    kommunenummer: Kommunenummer = OSLO
    ref: NavEksternRefId = field(default_factory=lambda: NavEksternRefId("ref-1"))
    sha256: Sha256 = field(default_factory=lambda: Sha256.of(b"pakken"))
    fodselsnummer: Fodselsnummer = field(default_factory=lambda: Fodselsnummer("15076500565"))

    def eier(self) -> Eier:
        return self.fodselsnummer.eier(b"k" * 32)

    def transport(self, kind: str, after_s: float = 0, **changes: Any) -> TransportRecord:
        fields: dict[str, Any] = {
            "hendelse_id": Uuid.new(),
            "melding_id": self.melding_id,
            "digisos_id": self.digisos_id,
            "kommunenummer": self.kommunenummer,
            "type": kind,
            "tidspunkt": NOW + timedelta(seconds=after_s),
            "nav_ekstern_ref_id": self.ref,
            "eier": self.eier() if kind == "AKSEPTERT" else None,
            "sha256": self.sha256 if kind == "AKSEPTERT" else None,
        }
        return TransportRecord(**(fields | changes))

    def hendelse(self, vist: str | None, after_s: float = 100, **changes: Any) -> Sakshendelse:
        when = NOW + timedelta(seconds=after_s)
        fields: dict[str, Any] = {
            "melding_id": MeldingId.new(),
            "digisos_id": self.digisos_id,
            "kommunenummer": self.kommunenummer,
            "avsender": "konnektor-oslo",
            "tidspunkt": when,
            "statuser": (Statusendring(status=vist, tidspunkt=when),) if vist else (),
            "vist": vist,
        }
        return Sakshendelse(**(fields | changes))


@dataclass
class Log:
    """Kafka topics in memory: gives each record its place."""

    ends: dict[tuple[str, int], int] = field(default_factory=dict)

    def put(self, topic: str, key: str | bytes, value: bytes, **changes: Any) -> Incoming:
        offset = self.ends.get((topic, 0), 0)
        self.ends[topic, 0] = offset + 1
        fields: dict[str, Any] = {
            "topic": topic,
            "partition": 0,
            "offset": offset,
            "timestamp_ms": int(NOW.timestamp() * 1000),
            "key": key if isinstance(key, bytes) else key.encode(),
            "value": value,
            "headers": (("traceparent", b"00-abc"),),
        }
        return Incoming(**(fields | changes))

    def transport(self, record: TransportRecord) -> Incoming:
        return self.put(TRANSPORT, record.digisos_id, encode(record))

    def kvittering(self, ledd: Ledd, **changes: Any) -> Incoming:
        record = ledd.claims.record(ledd.jws).model_copy(update=changes)
        return self.put(kvittering_topic(ledd.claims.kommunenummer), ledd.claims.digisos_id, encode(record))


@dataclass(frozen=True)
class Kit:
    """What the tests of this folder make their facts with."""

    now: datetime = NOW
    oslo: Kommunenummer = OSLO
    bergen: Kommunenummer = BERGEN
    trondheim: Kommunenummer = TRONDHEIM
    other_person: Fodselsnummer = OTHER_PERSON
    soknad: type[Soknad] = Soknad
    issuer: type[Issuer] = Issuer
    log: type[Log] = Log

    def read(self, record: Incoming, *issuers: Issuer, keys: KeyRing | None = None) -> ReadRecord:
        konnektorer = {issuer.kommunenummer: issuer.konnektor() for issuer in issuers}
        return read_record(record, konnektorer=konnektorer, keys=keys or KeyRing([]))


@pytest.fixture(scope="session")
def kit() -> Kit:
    return Kit()


@pytest.fixture(scope="session")
def oslo(kit: Kit) -> Issuer:
    return kit.issuer()


@pytest.fixture(scope="session")
def bergen(kit: Kit) -> Issuer:
    return kit.issuer(name="konnektor-bergen", kommunenummer=kit.bergen)
