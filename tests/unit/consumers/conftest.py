"""Keys, records and fakes that the consumers' unit tests share: Kafka's side is faked here, and real in the integration tier."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.record import Incoming, Outgoing, RecordPosition
from broker.routing import soknad_topic
from consumers.connector import ConnectorContext
from consumers.connectors.memory import MemoryConnector, MemorySettings
from consumers.dedup import DedupStore
from consumers.issued import claims_of
from consumers.kvitteringer import Issuer, Kvitteringer
from consumers.opening import Opener
from crypto import Authority, KeyRing, Signer, Trust, seal_package
from schemas.codec import decode, encode
from schemas.errors import MeldingsformidlerError
from schemas.examples import make_soknad, make_vedlegg, synthetic_fodselsnummer
from schemas.forsendelse import Forsendelse
from schemas.kvittering import KvitteringClaims
from schemas.names import DigisosId, DokumentlagerId, Kommunenummer, MeldingId, NavEksternRefId, Organisasjonsnummer
from schemas.records import KvitteringRecord, SoknadRecord

NUMBER = Kommunenummer("4601")
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ORGNR = Organisasjonsnummer("889640782")


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class FakePublisher:
    """Keeps what is published; raises what it is told to, one for each call."""

    def __init__(self) -> None:
        self.published: list[Outgoing] = []
        self.failures: list[MeldingsformidlerError] = []

    async def publish(self, outgoing: Outgoing) -> RecordPosition:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        self.published.append(outgoing)
        return RecordPosition(outgoing.topic, 0, len(self.published))

    async def publish_all(self, batch: Iterable[Outgoing]) -> Sequence[Any]:
        return [await self.publish(each) for each in batch]

    async def warm(self, topics: Iterable[str]) -> None:
        _ = topics

    def on(self, topic: str) -> list[Outgoing]:
        return [each for each in self.published if each.topic == topic]

    def claims(self, topic: str) -> list[KvitteringClaims]:
        return [claims_of(decode(KvitteringRecord, each.value).jws) for each in self.on(topic)]


class FakeLager:
    """A dokumentlager in memory."""

    def __init__(self) -> None:
        self.packages: dict[DokumentlagerId, bytes] = {}
        self.error: MeldingsformidlerError | None = None

    async def read(self, dokumentlager_id: DokumentlagerId, size: int) -> AsyncIterator[bytes]:
        _ = size
        if self.error is not None:
            raise self.error
        data = self.packages[dokumentlager_id]
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]


class Keys:
    """Made once for all: RSA keys take their time."""

    def __init__(self) -> None:
        self.authority = Authority.create(NOW, "Test CA")
        self.recipient, self.key = self._issue("Kommune", "kryptering", "rsa2048")
        self.innsyn, self.innsyn_key = self._issue("Innsyn", "kryptering", "rsa2048")
        self.sender = Signer(*self._issue("Avsender", "signering", "p256"))
        self.connector = self._issue("Konnektor", "signering", "p256")
        self.other = self._issue("En annen", "signering", "p256")
        self.ring = KeyRing([(self.recipient, self.key)])
        self.trust = Trust(roots=[self.authority.certificate])
        self.issuer = Issuer("acme", *self.connector)

    def _issue(self, name: str, purpose: Any, key: Any) -> Any:
        return self.authority.issue(name, ORGNR, purpose=purpose, now=NOW, valid_days=300, key=key)


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def publisher() -> FakePublisher:
    return FakePublisher()


@pytest.fixture
def lager() -> FakeLager:
    return FakeLager()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DedupStore]:
    async with DedupStore(tmp_path / "lokalt.sqlite") as store:
        yield store


@pytest.fixture
def opener(keys: Keys, lager: FakeLager) -> Iterable[Opener]:
    with ThreadPoolExecutor(1) as pool:
        yield Opener(keys.ring, keys.trust, lager, pool)


@pytest.fixture
def kvitteringer(keys: Keys, store: DedupStore, publisher: FakePublisher, clock: Clock) -> Kvitteringer:
    return Kvitteringer(NUMBER, issuer=keys.issuer, store=store, publisher=publisher, clock=clock)


@pytest.fixture
def fagsystem(store: DedupStore, clock: Clock) -> MemoryConnector:
    return MemoryConnector(MemorySettings(), ConnectorContext(NUMBER, clock, store.state(NUMBER)))


@pytest.fixture
def make_record(keys: Keys) -> Callable[..., SoknadRecord]:
    def make(
        *,
        files: dict[str, bytes] | None = None,
        stated: dict[str, Any] | None = None,
        foreign: bool = False,
        **change: Any,
    ) -> SoknadRecord:
        ids = {"digisos_id": DigisosId.new(), "melding_id": MeldingId.new(), "type": "SOKNAD"} | change
        told = {"kommunenummer": NUMBER, "opprettet": NOW} | ids | (stated or {})
        rng = random.Random(1)
        person = synthetic_fodselsnummer(rng)
        content = files or {
            "soknad.json": make_soknad(rng, kind="kort", fodselsnummer=person, kommunenummer=NUMBER, now=NOW),
            "vedlegg.json": make_vedlegg([]),
        }
        packed = [] if foreign else [("forsendelse.json", "application/json", Forsendelse(**told).to_json())]
        packed += [(name, "application/octet-stream", data) for name, data in content.items()]
        sealed, summary = seal_package(packed, recipient=keys.recipient, signer=keys.sender, now=NOW)
        return SoknadRecord(
            kommunenummer=NUMBER,
            nav_ekstern_ref_id=NavEksternRefId("ref-1"),
            innsendt=NOW,
            avsender=ORGNR,
            nokkel_id=summary.nokkel_id,
            sha256=summary.sha256,
            storrelse=summary.size,
            pakke=sealed,
            **ids,
        )

    return make


@pytest.fixture
def incoming() -> Callable[..., Incoming]:
    def make(record: SoknadRecord | bytes, *, key: bytes | None = None, offset: int = 0, headers: Any = ()) -> Incoming:
        value = record if isinstance(record, bytes) else encode(record)
        place = key if key is not None else b"" if isinstance(record, bytes) else record.digisos_id.encode()
        return Incoming(soknad_topic(NUMBER), 0, offset, int(NOW.timestamp() * 1000), place, value, tuple(headers))

    return make
