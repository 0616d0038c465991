"""The sending side with everything real, for the benchmarks: Kafka, outbox, relay and the Python call.

One RSA-3072 key pair is behind every kommune's certificate: 357 of them would take minutes to make, and what is cached and
looked up goes by certificate. Each kommune has a certificate of its own.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import secrets
import tempfile
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import yaml

from broker.clock import system_clock
from broker.embedded.server import EmbeddedKafka
from broker.files import write_private
from broker.kafka.admin import KafkaAdmin
from broker.kafka.publisher import KafkaPublisher
from broker.katalog import Katalog
from broker.log import configure_logging
from broker.record import Outgoing
from broker.register import kommune_names, made_up_organisasjonsnummer
from broker.routing import KATALOG, central_topics, connector_rights, kommune_topics, process_rights
from broker.sql import Database, SqliteDatabase
from consumers.settings import CONFIG_ENV
from crypto import (
    Authority,
    KeyRing,
    KeyWrapper,
    PrivateKey,
    Signer,
    Trust,
    certificate_pem,
    new_private_key,
    nokkel_id,
    write_private_key,
)
from producers.avsenderkopi import Avsenderkopier
from producers.checks import IntakeLimits
from producers.database import MIGRATIONS
from producers.dokument import Dokument
from producers.dokumentlager import DiskDokumentlager
from producers.library import IntakeKeys, Producer
from producers.outbox import Outbox, Replaced, Sent
from producers.relay import Relay
from schemas.codec import encode
from schemas.examples import make_pdf, make_soknad, make_vedlegg, synthetic_fodselsnummer
from schemas.names import DigisosId, Fodselsnummer, Kommunenummer, NavEksternRefId, Organisasjonsnummer
from schemas.records import BRUK_KRYPTERING, BRUK_KVITTERING, TRANSPORT_SENDT, KatalogRecord, Sertifikat

if TYPE_CHECKING:
    from cryptography import x509

    from broker.kafka.settings import KafkaSettings
    from producers.leases import Fence

AVSENDER = Organisasjonsnummer("889640782")
CONNECTOR = "acme"
EIER_KEY = b"e" * 32
NOWHERE = "http://127.0.0.1:9"
DEADLINE_S = 60.0
KOMMUNER_PER_REQUEST = 200
"""Kafka refuses a request that changes more than 10 000 things; a topic with two partitions and its settings is nine."""


@dataclass(frozen=True)
class Keys:
    """The sender's signer (P-256), the key behind every kommune's certificate (RSA-3072), and a connector's (P-256)."""

    authority: Authority
    signer: Signer
    kommune: PrivateKey
    connector: tuple[x509.Certificate, PrivateKey]


@cache
def make_keys() -> Keys:
    now = system_clock()
    authority = Authority.create(now)
    signing, key = authority.issue("Avsender", AVSENDER, purpose="signering", now=now, key="p256")
    connector = authority.issue("Konnektor", AVSENDER, purpose="signering", now=now, key="p256")
    return Keys(authority, Signer(signing, key), new_private_key("rsa3072"), connector)


def batched(kommuner: Sequence[Kommunenummer], size: int) -> Iterator[Sequence[Kommunenummer]]:
    return (kommuner[start : start + size] for start in range(0, len(kommuner), size))


def all_kommuner() -> tuple[Kommunenummer, ...]:
    return tuple(kommune_names())


@cache
def kommune_certificate(kommunenummer: Kommunenummer) -> x509.Certificate:
    keys, owner = make_keys(), made_up_organisasjonsnummer(int(kommunenummer))
    name = kommune_names()[kommunenummer]
    return keys.authority.certify(keys.kommune, name, owner, purpose="kryptering", now=system_clock())


def make_katalog(kommuner: Iterable[Kommunenummer]) -> Katalog:
    return Katalog(_entry(knr) for knr in kommuner)


def _entry(knr: Kommunenummer) -> KatalogRecord:
    uses = ((kommune_certificate(knr), BRUK_KRYPTERING), (make_keys().connector[0], BRUK_KVITTERING))
    return KatalogRecord(
        kommunenummer=knr,
        navn=kommune_names()[knr],
        organisasjonsnummer=made_up_organisasjonsnummer(int(knr)),
        leverandor=CONNECTOR,
        konnektor=CONNECTOR,
        sertifikater=tuple(_listed(certificate, use) for certificate, use in uses),
        endret=system_clock(),
    )


