from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.record import header
from broker.routing import kvittering_topic
from consumers.dedup import DedupStore
from consumers.kvitteringer import MAX_UNMARKED, Answer, Issuer, Kvitteringer, claims_of
from crypto import verify_jws
from schemas.codec import decode
from schemas.errors import BrokerUnavailableError, SignatureError
from schemas.kvittering import GRAD_LAGRET, GRAD_VALIDERT, LEVERT, MOTTATT, KvitteringClaims
from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256
from schemas.records import KvitteringRecord

NUMBER = Kommunenummer("4601")
TOPIC = kvittering_topic(NUMBER)


def answer(case: DigisosId, status: str = MOTTATT) -> Answer:
    return Answer(case, MeldingId.new(), Sha256.of(b"x"), status, GRAD_LAGRET if status == MOTTATT else GRAD_VALIDERT)


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


async def test_what_a_crash_left_is_published_by_the_next_process(
    kvitteringer: Kvitteringer, store: DedupStore, keys: Any, publisher: Any, clock: Any
) -> None:
    case = DigisosId.new()
    issued = [await kvitteringer.issue(answer(case)) for _ in range(2)]
    after = Kvitteringer(NUMBER, issuer=keys.issuer, store=store, publisher=publisher, clock=clock)
    await after.load()
    await after.load()
    await after.publish_left()
    assert [decode(KvitteringRecord, each.value).jws for each in publisher.on(TOPIC)] == [one.jws for one in issued]
    await after.mark_published()
    assert await store.unpublished(NUMBER) == ()


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
