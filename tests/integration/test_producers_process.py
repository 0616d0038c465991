"""``python -m producers`` on a real Kafka: from POST to the record on the kommune's topic, through kills and outages."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import FastAPI

from broker.issuer import LocalIssuer, issuer_router
from broker.katalog import Katalog
from broker.record import Incoming, Outgoing, header
from broker.routing import KATALOG, TRANSPORT, soknad_topic
from broker.sql import open_database
from broker.supervisor.layout import free_ports
from broker.tokens import ClientTokens
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
from schemas.errors import RefusedError
from schemas.examples import make_jpeg, make_pdf, make_png, make_soknad, make_vedlegg, synthetic_fodselsnummer
from schemas.names import DigisosId, Fodselsnummer, Kommunenummer, NavEksternRefId, Organisasjonsnummer, Sha256
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

pytestmark = pytest.mark.kafka

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


async def eventually(condition: Callable[[], Any]) -> None:
    """Look again until the condition holds; fail at the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            held = condition()
            if await held if asyncio.iscoroutine(held) else held:
                return
            await asyncio.sleep(0.02)


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

        await eventually(ready)

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
async def running(world: World, *, prefix: tuple[str, ...] = (), ready: bool = True) -> AsyncGenerator[Process]:
    (port,) = free_ports(1)
    log = world.folder / "producers.log"
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


async def test_a_soknad_goes_from_post_to_the_kommunes_topic_and_opens_with_its_key(world: World) -> None:
    citizen = make_citizen(1, world.number)
    async with running(world) as process:
        digisos_id = await process.send(citizen, "ref-1")
        (record,) = await world.records(soknad_topic(world.number), lambda found: len(found) == 1)
        events = await world.transport(digisos_id)
        again = await process.send(citizen, "ref-1")
        assert await process.end(signal.SIGTERM) == 0
    assert again == digisos_id
    assert record.key == digisos_id.encode()
    assert header(record.headers, "ce_subject") == world.number.encode()
    soknad = decode(SoknadRecord, record.value)
    assert soknad.pakke is not None
    files = world.open(soknad, soknad.pakke)
    assert {name: files[name] for name in citizen.content} == citizen.content
    assert (files["soknad.json"], files["vedlegg.json"]) == (citizen.soknad_json, citizen.vedlegg_json)
    assert [one.type for one in events] == ["AKSEPTERT", "SENDT"]
    assert events[0].eier == citizen.fodselsnummer.eier(bytes.fromhex("ab" * 32))
    assert {one.melding_id for one in events} == {soknad.melding_id}
    for place in (process.log, *(world.folder / "data").iterdir()):
        assert citizen.fodselsnummer.encode() not in place.read_bytes()
    assert citizen.fodselsnummer.encode() not in record.value


async def test_a_large_package_is_fetched_in_ranges_by_the_kommunes_own_connector_alone(world: World) -> None:
    citizen = make_citizen(2, world.number, pdf_bytes=3_000_000)
    async with running(world) as process:
        await process.send(citizen, "ref-stor")
        (record,) = await world.records(soknad_topic(world.number), lambda found: len(found) == 1)
        soknad = decode(SoknadRecord, record.value)
        assert soknad.pakke is None
        path = f"/dokumentlager/v1/pakker/{soknad.dokumentlager_id}"
        owner = {"Authorization": f"Bearer {await world.connector_token(process.http)}"}

        whole = await process.http.get(path, headers=owner)
        assert (whole.status_code, len(whole.content)) == (200, soknad.storrelse)
        assert Sha256.of(whole.content) == soknad.sha256
        assert whole.headers["ETag"] == f'"{soknad.sha256}"'
        half = soknad.storrelse // 2
        first = await process.http.get(path, headers=owner | {"Range": f"bytes=0-{half - 1}"})
        rest = await process.http.get(
            path, headers=owner | {"Range": f"bytes={half}-", "If-Range": whole.headers["ETag"]}
        )
        assert (first.status_code, rest.status_code) == (206, 206)
        assert rest.headers["Content-Range"] == f"bytes {half}-{soknad.storrelse - 1}/{soknad.storrelse}"
        assert first.content + rest.content == whole.content
        stale = await process.http.get(path, headers=owner | {"Range": "bytes=0-1", "If-Range": '"annen"'})
        assert stale.status_code == 200
        beyond = await process.http.get(path, headers=owner | {"Range": f"bytes={soknad.storrelse}-"})
        assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{soknad.storrelse}")

        world.katalog.put(world.katalog.all()[0].model_copy(update={"konnektor": "konnektor-b"}))
        missing = await process.http.get("/dokumentlager/v1/pakker/3fa85f64-5717-4562-b3fc-2c963f66afa6", headers=owner)
        citizens = {"Authorization": f"Bearer {world.token(citizen)}"}
        assert (await process.http.get(path)).status_code == 401
        assert (await process.http.get(path, headers=citizens)).status_code == 403
        publisher = await world.kafka.publisher()
        await publisher.publish(Outgoing(KATALOG, world.number.encode(), encode(world.katalog.all()[0])))

        async def refused() -> bool:
            return (await process.http.get(path, headers=owner)).status_code == 404

        await eventually(refused)
        foreign = await process.http.get(path, headers=owner)
        assert foreign.json()["message"] == missing.json()["message"]
    files = world.open(soknad, whole.content)
    assert files["Soknad.pdf"] == citizen.content["Soknad.pdf"]
    stored = (world.folder / "dokumentlager" / f"{soknad.dokumentlager_id}.cms").read_bytes()
    assert b"%PDF" not in stored


