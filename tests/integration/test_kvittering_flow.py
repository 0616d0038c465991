"""The kvittering process on a real Kafka, put together as its composition root does, with its own principal's rights."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
import uvicorn
from patience import until
from prometheus_client import REGISTRY

from broker.issuer import LocalIssuer
from broker.kafka.identities import KafkaIdentities
from broker.kafka.subscriber import KafkaTail
from broker.katalog import Katalog
from broker.record import Incoming, Outgoing
from broker.routing import KATALOG, KVITTERING_DLQ, STATUS, TRANSPORT, hendelse_topic, kvittering_topic
from broker.supervisor.layout import free_ports
from broker.tokens import StaticJwks, TokenVerifier
from broker.web import Health
from crypto.authority import Authority
from crypto.certificates import certificate_pem, nokkel_id
from crypto.envelope import seal_package
from crypto.jws import sign_jws
from crypto.keys import KeyRing, Signer, write_private_key
from kvittering.app import Innsyn, create_app
from kvittering.applier import Applier
from kvittering.bulk_store import BulkStore
from kvittering.comparing import Comparison, Difference, compare
from kvittering.emnevakt import TopicGuard
from kvittering.folding import Readers
from kvittering.follower import Follower, topics_of
from kvittering.hub import Hub
from kvittering.outbox import OutboxPublisher
from kvittering.reading import ReadRecord
from kvittering.rebuild import Rebuild
from kvittering.store import StatusStore
from schemas.codec import decode, encode
from schemas.errors import DecodeError
from schemas.forsendelse import Forsendelse
from schemas.kvittering import KvitteringClaims
from schemas.names import (
    DigisosId,
    Fodselsnummer,
    Kommunenummer,
    MeldingId,
    NavEksternRefId,
    Organisasjonsnummer,
    Sha256,
    Uuid,
)
from schemas.records import (
    BRUK_KVITTERING,
    HENDELSE_DIGISOS_SOKER,
    DeadLetterRecord,
    HendelseRecord,
    KatalogRecord,
    KvitteringRecord,
    Sertifikat,
    StatusRecord,
    TransportRecord,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from pathlib import Path

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from broker.kafka.publisher import KafkaPublisher
    from broker.kafka.settings import KafkaSettings
    from broker.record import TopicPartition

EIER_KEY = b"e" * 32
CITIZEN = Fodselsnummer("15076500565")
STRANGER = Fodselsnummer("16076500138")
ORGNR = Organisasjonsnummer("958935420")
ISSUER = "http://utsteder.test"
DEADLINE_S = 30


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Kommune:
    """A kommune in the katalog, with its connector's key and chain."""

    number: Kommunenummer
    certificate: x509.Certificate
    key: EllipticCurvePrivateKey
    heads: dict[DigisosId, tuple[int, Sha256]] = field(default_factory=dict)

    def entry(self) -> KatalogRecord:
        certificate = Sertifikat(
            nokkel_id=nokkel_id(self.certificate),
            bruk=BRUK_KVITTERING,
            pem=certificate_pem(self.certificate).decode(),
            gyldig_fra=self.certificate.not_valid_before_utc,
            gyldig_til=self.certificate.not_valid_after_utc,
        )
        return KatalogRecord(
            kommunenummer=self.number,
            navn=f"Kommune {self.number}",
            organisasjonsnummer=ORGNR,
            leverandor="acme",
            konnektor=f"konnektor-{self.number}",
            sertifikater=(certificate,),
            endret=now(),
        )


