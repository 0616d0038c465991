from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from patience import until
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from broker.record import Outgoing, RecordPosition, header
from crypto.certificates import certificate_pem, nokkel_id
from crypto.envelope import open_package
from crypto.keys import KeyRing
from crypto.spool import Spool
from crypto.trust import Trust
from producers import kopi_rows
from producers.forsegling import Forsegler, recipient_or_own, sealed_for
from producers.relay import Relay
from producers.relay_ports import Collaborators
from schemas.codec import decode
from schemas.errors import CertificateError, CopyGoneError
from schemas.names import Kommunenummer, MeldingId, Organisasjonsnummer, Uuid
from schemas.records import Sertifikat, SoknadRecord, TransportRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

OSLO = Kommunenummer("0301")
SOKNAD = "fiks.0301.soknad.v1"
LARGE = (1_000_000, 3000, 2500)


class Topics:
    """A publisher in memory."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []

    async def publish(self, outgoing: Outgoing) -> RecordPosition:
        await asyncio.sleep(0)
        self.records.append(outgoing)
        return RecordPosition(outgoing.topic, 0, len(self.records))

    def types(self) -> list[str]:
        return [
            "SOKNAD" if record.topic == SOKNAD else decode(TransportRecord, record.value or b"").type
            for record in self.records
        ]

    def soknader(self) -> list[SoknadRecord]:
        return [decode(SoknadRecord, record.value or b"") for record in self.records if record.topic == SOKNAD]

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(condition)


class Kommune:
    """A kommune whose certificates a test gives and takes."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.changed = asyncio.Event()
        self.certificates = [self._entry(world.keys.kommune)]
        self.rings: dict[str, KeyRing] = {nokkel_id(world.keys.kommune): world.keys.kommune_keys}

    def _entry(self, certificate: Any) -> Sertifikat:
        return Sertifikat(
            nokkel_id=nokkel_id(certificate),
            bruk="KRYPTERING",
            pem=certificate_pem(certificate).decode(),
            gyldig_fra=certificate.not_valid_before_utc,
            gyldig_til=certificate.not_valid_after_utc,
        )

    def revoke(self) -> None:
        self.certificates = [each.model_copy(update={"tilbakekalt": self.world.now}) for each in self.certificates]
        self.put()

    def expire(self) -> None:
        until = self.world.now + timedelta(hours=1)
        self.certificates = [each.model_copy(update={"gyldig_til": until}) for each in self.certificates]
        self.world.now = until
        self.put()

    def issue(self, days: int = 700) -> Any:
        certificate, key = self.world.keys.authority.issue(
            "Oslo kommune",
            Organisasjonsnummer("889640782"),
            purpose="kryptering",
            now=self.world.now,
            valid_days=days,
            key="rsa2048",
        )
        self.certificates.append(self._entry(certificate))
        self.rings[nokkel_id(certificate)] = KeyRing([(certificate, key)])
        self.put()
        return certificate

    def put(self) -> None:
        entry = self.world.katalog.get(OSLO)
        self.world.katalog.put(entry.model_copy(update={"sertifikater": tuple(self.certificates)}))
        self.changed.set()

    def open(self, record: SoknadRecord) -> set[str]:
        package = record.pakke
        if package is None:
            package = b"".join(self.world.dokumentlager.read(record.dokumentlager_id))
        with Spool() as spool:
            spool.write(package)
            spool.finish()
            assert (spool.sha256, spool.size) == (record.sha256, record.storrelse)
            trust = Trust(roots=[self.world.keys.authority.certificate])
            with open_package(spool, keys=self.rings[record.nokkel_id], trust=trust, now=record.innsendt) as opened:
                return {file.name for file in opened.files}


@pytest.fixture
def kommune(world: Any) -> Kommune:
    return Kommune(world)


@pytest.fixture
def forsegler(world: Any) -> Forsegler:
    world.kopier.wake = world.outbox.added.set
    return Forsegler(world.katalog, world.kopier, world.clock)


@asynccontextmanager
async def relaying(world: Any, kommune: Kommune, forsegler: Forsegler) -> AsyncIterator[Topics]:
    topics, stop = Topics(), asyncio.Event()
    collaborators = Collaborators(topics=forsegler, sealing=forsegler)
    relay = Relay(world.outbox, topics, world.clock, collaborators=collaborators, jitter=lambda: 0.0)
    watching = asyncio.create_task(forsegler.watch(kommune.changed))
    running = asyncio.create_task(relay.run(stop))
    try:
        yield topics
    finally:
        stop.set()
        await running
        watching.cancel()


async def post(world: Any, make_sending: Any, nr: int = 1, **given: Any) -> str:
    sending = make_sending(seed=nr, encrypt_for=world.keys.mottak, **given)
    answer = await world.post(sending, path=f"0301/ref-{nr}")
    assert answer.status_code == 202
    return str(answer.json())


