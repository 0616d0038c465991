"""A part of a year's topics, invented: søknader with their AKSEPTERT, SENDT and a signed MOTTATT, as they lie on the topics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, cast
from uuid import UUID

from broker.record import Incoming, TopicPartition
from broker.routing import TRANSPORT, hendelse_topic, kvittering_topic
from crypto.authority import Authority
from crypto.certificates import certificate_pem, nokkel_id
from crypto.jws import sign_jws
from schemas.codec import encode
from schemas.kvittering import GRAD_LAGRET, MOTTATT, KvitteringClaims
from schemas.names import DigisosId, Eier, Kommunenummer, MeldingId, NavEksternRefId, Organisasjonsnummer, Sha256, Uuid
from schemas.records import (
    BRUK_KVITTERING,
    TRANSPORT_AKSEPTERT,
    TRANSPORT_SENDT,
    KatalogRecord,
    Sertifikat,
    TransportRecord,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

KOMMUNER = 20
TRANSPORT_PARTITIONS = 4
KOMMUNE_PARTITIONS = 2
BATCH = 500
ORGNR = Organisasjonsnummer("958935420")
HEADERS = (
    ("ce_specversion", b"1.0"),
    ("ce_id", b"5a0d8c4e-0000-4000-8000-000000000000"),
    ("ce_source", b"/konnektor"),
    ("ce_type", b"no.fiks.kvittering.v1"),
    ("ce_time", b"2026-01-01T00:00:00.000Z"),
    ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
)
"""What our publishers write, in number and length."""


@dataclass
class _Kommune:
    number: Kommunenummer
    authority: Authority
    now: datetime
    key: EllipticCurvePrivateKey = field(init=False)
    entry: KatalogRecord = field(init=False)

    def __post_init__(self) -> None:
        name = f"konnektor-{self.number}"
        certificate, key = self.authority.issue(name, ORGNR, purpose="signering", now=self.now, key="p256")
        self.certificate, self.key = certificate, cast("EllipticCurvePrivateKey", key)
        held = Sertifikat(
            nokkel_id=nokkel_id(certificate),
            bruk=BRUK_KVITTERING,
            pem=certificate_pem(certificate).decode(),
            gyldig_fra=certificate.not_valid_before_utc,
            gyldig_til=certificate.not_valid_after_utc,
        )
        self.entry = KatalogRecord(
            kommunenummer=self.number,
            navn=f"Kommune {self.number}",
            organisasjonsnummer=ORGNR,
            leverandor="acme",
            konnektor=name,
            sertifikater=(held,),
            endret=self.now,
        )


@dataclass
class Sample:
    """Topics in memory.

    Attributes:
        entries: The katalog.
        records: Each topic's records in order, with their partitions.
    """

    entries: list[KatalogRecord]
    records: dict[str, list[Incoming]]

    @property
    def topics(self) -> tuple[str, ...]:
        """Every topic, those without records too."""
        kommuner = [entry.kommunenummer for entry in self.entries]
        return (TRANSPORT, *map(kvittering_topic, kommuner), *map(hendelse_topic, kommuner))

    def __len__(self) -> int:
        return sum(map(len, self.records.values()))


def make_sample(soknader: int, seed: int = 1, kommuner: Sequence[Kommunenummer] | None = None) -> Sample:
    """Return ``3 * soknader`` records, the same for the same seed but for keys and signatures."""
    rng, start = Random(seed), datetime.now(UTC) - timedelta(hours=1)
    authority = Authority.create(start)
    numbers = kommuner or [Kommunenummer(f"{9000 + nr}") for nr in range(KOMMUNER)]
    all_kommuner = [_Kommune(number, authority, start) for number in numbers]
    ends: dict[TopicPartition, int] = {}
    records: dict[str, list[Incoming]] = {}

    def put(topic: str, partitions: int, digisos_id: str, value: bytes, moment: datetime) -> None:
        key = digisos_id.encode()
        place = TopicPartition(topic, int(digisos_id[:4], 16) % partitions)
        offset = ends.get(place, 0)
        ends[place] = offset + 1
        timestamp_ms = int(moment.timestamp() * 1000)
        records.setdefault(topic, []).append(Incoming(*place, offset, timestamp_ms, key, value, HEADERS))

    for nr in range(soknader):
        moment = start + timedelta(milliseconds=nr)
        kommune = all_kommuner[rng.randrange(len(all_kommuner))]
        for topic, partitions, digisos_id, value in _one(rng, kommune, nr, moment):
            put(topic, partitions, digisos_id, value, moment)
    return Sample([kommune.entry for kommune in all_kommuner], records)


def _one(rng: Random, kommune: _Kommune, nr: int, moment: datetime) -> Iterable[tuple[str, int, str, bytes]]:
    def uuid() -> str:
        return str(UUID(int=rng.getrandbits(128), version=4))

    digisos_id, melding_id, sha256 = DigisosId(uuid()), MeldingId(uuid()), Sha256.of(b"%d" % nr)

    def transport(kind: str) -> bytes:
        first = kind == TRANSPORT_AKSEPTERT
        return encode(
            TransportRecord(
                hendelse_id=Uuid(uuid()),
                melding_id=melding_id,
                digisos_id=digisos_id,
                kommunenummer=kommune.number,
                type=kind,
                tidspunkt=moment,
                nav_ekstern_ref_id=NavEksternRefId(f"ref-{nr}"),
                eier=Eier(f"{nr % 400_000:064x}") if first else None,
                sha256=sha256 if first else None,
            )
        )

    claims = KvitteringClaims(
        kvittering_id=Uuid(uuid()),
        digisos_id=digisos_id,
        melding_id=melding_id,
        kommunenummer=kommune.number,
        utsteder=kommune.entry.konnektor,
        status=MOTTATT,
        grad=GRAD_LAGRET,
        sha256=sha256,
        tidspunkt=moment + timedelta(seconds=1),
        nr=1,
    )
    jws = sign_jws(claims.to_json(), kommune.key, kommune.certificate)
    yield TRANSPORT, TRANSPORT_PARTITIONS, digisos_id, transport(TRANSPORT_AKSEPTERT)
    yield TRANSPORT, TRANSPORT_PARTITIONS, digisos_id, transport(TRANSPORT_SENDT)
    yield kvittering_topic(kommune.number), KOMMUNE_PARTITIONS, digisos_id, encode(claims.record(jws))


class MemoryTail:
    """A reader of a sample, in batches like those of Kafka: a topic's records in order, the topics in turn."""

    def __init__(self, sample: Sample) -> None:
        self.caught_up = asyncio.Event()
        self.total = len(sample)
        self.first: Mapping[TopicPartition, int] = {}
        self._lanes = list(sample.records.values())

    async def __aiter__(self) -> AsyncIterator[Sequence[Incoming]]:
        longest = max(map(len, self._lanes), default=0)
        for at in range(0, longest, BATCH):
            for lane in self._lanes:
                if batch := lane[at : at + BATCH]:
                    yield batch
        self.caught_up.set()
        await asyncio.Event().wait()

    @classmethod
    @asynccontextmanager
    async def open(cls, sample: Sample) -> AsyncIterator[MemoryTail]:
        """Open it, as ``OpenTail`` does."""
        yield cls(sample)