@dataclass
class World:
    """One kommune, one søknad at a time, and everything that writes to the topics."""

    kafka: Any
    publisher: KafkaPublisher
    settings: KafkaSettings
    oslo: Kommune
    bergen: Kommune
    innsyn: x509.Certificate
    innsyn_key: Any
    issuer: LocalIssuer

    @property
    def keys(self) -> KeyRing:
        return KeyRing([(self.innsyn, self.innsyn_key)])

    async def put(self, topic: str, key: str, value: bytes) -> None:
        await self.publisher.publish(Outgoing(topic, key.encode(), value))

    async def transport(self, soknad: Soknad, kind: str) -> None:
        record = TransportRecord(
            hendelse_id=Uuid.new(),
            melding_id=soknad.melding_id,
            digisos_id=soknad.digisos_id,
            kommunenummer=self.oslo.number,
            type=kind,
            tidspunkt=now(),
            nav_ekstern_ref_id=NavEksternRefId("ref-1"),
            eier=soknad.person.eier(EIER_KEY) if kind == "AKSEPTERT" else None,
            sha256=soknad.sha256 if kind == "AKSEPTERT" else None,
        )
        await self.put(TRANSPORT, soknad.digisos_id, encode(record))

    async def kvittering(
        self, soknad: Soknad, status: str, kommune: Kommune | None = None, signer: Kommune | None = None
    ) -> None:
        kommune = kommune or self.oslo
        signer = signer or kommune
        nr, forrige = kommune.heads.get(soknad.digisos_id, (0, None))
        claims = KvitteringClaims(
            kvittering_id=Uuid.new(),
            digisos_id=soknad.digisos_id,
            melding_id=soknad.melding_id,
            kommunenummer=kommune.number,
            utsteder=f"konnektor-{kommune.number}",
            status=status,
            grad="LAGRET",
            sha256=soknad.sha256,
            tidspunkt=now(),
            nr=nr + 1,
            forrige=forrige,
        )
        jws = sign_jws(claims.to_json(), signer.key, signer.certificate)
        if signer is kommune:
            kommune.heads[soknad.digisos_id] = (nr + 1, Sha256.of(jws.encode()))
        await self.put(kvittering_topic(kommune.number), soknad.digisos_id, encode(claims.record(jws)))

    async def hendelse(self, soknad: Soknad, *statuses: str) -> None:
        moment = now()
        fields: dict[str, Any] = {
            "melding_id": MeldingId.new(),
            "digisos_id": soknad.digisos_id,
            "kommunenummer": self.oslo.number,
            "type": HENDELSE_DIGISOS_SOKER,
        }
        document = {
            "version": "1.0.0",
            "avsender": {"systemnavn": "Testsystem", "systemversjon": "1"},
            "hendelser": [
                {"type": "soknadsStatus", "hendelsestidspunkt": f"2026-11-23T12:00:0{at}.000Z", "status": status}
                for at, status in enumerate(statuses)
            ],
        }
        package, summary = seal_package(
            [
                ("digisos-soker.json", "application/json", json.dumps(document).encode()),
                ("forsendelse.json", "application/json", Forsendelse(**fields, opprettet=moment).to_json()),
            ],
            recipient=self.innsyn,
            signer=Signer(self.oslo.certificate, self.oslo.key),
            now=moment,
        )
        record = HendelseRecord(
            **fields,
            tidspunkt=moment,
            avsender=f"konnektor-{self.oslo.number}",
            nokkel_id=summary.nokkel_id,
            sha256=summary.sha256,
            storrelse=summary.size,
            pakke=package,
        )
        await self.put(hendelse_topic(self.oslo.number), soknad.digisos_id, encode(record))

    def token(self, person: Fodselsnummer = CITIZEN) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.issuer.citizen_token(person)}"}

    async def latest(self, topic: str, digisos_id: DigisosId, found: Callable[[bytes], bool]) -> bytes:
        """Return the first record about the søknad that is as it should be, from the topic's start."""
        tail = await self.kafka.tail([topic], self.settings_of_admin())
        async with asyncio.timeout(DEADLINE_S):
            async for batch in tail:
                for record in batch:
                    if record.key == digisos_id.encode() and found(record.value):
                        return record.value
        raise AssertionError("the topic ended")

    def settings_of_admin(self) -> KafkaSettings:
        return cast("KafkaSettings", self.kafka.admin_settings)


@dataclass
class Soknad:
    digisos_id: DigisosId = field(default_factory=DigisosId.new)
    melding_id: MeldingId = field(default_factory=MeldingId.new)
    sha256: Sha256 = field(default_factory=lambda: Sha256.of(b"pakken"))
    person: Fodselsnummer = CITIZEN


