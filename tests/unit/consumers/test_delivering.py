from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from broker.delivery_messages import DeadLetter, DeadLettered, Deliver, Handled, PublishKvittering, Ticket, Withdraw
from broker.record import FORBI_HEADER, GJENKJORINGER_HEADER, Attempt, header
from broker.routing import dead_letter_topic, kvittering_topic
from consumers.connectors.memory import MemoryConnector
from consumers.dead_letters import VERDI_HEADER, dead_letter
from consumers.dedup import DedupStore
from consumers.delivering import Deliverer
from consumers.job import Job
from consumers.kvitteringer import Kvitteringer
from consumers.opening import OpenedSoknad, Opener
from schemas.codec import decode
from schemas.errors import (
    BehindDeadLetterError,
    BrokerUnavailableError,
    ExpiredError,
    FagsystemUnavailableError,
    MismatchError,
    PartitionLostError,
    RecordTooLargeError,
    UnexpectedRecordError,
    UnsealError,
)
from schemas.names import DigisosId, Kommunenummer, MeldingId, Organisasjonsnummer, Sha256
from schemas.records import DeadLetterRecord

NUMBER = Kommunenummer("4601")
TICKET = Ticket(0, 0, 1)
ORGNR = Organisasjonsnummer("889640782")


@pytest.fixture
def deliverer(
    *,
    opener: Opener,
    fagsystem: MemoryConnector,
    store: DedupStore,
    kvitteringer: Kvitteringer,
    publisher: Any,
    clock: Any,
) -> Deliverer:
    return Deliverer(
        NUMBER,
        group="fiks.acme.4601",
        opener=opener,
        connector=fagsystem,
        store=store,
        kvitteringer=kvitteringer,
        publisher=publisher,
        clock=clock,
    )


@pytest.fixture
def job(make_record: Callable[..., Any], incoming: Callable[..., Any]) -> Callable[..., Job]:
    def make(record: Any = None, *, redrives: int = 0, **more: Any) -> Job:
        headers = ((GJENKJORINGER_HEADER, str(redrives).encode()),) if redrives else ()
        return Job.of(incoming(record or make_record(), headers=headers, **more), NUMBER)

    return make


def dead(error: Any = None) -> DeadLetter:
    return DeadLetter(TICKET, error or UnsealError(), ())


async def published(deliverer: Deliverer, job: Job, publisher: Any) -> list[Any]:
    await deliverer.publish(job, PublishKvittering(TICKET))
    return publisher.claims(kvittering_topic(NUMBER))


async def test_a_delivery_stores_its_answer_before_it_is_published(
    deliverer: Deliverer, job: Any, publisher: Any, store: DedupStore
) -> None:
    one = job()
    assert await deliverer.deliver(one, Deliver(TICKET)) == Handled(TICKET)
    (issued,) = await store.of_melding(one.melding_id)
    assert publisher.published == []
    (claims,) = await published(deliverer, one, publisher)
    assert claims.kvittering_id == issued.kvittering_id


async def test_a_repeat_is_not_even_opened(
    deliverer: Deliverer, job: Any, publisher: Any, fagsystem: MemoryConnector
) -> None:
    one = job()
    await deliverer.deliver(one, Deliver(TICKET))
    await published(deliverer, one, publisher)
    fagsystem.down = FagsystemUnavailableError("nede")
    again = Job.of(one.incoming, NUMBER)
    assert await deliverer.deliver(again, Deliver(TICKET)) == Handled(TICKET, repeated=True)
    first, second = await published(deliverer, again, publisher)
    assert first == second
    assert again.resultat == "GJENTATT"


async def test_the_same_melding_sealed_again_must_open_and_is_not_delivered_twice(
    deliverer: Deliverer, job: Any, make_record: Any, fagsystem: MemoryConnector
) -> None:
    record = make_record()
    await deliverer.deliver(job(record), Deliver(TICKET))
    sealed_again = make_record(digisos_id=record.digisos_id, melding_id=record.melding_id)
    assert await deliverer.deliver(job(sealed_again), Deliver(TICKET)) == Handled(TICKET, repeated=True)
    assert fagsystem.deliveries == 1
    package = bytearray(sealed_again.pakke)
    package[-40] ^= 1
    tampered = sealed_again.model_copy(update={"pakke": bytes(package), "sha256": Sha256.of(bytes(package))})
    with pytest.raises(UnsealError):
        await deliverer.deliver(job(tampered), Deliver(TICKET))