async def test_what_is_sealed_for_a_valid_certificate_leaves_as_it_is(
    world: Any, make_sending: Any, kommune: Kommune, forsegler: Forsegler
) -> None:
    await post(world, make_sending)
    async with relaying(world, kommune, forsegler) as topics:
        await topics.until(lambda: len(topics.records) == 3)
    assert topics.types() == ["AKSEPTERT", "SOKNAD", "SENDT"]
    assert header(topics.records[1].headers, "fiks_nokkel_id") == nokkel_id(world.keys.kommune).encode()


@pytest.mark.parametrize("sizes", [(4096, 3000, 2500), LARGE])
async def test_a_soknad_for_a_revoked_certificate_is_sealed_for_the_new_one_before_it_leaves(
    world: Any, make_sending: Any, kommune: Kommune, forsegler: Forsegler, sizes: Any
) -> None:
    await post(world, make_sending, sizes=sizes)
    (former,) = await world.kopier.alive()
    kommune.revoke()
    new = kommune.issue()

    async with relaying(world, kommune, forsegler) as topics:
        await topics.until(lambda: len(topics.records) == 4)

    (record,) = topics.soknader()
    event = decode(TransportRecord, topics.records[1].value or b"")
    assert topics.types() == ["AKSEPTERT", "OMFORSEGLET", "SOKNAD", "SENDT"]
    assert record.nokkel_id == nokkel_id(new)
    assert "Soknad.pdf" in kommune.open(record)
    assert (event.sha256, event.melding_id) == (record.sha256, former.melding_id)
    assert record.sha256 != former.sha256
    assert (record.melding_id, record.innsendt) == (former.melding_id, former.innsendt)
    assert record.dokumentlager_id is None or record.dokumentlager_id != former.record.dokumentlager_id
    assert [kopi.sha256 for kopi in await world.kopier.alive()] == [record.sha256]
    (await world.kopier.open(former.melding_id, world.now)).close()


async def test_a_resealed_package_is_the_connectors_to_fetch_as_the_first_one_was(
    world: Any, make_sending: Any, kommune: Kommune, forsegler: Forsegler
) -> None:
    await post(world, make_sending, sizes=LARGE)
    (former,) = await world.kopier.alive()
    await forsegler.reseal(former.melding_id, kommune.issue())
    (kopi,) = await world.kopier.alive()

    packages = {former.record.dokumentlager_id, kopi.record.dokumentlager_id}
    assert len(packages) == 2
    assert await world.outbox.packages() == packages
    stored = await world.outbox.package(kopi.record.dokumentlager_id)
    assert (stored.kommunenummer, stored.sha256) == (OSLO, kopi.sha256)


@pytest.mark.parametrize("why", ["tilbakekalt", "utlopt"])
async def test_without_a_certificate_soknader_are_taken_in_held_and_sent_when_one_comes(
    world: Any, make_sending: Any, kommune: Kommune, forsegler: Forsegler, why: str
) -> None:
    first = await post(world, make_sending, 1)
    if why == "utlopt":
        kommune.expire()
    else:
        kommune.revoke()
    with capture_logs() as logs:
        async with relaying(world, kommune, forsegler) as topics:
            await topics.until(lambda: topics.types() == ["AKSEPTERT"])
            ids = [first, *[await post(world, make_sending, nr) for nr in (2, 3)]]
            await topics.until(lambda: topics.types() == ["AKSEPTERT"] * len(ids))

            def held() -> float | None:
                return REGISTRY.get_sample_value("fiks_soknader_held", {"kommunenummer": "0301", "aarsak": why})

            kommune.changed.set()
            await topics.until(lambda: held() == len(ids))
            assert f"0301 ({why})" in str(forsegler.problem())

            kommune.issue()
            await topics.until(lambda: topics.types().count("SENDT") == len(ids))
            kommune.changed.set()
            await topics.until(lambda: held() is None)

    assert forsegler.problem() is None
    assert sorted(record.digisos_id for record in topics.soknader()) == sorted(ids)
    assert all("Soknad.pdf" in kommune.open(record) for record in topics.soknader())
    alarms = [line for line in logs if line["event"] == "recipient_certificate_unusable"]
    assert [(line["log_level"], line["kode"]) for line in alarms] == [("critical", why)]


async def test_what_is_taken_in_without_a_certificate_is_sealed_for_ourselves(
    world: Any, make_sending: Any, kommune: Kommune
) -> None:
    kommune.revoke()
    await post(world, make_sending)
    _, queued = await world.queued()
    record = decode(SoknadRecord, queued.message.outgoing.value)

    assert record.nokkel_id == nokkel_id(world.keys.mottak) == sealed_for(queued.message)


async def test_a_closed_or_unknown_kommune_is_refused_as_before(
    world: Any, make_sending: Any, kommune: Kommune
) -> None:
    kommune.revoke()
    entry = world.katalog.get(OSLO)
    world.katalog.put(entry.model_copy(update={"har_midlertidig_deaktivert_mottak": True}))
    closed = await world.post(make_sending(encrypt_for=world.keys.mottak))
    world.katalog.remove(OSLO)
    unknown = await world.post(make_sending(encrypt_for=world.keys.mottak))

    assert (closed.status_code, unknown.status_code) == (503, 400)
    assert await world.kopier.count(kopi_rows.Utvalg()) == 0