@dataclass
class Process:
    """A running kvittering process."""

    store: StatusStore
    katalog: Katalog
    changed: asyncio.Event
    open_tail: Callable[[Iterable[str], Mapping[TopicPartition, int]], KafkaTail]
    health: Health
    http: httpx.AsyncClient

    async def ready(self) -> None:
        await until(lambda: not self.health.problems())

    async def status(self, world: World, soknad: Soknad, wanted: str) -> dict[str, Any]:
        document: dict[str, Any] = {}

        async def there() -> bool:
            answer = await self.http.get(f"/innsyn/v1/soknader/{soknad.digisos_id}", headers=world.token(soknad.person))
            document.update(answer.json())
            return bool(answer.status_code == 200 and document["status"] == wanted)

        await until(there)
        return document


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(now() - timedelta(days=1))


@pytest.fixture
async def world(kafka: Any, authority: Authority) -> World:
    async def kommune() -> Kommune:
        number = await kafka.new_kommune()
        certificate, key = authority.issue(f"Konnektor {number}", ORGNR, purpose="signering", now=now(), key="p256")
        return Kommune(number, certificate, cast("EllipticCurvePrivateKey", key))

    oslo, bergen = await kommune(), await kommune()
    settings = await kafka.process("kvittering", oslo.number, bergen.number)
    innsyn, innsyn_key = authority.issue("Innsyn", ORGNR, purpose="kryptering", now=now(), key="rsa2048")
    _, issuer_key = authority.issue("Utsteder", ORGNR, purpose="signering", now=now(), key="p256")
    issuer = LocalIssuer(ISSUER, "meldingsformidler", cast("Any", issuer_key), Katalog(), now)
    return World(kafka, await kafka.publisher(), settings, oslo, bergen, innsyn, innsyn_key, issuer)


@asynccontextmanager
async def running(world: World, database: Path, *kommuner: Kommune) -> AsyncIterator[Process]:
    """Run the process over these kommuner, served on a real socket; stop it without a goodbye."""
    katalog, hub, health = Katalog(one.entry() for one in kommuner), Hub(), Health()
    changed, ready = asyncio.Event(), asyncio.Event()
    ready.set()

    def open_tail(topics: Iterable[str], offsets: Mapping[TopicPartition, int]) -> KafkaTail:
        return KafkaTail(world.settings, topics, offsets=offsets)

    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(StatusStore(database))
        publisher = await world.kafka.publisher(world.settings)
        applier = Applier(katalog=katalog, store=store, keys=world.keys, hub=hub, clock=now)
        identities = KafkaIdentities(world.settings)
        stack.callback(identities.close)
        guard = TopicGuard(store, identities.seen)
        follower = Follower(
            katalog=katalog, changed=changed, open_tail=open_tail, store=store, applier=applier, guard=guard
        )
        outbox = OutboxPublisher(store, publisher, applier.stored, begin=follower.caught_up)
        health.add_check("emner", follower.problem)
        tokens = TokenVerifier(ISSUER, "meldingsformidler", StaticJwks(world.issuer.jwks()), now)
        innsyn = Innsyn(store, hub, tokens, EIER_KEY, katalog, frozenset([ORGNR]))
        server = uvicorn.Server(uvicorn.Config(create_app(innsyn, health), port=0, log_level="error"))
        tasks = [asyncio.create_task(one) for one in (follower.run(ready), outbox.run(), server.serve())]
        try:
            await until(lambda: server.started)
            port = server.servers[0].sockets[0].getsockname()[1]
            http = await stack.enter_async_context(
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S)
            )
            yield Process(store, katalog, changed, open_tail, health, http)
        finally:
            hub.close()
            server.should_exit = True
            await tasks[2]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.kafka
async def test_events_on_topics_become_the_citizens_status_and_the_portals_topic(world: World, tmp_path: Path) -> None:
    soknad = Soknad()
    async with running(world, tmp_path / "k.sqlite", world.oslo) as process:
        for kind in ("AKSEPTERT", "SENDT"):
            await world.transport(soknad, kind)
        await world.kvittering(soknad, "LEVERT")
        await world.kvittering(soknad, "MOTTATT")
        shown = await process.status(world, soknad, "MOTTATT")
        assert [line["verdi"] for line in shown["historikk"]] == ["AKSEPTERT", "SENDT", "LEVERT", "MOTTATT"]
        assert len(shown["kvitteringer"]) == 2
        await world.hendelse(soknad, "MOTTATT", "UNDER_BEHANDLING")
        await process.status(world, soknad, "UNDER_BEHANDLING")
        await world.latest(STATUS, soknad.digisos_id, lambda v: decode(StatusRecord, v).status == "UNDER_BEHANDLING")