async def test_a_failed_delivery_stores_nothing(
    deliverer: Deliverer, job: Any, fagsystem: MemoryConnector, store: DedupStore
) -> None:
    fagsystem.down = FagsystemUnavailableError("nede")
    one = job()
    with pytest.raises(FagsystemUnavailableError):
        await deliverer.deliver(one, Deliver(TICKET))
    assert await store.of_melding(one.melding_id) == ()


@pytest.mark.parametrize("rejects", [True, False])
async def test_the_fagsystems_answer_becomes_status_and_grad(
    deliverer: Deliverer, job: Any, publisher: Any, fagsystem: MemoryConnector, *, rejects: bool
) -> None:
    one = job()
    if rejects:
        fagsystem.rejections[one.melding_id] = "demo.nei"
    await deliverer.deliver(one, Deliver(TICKET))
    (claims,) = await published(deliverer, one, publisher)
    expected = ("AVVIST", "VALIDERT", "demo.nei") if rejects else ("MOTTATT", "LAGRET", None)
    assert (claims.status, claims.grad, claims.kode) == expected
    assert claims.sha256 == one.record.sha256


async def test_a_dead_letter_is_durable_before_its_kvittering_is_issued(
    deliverer: Deliverer, job: Any, publisher: Any, store: DedupStore
) -> None:
    one = job()
    publisher.failures = [BrokerUnavailableError("x")]
    with pytest.raises(BrokerUnavailableError):
        await deliverer.dead_letter(one, dead())
    assert await store.of_melding(one.melding_id) == ()
    assert await deliverer.dead_letter(one, dead()) == DeadLettered(TICKET, answerable=True)
    assert await store.dead_keys(NUMBER) == {one.digisos_id}
    (claims,) = await published(deliverer, one, publisher)
    assert (claims.status, claims.grad, claims.kode) == ("AVVIST", "INGEN", "krypto.apning")


async def test_a_dead_letter_again_is_answered_and_not_written_twice(
    deliverer: Deliverer, job: Any, publisher: Any
) -> None:
    one = job()
    await deliverer.dead_letter(one, dead())
    again = Job.of(one.incoming, NUMBER)
    assert await deliverer.dead_letter(again, dead(MismatchError("x"))) == Handled(TICKET, repeated=True)
    assert len(publisher.on(dead_letter_topic(NUMBER))) == 1


async def test_a_redriven_record_is_tried_again_and_revives_its_key(
    deliverer: Deliverer, job: Any, publisher: Any, store: DedupStore, make_record: Any
) -> None:
    record = make_record()
    await deliverer.dead_letter(job(record), dead())
    redriven = job(record, redrives=1)
    assert await deliverer.deliver(redriven, Deliver(TICKET)) == Handled(TICKET, revives=True)
    assert await store.dead_keys(NUMBER) == frozenset()
    assert [one.status for one in await published(deliverer, redriven, publisher)] == ["AVVIST", "MOTTATT"]


async def test_a_redriven_record_goes_past_what_an_operator_has_closed(
    deliverer: Deliverer, job: Any, incoming: Any, make_record: Any
) -> None:
    first = make_record()
    second = make_record(melding_id=MeldingId.new(), digisos_id=first.digisos_id, type="ETTERSENDELSE")
    for record in (first, second):
        await deliverer.dead_letter(job(record), dead())
    with pytest.raises(BehindDeadLetterError):
        await deliverer.deliver(job(second, redrives=1), Deliver(TICKET))
    headers = ((GJENKJORINGER_HEADER, b"1"), (FORBI_HEADER, b"1"))
    past = Job.of(incoming(second, headers=headers), NUMBER)
    assert await deliverer.deliver(past, Deliver(TICKET)) == Handled(TICKET, revives=False)


