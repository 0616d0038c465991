"""One kommune with its keys, its fagsystem in memory and a sender, on a real Kafka, for the connector's integration tests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.kafka.identities import KafkaIdentities
from broker.kafka.publisher import KafkaPublisher
from broker.record import GJENKJORINGER_HEADER, Outgoing
from broker.routing import dead_letter_topic, kvittering_topic, soknad_topic
from consumers.connector import ConnectorContext
from consumers.connectors.memory import SPEC, MemoryConnector, MemorySettings
from consumers.dedup import DedupStore
from consumers.issued import claims_of
from consumers.kvitteringer import Issuer
from consumers.runner import Kommune, KommuneRunner, Shared
from crypto import Authority, KeyRing, Signer, Trust, seal_package
from schemas.codec import decode, encode
from schemas.errors import PackageMissingError
from schemas.examples import make_soknad, make_vedlegg
from schemas.forsendelse import Forsendelse
from schemas.kvittering import KvitteringClaims
from schemas.names import DigisosId, Kommunenummer, MeldingId, NavEksternRefId, Organisasjonsnummer
from schemas.records import DeadLetterRecord, KvitteringRecord, SoknadRecord

if TYPE_CHECKING:
    from broker.kafka.settings import KafkaSettings
    from broker.record import Incoming, RecordPosition

ORGNR = Organisasjonsnummer("889640782")


class NoDokumentlager:
    async def read(self, dokumentlager_id: object, size: int) -> AsyncIterator[bytes]:
        _ = dokumentlager_id, size
        raise PackageMissingError("ikke her")
        yield b""


class World:
    """One kommune with its keys, its fagsystem in memory, and a sender."""

    def __init__(self, kafka: Any, number: Kommunenummer, settings: KafkaSettings, folder: Path) -> None:
        self.kafka = kafka
        self.number = number
        self.settings = settings
        self.folder = folder
        self.now = datetime.now(UTC)
        authority = Authority.create(self.now, "Test CA")
        self.recipient, self.key = authority.issue(
            "Kommune", ORGNR, purpose="kryptering", now=self.now, valid_days=30, key="rsa2048"
        )
        self.innsyn, self.innsyn_key = authority.issue(
            "Innsyn", ORGNR, purpose="kryptering", now=self.now, valid_days=30, key="rsa2048"
        )
        self.sender = Signer(
            *authority.issue("Avsender", ORGNR, purpose="signering", now=self.now, valid_days=30, key="p256")
        )
        certificate, key = authority.issue(
            "Konnektor", ORGNR, purpose="signering", now=self.now, valid_days=30, key="p256"
        )
        self.issuer = Issuer("acme", certificate, key)
        self.trust = Trust(roots=[authority.certificate])
        self.connector = self.new_fagsystem()
        self.runs = 0

    def new_fagsystem(self, svar: str = "MOTTATT") -> MemoryConnector:
        context = ConnectorContext(self.number, lambda: datetime.now(UTC), NoState())
        return MemoryConnector(MemorySettings(svar=svar), context)

    def soknad(self, **change: Any) -> SoknadRecord:
        innsendt = self.now.replace(microsecond=self.now.microsecond // 1000 * 1000)
        ids = {"digisos_id": DigisosId.new(), "melding_id": MeldingId.new(), "type": "SOKNAD"} | change
        stated = Forsendelse(kommunenummer=self.number, opprettet=innsendt, **ids)
        rng = random.Random(ids["melding_id"])
        document = make_soknad(rng, kind="kort", fodselsnummer="01810012345", kommunenummer=self.number, now=self.now)
        files = [
            ("forsendelse.json", "application/json", stated.to_json()),
            ("soknad.json", "application/json", document),
            ("vedlegg.json", "application/json", make_vedlegg([])),
        ]
        sealed, summary = seal_package(files, recipient=self.recipient, signer=self.sender, now=self.now)
        return SoknadRecord(
            kommunenummer=self.number,
            nav_ekstern_ref_id=NavEksternRefId(f"ref-{ids['melding_id']}"),
            innsendt=innsendt,
            avsender=ORGNR,
            nokkel_id=summary.nokkel_id,
            sha256=summary.sha256,
            storrelse=summary.size,
            pakke=sealed,
            **ids,
        )

    async def send(self, *records: SoknadRecord | bytes, key: bytes | None = None, redrives: int = 0) -> None:
        publisher = await self.kafka.publisher()
        headers = ((GJENKJORINGER_HEADER, str(redrives).encode()),) if redrives else ()
        for record in records:
            value = record if isinstance(record, bytes) else encode(record)
            place = key if key is not None else record.digisos_id.encode()
            await publisher.publish(Outgoing(soknad_topic(self.number), place, value, headers))

    @asynccontextmanager
    async def running(
        self, *, store: str = "lokalt", hold: asyncio.Event | None = None
    ) -> AsyncIterator[KommuneRunner]:
        """Run a connector; one with ``hold`` publishes nothing until that is set."""
        with ThreadPoolExecutor(2) as pool, closing(KafkaIdentities(self.settings)) as identities:
            async with (
                DedupStore(self.folder / f"{store}.sqlite") as dedup,
                HeldPublisher(self.settings, hold) as publisher,
            ):
                shared = Shared(
                    leverandor=self.kafka.vendor,
                    issuer=self.issuer,
                    innsyn=self.innsyn,
                    trust=self.trust,
                    kafka=self.settings,
                    publisher=publisher,
                    dokumentlager=NoDokumentlager(),
                    store=dedup,
                    pool=pool,
                    clock=lambda: datetime.now(UTC),
                    random=lambda: 0.0,
                    identities=identities,
                )
                ring = KeyRing([(self.recipient, self.key)])
                kommune = Kommune(self.number, ring, SPEC, MemorySettings())
                runner = KommuneRunner(kommune, shared, connector=self.connector)
                task = asyncio.create_task(runner.run())
                try:
                    yield runner
                finally:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                    if not task.cancelled():
                        task.result()

    async def read(self, topic: str, count: int) -> list[Incoming]:
        found: list[Incoming] = []
        tail = await self.kafka.tail([topic])
        async for batch in tail:
            found += batch
            if len(found) >= count:
                return found
        return found

    async def kvitteringer(self, count: int) -> list[KvitteringClaims]:
        records = await self.read(kvittering_topic(self.number), count)
        return [claims_of(decode(KvitteringRecord, record.value).jws) for record in records]

    async def dead_letters(self, count: int) -> list[tuple[Incoming, DeadLetterRecord]]:
        records = await self.read(dead_letter_topic(self.number), count)
        return [(record, decode(DeadLetterRecord, record.value)) for record in records]


class HeldPublisher(KafkaPublisher):
    """Has records on their way for as long as it is told to."""

    def __init__(self, settings: KafkaSettings, hold: asyncio.Event | None) -> None:
        super().__init__(settings)
        self.hold = hold

    async def publish(self, outgoing: Outgoing) -> RecordPosition:
        if self.hold is not None:
            await self.hold.wait()
        return await super().publish(outgoing)


class NoState:
    async def get(self, name: str) -> str | None:
        _ = name
        return None

    async def put(self, name: str, value: str) -> None:
        _ = name, value