@pytest.mark.kafka
async def test_a_listener_sees_sendt_and_then_mottatt(world: World, tmp_path: Path) -> None:
    soknad = Soknad()
    async with running(world, tmp_path / "k.sqlite", world.oslo) as process:
        for kind in ("AKSEPTERT", "SENDT"):
            await world.transport(soknad, kind)
        await process.status(world, soknad, "SENDT")
        url = f"/innsyn/v1/soknader/{soknad.digisos_id}/hendelser"
        seen: list[tuple[str, str]] = []
        async with asyncio.timeout(DEADLINE_S), process.http.stream("GET", url, headers=world.token()) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            event_id = ""
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    event_id = line.removeprefix("id: ")
                if line.startswith("data: "):
                    seen.append((event_id, json.loads(line.removeprefix("data: "))["status"]))
                    if len(seen) == 1:
                        await world.kvittering(soknad, "MOTTATT")
                    else:
                        break
        assert [status for _, status in seen] == ["SENDT", "MOTTATT"]
        headers = world.token() | {"Last-Event-ID": seen[0][0]}
        async with asyncio.timeout(DEADLINE_S), process.http.stream("GET", url, headers=headers) as answer:
            lines = aiter(answer.aiter_lines())
            assert await anext(lines) == f"id: {seen[1][0]}"
        await until(lambda: not REGISTRY.get_sample_value("fiks_status_listeners"))  # long before a heartbeat


@pytest.mark.kafka
async def test_a_forged_kvittering_becomes_a_dead_letter_and_the_status_stays(world: World, tmp_path: Path) -> None:
    soknad = Soknad()
    async with running(world, tmp_path / "k.sqlite", world.oslo) as process:
        for kind in ("AKSEPTERT", "SENDT"):
            await world.transport(soknad, kind)
        await world.kvittering(soknad, "MOTTATT", signer=world.bergen)
        value = await world.latest(KVITTERING_DLQ, soknad.digisos_id, lambda _: True)
        letter = decode(DeadLetterRecord, value)
        assert (letter.kode, letter.kommunenummer) == ("kvittering.signatur", world.oslo.number)
        assert letter.digisos_id == soknad.digisos_id
        shown = await process.status(world, soknad, "SENDT")
        assert shown["kvitteringer"] == []
        await world.kvittering(soknad, "MOTTATT")
        await process.status(world, soknad, "MOTTATT")


@pytest.mark.kafka
async def test_a_record_filled_with_headers_or_nested_without_end_stops_nothing(world: World, tmp_path: Path) -> None:
    soknad, topic = Soknad(), kvittering_topic(world.oslo.number)
    deep = base64.urlsafe_b64encode(b"[" * 45_000).rstrip(b"=").decode()
    nested = KvitteringRecord(
        kvittering_id=Uuid.new(),
        digisos_id=soknad.digisos_id,
        melding_id=soknad.melding_id,
        kommunenummer=world.oslo.number,
        status="MOTTATT",
        tidspunkt=now(),
        jws=f"{deep}.e30.AA",
    )
    async with running(world, tmp_path / "k.sqlite", world.oslo) as process:
        await world.transport(soknad, "AKSEPTERT")
        filled = Outgoing(topic, soknad.digisos_id.encode(), b"rot", (("h", bytes(1_000_000)),))
        await world.publisher.publish(filled)
        await world.put(topic, soknad.digisos_id, encode(nested))
        for kode in ("kontrakt.ukjent-skjema", "kvittering.signatur"):
            await world.latest(
                KVITTERING_DLQ, soknad.digisos_id, lambda value, kode=kode: decode(DeadLetterRecord, value).kode == kode
            )
        await world.kvittering(soknad, "MOTTATT")
        await process.status(world, soknad, "MOTTATT")
        assert process.health.problems() == {}


