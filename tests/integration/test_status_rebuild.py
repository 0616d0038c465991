"""``formidler status`` as an operator runs it: on a real Kafka, over a store that the live path filled, after real mishaps."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from patience import until

from broker.catch_up import read_until_caught_up
from broker.embedded.server import EmbeddedKafka
from broker.kafka.identities import KafkaIdentities
from broker.kafka.subscriber import KafkaTail
from broker.katalog import Katalog
from broker.record import Incoming, Outgoing, TopicPartition
from broker.routing import KATALOG, STATUS, TRANSPORT, central_topics, kommune_topics, kvittering_topic
from crypto.authority import Authority
from crypto.certificates import certificate_pem, nokkel_id
from crypto.jws import sign_jws
from crypto.keys import KeyRing, write_private_key
from kvittering import emnevakt
from kvittering.applier import Applier
from kvittering.emnevakt import TopicGuard
from kvittering.follower import Follower
from kvittering.hub import Hub
from kvittering.outbox import OutboxPublisher
from kvittering.projection import project
from kvittering.store import StatusStore
from schemas.codec import decode, encode
from schemas.kvittering import KvitteringClaims
from schemas.names import DigisosId, Eier, Kommunenummer, MeldingId, NavEksternRefId, Organisasjonsnummer, Sha256, Uuid
from schemas.records import BRUK_KVITTERING, KatalogRecord, Sertifikat, StatusRecord, TransportRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

ORGNR = Organisasjonsnummer("958935420")
DEADLINE_S = 30
FORMIDLER = Path(sys.executable).with_name("formidler")


@pytest.fixture(scope="module")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker of our own: topics are deleted here, and the katalog's topic is ours alone."""
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka-status")) as server:
        yield server


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Sted:
    """One kommune, its connector, and the folder of a set-up."""

    kafka: Any
    folder: Path
    number: Kommunenummer
    certificate: x509.Certificate
    key: EllipticCurvePrivateKey
    publisher: Any
    database: Path = field(init=False)

    def __post_init__(self) -> None:
        self.database = self.folder / "kvittering.sqlite"

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
            navn="En kommune",
            organisasjonsnummer=ORGNR,
            leverandor="acme",
            konnektor="konnektor-en",
            sertifikater=(certificate,),
            endret=now(),
        )

    async def transport(self, soknad: Soknad, kind: str = "AKSEPTERT") -> None:
        first = kind == "AKSEPTERT"
        record = TransportRecord(
            hendelse_id=Uuid.new(),
            melding_id=soknad.melding_id,
            digisos_id=soknad.digisos_id,
            kommunenummer=self.number,
            type=kind,
            tidspunkt=now(),
            nav_ekstern_ref_id=NavEksternRefId("ref-1"),
            eier=Eier("e" * 64) if first else None,
            sha256=soknad.sha256 if first else None,
        )
        await self.publisher.publish(Outgoing(TRANSPORT, soknad.digisos_id.encode(), encode(record)))

    async def kvittering(self, soknad: Soknad) -> None:
        claims = KvitteringClaims(
            kvittering_id=Uuid.new(),
            digisos_id=soknad.digisos_id,
            melding_id=soknad.melding_id,
            kommunenummer=self.number,
            utsteder="konnektor-en",
            status="MOTTATT",
            grad="LAGRET",
            sha256=soknad.sha256,
            tidspunkt=now(),
            nr=1,
        )
        value = encode(claims.record(sign_jws(claims.to_json(), self.key, self.certificate)))
        await self.publisher.publish(Outgoing(kvittering_topic(self.number), soknad.digisos_id.encode(), value))

    async def formidler(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Run the command as an operator does; return its exit code and what it says to machines."""
        environment = os.environ | self.kafka.admin_settings.environment()
        process = await asyncio.create_subprocess_exec(
            FORMIDLER, "status", *arguments, "--lager", str(self.database), "--json",
            env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(2 * DEADLINE_S):
            output, errors = await process.communicate()
        assert process.returncode is not None
        assert output, errors.decode()
        return process.returncode, json.loads(output)

    async def rebuild(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        keys = ("--innsyn", str(self.folder / "innsyn.pem"), "--innsyn", str(self.folder / "innsyn.key"))
        return await self.formidler("rebuild", *keys, *arguments)

    async def shown(self, soknad: Soknad) -> str | None:
        async with StatusStore(self.database, read_only=True) as store:
            state = await store.state(soknad.digisos_id)
        return None if state is None else project(state).status

    async def published(self, soknad: Soknad) -> list[str]:
        """Return every status of a søknad that portals could read, in order."""
        found: list[str] = []

        async def take(batch: Sequence[Incoming]) -> None:
            key = soknad.digisos_id.encode()
            found.extend(decode(StatusRecord, one.value).status for one in batch if one.key == key)

        async with KafkaTail(self.kafka.admin_settings, [STATUS]) as tail:
            await read_until_caught_up(tail, take)
        return found


@dataclass
class Soknad:
    digisos_id: DigisosId = field(default_factory=DigisosId.new)
    melding_id: MeldingId = field(default_factory=MeldingId.new)
    sha256: Sha256 = field(default_factory=lambda: Sha256.of(b"pakken"))


@pytest.fixture
async def sted(kafka: Any, tmp_path: Path) -> Sted:
    authority = Authority.create(now() - timedelta(days=1))
    certificate, key = authority.issue("Konnektor", ORGNR, purpose="signering", now=now(), key="p256")
    innsyn, innsyn_key = authority.issue("Innsyn", ORGNR, purpose="kryptering", now=now(), key="rsa2048")
    (tmp_path / "innsyn.pem").write_bytes(certificate_pem(innsyn))
    write_private_key(tmp_path / "innsyn.key", innsyn_key)
    await kafka.admin.delete_topics([KATALOG])
    await kafka.admin.ensure_topics(central_topics())
    number = await kafka.new_kommune()
    sted = Sted(kafka, tmp_path, number, certificate, cast("EllipticCurvePrivateKey", key), await kafka.publisher())
    await sted.publisher.publish(Outgoing(KATALOG, number.encode(), encode(sted.entry())))
    return sted


@asynccontextmanager
async def running(sted: Sted) -> AsyncIterator[tuple[StatusStore, Follower]]:
    """Run what the process is made of."""
    katalog, ready = Katalog([sted.entry()]), asyncio.Event()
    ready.set()
    settings = sted.kafka.admin_settings

    def open_tail(topics: Iterable[str], offsets: Mapping[TopicPartition, int]) -> KafkaTail:
        return KafkaTail(settings, topics, offsets=offsets)

    identities = KafkaIdentities(settings)
    async with StatusStore(sted.database) as store:
        applier = Applier(katalog=katalog, store=store, keys=KeyRing([]), hub=Hub(), clock=now)
        follower = Follower(
            katalog=katalog,
            changed=asyncio.Event(),
            open_tail=open_tail,
            store=store,
            applier=applier,
            guard=TopicGuard(store, identities.seen),
        )
        outbox = OutboxPublisher(store, sted.publisher, applier.stored, begin=follower.caught_up)
        tasks = [asyncio.create_task(one) for one in (follower.run(ready), outbox.run())]
        try:
            yield store, follower
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            identities.close()


async def filled(sted: Sted, soknader: list[Soknad]) -> None:
    """Let the søknader go the whole way through the live path."""
    for soknad in soknader:
        await sted.transport(soknad)
        await sted.transport(soknad, "SENDT")
        await sted.kvittering(soknad)
    async with running(sted) as (store, _):

        async def done() -> bool:
            return all((await store.delivered(one.digisos_id for one in soknader)).values())

        await until(done)

        async def out() -> bool:
            return not await store.pending(1)

        await until(out)


@pytest.mark.kafka
async def test_a_rebuild_of_what_the_live_path_made_finds_no_difference_and_a_planted_one_is_found(
    sted: Sted,
) -> None:
    soknader = [Soknad() for _ in range(5)]
    await filled(sted, soknader)
    code, document = await sted.rebuild()
    assert (code, document["forskjeller"], document["underveis"]) == (0, [], 0), document
    assert document["sammenlignet"] == document["soknader"] >= 5
    planted, gone = soknader[2].digisos_id, soknader[3].digisos_id
    with sqlite3.connect(sted.database) as connection:
        connection.execute(
            "UPDATE soknad SET tilstand = replace(tilstand, 'SENDT', 'BEKREFTET') WHERE digisos_id = ?", (planted,)
        )
        connection.execute("DELETE FROM soknad WHERE digisos_id = ?", (gone,))
    connection.close()
    code, document = await sted.rebuild()
    assert code == 1
    assert {one["digisosId"]: one["felt"] for one in document["forskjeller"]} == {
        planted: ["historikk"],
        gone: ["mangler i lageret"],
    }
    assert sorted(path.name for path in sted.folder.iterdir() if "-ny" in path.name) == []


@pytest.mark.kafka
async def test_the_rebuilt_store_takes_the_place_of_the_running_one_when_that_stands_still(sted: Sted) -> None:
    soknad, whole = Soknad(), Soknad()
    await filled(sted, [soknad, whole])
    with sqlite3.connect(sted.database) as connection:
        connection.execute("DELETE FROM soknad WHERE digisos_id = ?", (soknad.digisos_id,))
    connection.close()
    once = len(await sted.published(whole))
    async with StatusStore(sted.database):
        code, document = await sted.rebuild("--bytt")
        assert (code, document["kode"]) == (1, "oppsett")
        assert "åpen i en annen prosess" in document["feil"]
    code, document = await sted.rebuild("--bytt")
    assert (code, document["byttet"]) == (0, True)
    assert os.access(document["gammeltLager"], os.R_OK)
    assert await sted.shown(soknad) == "MOTTATT"
    later = Soknad()
    await filled(sted, [later])  # the process goes on from there
    assert await sted.shown(later) == "MOTTATT"
    assert len(await sted.published(whole)) == once  # and says nothing again that was said


@pytest.mark.kafka
async def test_a_store_that_was_restored_from_a_backup_catches_up_and_publishes_nothing_older(sted: Sted) -> None:
    soknad = Soknad()
    await sted.transport(soknad)
    async with running(sted) as (store, _):
        await until(lambda: _is_known(store, soknad))
    backup = sted.database.read_bytes()
    await filled(sted, [Soknad()])
    await sted.transport(soknad, "SENDT")
    await sted.kvittering(soknad)
    await filled(sted, [])
    async with running(sted) as (store, _):
        await until(lambda: _is_delivered(store, soknad))
        await until(lambda: _is_out(store))
    before = await sted.published(soknad)
    assert before[-1] == "MOTTATT"
    sted.database.write_bytes(backup)
    async with running(sted) as (store, follower):
        await until(follower.caught_up.is_set)
        await until(lambda: _is_out(store))
        assert follower.problem() is None
    after = await sted.published(soknad)
    assert after[len(before) :] == ["MOTTATT"]
    code, document = await sted.rebuild()
    assert (code, document["forskjeller"]) == (0, [])


@pytest.mark.kafka
async def test_a_topic_that_is_deleted_and_made_again_while_it_is_read_is_left_alone_until_it_is_accepted(
    sted: Sted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emnevakt, "CHECK_EVERY_S", 0.2)
    soknad, other, topic = Soknad(), Soknad(), kvittering_topic(sted.number)
    await filled(sted, [soknad])
    await sted.transport(other)
    async with running(sted) as (store, follower):
        await until(follower.caught_up.is_set)
        await sted.kafka.admin.delete_topics([topic])
        await sted.kafka.admin.ensure_topics(kommune_topics(sted.number))
        await until(lambda: "laget på nytt" in str(follower.problem()))
        await sted.kvittering(other)
        third = Soknad()
        await sted.transport(third)  # the other topics are read on
        await until(lambda: _is_known(store, third))
        assert not (await store.delivered([other.digisos_id]))[other.digisos_id]
    async with running(sted) as (store, follower):
        await until(follower.caught_up.is_set)
        assert f"formidler status godta-emner --topic {topic}" in str(follower.problem())
        code, document = await sted.formidler("godta-emner")
        assert (code, document["kode"]) == (1, "oppsett")  # not while the process has the store
    code, document = await sted.formidler("godta-emner")
    assert (code, [one["topic"] for one in document["godtatt"]]) == (0, [topic])
    async with running(sted) as (store, follower):
        await until(lambda: _is_delivered(store, other))
        await until(lambda: follower.problem() is None)
    assert await sted.shown(soknad) == "MOTTATT"  # what was known stays known


@pytest.mark.kafka
async def test_records_that_were_deleted_before_they_were_read_stop_their_topic_and_say_so(sted: Sted) -> None:
    soknad, topic = Soknad(), kvittering_topic(sted.number)
    await filled(sted, [soknad])
    missed = Soknad()
    await sted.transport(missed)
    await sted.kvittering(missed)
    ends = await sted.kafka.admin.end_offsets([topic])
    await sted.kafka.admin.delete_records({partition: end for partition, end in ends.items() if end > 0})
    async with running(sted) as (store, follower):
        await until(lambda: "umulig å bygge opp igjen" in str(follower.problem()))
        assert topic in str(follower.problem())
        await until(lambda: _is_known(store, missed))


async def _is_known(store: StatusStore, soknad: Soknad) -> bool:
    return await store.state(soknad.digisos_id) is not None


async def _is_delivered(store: StatusStore, soknad: Soknad) -> bool:
    return (await store.delivered([soknad.digisos_id]))[soknad.digisos_id]


async def _is_out(store: StatusStore) -> bool:
    return not await store.pending(1)