def _listed(certificate: x509.Certificate, use: str) -> Sertifikat:
    return Sertifikat(
        nokkel_id=nokkel_id(certificate),
        bruk=use,
        pem=certificate_pem(certificate).decode(),
        gyldig_fra=certificate.not_valid_before_utc,
        gyldig_til=certificate.not_valid_after_utc,
    )


@dataclass(frozen=True)
class Sending:
    """A søknad of about 8 KB with a PDF of 4 KB: some 13 KB when sealed."""

    kommunenummer: Kommunenummer
    person: Fodselsnummer
    soknad_json: bytes
    vedlegg_json: bytes
    files: tuple[Dokument, ...]


@cache
def sending_to(knr: Kommunenummer) -> Sending:
    rng = Random(int(knr))
    person = synthetic_fodselsnummer(rng)
    soknad = make_soknad(rng, fodselsnummer=person, kommunenummer=knr)
    pdf = Dokument.of_bytes("Soknad.pdf", make_pdf(rng, 4096))
    return Sending(knr, Fodselsnummer(person), soknad, make_vedlegg([]), (pdf,))


@dataclass(frozen=True)
class Cluster:
    """A running broker, seen by its administrator and by three processes, each with its own rights."""

    admin: KafkaSettings
    producers: KafkaSettings
    kvittering: KafkaSettings
    connector: KafkaSettings


@asynccontextmanager
async def cluster(kommuner: Sequence[Kommunenummer], folder: Path) -> AsyncGenerator[Cluster]:
    """Run the embedded Kafka with the topics of these kommuner."""
    server, password = EmbeddedKafka(folder / "kafka"), secrets.token_urlsafe(16)
    rights = {
        "producers": process_rights("producers", kommuner),
        "kvittering": process_rights("kvittering", kommuner),
        CONNECTOR: [rule for knr in kommuner for rule in connector_rights(CONNECTOR, CONNECTOR, knr)],
    }
    await asyncio.to_thread(server.start)
    try:
        async with KafkaAdmin(server.admin) as admin:
            await admin.ensure_topics(central_topics())
            for some in batched(kommuner, KOMMUNER_PER_REQUEST):
                await admin.ensure_topics(spec for knr in some for spec in kommune_topics(knr))
            for user, rules in rights.items():
                await admin.ensure_acls(rules)
                await admin.upsert_user(user, password)
        yield Cluster(server.admin, *(server.admin.as_user(user, password) for user in rights))
    finally:
        # A clean stop of thousands of partitions takes seconds, and the folder goes away anyhow.
        await asyncio.to_thread(server.kill)


def write_keys(kommuner: Iterable[Kommunenummer], folder: Path) -> None:
    """Write what the receiving processes need: keys (0600), certificates, and the owners' key."""
    keys = make_keys()
    certificates = {"ca.pem": keys.authority.certificate, "konnektor.pem": keys.connector[0]}
    certificates |= {f"kommune-{knr}.pem": kommune_certificate(knr) for knr in kommuner}
    for name, certificate in certificates.items():
        (folder / name).write_bytes(certificate_pem(certificate))
    write_private_key(folder / "kommune.key", keys.kommune)
    write_private_key(folder / "konnektor.key", keys.connector[1])
    write_private(folder / "eier.key", EIER_KEY.hex().encode())


def kvittering_environment(kommuner: Sequence[Kommunenummer], folder: Path) -> dict[str, str]:
    """Return the settings of a ``kvittering`` process. Nobody asks it anything, so no token needs an issuer."""
    return {
        "FORMIDLER_KVITTERING_PORT": "0",
        "FORMIDLER_KVITTERING_DATABASE": str(folder / "kvittering.sqlite"),
        "FORMIDLER_KVITTERING_EIER_KEY": str(folder / "eier.key"),
        "FORMIDLER_KVITTERING_INNSYN_KEYS": json.dumps(
            [str(folder / "kommune.key"), str(folder / f"kommune-{kommuner[0]}.pem")]
        ),
        "FORMIDLER_KVITTERING_ISSUER": NOWHERE,
        "FORMIDLER_KVITTERING_JWKS_URL": f"{NOWHERE}/jwks",
    }