@pytest.mark.kafka
async def test_another_kommunes_real_kvittering_changes_nothing(world: World, tmp_path: Path) -> None:
    soknad = Soknad()
    async with running(world, tmp_path / "k.sqlite", world.oslo, world.bergen) as process:
        await world.transport(soknad, "AKSEPTERT")
        await world.kvittering(soknad, "MOTTATT", kommune=world.bergen)
        letter = decode(DeadLetterRecord, await world.latest(KVITTERING_DLQ, soknad.digisos_id, lambda _: True))
        assert (letter.kode, letter.kommunenummer) == ("kontrakt.avvik", world.bergen.number)
        await process.status(world, soknad, "AKSEPTERT")


@pytest.mark.kafka
async def test_a_restart_goes_on_and_an_empty_store_is_rebuilt_to_the_same(world: World, tmp_path: Path) -> None:
    first, second = Soknad(), Soknad()
    database = tmp_path / "k.sqlite"
    async with running(world, database, world.oslo) as process:
        for kind in ("AKSEPTERT", "SENDT"):
            await world.transport(first, kind)
        await world.kvittering(first, "LEVERT")
        await process.status(world, first, "SENDT")
    await world.kvittering(first, "MOTTATT")  # while it is down
    await world.kvittering(second, "MOTTATT")  # and one whose søknad comes later
    async with running(world, database, world.oslo) as process:
        await process.ready()
        await process.status(world, first, "MOTTATT")
        await world.transport(second, "AKSEPTERT")
        await process.status(world, second, "MOTTATT")
        await world.hendelse(first, "MOTTATT", "FERDIGBEHANDLET")
        await process.status(world, first, "FERDIGBEHANDLET")
        await world.kvittering(first, "MOTTATT", signer=world.bergen)
        await world.latest(KVITTERING_DLQ, first.digisos_id, lambda _: True)
        differences, result = await rebuilt_beside(world, process, database, tmp_path)
        assert differences == []
        assert result.compared >= 2
        async with StatusStore(tmp_path / "ny.sqlite") as store:
            assert await store.offsets() == await process.store.offsets()
            assert {first.digisos_id, second.digisos_id} <= {state.digisos_id for state in await store.all_states()}


async def rebuilt_beside(
    world: World, process: Process, database: Path, folder: Path
) -> tuple[list[Difference], Comparison]:
    """Rebuild beside a running process into ``ny.sqlite``; return how the two differ."""
    write_private_key(folder / "innsyn.key", world.innsyn_key)
    (folder / "innsyn.pem").write_bytes(certificate_pem(world.innsyn))
    keys = (folder / "innsyn.pem", folder / "innsyn.key")
    readers = Readers(process.katalog.all(), keys, tuple(sorted(topics_of(process.katalog))))
    (folder / "spool").mkdir()
    result = Comparison()
    async with BulkStore(database, read_only=True) as kept, BulkStore(folder / "ny.sqlite") as store:
        again = Rebuild(store, kept=kept, readers=readers, folder=folder / "spool", workers=0)
        async with asyncio.timeout(DEADLINE_S):
            await again.run(process.open_tail, now())
        return [one async for one in compare(kept, store, result)], result


@pytest.mark.kafka
async def test_another_citizen_gets_the_same_403_as_for_a_soknad_that_is_not_there(
    world: World, tmp_path: Path
) -> None:
    soknad = Soknad()
    async with running(world, tmp_path / "k.sqlite", world.oslo) as process:
        await world.transport(soknad, "AKSEPTERT")
        await process.status(world, soknad, "AKSEPTERT")
        answers = [
            await process.http.get(f"/innsyn/v1/soknader/{one}{path}", headers=world.token(STRANGER))
            for one in (soknad.digisos_id, DigisosId.new())
            for path in ("", "/kvitteringer", "/hendelser")
        ]
        assert {answer.status_code for answer in answers} == {403}
        assert len({answer.json()["message"] for answer in answers}) == 1
        mine = await process.http.get("/innsyn/v1/soknader", headers=world.token())
        assert soknad.digisos_id in [one["digisosId"] for one in mine.json()]
        assert (await process.http.get("/innsyn/v1/soknader", headers=world.token(STRANGER))).json() == []
        assert (await process.http.get("/innsyn/v1/soknader")).status_code == 401