async def test_a_redriven_record_that_dies_again_counts_its_rounds(
    deliverer: Deliverer, job: Any, publisher: Any, make_record: Any
) -> None:
    record = make_record()
    await deliverer.dead_letter(job(record), dead())
    await deliverer.dead_letter(job(record, redrives=2), dead())
    first, second = [decode(DeadLetterRecord, one.value) for one in publisher.on(dead_letter_topic(NUMBER))]
    assert (first.gjenkjoringer, second.gjenkjoringer) == (0, 2)


async def test_a_tampered_copy_of_something_delivered_blocks_nothing(
    deliverer: Deliverer, job: Any, store: DedupStore, make_record: Any
) -> None:
    record = make_record()
    await deliverer.deliver(job(record), Deliver(TICKET))
    tampered = record.model_copy(update={"sha256": Sha256.of(b"x")})
    assert await deliverer.dead_letter(job(tampered), dead()) == DeadLettered(TICKET, answerable=True, blocks=False)
    assert await store.dead_keys(NUMBER) == frozenset()


async def test_a_record_that_nobody_can_answer_for_blocks_its_key_all_the_same(
    deliverer: Deliverer, job: Any, publisher: Any, store: DedupStore
) -> None:
    one = job(b"not ours", key=b"\xffno id")
    assert await deliverer.dead_letter(one, dead()) == DeadLettered(TICKET, answerable=False)
    assert await store.dead_keys(NUMBER) == {one.key}
    assert await published(deliverer, one, publisher) == []


async def test_every_attempt_travels_with_the_dead_letter(
    deliverer: Deliverer, job: Any, publisher: Any, clock: Any
) -> None:
    attempts = (Attempt("fagsystem.feil", clock()), Attempt("krypto.apning", clock()))
    await deliverer.dead_letter(job(), DeadLetter(TICKET, UnsealError(), attempts))
    (outgoing,) = publisher.on(dead_letter_topic(NUMBER))
    letter = decode(DeadLetterRecord, outgoing.value)
    assert [(one.nr, one.kode) for one in letter.forsok] == [(1, "fagsystem.feil"), (2, "krypto.apning")]


async def test_whoever_waits_for_a_meldings_first_answer_is_told(deliverer: Deliverer, job: Any) -> None:
    told: list[MeldingId] = []
    deliverer.on_answer = told.append
    one = job()
    await deliverer.deliver(one, Deliver(TICKET))
    assert told == [one.melding_id]


@pytest.mark.parametrize("value", [b"", b"x", b"-3x", b"\xff"])
def test_a_broken_header_makes_nothing_redriven(incoming: Any, make_record: Any, value: bytes) -> None:
    assert Job.of(incoming(make_record(), headers=((GJENKJORINGER_HEADER, value),)), NUMBER).redrives == 0


def test_a_job_knows_whom_to_answer_for(incoming: Any, make_record: Any) -> None:
    record, key = make_record(), DigisosId.new()
    assert Job.of(incoming(record), NUMBER).digisos_id == record.digisos_id
    assert Job.of(incoming(record, key=key.encode()), NUMBER).digisos_id == key, "the key keeps the order"
    assert Job.of(incoming(record, key=b"?"), NUMBER).digisos_id == record.digisos_id
    unreadable = Job.of(incoming(b"junk", key=b"?"), NUMBER)
    assert unreadable.digisos_id is None
    assert unreadable.sha256 == Sha256.of(b"junk")


def test_a_job_counts_what_it_holds_in_memory(incoming: Any, make_record: Any) -> None:
    record = incoming(make_record())
    job = Job.of(record, NUMBER)
    assert job.held_bytes == len(record.value) + len(job.record.pakke)
    assert Job.of(incoming(b"junk", key=b"?"), NUMBER).held_bytes == 4


@pytest.mark.parametrize("value", [b"99999999999999999999", b"1001", b"-1", b"1_0", b"+1"])
def test_rounds_beyond_all_reason_are_none(incoming: Any, make_record: Any, value: bytes) -> None:
    assert Job.of(incoming(make_record(), headers=((GJENKJORINGER_HEADER, value),)), NUMBER).redrives == 0