async def test_kill_nine_at_any_time_loses_nothing_that_was_accepted(world: World) -> None:
    citizens = [make_citizen(nr, world.number, pdf_bytes=700_000 if nr % 4 == 0 else 4000) for nr in range(24)]
    accepted: dict[str, DigisosId] = {}

    async def send(process: Process, nr: int) -> None:
        try:
            accepted[f"ref-{nr}"] = await process.send(citizens[nr], f"ref-{nr}")
        except httpx.TransportError:
            return

    for batch in range(3):
        async with running(world) as process:
            sending = [asyncio.create_task(send(process, nr)) for nr in range(batch * 8, batch * 8 + 8)]
            await eventually(
                lambda batch=batch, sending=sending: len(accepted) > batch or all(t.done() for t in sending)
            )
            process.child.kill()
            await asyncio.gather(*sending)
    before = dict(accepted)
    assert before
    async with running(world) as process:
        for nr in range(24):
            await send(process, nr)
        assert {ref: accepted[ref] for ref in before} == before
        events = await world.transport(*accepted.values())
        found = await world.records(
            soknad_topic(world.number), lambda found: len({record.key for record in found}) == 24
        )
    soknader = [decode(SoknadRecord, record.value) for record in found]
    assert {one.digisos_id for one in soknader} == set(accepted.values())
    assert len({(one.digisos_id, one.melding_id, one.sha256) for one in soknader}) == 24
    for digisos_id in accepted.values():
        mine = [one for one in events if one.digisos_id == digisos_id]
        assert mine[0].type == "AKSEPTERT"
        assert len({one.hendelse_id for one in mine if one.type == "SENDT"}) == 1
    referred = {f"{one.dokumentlager_id}.cms" for one in soknader if one.dokumentlager_id}
    stored = {path.name for path in (world.folder / "dokumentlager").iterdir()}
    assert referred <= stored
    assert {name.rpartition(".")[2] for name in stored} == {"cms"}  # what was half-way is gone


async def test_a_refusal_reaches_a_client_that_has_most_of_its_body_still_to_send(world: World) -> None:
    citizen = make_citizen(7, world.number, pdf_bytes=9_000_000)
    citizen.vedlegg_json = b"{"
    async with running(world) as process:
        with pytest.raises(RefusedError, match=r"vedlegg\.json") as refused:
            await process.send(citizen, "avvist")
        assert refused.value.status == 400
        again = make_citizen(7, world.number)
        assert await process.send(again, "avvist")


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is what sees the syscalls")
async def test_everything_is_synced_before_202_is_written(world: World) -> None:
    trace = world.folder / "trace"
    syscalls = "trace=fsync,fdatasync,rename,recvfrom,sendto,write,pwrite64"
    prefix = ("strace", "-f", "-y", "-s", "60", "-e", syscalls, "-o", str(trace))
    async with running(world, prefix=prefix) as process:
        await process.send(make_citizen(3, world.number), "liten")
        await eventually(lambda: queued(world) == 0)  # so that the relay's own writes are not among the next one's
        await process.send(make_citizen(4, world.number, pdf_bytes=1_500_000), "stor")
        # strace hands the signal on to nobody: ask the traced child itself.
        (child,) = [int(pid) for pid in children_of(process.child.pid)]
        os.kill(child, signal.SIGTERM)
        assert await asyncio.to_thread(process.child.wait, DEADLINE_S) == 0
    calls = trace.read_text("utf-8", "replace").splitlines()
    small, large = [calls[begin : end + 1] for begin, end in requests(calls)]
    for request in (small, large):
        written = first(request, r"pwrite64\(.*producers\.sqlite-wal")
        assert first(request[written:], r"f(data)?sync\(.*producers\.sqlite-wal") < len(request) - written - 1
    package = first(large, r"fsync\(.*dokumentlager/.*\.del")
    renamed = first(large, r"rename\(.*\.del.*\.cms")
    folder = first(large, r"fsync\(\d+<[^>]*/dokumentlager>")
    assert package < renamed < folder < first(large, r"pwrite64\(.*producers\.sqlite-wal")