async def test_nothing_is_published_to_a_kommune_that_the_katalog_does_not_know_yet(
    world: Any, make_sending: Any, kommune: Kommune, forsegler: Forsegler
) -> None:
    await post(world, make_sending)
    entry = world.katalog.get(OSLO)
    world.katalog.remove(OSLO)
    async with relaying(world, kommune, forsegler) as topics:
        await topics.until(lambda: topics.types() == ["AKSEPTERT"])
        assert forsegler.closed(SOKNAD)
        world.katalog.put(entry)
        kommune.changed.set()
        await topics.until(lambda: topics.types() == ["AKSEPTERT", "SOKNAD", "SENDT"])


async def test_a_topic_that_is_found_open_while_a_message_is_looked_at_wakes_the_relay(
    world: Any, make_sending: Any, kommune: Kommune, forsegler: Forsegler
) -> None:
    kommune.revoke()
    forsegler.refresh()
    await post(world, make_sending)
    _, queued = await world.queued()
    new = {"kommunenummer": Kommunenummer("4601"), "sertifikater": (kommune._entry(world.keys.kommune),)}
    world.katalog.put(world.katalog.get(OSLO).model_copy(update=new))
    world.outbox.added.clear()

    assert not await forsegler.current(queued)
    assert not forsegler.closed("fiks.4601.soknad.v1")
    assert world.outbox.added.is_set()


async def test_what_came_later_for_the_same_soknad_stays_behind_what_is_sealed_again(
    world: Any, make_sending: Any, kommune: Kommune, forsegler: Forsegler
) -> None:
    digisos_id = await post(world, make_sending, 1)
    await post(world, make_sending, 2)
    await world.database.write(
        lambda connection: [
            connection.execute(f"UPDATE {table} SET digisos_id = ?", (digisos_id,))
            for table in ("utboks", "avsenderkopi")
        ]
    )
    first, second = await world.kopier.alive()

    await forsegler.reseal(first.melding_id, kommune.issue())

    waiting = [(one.message.melding_id, one.message.type) for one in await world.queued()]
    assert waiting == [
        (first.melding_id, "AKSEPTERT"),
        (first.melding_id, "OMFORSEGLET"),
        (first.melding_id, "SOKNAD"),
        (second.melding_id, "AKSEPTERT"),
        (second.melding_id, "SOKNAD"),
    ]


async def test_a_message_that_has_left_meanwhile_is_not_sealed_again(
    world: Any, make_sending: Any, kommune: Kommune, forsegler: Forsegler
) -> None:
    await post(world, make_sending, sizes=LARGE)
    _, queued = await world.queued()
    await world.database.write(lambda connection: connection.execute("DELETE FROM utboks"))

    assert not await forsegler.reseal(queued.message.melding_id, kommune.issue(), queued=queued)
    assert await world.queued() == []
    assert len(world.stored_files()) == 1


async def test_a_copy_that_is_destroyed_cannot_be_sealed_again_and_leaves_nothing(
    world: Any, make_sending: Any, kommune: Kommune, forsegler: Forsegler, monkeypatch: pytest.MonkeyPatch
) -> None:
    await post(world, make_sending, sizes=LARGE)
    (kopi,) = await world.kopier.alive()
    certificate = kommune.issue()
    seal = forsegler._seal

    def sealed_while_it_is_destroyed(found: Any, recipient: Any) -> Any:
        record = seal(found, recipient)
        loop.call_soon_threadsafe(lambda: destroying.append(asyncio.ensure_future(destroy())))
        assert done.wait(5)
        return record

    async def destroy() -> None:
        await world.kopier.destroy(kopi.melding_id, now=world.now, kvittering_id=Uuid.new())
        done.set()

    loop, destroying, done = asyncio.get_running_loop(), [], threading.Event()
    monkeypatch.setattr(forsegler, "_seal", sealed_while_it_is_destroyed)
    with pytest.raises(CopyGoneError):
        await forsegler.reseal(kopi.melding_id, certificate)
    with pytest.raises(CopyGoneError):
        await forsegler.reseal(MeldingId.new(), certificate)
    assert len(world.stored_files()) == 1


async def test_a_certificate_that_may_not_be_sealed_for_closes_the_topic_too(
    kommune: Kommune, forsegler: Forsegler, keys: Any
) -> None:
    kommune.certificates = [kommune._entry(keys.signer.certificate)]
    kommune.put()
    forsegler.refresh()
    assert forsegler.closed(SOKNAD)
    assert "uegnet" in str(forsegler.problem())


def test_our_own_certificate_stands_in_only_when_it_is_valid(world: Any, kommune: Kommune) -> None:
    own = world.keys.mottak_keys.certificates
    assert recipient_or_own(world.katalog, OSLO, own, world.now) == world.keys.kommune
    kommune.revoke()
    assert recipient_or_own(world.katalog, OSLO, own, world.now) == world.keys.mottak
    for given in (own, ()):
        with pytest.raises(CertificateError):
            recipient_or_own(world.katalog, OSLO, given, world.now + timedelta(days=4000))
