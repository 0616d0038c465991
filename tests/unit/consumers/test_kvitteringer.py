from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from broker.record import TopicPartition, header
from broker.routing import kvittering_topic
from consumers.dedup import DedupStore
from consumers.issued import Issued, Sign, claims_of
from consumers.kvitteringer import MAX_UNMARKED, Answer, Issuer, Kvitteringer
from crypto import verify_jws
from schemas.codec import decode
from schemas.errors import BrokerUnavailableError, PartitionLostError, SignatureError
from schemas.kvittering import GRAD_LAGRET, GRAD_VALIDERT, LEVERT, MOTTATT, KvitteringClaims
from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256
from schemas.records import KvitteringRecord

NUMBER = Kommunenummer("4601")
TOPIC = kvittering_topic(NUMBER)


def answer(case: DigisosId, status: str = MOTTATT, *, melding_id: MeldingId | None = None) -> Answer:
    grad = GRAD_LAGRET if status == MOTTATT else GRAD_VALIDERT
    return Answer(case, melding_id or MeldingId.new(), Sha256.of(b"x"), status, grad)


async def test_what_is_published_is_signed_and_repeats_its_claims_in_clear(
    kvitteringer: Kvitteringer, publisher: Any, keys: Any
) -> None:
    case = DigisosId.new()
    await kvitteringer.issue(answer(case))
    await kvitteringer.publish(case, parent=b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")
    (outgoing,) = publisher.on(TOPIC)
    record = decode(KvitteringRecord, outgoing.value)
    payload, certificate = verify_jws(record.jws, [keys.issuer.certificate])
    assert certificate == keys.issuer.certificate
    assert KvitteringClaims.from_json(payload).record(record.jws) == record
    assert outgoing.key == case.encode()
    traceparent = header(outgoing.headers, "traceparent")
    assert traceparent is not None
    assert traceparent.startswith(b"00-" + b"a" * 32)


async def test_what_is_published_repeats_its_claims_also_when_the_store_ran_its_write_twice(
    kvitteringer: Kvitteringer, store: DedupStore, publisher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server runs a write once more after a deadlock, or when another write of its group failed."""
    once = store.issue

    async def twice(kommunenummer: Kommunenummer, digisos_id: DigisosId, sign: Sign, **options: Any) -> Issued:
        def again(nr: int, forrige: Sha256 | None) -> tuple[KvitteringClaims, str]:
            sign(nr, forrige)
            return sign(nr, forrige)

        return await once(kommunenummer, digisos_id, again, **options)

    monkeypatch.setattr(store, "issue", twice)
    case = DigisosId.new()
    issued = await kvitteringer.issue(answer(case))
    await kvitteringer.publish(case)
    (outgoing,) = publisher.on(TOPIC)
    assert decode(KvitteringRecord, outgoing.value) == claims_of(issued.jws).record(issued.jws)


async def test_an_answer_that_a_cancelled_delivery_left_is_published_by_the_next(
    kvitteringer: Kvitteringer, store: DedupStore, keys: Any, publisher: Any, clock: Any
) -> None:
    before = Kvitteringer(NUMBER, issuer=keys.issuer, store=store, publisher=publisher, clock=clock)
    left = answer(DigisosId.new())
    issued = await before.issue(left)
    assert await kvitteringer.issue(left, unless=lambda _: True) == issued
    await kvitteringer.publish(left.digisos_id)
    assert [decode(KvitteringRecord, each.value).jws for each in publisher.on(TOPIC)] == [issued.jws]


async def test_one_soknads_kvitteringer_are_published_in_the_chains_order_whatever_fails(
    kvitteringer: Kvitteringer, publisher: Any
) -> None:
    case = DigisosId.new()
    first = await kvitteringer.issue(answer(case, LEVERT))
    publisher.failures = [BrokerUnavailableError("x")]
    with pytest.raises(BrokerUnavailableError):
        await kvitteringer.publish(case)
    second = await kvitteringer.issue(answer(case))
    await asyncio.gather(kvitteringer.publish(case), kvitteringer.publish(case))
    assert [one.nr for one in publisher.claims(TOPIC)] == [1, 2]
    assert claims_of(second.jws).forrige == Sha256.of(first.jws.encode())


async def test_a_repeat_is_byte_for_byte(kvitteringer: Kvitteringer, publisher: Any) -> None:
    case = DigisosId.new()
    issued = await kvitteringer.issue(answer(case))
    await kvitteringer.publish(case, again=(issued,))
    await kvitteringer.publish(case, again=(issued,))
    first, second = publisher.on(TOPIC)
    assert first.value == second.value


async def test_what_a_crash_left_is_published_by_whoever_has_the_partition(
    kvitteringer: Kvitteringer, store: DedupStore, keys: Any, publisher: Any, clock: Any
) -> None:
    case = DigisosId.new()
    issued = [await kvitteringer.issue(answer(case)) for _ in range(2)]
    after = Kvitteringer(NUMBER, issuer=keys.issuer, store=store, publisher=publisher, clock=clock)
    await after.reconcile(lambda _: False)
    assert publisher.on(TOPIC) == []
    await after.reconcile(lambda _: True)
    await after.reconcile(lambda _: True)
    assert [decode(KvitteringRecord, each.value).jws for each in publisher.on(TOPIC)] == [one.jws for one in issued]
    await after.mark_published()
    assert await store.unpublished(NUMBER) == ()


async def test_what_is_no_longer_ours_is_not_published(kvitteringer: Kvitteringer, publisher: Any) -> None:
    case = DigisosId.new()
    issued = await kvitteringer.issue(answer(case))
    with pytest.raises(PartitionLostError):
        await kvitteringer.publish(case, again=(issued,), allowed=lambda: False)
    assert publisher.on(TOPIC) == []


class Elsewhere:
    """Another process of the same connector, which writes on the same topic."""

    def __init__(self, folder: Path, keys: Any, clock: Any, publisher: Any) -> None:
        self.store = DedupStore(folder / "en-annen.sqlite")
        self.kvitteringer = Kvitteringer(NUMBER, issuer=keys.issuer, store=self.store, publisher=publisher, clock=clock)


@pytest.fixture
async def elsewhere(tmp_path: Path, keys: Any, clock: Any, publisher: Any) -> AsyncIterator[Elsewhere]:
    other = Elsewhere(tmp_path, keys, clock, publisher)
    async with other.store:
        yield other


async def read_back(store: DedupStore, keys: Any, publisher: Any, *, order: Sequence[int] | None = None) -> None:
    """Take over what lies on the topic, in this order."""
    links = [keys.issuer.verify(decode(KvitteringRecord, each.value).jws) for each in publisher.on(TOPIC)]
    chosen = links if order is None else [links[nr] for nr in order]
    await store.take_over(chosen, TopicPartition(TOPIC, 0), len(links))


async def test_a_kvittering_that_another_process_has_given_is_displaced_and_never_published(
    *, kvitteringer: Kvitteringer, elsewhere: Elsewhere, store: DedupStore, keys: Any, publisher: Any
) -> None:
    case, melding = DigisosId.new(), MeldingId.new()
    await kvitteringer.issue(answer(case, melding_id=melding))  # its process lost the partition before it could publish
    await elsewhere.kvitteringer.issue(answer(case, melding_id=melding))
    await elsewhere.kvitteringer.publish(case)
    await read_back(store, keys, publisher)
    await kvitteringer.reconcile(lambda _: True)
    await kvitteringer.publish(case)
    assert len(publisher.on(TOPIC)) == 1
    assert await store.displaced(NUMBER) == ()
    (kept,) = await store.of_melding(melding)
    assert kept.jws == decode(KvitteringRecord, publisher.on(TOPIC)[0].value).jws


async def test_what_was_built_on_a_fork_is_issued_again_behind_the_chain_that_the_topic_has(
    *, kvitteringer: Kvitteringer, elsewhere: Elsewhere, store: DedupStore, keys: Any, publisher: Any
) -> None:
    case, first, second = DigisosId.new(), MeldingId.new(), MeldingId.new()
    await elsewhere.kvitteringer.issue(answer(case, melding_id=first))
    await elsewhere.kvitteringer.publish(case)  # on its way for long, and on the topic before ours
    for melding in (first, second):
        await kvitteringer.issue(answer(case, melding_id=melding))
    await kvitteringer.publish(case)
    await read_back(store, keys, publisher)
    await kvitteringer.reconcile(lambda _: True)
    claims = publisher.claims(TOPIC)
    assert [(one.nr, one.melding_id) for one in claims] == [(1, first), (1, first), (2, second), (2, second)]
    assert [each.nr for each in await store.of_melding(second)] == [2]
    head = decode(KvitteringRecord, publisher.on(TOPIC)[0].value).jws
    assert claims[3].forrige == Sha256.of(head.encode())
    await read_back(store, keys, publisher)
    assert await store.displaced(NUMBER) == (), "the loser's branch is passed over when it is read"


async def test_a_chain_that_is_another_process_to_continue_is_left_alone(
    *, kvitteringer: Kvitteringer, elsewhere: Elsewhere, store: DedupStore, keys: Any, publisher: Any
) -> None:
    case = DigisosId.new()
    await kvitteringer.issue(answer(case))
    await elsewhere.kvitteringer.issue(answer(case))
    await elsewhere.kvitteringer.publish(case)
    await read_back(store, keys, publisher)
    await kvitteringer.reconcile(lambda _: False)
    assert len(publisher.on(TOPIC)) == 1
    assert len(await store.displaced(NUMBER)) == 1


@pytest.mark.parametrize(
    ("lost", "came", "again"),
    [
        (("MOTTATT", "LAGRET"), ("MOTTATT", "LAGRET"), False),
        (("MOTTATT", "LAGRET"), ("AVVIST", "INGEN"), True),
        (("AVVIST", "INGEN"), ("MOTTATT", "LAGRET"), False),
        (("AVVIST", "INGEN"), ("LEVERT", "VALIDERT"), False),
        (("MOTTATT", "LAGRET"), ("LEVERT", "VALIDERT"), True),
        (("LEVERT", "VALIDERT"), ("MOTTATT", "LAGRET"), False),
    ],
)
async def test_what_is_displaced_is_said_again_only_if_it_adds_something(
    *,
    lost: tuple[str, str],
    came: tuple[str, str],
    again: bool,
    kvitteringer: Kvitteringer,
    elsewhere: Elsewhere,
    store: DedupStore,
    keys: Any,
    publisher: Any,
) -> None:
    case, melding = DigisosId.new(), MeldingId.new()
    await kvitteringer.issue(Answer(case, melding, Sha256.of(b"x"), *lost))
    await elsewhere.kvitteringer.issue(Answer(case, melding, Sha256.of(b"x"), *came))
    await elsewhere.kvitteringer.publish(case)
    await read_back(store, keys, publisher)
    await kvitteringer.reconcile(lambda _: True)
    said = [(one.status, one.grad) for one in publisher.claims(TOPIC)]
    assert said == ([came, lost] if again else [came])


async def test_publications_are_marked_many_at_a_time(
    kvitteringer: Kvitteringer, store: DedupStore, publisher: Any
) -> None:
    for nr in range(MAX_UNMARKED):
        case = DigisosId.new()
        await kvitteringer.issue(answer(case))
        await kvitteringer.publish(case)
        assert bool(await store.unpublished(NUMBER)) == (nr < MAX_UNMARKED - 1)
    assert len(publisher.published) == MAX_UNMARKED


async def test_an_issuer_knows_its_own_also_under_a_former_certificate(kvitteringer: Kvitteringer, keys: Any) -> None:
    issued = await kvitteringer.issue(answer(DigisosId.new()))
    assert keys.issuer.verify(issued.jws) == issued
    rotated = Issuer("acme", *keys.other, former=(keys.issuer.certificate,))
    assert rotated.verify(issued.jws) == issued
    assert Issuer("en-annen", *keys.connector).verify(issued.jws) is None
    with pytest.raises(SignatureError):
        Issuer("acme", *keys.other).verify(issued.jws)