def queued(world: World) -> int:
    with closing(sqlite3.connect(world.environment["FORMIDLER_PRODUCERS_DATABASE"])) as database:
        return int(database.execute("SELECT count(*) FROM utboks").fetchone()[0])


def requests(calls: list[str]) -> list[tuple[int, int]]:
    """Return where each POST was read and where its 202 was written."""
    begins = [nr for nr, call in enumerate(calls) if '"POST /digisos' in call]
    ends = [nr for nr, call in enumerate(calls) if "202 Accepted" in call]
    assert (len(begins), len(ends)) == (2, 2)
    return list(zip(begins, ends, strict=True))


def first(calls: list[str], pattern: str) -> int:
    """Return the first call that matches and has ended; a call that another thread interrupted ends in a line of its own."""
    for nr, call in enumerate(calls):
        if not re.search(pattern, call):
            continue
        if "<unfinished ...>" not in call:
            return nr
        thread, name = call.split()[0], call.split()[1].partition("(")[0]
        return next(
            at for at in range(nr, len(calls)) if calls[at].startswith(thread) and f"<... {name} resumed>" in calls[at]
        )
    raise AssertionError(pattern)


def children_of(pid: int) -> list[str]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [child for task in tasks for child in (task / "children").read_text("ascii").split()]


async def test_while_kafka_is_away_soknader_are_accepted_and_leave_when_it_is_back(world: World) -> None:
    kafka_pid = world.kafka.server.pid
    async with running(world) as process:
        os.kill(kafka_pid, signal.SIGSTOP)
        try:
            ids = [await process.send(make_citizen(nr, world.number), f"ute-{nr}") for nr in range(10, 15)]

            async def told() -> bool:
                metrics = (await process.http.get("/metrics")).text
                return "fiks_outbox_messages 10.0" in metrics

            await eventually(told)
            assert (await process.http.get("/isalive")).status_code == 200
        finally:
            os.kill(kafka_pid, signal.SIGCONT)
        events = await world.transport(*ids)
        await process.wait_ready()
    assert [one.type for one in events].count("SENDT") == 5


async def test_without_kafka_at_the_start_the_process_waits_and_says_why(world: World) -> None:
    (port,) = free_ports(1)
    world.settings = world.settings.model_copy(update={"bootstrap": f"127.0.0.1:{port}"})
    async with running(world, ready=False) as process:

        async def says_why() -> bool:
            try:
                answer = await process.http.get("/isready")
            except httpx.TransportError:
                return False
            return answer.status_code == 503 and "katalog" in answer.json()["mangler"]

        await eventually(says_why)
        with pytest.raises(RefusedError, match="katalogen er ikke lest ferdig"):
            await process.send(make_citizen(5, world.number), "for-tidlig")
        assert await process.end(signal.SIGTERM) == 0


async def test_the_command_line_sends_once_however_often_it_is_called(world: World, tmp_path: Path) -> None:
    citizen = make_citizen(6, world.number)
    folder = tmp_path / "soknad"
    folder.mkdir()
    for name, content in ({"soknad.json": citizen.soknad_json} | citizen.content).items():
        (folder / name).write_bytes(content)
    names = [str(path) for path in sorted(folder.iterdir())]

    def call(address: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable, "-m", "broker.cli", "soknad", "send", *names,
            "--kommune", world.number, "--ref", "fra-skallet", "--intake-url", address, "--json",
        ]  # fmt: skip
        environment = os.environ | {"FORMIDLER_TOKEN": world.token(citizen)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    async with running(world) as process:
        answers = [await asyncio.to_thread(call, process.address) for _ in range(2)]
        assert [answer.returncode for answer in answers] == [0, 0], answers
        first, second = [json.loads(answer.stdout) for answer in answers]
        assert (first["duplikat"], second["duplikat"]) == (False, True)
        assert first["digisosId"] == second["digisosId"]
        refused = await asyncio.to_thread(call, "http://127.0.0.1:9")
    assert refused.returncode == 3
