"""What a connector costs end to end against its one private RSA operation: CPU per søknad, in this process with all its threads.

Kafka is real and another process; the fagsystem is in memory. Søknader of about 13 KB lie on the topic before the connector
starts. A slice runs from the tenth søknad until the last kvittering is durable on its topic: read, opened, verified, checked,
handed over, answered, signed, stored with an fsync, published. The floor is as many bare private operations, in as many threads.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

from _rows import Row, medians
from _sender import AVSENDER, CONNECTOR, all_kommuner, cluster, make_keys, scratch, sending_to
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from broker.clock import system_clock
from broker.kafka.publisher import KafkaPublisher
from broker.record import Outgoing
from broker.routing import kvittering_topic, soknad_topic
from consumers.connector import ConnectorContext
from consumers.connectors.memory import SPEC, MemoryConnector, MemorySettings
from consumers.dedup import DedupStore
from consumers.kvitteringer import Issuer
from consumers.runner import Kommune, KommuneRunner, Shared
from crypto import KeyRing, Trust, seal_package
from schemas.codec import encode
from schemas.forsendelse import FILENAME, Forsendelse
from schemas.names import DigisosId, MeldingId, NavEksternRefId
from schemas.records import SOKNAD, SoknadRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from _sender import Cluster
    from cryptography import x509

    from broker.record import RecordPosition

NUMBER = all_kommuner()[0]
SLICES = 3
SOKNADER = 300
WARM = 10
WITHIN_S = 120.0
GOALS: tuple[tuple[Literal["rsa2048", "rsa3072"], float], ...] = (("rsa2048", 0.55), ("rsa3072", 0.70))


def rows() -> list[Row]:
    """Measure; takes about a minute."""
    return asyncio.run(_rows())


async def _rows() -> list[Row]:
    async with scratch() as folder, cluster([NUMBER], folder) as kafka:
        return [await _row(kafka, folder, key, goal) for key, goal in GOALS]


async def _row(kafka: Cluster, folder: Path, size: Literal["rsa2048", "rsa3072"], goal: float) -> Row:
    certificate, key = make_keys().authority.issue(
        "Kommune", AVSENDER, purpose="kryptering", now=system_clock(), key=size
    )
    assert isinstance(key, rsa.RSAPrivateKey)
    connector: list[float] = []
    floor: list[float] = []
    for nr in range(SLICES):
        await _fill(kafka, certificate)
        floor.append(_floor(key))
        connector.append(await _slice(kafka, folder / f"{size}-{nr}.sqlite", certificate, key))
    ((ours, bare),) = [medians((connector, floor))]
    name = f"konnektor ende til ende, {size.upper()}: bare operasjoner ÷ søknader, per kjerne"
    return Row(name, ours * 1e6, bare * 1e6, bare / ours, goal, "higher", "µs CPU")


async def _fill(kafka: Cluster, certificate: x509.Certificate) -> None:
    async with KafkaPublisher(kafka.producers) as publisher:
        for outcome in await publisher.publish_all([_message(certificate) for _ in range(SOKNADER)]):
            assert not isinstance(outcome, Exception)


def _message(certificate: x509.Certificate) -> Outgoing:
    now = system_clock()
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)
    sending = sending_to(NUMBER)
    stated = Forsendelse(
        digisos_id=DigisosId.new(), melding_id=MeldingId.new(), kommunenummer=NUMBER, type=SOKNAD, opprettet=now
    )
    files = [
        (FILENAME, "application/json", stated.to_json()),
        ("soknad.json", "application/json", sending.soknad_json),
        ("vedlegg.json", "application/json", sending.vedlegg_json),
        *((file.filnavn, file.mimetype, b"".join(file.read())) for file in sending.files),
    ]
    sealed, summary = seal_package(files, recipient=certificate, signer=make_keys().signer, now=now)
    record = SoknadRecord(
        melding_id=stated.melding_id,
        digisos_id=stated.digisos_id,
        kommunenummer=NUMBER,
        nav_ekstern_ref_id=NavEksternRefId(f"ref-{stated.melding_id}"),
        innsendt=now,
        avsender=AVSENDER,
        nokkel_id=summary.nokkel_id,
        sha256=summary.sha256,
        storrelse=summary.size,
        pakke=sealed,
    )
    return Outgoing(soknad_topic(NUMBER), record.digisos_id.encode(), encode(record))


class _CountingPublisher(KafkaPublisher):
    """Notes the CPU time when kvittering number ``WARM`` and the last one are on their topic."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        self.count = 0
        self.began = self.ended = 0.0
        self.done = asyncio.Event()

    async def publish(self, outgoing: Outgoing) -> RecordPosition:
        position = await super().publish(outgoing)
        if outgoing.topic == kvittering_topic(NUMBER):
            self.count += 1
            if self.count == WARM:
                self.began = time.process_time()
            if self.count == SOKNADER:
                self.ended = time.process_time()
                self.done.set()
        return position


async def _slice(kafka: Cluster, store: Path, certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> float:
    """Return the CPU seconds of one søknad."""
    keys = make_keys()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        async with DedupStore(store) as dedup, _CountingPublisher(kafka.connector) as publisher:
            shared = Shared(
                leverandor=CONNECTOR,
                issuer=Issuer(CONNECTOR, *keys.connector),
                innsyn=certificate,
                trust=Trust(roots=[keys.authority.certificate]),
                kafka=kafka.connector,
                publisher=publisher,
                dokumentlager=_Nowhere(),
                store=dedup,
                pool=pool,
                clock=system_clock,
                random=lambda: 0.5,
            )
            settings = MemorySettings()
            kommune = Kommune(NUMBER, KeyRing([(certificate, key)]), SPEC, settings)
            connector = MemoryConnector(settings, ConnectorContext(NUMBER, system_clock, dedup.state(NUMBER)))
            running = asyncio.create_task(KommuneRunner(kommune, shared, connector=connector).run())
            try:
                async with asyncio.timeout(WITHIN_S):
                    await publisher.done.wait()
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            assert len(connector.soknader) == SOKNADER
            return (publisher.ended - publisher.began) / (SOKNADER - WARM)


class _Nowhere:
    async def read(self, dokumentlager_id: object, size: int) -> AsyncIterator[bytes]:
        _ = dokumentlager_id, size
        raise AssertionError("every package is in its record")
        yield b""


def _floor(key: rsa.RSAPrivateKey) -> float:
    """Return the CPU seconds of one bare private operation, in as many threads as the connector has."""
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    wrapped = key.public_key().encrypt(bytes(32), oaep)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda _: key.decrypt(wrapped, oaep), range(WARM)))
        began = time.process_time()
        list(pool.map(lambda _: key.decrypt(wrapped, oaep), range(SOKNADER)))
        return (time.process_time() - began) / SOKNADER


if __name__ == "__main__":
    from _rows import print_table

    print_table(rows())
