from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from broker.record import Incoming, TopicPartition
from crypto.certificates import certificate_pem, nokkel_id
from crypto.jws import sign_jws
from crypto.trust import Trust
from producers import kopi_rows
from producers import kvittering_follower as module
from producers.avsenderkopi import Avsenderkopier
from producers.kvittering_follower import KvitteringFollower
from schemas.codec import decode, encode
from schemas.errors import BrokerUnavailableError, TopicShorterError
from schemas.kvittering import UNDERVEIS, KvitteringClaims
from schemas.names import DigisosId, Kommunenummer, MeldingId, Organisasjonsnummer, Sha256, Uuid
from schemas.records import RevisjonRecord, Sertifikat

if TYPE_CHECKING:
    from collections.abc import Callable

    from producers.kopi_rows import Kopi

TOPIC = "fiks.0301.kvittering.v1"
BERGEN_TOPIC = "fiks.4601.kvittering.v1"


@dataclass
class Log:
    """A topic of one partition in memory."""

    values: list[bytes] = field(default_factory=list)
    first: int = 0


class Kafka:
    """Opens readers of topics in memory."""

    def __init__(self) -> None:
        self.logs: dict[str, Log] = {}
        self.opened: list[tuple[frozenset[str], dict[TopicPartition, int]]] = []
        self.grown = asyncio.Event()
        self.appended_ms = 0

    def put(self, *values: bytes, topic: str = TOPIC) -> None:
        self.logs.setdefault(topic, Log()).values += values
        self.grown.set()

    @asynccontextmanager
    async def open(self, topics: Iterable[str], offsets: Mapping[TopicPartition, int]) -> AsyncIterator[Any]:
        wanted = frozenset(topics)
        self.opened.append((wanted, dict(offsets)))
        for topic in wanted:
            if topic not in self.logs:
                raise BrokerUnavailableError("emnet finnes ikke")
            if offsets.get(TopicPartition(topic, 0), 0) > len(self.logs[topic].values):
                raise TopicShorterError("emnet er kortere", topics=frozenset([topic]))
        yield Tail(self, wanted, offsets)


