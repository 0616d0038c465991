"""``python -m producers`` as a child, with all that it needs: a kommune, keys in files, an issuer of tokens, citizens."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import FastAPI
from patience import until

from broker.issuer import LocalIssuer, issuer_router
from broker.katalog import Katalog
from broker.record import Incoming, Outgoing
from broker.routing import KATALOG, TRANSPORT
from broker.sql import open_database
from broker.supervisor.layout import free_ports
from broker.tokens import SCOPE, ClientTokens
from broker.web import install_fiks_errors, serve
from crypto.authority import Authority
from crypto.certificates import certificate_pem, nokkel_id
from crypto.envelope import check_forsendelse, open_package
from crypto.keys import KeyRing, write_private_key
from crypto.spool import Spool
from crypto.trust import Trust
from producers import gjenoppretting
from producers.database import MIGRATIONS
from producers.dokument import Dokument
from producers.http_client import SoknadClient
from schemas.codec import decode, encode
from schemas.examples import make_jpeg, make_pdf, make_png, make_soknad, make_vedlegg, synthetic_fodselsnummer
from schemas.names import DigisosId, Fodselsnummer, Kommunenummer, NavEksternRefId, Organisasjonsnummer
from schemas.records import (
    BRUK_KRYPTERING,
    BRUK_KVITTERING,
    KatalogRecord,
    Sertifikat,
    SoknadRecord,
    TransportRecord,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from cryptography import x509

ORGNR = Organisasjonsnummer("958935420")
DEADLINE_S = 60


def now() -> datetime:
    return datetime.now(UTC)


def entry_of(certificate: x509.Certificate, use: str) -> Sertifikat:
    return Sertifikat(
        nokkel_id=nokkel_id(certificate),
        bruk=use,
        pem=certificate_pem(certificate).decode(),
        gyldig_fra=certificate.not_valid_before_utc,
        gyldig_til=certificate.not_valid_after_utc,
    )


@dataclass
class Citizen:
    """A citizen with a søknad of three files."""

    fodselsnummer: Fodselsnummer
    soknad_json: bytes
    vedlegg_json: bytes
    content: dict[str, bytes]

    @property
    def files(self) -> list[Dokument]:
        return [Dokument.of_bytes(name, data) for name, data in self.content.items()]


def make_citizen(seed: int, kommunenummer: str, pdf_bytes: int = 4000) -> Citizen:
    rng = Random(seed)
    person = synthetic_fodselsnummer(rng)
    content = {
        "Soknad.pdf": make_pdf(rng, pdf_bytes),
        "Lønnslipp.png": make_png(rng),
        "Utskrift.jpg": make_jpeg(rng),
    }
    listed = [("annet", "annet", name, hashlib.sha512(content[name]).hexdigest()) for name in list(content)[1:]]
    soknad = make_soknad(rng, fodselsnummer=person, kommunenummer=kommunenummer)
    return Citizen(Fodselsnummer(person), soknad, make_vedlegg(listed), content)


@dataclass
class World:
    """A kommune, its connector, the sender's keys in files, and an issuer of tokens over HTTP."""

    kafka: Any
    folder: Path
    authority: Authority
    number: Kommunenummer
    kommune_keys: KeyRing
    connector_key: ec.EllipticCurvePrivateKey
    connector_certificate: x509.Certificate
    mottak: x509.Certificate
    katalog: Katalog
    issuer: LocalIssuer
    settings: Any
    environment: dict[str, str] = field(default_factory=dict)

    def token(self, citizen: Citizen) -> str:
        return self.issuer.citizen_token(citizen.fodselsnummer)

    def machine_token(self) -> str:
        """Return a token of the sender's own machine."""
        consumer = {"authority": "iso6523-actorid-upis", "ID": f"0192:{ORGNR}"}
        return self.issuer._sign({"client_id": "avsender", "scope": SCOPE, "consumer": consumer})

    def open(self, record: SoknadRecord, package: bytes) -> dict[str, bytes]:
        with Spool() as spool:
            spool.write(package)
            spool.finish()
            trust = Trust(roots=[self.authority.certificate])
            with open_package(spool, keys=self.kommune_keys, trust=trust, now=now()) as opened:
                check_forsendelse(opened.forsendelse, record.forsendelse())
                return {file.name: b"".join(opened.read(file.name)) for file in opened.files}

    async def records(self, topic: str, wanted: Callable[[list[Incoming]], bool]) -> list[Incoming]:
        """Read a topic from its start until what was read is what is wanted."""
        found: list[Incoming] = []
        tail = await self.kafka.tail([topic])
        async with asyncio.timeout(DEADLINE_S):
            if wanted(found):
                return found
            async for batch in tail:
                found += batch
                if wanted(found):
                    return found
        raise AssertionError("the topic ended")

    async def transport(self, *digisos_ids: str, until: str = "SENDT") -> list[TransportRecord]:
        """Return the transport events of these søknader when each has come to ``until``."""

        def ours(found: list[Incoming]) -> list[TransportRecord]:
            keys = {one.encode() for one in digisos_ids}
            return [decode(TransportRecord, record.value) for record in found if record.key in keys]

        def done(found: list[Incoming]) -> bool:
            return {one.digisos_id for one in ours(found) if one.type == until} == set(digisos_ids)

        return ours(await self.records(TRANSPORT, done))

    async def connector_token(self, http: httpx.AsyncClient) -> str:
        tokens = ClientTokens(
            f"{self.issuer.issuer}/token",
            issuer=self.issuer.issuer,
            client_id="konnektor-a",
            key=self.connector_key,
            certificate=self.connector_certificate,
            http=http,
            clock=now,
        )
        return await tokens.access_token()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(now() - timedelta(days=1))