def connector_environment(kommuner: Iterable[Kommunenummer], folder: Path) -> dict[str, str]:
    """Return the settings of a connector process that keeps søknader in memory; writes its file.

    It asks for no token and fetches nothing: that is for packages too large for a record, and none here is.
    """
    numbers = tuple(kommuner)
    names = [f"kommune-{knr}.pem" for knr in numbers]
    setup = {
        "konnektor": CONNECTOR,
        "leverandor": CONNECTOR,
        "signering": {"sertifikat": "konnektor.pem", "nokkel": "konnektor.key"},
        "tillit": {"rotter": ["ca.pem"]},
        "innsyn_sertifikat": names[0],
        "tokenutsteder": {"navn": NOWHERE, "token_url": f"{NOWHERE}/token"},
        "dokumentlager_url": NOWHERE,
        "database": "konnektor.sqlite",
        "port": 0,
        "kommuner": [
            {"kommunenummer": str(knr), "nokler": [name, "kommune.key"], "type": "memory"}
            for knr, name in zip(numbers, names, strict=True)
        ],
    }
    path = folder / "konnektor.yaml"
    path.write_text(yaml.safe_dump(setup), "utf-8")
    return {CONFIG_ENV: str(path)}


async def publish_katalog(kafka: KafkaSettings, kommuner: Iterable[Kommunenummer]) -> None:
    async with KafkaPublisher(kafka) as publisher:
        for entry in map(_entry, kommuner):
            await publisher.publish(Outgoing(KATALOG, entry.kommunenummer.encode(), encode(entry)))


@asynccontextmanager
async def scratch() -> AsyncGenerator[Path]:
    """Give a folder that goes away, and send log lines to nowhere at their full cost."""
    nowhere = await asyncio.to_thread(open, os.devnull, "w")
    with nowhere, tempfile.TemporaryDirectory(prefix="formidler-bench-") as name:
        configure_logging("benchmark", stream=nowhere)
        yield Path(name)


class WatchedOutbox(Outbox):
    """An outbox that tells when a søknad's SENDT has left, which is the last thing that the relay does for it."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.done = 0
        self._changed = asyncio.Event()

    async def replace(self, sent: Sequence[Sent], fence: Fence | None = None) -> Replaced | None:
        replaced = await super().replace(sent, fence)
        self.done += sum(one.queued.message.type == TRANSPORT_SENDT for one in sent)
        self._changed.set()
        return replaced

    async def wait_until_done(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while self.done < count:
                self._changed.clear()
                await self._changed.wait()


class Sender:
    """The ``producers`` process without its HTTP. Made by ``running_sender``."""

    def __init__(self, producer: Producer, outbox: WatchedOutbox, publisher: KafkaPublisher) -> None:
        self.producer = producer
        self.outbox = outbox
        self.publisher = publisher
        self.accepted = 0
        self._refs = (NavEksternRefId(f"bench-{nr}") for nr in itertools.count())

    async def submit(self, sending: Sending) -> DigisosId:
        digisos_id = await self.producer.submit(
            sending.kommunenummer,
            next(self._refs),
            soknad_json=sending.soknad_json,
            vedlegg_json=sending.vedlegg_json,
            files=sending.files,
            person=sending.person,
        )
        self.accepted += 1
        return digisos_id

    async def submit_all(self, sendings: Iterable[Sending], *, at_once: int) -> None:
        """Submit with ``at_once`` under way, and wait until the last one's SENDT is on its topic."""
        waiting = iter(sendings)

        async def worker() -> None:
            for sending in waiting:
                await self.submit(sending)

        async with asyncio.TaskGroup() as workers:
            for _ in range(at_once):
                workers.create_task(worker())
        await self.outbox.wait_until_done(self.accepted)


@asynccontextmanager
async def running_sender(kafka: KafkaSettings, katalog: Katalog, folder: Path) -> AsyncGenerator[Sender]:
    """Run producer, outbox and relay as ``producers/__main__.py`` puts them together."""
    stop = asyncio.Event()
    async with SqliteDatabase(folder / "producers.sqlite", MIGRATIONS) as database, KafkaPublisher(kafka) as publisher:
        outbox = WatchedOutbox(database)
        dokumentlager, signer = DiskDokumentlager(folder / "dokumentlager"), make_keys().signer
        producer = Producer(
            katalog=katalog,
            katalog_problem=lambda: None,
            outbox=outbox,
            dokumentlager=dokumentlager,
            kopier=Avsenderkopier(
                database, dokumentlager, wrapper=KeyWrapper([EIER_KEY]), trust=Trust(pinned=[signer.certificate])
            ),
            keys=IntakeKeys(signer, KeyRing(()), EIER_KEY),
            limits=IntakeLimits(),
            clear_files=True,
            clock=system_clock,
        )
        gc.freeze()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(Relay(outbox, publisher, system_clock).run(stop))
            try:
                yield Sender(producer, outbox, publisher)
            finally:
                stop.set()
        producer.close()