class Tail:
    """A reader of topics in memory; waits at their ends."""

    def __init__(self, kafka: Kafka, topics: frozenset[str], offsets: Mapping[TopicPartition, int]) -> None:
        self._kafka = kafka
        self._at = {
            topic: max(offsets.get(TopicPartition(topic, 0), 0), kafka.logs[topic].first) for topic in sorted(topics)
        }
        self.first = {TopicPartition(topic, 0): kafka.logs[topic].first for topic in topics}
        self.caught_up = asyncio.Event()
        self.total = 0

    async def ends(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        return {TopicPartition(topic, 0): len(self._kafka.logs[topic].values) for topic in topics}

    async def __aiter__(self) -> AsyncIterator[Sequence[Incoming]]:
        while True:
            self._kafka.grown.clear()
            batch = [
                Incoming(topic, 0, at, self._kafka.appended_ms, b"", value, ())
                for topic, start in self._at.items()
                for at, value in enumerate(self._kafka.logs[topic].values[start:], start)
            ]
            for one in batch:
                self._at[one.topic] = one.offset + 1
            if batch:
                yield batch
            else:
                await self._kafka.grown.wait()


class Connector:
    """The kommune's connector: it signs."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.changed = asyncio.Event()
        self.certificate, self.key = world.keys.authority.issue(
            "acme", Organisasjonsnummer("889640782"), purpose="signering", now=world.now, key="p256"
        )
        self.set()

    def set(self, **changes: Any) -> None:
        entry = self.world.katalog.get("0301")
        own = Sertifikat(
            nokkel_id=nokkel_id(self.certificate),
            bruk="KVITTERING",
            pem=certificate_pem(self.certificate).decode(),
            gyldig_fra=self.certificate.not_valid_before_utc,
            gyldig_til=self.certificate.not_valid_after_utc,
        ).model_copy(update=changes)
        others = [each for each in entry.sertifikater if each.bruk != "KVITTERING"]
        self.world.katalog.put(entry.model_copy(update={"sertifikater": (*others, own)}))

    def kvittering(self, kopi: Kopi, *, signed_by: Any = None, clear: Any = None, **changes: Any) -> bytes:
        values = {
            "kvittering_id": Uuid.new(),
            "digisos_id": kopi.digisos_id,
            "melding_id": kopi.melding_id,
            "kommunenummer": kopi.kommunenummer,
            "utsteder": "acme-oslo",
            "status": "MOTTATT",
            "grad": "LAGRET",
            "sha256": kopi.sha256,
            "tidspunkt": self.world.now + timedelta(minutes=1),
            "nr": 1,
        }
        claims = KvitteringClaims(**(values | changes))
        certificate, key = signed_by or (self.certificate, self.key)
        record = claims.record(sign_jws(claims.to_json(), key, certificate))
        return encode(record.model_copy(update=clear or {}))


@pytest.fixture
def connector(world: Any) -> Connector:
    return Connector(world)


@pytest.fixture
def kafka() -> Kafka:
    kafka = Kafka()
    kafka.logs[TOPIC] = Log()
    return kafka


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    monkeypatch.setattr(module, "SCRUB_S", 0.01)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.005)


@asynccontextmanager
async def following(world: Any, kafka: Kafka) -> AsyncIterator[asyncio.Event]:
    changed, ready = asyncio.Event(), asyncio.Event()
    ready.set()
    follower = KvitteringFollower(
        katalog=world.katalog, changed=changed, open_tail=kafka.open, kopier=world.kopier, clock=world.clock
    )
    task = asyncio.create_task(follower.run(ready))
    try:
        yield changed
    finally:
        task.cancel()
        await asyncio.wait([task])


async def read_to(world: Any, count: int, topic: str = TOPIC) -> None:
    def place(connection: Any) -> int:
        row = connection.execute("SELECT neste FROM lesestand WHERE topic = ?", (topic,)).fetchone()
        return 0 if row is None else int(row[0])

    async def reached() -> bool:
        return bool(await world.database.read(place) >= count)

    await until(reached)


@pytest.fixture
async def kopi(world: Any, sending: Any) -> Kopi:
    assert (await world.post(sending)).status_code == 202
    (kopi,) = await world.kopier.alive()
    return kopi


async def acts(world: Any) -> list[RevisjonRecord]:
    queued = [one.message for one in await world.queued() if one.message.type == "REVISJON"]
    return [decode(RevisjonRecord, message.outgoing.value) for message in queued]


async def test_a_melding_that_was_received_has_no_copy_any_more_and_the_proof_names_the_kvittering(
    world: Any, kafka: Kafka, connector: Connector, kopi: Kopi
) -> None:
    kvittering_id = Uuid.new()
    kafka.put(connector.kvittering(kopi, kvittering_id=kvittering_id))
    async with following(world, kafka):
        await read_to(world, 1)

    (act,) = await acts(world)
    known = await world.kopier.get(kopi.melding_id)
    assert (known.destruert, known.kvittering_id) == (world.now, kvittering_id)
    assert (act.handling, act.detaljer["kvitteringId"]) == ("avsenderkopi.destruert", kvittering_id)


async def test_its_key_is_in_no_file_of_the_database_soon_after(
    world: Any, kafka: Kafka, connector: Connector, kopi: Kopi, tmp_path: Any
) -> None:
    found = await world.kopier.load(kopi.melding_id)
    key = found.innhold.key.data

    def files() -> list[str]:
        return [path.name for path in tmp_path.glob("producers.sqlite*") if key in path.read_bytes()]

    assert files()
    kafka.put(connector.kvittering(kopi))
    async with following(world, kafka):
        await until(lambda: not files())


@pytest.mark.parametrize("restarted", [False, True])
async def test_so_is_one_that_was_destroyed_for_another_reason_also_when_the_process_ended_in_between(
    world: Any, kafka: Kafka, kopi: Kopi, tmp_path: Any, *, restarted: bool
) -> None:
    key = (await world.kopier.load(kopi.melding_id)).innhold.key.data

    def files() -> list[str]:
        return [path.name for path in tmp_path.glob("producers.sqlite*") if key in path.read_bytes()]

    if restarted:
        await world.kopier.destroy(kopi.melding_id, now=world.now, arsak="utlopt")
        wrapper = world.kopier.wrapper
        world.kopier = Avsenderkopier(world.database, world.dokumentlager, wrapper=wrapper, trust=Trust())
        assert files()
    async with following(world, kafka):
        if not restarted:
            await until(lambda: not world.kopier.unscrubbed.is_set())
            await world.kopier.destroy(kopi.melding_id, now=world.now, arsak="utlopt")
        await until(lambda: not files())


OTHER = Sha256.of(b"noe annet")


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "LEVERT"},
        {"status": "AVVIST", "kode": "feil"},
        {"sha256": OTHER},
        {"kommunenummer": Kommunenummer("4601")},
        {"digisos_id": DigisosId("0e0d8a1c-5f5c-4a55-8d1c-3d2f6f8f0b11")},
        {"melding_id": MeldingId("7b7fd0c2-7b44-4d4e-9f65-0d1d8a6d2a22")},
        {"melding_id": None},
        {"utsteder": "en-annen"},
        {"clear": {"status": "MOTTATT"}, "status": "LEVERT"},
    ],
    ids=str,
)
async def test_a_kvittering_that_says_anything_else_destroys_nothing(
    world: Any, kafka: Kafka, connector: Connector, kopi: Kopi, changes: dict[str, Any]
) -> None:
    kafka.put(connector.kvittering(kopi, **changes))
    async with following(world, kafka):
        await read_to(world, 1)

    assert [one.melding_id for one in await world.kopier.alive()] == [kopi.melding_id]
    assert await acts(world) == []


async def test_one_that_is_forged_foreign_late_or_garbage_destroys_nothing_and_stops_nothing(
    world: Any, kafka: Kafka, connector: Connector, kopi: Kopi
) -> None:
    stranger = world.keys.authority.issue(
        "fremmed", Organisasjonsnummer("889640782"), purpose="signering", now=world.now, key="p256"
    )
    kafka.put(
        connector.kvittering(kopi, signed_by=stranger),
        connector.kvittering(kopi, tidspunkt=world.now + timedelta(days=4000)),
        connector.kvittering(kopi)[:-20],
        b"",
        b"tull",
    )
    async with following(world, kafka):
        await read_to(world, 5)
        assert await world.kopier.alive()
        kafka.put(connector.kvittering(kopi))
        await read_to(world, 6)
    assert await world.kopier.alive() == []


async def test_one_signed_with_a_revoked_certificate_destroys_nothing(
    world: Any, kafka: Kafka, connector: Connector, kopi: Kopi
) -> None:
    connector.set(tilbakekalt=world.now + timedelta(days=1))
    kafka.put(connector.kvittering(kopi))
    async with following(world, kafka):
        await read_to(world, 1)
    assert await world.kopier.alive()


@pytest.mark.parametrize("early", [timedelta(seconds=1), timedelta()], ids=["on-its-way", "too-late"])
async def test_one_from_a_certificate_that_had_ended_counts_as_long_as_it_can_have_been_on_its_way(
    world: Any, kafka: Kafka, connector: Connector, kopi: Kopi, early: timedelta
) -> None:
    appended = connector.certificate.not_valid_after_utc + UNDERVEIS - early
    kafka.appended_ms = round(appended.timestamp() * 1000)
    kafka.put(connector.kvittering(kopi))
    async with following(world, kafka):
        await read_to(world, 1)
    assert await no_copies(world) is bool(early)


async def test_another_kommunes_connector_cannot_vouch_on_its_own_topic(
    world: Any, kafka: Kafka, connector: Connector, kopi: Kopi
) -> None:
    entry = world.katalog.get("0301")
    world.katalog.put(entry.model_copy(update={"kommunenummer": Kommunenummer("4601")}))
    kafka.put(connector.kvittering(kopi, kommunenummer=Kommunenummer("4601")), topic=BERGEN_TOPIC)
    kafka.put(connector.kvittering(kopi), topic=BERGEN_TOPIC)
    async with following(world, kafka):
        await read_to(world, 2, BERGEN_TOPIC)
    assert await world.kopier.alive()


async def test_a_melding_that_was_sealed_again_is_received_under_either_digest(
    world: Any, kafka: Kafka, connector: Connector, make_sending: Any
) -> None:
    for nr in (1, 2):
        await world.post(make_sending(seed=nr, encrypt_for=world.keys.mottak), path=f"0301/ref-{nr}")
    kopier = await world.kopier.alive()
    for each in kopier:
        new = each.record.model_copy(update={"sha256": Sha256.of(each.melding_id.encode()), "pakke": b"ny"})
        event = kopi_rows.omforseglet(each.aksept, Uuid.new(), new.sha256, world.now)
        await world.database.write(
            lambda connection, new=new, event=event: kopi_rows.replace_sealing(connection, new, event)
        )
    kafka.put(
        connector.kvittering(kopier[0]),
        connector.kvittering(kopier[1], sha256=Sha256.of(kopier[1].melding_id.encode())),
    )
    async with following(world, kafka):
        await read_to(world, 2)
    assert await world.kopier.alive() == []


async def test_reading_goes_on_where_it_left_off(world: Any, kafka: Kafka, connector: Connector, kopi: Kopi) -> None:
    kafka.put(connector.kvittering(kopi, status="LEVERT"), connector.kvittering(kopi, status="LEVERT"))
    async with following(world, kafka):
        await read_to(world, 2)
    kafka.put(connector.kvittering(kopi))
    async with following(world, kafka):
        await read_to(world, 3)
    assert [offsets for _, offsets in kafka.opened] == [{}, {TopicPartition(TOPIC, 0): 1}]
    assert await world.kopier.alive() == []


@pytest.mark.parametrize("more", [0, 1, 5])
async def test_a_topic_that_was_made_again_is_read_from_its_beginning(
    world: Any, kafka: Kafka, connector: Connector, kopi: Kopi, more: int
) -> None:
    kafka.put(connector.kvittering(kopi, status="LEVERT"), connector.kvittering(kopi, status="LEVERT"))
    async with following(world, kafka):
        await read_to(world, 2)
    kafka.logs[TOPIC] = Log()
    kafka.put(connector.kvittering(kopi), *[connector.kvittering(kopi, status="LEVERT") for _ in range(more)])
    async with following(world, kafka):
        await until(lambda: no_copies(world))


async def no_copies(world: Any) -> bool:
    return not await world.kopier.alive()


async def test_a_topic_that_has_forgotten_what_was_read_is_no_other_topic(
    world: Any, kafka: Kafka, connector: Connector, kopi: Kopi
) -> None:
    kafka.put(*[connector.kvittering(kopi, status="LEVERT") for _ in range(3)])
    async with following(world, kafka):
        await read_to(world, 3)
    kafka.put(connector.kvittering(kopi))
    kafka.logs[TOPIC].first = 3
    async with following(world, kafka):
        await read_to(world, 4)
    assert len(kafka.opened) == 2
    assert await world.kopier.alive() == []


async def test_a_kommune_without_a_topic_holds_up_nobody(
    world: Any, kafka: Kafka, connector: Connector, kopi: Kopi
) -> None:
    entry = world.katalog.get("0301")
    world.katalog.put(entry.model_copy(update={"kommunenummer": Kommunenummer("4601")}))
    kafka.put(connector.kvittering(kopi))
    async with following(world, kafka):
        await read_to(world, 1)
        kafka.put(connector.kvittering(kopi, kommunenummer=Kommunenummer("4601")), topic=BERGEN_TOPIC)
        await read_to(world, 1, BERGEN_TOPIC)
    assert await world.kopier.alive() == []


async def test_a_kommune_that_comes_later_is_followed(
    world: Any, kafka: Kafka, connector: Connector, kopi: Kopi
) -> None:
    kafka.logs[BERGEN_TOPIC] = Log()
    async with following(world, kafka) as changed:
        await until(lambda: kafka.opened)
        entry = world.katalog.get("0301")
        world.katalog.put(entry.model_copy(update={"kommunenummer": Kommunenummer("4601")}))
        changed.set()
        kafka.put(connector.kvittering(kopi), topic=BERGEN_TOPIC)
        await read_to(world, 1, BERGEN_TOPIC)