@pytest.fixture
async def issuer() -> AsyncIterator[tuple[LocalIssuer, Katalog]]:
    (port,) = free_ports(1)
    katalog = Katalog()
    address = f"http://127.0.0.1:{port}/utsteder"
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = LocalIssuer(address, "meldingsformidler", key, katalog, now)
    app = FastAPI()
    install_fiks_errors(app)
    app.include_router(issuer_router(issuer))
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(app, "127.0.0.1", port, stop))
    yield issuer, katalog
    stop.set()
    await serving


@pytest.fixture
async def world(kafka: Any, tmp_path: Path, authority: Authority, issuer: tuple[LocalIssuer, Katalog]) -> World:
    local, katalog = issuer
    number = await kafka.new_kommune()
    settings = await kafka.process("producers", number)

    def issue(name: str, purpose: Any, key: Any) -> tuple[x509.Certificate, Any]:
        certificate, private = authority.issue(name, ORGNR, purpose=purpose, now=now(), key=key)
        (tmp_path / f"{name}.pem").write_bytes(certificate_pem(certificate))
        write_private_key(tmp_path / f"{name}.key", private)
        return certificate, private

    issue("avsender", "signering", "p256")
    mottak, _ = issue("mottak", "kryptering", "rsa2048")
    kommune, kommune_key = issue("kommune", "kryptering", "rsa2048")
    connector, connector_key = issue("konnektor", "signering", "p256")
    eier_key = tmp_path / "eier.key"
    eier_key.touch(mode=0o600)
    eier_key.write_text("ab" * 32)
    entry = KatalogRecord(
        kommunenummer=number,
        navn="Prøvekommunen",
        organisasjonsnummer=ORGNR,
        leverandor="acme",
        konnektor="konnektor-a",
        sertifikater=(entry_of(kommune, BRUK_KRYPTERING), entry_of(connector, BRUK_KVITTERING)),
        endret=now(),
    )
    katalog.put(entry)
    publisher = await kafka.publisher()
    await publisher.publish(Outgoing(KATALOG, number.encode(), encode(entry)))
    environment = {
        "DATABASE": str(tmp_path / "data" / "producers.sqlite"),
        "DOKUMENTLAGER": str(tmp_path / "dokumentlager"),
        "SIGNING_CERTIFICATE": str(tmp_path / "avsender.pem"),
        "SIGNING_KEY": str(tmp_path / "avsender.key"),
        "MOTTAK_CERTIFICATE": str(tmp_path / "mottak.pem"),
        "MOTTAK_KEYS": json.dumps([str(tmp_path / "mottak.key"), str(tmp_path / "mottak.pem")]),
        "KOPI_KEYS": json.dumps([str(tmp_path / "eier.key")]),
        "EIER_KEY": str(tmp_path / "eier.key"),
        "ISSUER": local.issuer,
        "JWKS_URL": f"{local.issuer}/jwks",
    }
    await know_the_topic(kafka, tmp_path / "data" / "producers.sqlite")
    return World(
        kafka=kafka,
        folder=tmp_path,
        authority=authority,
        number=number,
        kommune_keys=KeyRing([(kommune, cast("rsa.RSAPrivateKey", kommune_key))]),
        connector_key=connector_key,
        connector_certificate=connector,
        mottak=mottak,
        katalog=katalog,
        issuer=local,
        settings=settings,
        environment={f"FORMIDLER_PRODUCERS_{name}": value for name, value in environment.items()},
    )