@pytest.mark.kafka
async def test_a_kommune_that_is_new_in_the_katalog_is_followed_at_once(world: World, tmp_path: Path) -> None:
    soknad = Soknad()
    async with running(world, tmp_path / "k.sqlite", world.bergen) as process:
        await process.ready()
        await world.transport(soknad, "AKSEPTERT")
        await world.kvittering(soknad, "MOTTATT")
        await process.status(world, soknad, "AKSEPTERT")
        process.katalog.put(world.oslo.entry())
        process.changed.set()
        await process.status(world, soknad, "MOTTATT")


@pytest.mark.kafka
async def test_a_kommune_whose_topics_are_not_there_holds_nobody_up(
    world: World, authority: Authority, tmp_path: Path
) -> None:
    _, key = authority.issue("Ingen", ORGNR, purpose="signering", now=now(), key="p256")
    missing = Kommune(Kommunenummer("8999"), world.bergen.certificate, cast("EllipticCurvePrivateKey", key))
    soknad = Soknad()
    async with running(world, tmp_path / "k.sqlite", world.oslo, missing, world.bergen) as process:
        await world.transport(soknad, "AKSEPTERT")
        await world.kvittering(soknad, "MOTTATT")
        await process.status(world, soknad, "MOTTATT")
        await process.ready()
        assert REGISTRY.get_sample_value("fiks_kommuner_unreachable") == 1


@pytest.mark.kafka
async def test_a_topic_that_is_shorter_than_what_was_read_is_left_alone_and_the_others_are_read(
    world: World, tmp_path: Path
) -> None:
    soknad, database = Soknad(), tmp_path / "k.sqlite"
    record = Incoming(hendelse_topic(world.oslo.number), 0, 1000, 0, b"x", b"rot")
    async with StatusStore(database) as store:
        await store.apply([ReadRecord(record, error=DecodeError("rot"))], now())
    async with running(world, database, world.oslo) as process:
        await world.transport(soknad, "AKSEPTERT")
        await world.kvittering(soknad, "MOTTATT")
        await process.status(world, soknad, "MOTTATT")
        assert "slutter på 0, men er lest til 1001" in process.health.problems()["emner"]
        assert f"godta-emner --topic {record.topic}" in process.health.problems()["emner"]


@pytest.mark.kafka
async def test_the_process_itself_becomes_ready_answers_and_stops_when_asked(world: World, tmp_path: Path) -> None:
    for kommune in (world.oslo, world.bergen):
        await world.put(KATALOG, kommune.number, encode(kommune.entry()))
    soknad = Soknad()
    await world.transport(soknad, "AKSEPTERT")
    (tmp_path / "eier.key").write_text(EIER_KEY.hex())
    (tmp_path / "eier.key").chmod(0o600)
    (tmp_path / "innsyn.pem").write_bytes(certificate_pem(world.innsyn))
    write_private_key(tmp_path / "innsyn.key", world.innsyn_key)
    (port,) = free_ports(1)
    environment = {
        "FORMIDLER_KVITTERING_PORT": str(port),
        "FORMIDLER_KVITTERING_DATABASE": str(tmp_path / "k.sqlite"),
        "FORMIDLER_KVITTERING_EIER_KEY": str(tmp_path / "eier.key"),
        "FORMIDLER_KVITTERING_INNSYN_KEYS": json.dumps([str(tmp_path / "innsyn.pem"), str(tmp_path / "innsyn.key")]),
        "FORMIDLER_KVITTERING_ISSUER": ISSUER,
        "FORMIDLER_KVITTERING_JWKS_URL": "http://127.0.0.1:9/jwks",
        **world.settings.environment(),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kvittering", env=os.environ | environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:

            async def answers(path: str, wanted: str) -> bool:
                with contextlib.suppress(httpx.TransportError):
                    answer = await http.get(path)
                    return answer.status_code == 200 and wanted in answer.text
                return False

            await until(lambda: answers("/isready", "klar"))
            await until(lambda: answers("/metrics", 'fiks_status_changes_total{status="AKSEPTERT"}'))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(DEADLINE_S):
            output, _ = await process.communicate()
    assert process.returncode == 0, output
    lines = [json.loads(line) for line in output.splitlines()]
    (applied,) = [one for one in lines if one["event"] == "record_applied" and one["digisos_id"] == soknad.digisos_id]
    assert (applied["resultat"], applied["status"]) == ("MOTTATT", "AKSEPTERT")
    assert not any("utelatt" in one for one in lines)
    assert soknad.person not in output.decode()