def test_a_record_that_makes_reading_fail_is_set_aside_with_a_code(
    incoming: Any, make_record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deep(*_: Any) -> Any:
        raise RecursionError("with 12345678901 in it")

    monkeypatch.setattr("consumers.job.decode", deep)
    with capture_logs() as lines:
        job = Job.of(incoming(make_record()), NUMBER)
    assert isinstance(job.error, UnexpectedRecordError)
    (line,) = lines
    assert (line["log_level"], line["feiltype"]) == ("critical", "RecursionError")
    assert "12345678901" not in str(lines)


async def test_a_dead_letter_that_is_too_large_is_written_without_its_value(
    deliverer: Deliverer, job: Any, publisher: Any
) -> None:
    one = job()
    publisher.failures = [RecordTooLargeError("for stor")]
    assert await deliverer.dead_letter(one, dead()) == DeadLettered(TICKET, answerable=True)
    (outgoing,) = publisher.on(dead_letter_topic(NUMBER))
    letter = decode(DeadLetterRecord, outgoing.value)
    value = one.incoming.value
    assert not letter.opprinnelig.verdi
    assert (letter.opprinnelig.partisjon, letter.opprinnelig.offset) == (0, 0)
    stated = f"sha256:{Sha256.of(value)};{len(value)} bytes".encode()
    assert header(outgoing.headers, VERDI_HEADER) == stated
    assert outgoing.key == one.incoming.key


async def test_a_dead_letter_with_an_enormous_key_fits_too(deliverer: Deliverer, job: Any, publisher: Any) -> None:
    one = job(b"junk", key=b"k" * 900_000)
    publisher.failures = [RecordTooLargeError("for stor")]
    await deliverer.dead_letter(one, dead())
    (outgoing,) = publisher.on(dead_letter_topic(NUMBER))
    assert len(outgoing.key) + len(outgoing.value) < 10_000


async def test_a_dead_letter_that_cannot_be_made_is_made_of_what_is_ours(
    deliverer: Deliverer, job: Any, publisher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = dead_letter

    def picky(incoming: Any, **more: Any) -> Any:
        if incoming.value:
            raise OverflowError
        return real(incoming, **more)

    monkeypatch.setattr("consumers.delivering.dead_letter", picky)
    await deliverer.dead_letter(job(), dead())
    assert len(publisher.on(dead_letter_topic(NUMBER))) == 1


async def test_a_melding_that_comes_twice_at_once_is_delivered_once(
    *,
    deliverer: Deliverer,
    job: Any,
    make_record: Any,
    fagsystem: MemoryConnector,
    store: DedupStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()
    deliver = fagsystem.deliver

    async def slow(leveranse: Any) -> Any:
        entered.set()
        await leave.wait()
        return await deliver(leveranse)

    monkeypatch.setattr(fagsystem, "deliver", slow)
    record = make_record()
    first = asyncio.create_task(deliverer.deliver(job(record), Deliver(TICKET)))
    await entered.wait()
    second = asyncio.create_task(deliverer.deliver(job(record), Deliver(Ticket(0, 0, 2))))
    third = asyncio.create_task(deliverer.dead_letter(job(record), dead()))
    await asyncio.sleep(0)
    leave.set()
    assert await first == Handled(TICKET)
    assert await second == Handled(Ticket(0, 0, 2), repeated=True)
    assert await third == Handled(TICKET, repeated=True)
    assert fagsystem.deliveries == 1
    assert len(await store.of_melding(record.melding_id)) == 1


async def test_what_a_setting_let_through_is_logged_and_counted(
    deliverer: Deliverer, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenedSoknad, "warnings", property(lambda _: ("sha1-signatur",)))
    before = warned("sha1-signatur")
    one = job()
    with capture_logs() as lines:
        await deliverer.deliver(one, Deliver(TICKET))
    (line,) = [each for each in lines if each["event"] == "package_let_through"]
    assert (line["avvik"], line["avsender"], line["melding_id"]) == ("sha1-signatur", ORGNR, one.melding_id)
    assert warned("sha1-signatur") == before + 1


def expired_command() -> DeadLetter:
    return dead(ExpiredError())


async def test_a_hand_over_does_not_begin_when_its_time_is_out_once_the_package_is_open(
    *, deliverer: Deliverer, job: Any, make_record: Any, clock: Any, fagsystem: MemoryConnector
) -> None:
    record = make_record(gyldig_til=clock.now + timedelta(hours=1))
    clock.now += timedelta(hours=1)
    with pytest.raises(ExpiredError):
        await deliverer.deliver(job(record), Deliver(TICKET))
    assert fagsystem.deliveries == 0


async def test_one_that_was_handed_over_in_time_is_answered_as_it_was_however_late_it_comes_again(
    *, deliverer: Deliverer, job: Any, make_record: Any, clock: Any, publisher: Any
) -> None:
    record = make_record(gyldig_til=clock.now + timedelta(hours=1))
    first = job(record)
    await deliverer.deliver(first, Deliver(TICKET))
    await published(deliverer, first, publisher)
    clock.now += timedelta(days=2)
    again, sealed_again = job(record), job(record.model_copy(update={"sha256": Sha256.of(b"another sealing")}))
    assert await deliverer.dead_letter(again, expired_command()) == Handled(TICKET, repeated=True)
    assert await deliverer.dead_letter(sealed_again, expired_command()) == Handled(TICKET, repeated=True)
    await published(deliverer, again, publisher)
    original, repeat = publisher.on(kvittering_topic(NUMBER))
    assert original.value == repeat.value
    assert publisher.on(dead_letter_topic(NUMBER)) == []


async def test_an_expired_soknad_becomes_a_dead_letter_with_a_negative_kvittering(
    deliverer: Deliverer, job: Any, publisher: Any
) -> None:
    one = job()
    assert await deliverer.dead_letter(one, expired_command()) == DeadLettered(TICKET, answerable=True)
    (letter,) = publisher.on(dead_letter_topic(NUMBER))
    assert decode(DeadLetterRecord, letter.value).kode == "levering.utlopt"
    (claims,) = await published(deliverer, one, publisher)
    assert (claims.status, claims.grad, claims.kode) == ("AVVIST", "INGEN", "levering.utlopt")


def withdrawal_of(record: Any) -> Any:
    return record.model_copy(update={"type": "TILBAKEKALL", "pakke": None, "dokumentlager_id": None, "storrelse": 0})


async def test_a_withdrawn_melding_gets_a_negative_kvittering_and_no_dead_letter(
    *, deliverer: Deliverer, job: Any, make_record: Any, publisher: Any, fagsystem: MemoryConnector
) -> None:
    record = make_record()
    itself = job(withdrawal_of(record))
    assert itself.error is None
    assert itself.withdraws
    handled = await deliverer.withdraw(itself, Withdraw(TICKET))
    assert handled == Handled(TICKET, repeated=True, blocks=True)
    (claims,) = await published(deliverer, itself, publisher)
    assert (claims.status, claims.grad, claims.kode) == ("AVVIST", "INGEN", "levering.tilbakekalt")
    assert (claims.melding_id, claims.sha256) == (record.melding_id, record.sha256)
    assert publisher.on(dead_letter_topic(NUMBER)) == []
    late = job(record, redrives=1)
    assert await deliverer.deliver(late, Deliver(TICKET)) == Handled(TICKET, repeated=True)
    assert fagsystem.deliveries == 0


async def test_the_record_and_its_withdrawal_are_answered_with_one_kvittering(
    deliverer: Deliverer, job: Any, make_record: Any, publisher: Any
) -> None:
    record = make_record()
    for one in (job(record), job(withdrawal_of(record))):
        await deliverer.withdraw(one, Withdraw(TICKET))
        await published(deliverer, one, publisher)
    first, second = publisher.on(kvittering_topic(NUMBER))
    assert first.value == second.value


async def test_a_withdrawal_of_something_handed_over_repeats_its_kvittering(
    deliverer: Deliverer, job: Any, make_record: Any, publisher: Any
) -> None:
    record = make_record()
    first = job(record)
    await deliverer.deliver(first, Deliver(TICKET))
    await published(deliverer, first, publisher)
    itself = job(withdrawal_of(record))
    assert await deliverer.withdraw(itself, Withdraw(TICKET)) == Handled(TICKET, repeated=True, revives=True)
    await published(deliverer, itself, publisher)
    original, repeat = publisher.on(kvittering_topic(NUMBER))
    assert original.value == repeat.value


async def test_a_withdrawal_closes_a_dead_letter_and_lets_what_is_behind_it_be_redriven(
    *, deliverer: Deliverer, job: Any, make_record: Any, store: DedupStore
) -> None:
    soknad = make_record()
    await deliverer.deliver(job(soknad), Deliver(TICKET))
    broken, behind = [make_record(digisos_id=soknad.digisos_id, type="ETTERSENDELSE") for _ in range(2)]
    await deliverer.dead_letter(job(broken), dead())
    await deliverer.dead_letter(job(behind), dead(BehindDeadLetterError()))
    handled = await deliverer.withdraw(job(withdrawal_of(broken)), Withdraw(TICKET))
    assert handled.blocks, "the one behind it is still undelivered"
    redriven = await deliverer.deliver(job(behind, redrives=1), Deliver(TICKET))
    assert redriven == Handled(TICKET, revives=True)
    assert await store.dead_keys(NUMBER) == frozenset()


async def test_what_is_redriven_waits_once_more_behind_one_that_died_again(
    *, deliverer: Deliverer, job: Any, make_record: Any, store: DedupStore, publisher: Any, fagsystem: MemoryConnector
) -> None:
    first = make_record()
    second = make_record(digisos_id=first.digisos_id, type="ETTERSENDELSE")
    await deliverer.dead_letter(job(first), dead())
    await deliverer.dead_letter(job(second), dead(BehindDeadLetterError()))
    await deliverer.dead_letter(job(first, redrives=1), dead())
    with pytest.raises(BehindDeadLetterError):
        await deliverer.deliver(job(second, redrives=1), Deliver(TICKET))
    await deliverer.dead_letter(job(second, redrives=1), dead(BehindDeadLetterError()))
    letters = [decode(DeadLetterRecord, one.value) for one in publisher.on(dead_letter_topic(NUMBER))]
    assert [(one.melding_id, one.gjenkjoringer) for one in letters] == [
        (first.melding_id, 0),
        (second.melding_id, 0),
        (first.melding_id, 1),
        (second.melding_id, 1),
    ]
    for record, revives in ((first, False), (second, True)):
        handled = await deliverer.deliver(job(record, redrives=2), Deliver(TICKET))
        assert handled == Handled(TICKET, revives=revives)
    assert fagsystem.order == [first.melding_id, second.melding_id]
    assert await store.dead_keys(NUMBER) == frozenset()


async def test_a_revival_that_a_crash_cut_off_is_made_good_by_the_repeat(
    deliverer: Deliverer, job: Any, make_record: Any, store: DedupStore
) -> None:
    record = make_record()
    await deliverer.dead_letter(job(record), dead())
    await deliverer.deliver(job(record, redrives=1), Deliver(TICKET))
    await store.add_dead_key(NUMBER, record.digisos_id)  # as if the crash came before it was taken away
    again = job(record, redrives=1)
    assert await deliverer.deliver(again, Deliver(TICKET)) == Handled(TICKET, repeated=True, revives=True)


@pytest.mark.parametrize("lost", ["before", "during"])
async def test_a_delivery_that_outlives_its_assignment_leaves_nothing_behind(
    *,
    deliverer: Deliverer,
    job: Any,
    publisher: Any,
    store: DedupStore,
    fagsystem: MemoryConnector,
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    one = job()
    ours = [lost != "before"]
    one.is_ours = lambda: ours[0]
    deliver = fagsystem.deliver

    async def slow(leveranse: Any) -> Any:
        ours[0] = False
        return await deliver(leveranse)

    monkeypatch.setattr(fagsystem, "deliver", slow)
    with pytest.raises(PartitionLostError):
        await deliverer.deliver(one, Deliver(TICKET))
    with pytest.raises(PartitionLostError):
        await deliverer.dead_letter(one, dead())
    with pytest.raises(PartitionLostError):
        await deliverer.withdraw(one, Withdraw(TICKET))
    assert fagsystem.deliveries == (0 if lost == "before" else 1)
    assert await store.of_melding(one.melding_id) == ()
    assert publisher.published == []


def warned(what: str) -> float:
    return REGISTRY.get_sample_value("fiks_package_warnings_total", {"avvik": what}) or 0.0