async def know_the_topic(kafka: Any, place: Path | str) -> None:
    """Make a database that knows what other tests have left on the transport topic: it would take them for its own."""
    ends = await kafka.admin.end_offsets([TRANSPORT])
    async with open_database(place, MIGRATIONS) as database:
        offsets = {one.partition: offset for one, offset in ends.items()}
        await database.write(lambda connection: gjenoppretting._keep(connection, offsets))


class Process:
    """A running ``producers`` process."""

    def __init__(self, world: World, child: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.world = world
        self.child = child
        self.address = f"http://127.0.0.1:{port}"
        self.log = log
        self.http = httpx.AsyncClient(base_url=self.address, timeout=DEADLINE_S)

    async def wait_ready(self) -> None:
        async def ready() -> bool:
            assert self.child.poll() is None, self.log.read_text()
            try:
                return (await self.http.get("/isready")).status_code == 200
            except httpx.TransportError:
                return False

        await until(ready)

    async def send(self, citizen: Citizen, ref: str) -> DigisosId:
        sent = await SoknadClient(self.address, self.http).send(
            self.world.number,
            NavEksternRefId(ref),
            soknad_json=citizen.soknad_json,
            vedlegg_json=citizen.vedlegg_json,
            files=citizen.files,
            token=self.world.token(citizen),
            encrypt_for=self.world.mottak,
        )
        return sent.digisos_id

    async def end(self, number: signal.Signals) -> int:
        self.child.send_signal(number)
        return await asyncio.to_thread(self.child.wait, DEADLINE_S)


def spawn(world: World, port: int, log: Path, prefix: tuple[str, ...]) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FORMIDLER_", "KAFKA_"))}
    environment |= world.environment | world.settings.environment() | {"FORMIDLER_PRODUCERS_PORT": str(port)}
    with log.open("ab") as out:
        return subprocess.Popen([*prefix, sys.executable, "-m", "producers"], env=environment, stdout=out, stderr=out)


@asynccontextmanager
async def running(
    world: World, *, prefix: tuple[str, ...] = (), ready: bool = True, name: str = "producers"
) -> AsyncGenerator[Process]:
    (port,) = free_ports(1)
    log = world.folder / f"{name}.log"
    child = spawn(world, port, log, prefix)
    process = Process(world, child, port, log)
    try:
        if ready:
            await process.wait_ready()
        yield process
    finally:
        await process.http.aclose()
        if child.poll() is None:
            child.kill()
        child.wait()
