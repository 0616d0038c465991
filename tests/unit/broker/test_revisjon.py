from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from broker.record import RecordPosition, header
from broker.revisjon import RevisjonWriter
from broker.revisjon_records import MAX_TEXT_CHARS, canonical, digest_of, new_record, revisjon_outgoing
from broker.routing import REVISJON
from schemas.codec import decode
from schemas.errors import AuditError, BrokerUnavailableError, TransportError
from schemas.names import Sha256
from schemas.records import RevisjonRecord

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from broker.record import Outgoing


class Topic:
    """A revisjon topic in memory that can be away."""

    def __init__(self) -> None:
        self.written: list[Outgoing] = []
        self.away = 0

    async def publish_all(self, batch: Iterable[Outgoing]) -> list[RecordPosition | TransportError]:
        await asyncio.sleep(0)
        return [self._publish(one) for one in batch]

    def _publish(self, outgoing: Outgoing) -> RecordPosition | TransportError:
        if self.away:
            self.away -= 1
            return BrokerUnavailableError("borte")
        self.written.append(outgoing)
        return RecordPosition(outgoing.topic, 0, len(self.written) - 1)

    async def head(self, aktor: str) -> Sha256 | None:
        own = [one for one in self.written if one.key == aktor.encode()]
        return digest_of(own[-1]) if own else None

    def records(self) -> list[RevisjonRecord]:
        return [decode(RevisjonRecord, one.value) for one in self.written]


class Signs:
    aktor = "operator-kari"

    def sign(self, payload: bytes) -> str:
        return f"signert:{Sha256.of(payload)}"


@pytest.fixture
def topic() -> Topic:
    return Topic()


@pytest.fixture
def writer(topic: Topic, clock: Any) -> RevisjonWriter:
    return RevisjonWriter(topic, clock, topic.head)  # type: ignore[arg-type]  # the writer needs no more of a publisher


def test_an_act_is_published_under_its_actor_as_an_event(now: datetime) -> None:
    record = new_record("producers", "avsenderkopi.destruert", "en-id", now=now, forrige=None, detaljer={"a": "b"})
    outgoing = revisjon_outgoing(record, source="/producers")
    assert (outgoing.topic, outgoing.key) == (REVISJON, b"producers")
    assert decode(RevisjonRecord, outgoing.value) == record
    assert header(outgoing.headers, "ce_type") == b"no.fiks.revisjon.v1"
    assert header(outgoing.headers, "ce_id") == record.revisjon_id.encode()
    assert header(outgoing.headers, "ce_source") == b"/producers"


def test_what_is_signed_is_all_but_the_signature(now: datetime) -> None:
    record = new_record("operator-kari", "dlq.parkert", "x", now=now, forrige=None, detaljer={"b": "2", "a": "1"})
    signed = record.model_copy(update={"signatur": "a.b.c"})
    assert canonical(signed) == canonical(record)
    assert canonical(record) != canonical(record.model_copy(update={"begrunnelse": "en annen"}))
    assert canonical(record).startswith(b'{"aktor":"operator-kari","begrunnelse":null,"detaljer":{"a":"1","b":"2"}')
    assert canonical(decode(RevisjonRecord, revisjon_outgoing(signed).value)) == canonical(record)


@pytest.mark.parametrize(
    "text",
    [
        "gjelder 01810012345",
        "010100 12345 ringte",
        "010100-12345",
        "01.01.00 12345",
        "01 01 00 123 45",
        "010100\N{NO-BREAK SPACE}12345",
        "fnr-01810012345-",
        "12345678-1234-1234-1234-123456789012 gjelder 01810012345",
        "x" * (MAX_TEXT_CHARS + 1),
    ],
)
def test_a_reason_that_may_name_a_person_or_has_no_end_is_refused_unrepeated(now: datetime, text: str) -> None:
    with pytest.raises(AuditError) as raised:
        new_record("operator-kari", "dlq.lukket", "x", now=now, forrige=None, begrunnelse=text)
    assert text not in str(raised.value)
    with pytest.raises(AuditError):
        new_record("operator-kari", "dlq.lukket", "x", now=now, forrige=None, detaljer={"fritekst": f"{text} " * 100})


def test_ids_and_digests_with_many_digits_are_no_persons(now: datetime) -> None:
    record = new_record(
        "producers",
        "avsenderkopi.destruert",
        "12345678-1234-1234-1234-123456789012",
        now=now,
        forrige=None,
        begrunnelse="fra 2026-11-23 12:00 til 24.11.2026, 0301 4601, tlf. 22 00 00 00",
        detaljer={
            "sha256": "1234567890" * 6 + "abcd",
            "ids": "00000000-0000-4000-8000-012345678901",
            "fra": "2026-11-23T12:00:00.000Z",
        },
    )
    assert record.objekt.endswith("9012")


async def test_each_act_names_the_bytes_of_its_actors_former_one(topic: Topic, writer: RevisjonWriter) -> None:
    for aktor in ("operator-kari", "operator-ola", "operator-kari", "operator-kari"):
        await writer.record(aktor, "dlq.parkert", "x")
    kari, ola, kari2, kari3 = topic.records()
    assert kari.forrige is ola.forrige is None
    assert kari2.forrige == Sha256.of(topic.written[0].value or b"")
    assert kari3.forrige == Sha256.of(topic.written[2].value or b"")


async def test_a_writer_that_starts_continues_the_chain_on_the_topic(topic: Topic, clock: Any) -> None:
    for _ in range(2):
        writer = RevisjonWriter(topic, clock, topic.head)  # type: ignore[arg-type]  # see above
        await writer.record("operator-kari", "dlq.parkert", "x")
    assert topic.records()[1].forrige == digest_of(topic.written[0])


async def test_acts_that_come_at_once_make_one_chain(topic: Topic, writer: RevisjonWriter) -> None:
    await asyncio.gather(*(writer.record("operator-kari", "dlq.parkert", str(nr)) for nr in range(20)))
    heads = [digest_of(one) for one in topic.written]
    assert [one.forrige for one in topic.records()] == [None, *heads[:-1]]


async def test_after_a_failed_act_the_chain_is_looked_up_again(topic: Topic, writer: RevisjonWriter) -> None:
    await writer.record("operator-kari", "dlq.parkert", "1")
    topic.away = 1
    with pytest.raises(BrokerUnavailableError):
        await writer.record("operator-kari", "dlq.parkert", "2")
    topic.written.append(revisjon_outgoing(topic.records()[0].model_copy(update={"objekt": "kom likevel fram"})))
    await writer.record("operator-kari", "dlq.parkert", "3")
    assert topic.records()[-1].forrige == digest_of(topic.written[1])


async def test_an_operators_act_carries_a_signature_over_itself_with_its_place(
    topic: Topic, writer: RevisjonWriter
) -> None:
    for _ in range(2):
        await writer.record("operator-kari", "dlq.parkert", "x", begrunnelse="feil format", signer=Signs())
    for record in topic.records():
        assert record.signatur == Signs().sign(canonical(record))
    assert topic.records()[1].forrige == digest_of(topic.written[0])


async def test_nobody_signs_for_somebody_else(topic: Topic, writer: RevisjonWriter) -> None:
    with pytest.raises(AuditError):
        await writer.record("operator-ola", "dlq.parkert", "x", signer=Signs())
    assert topic.written == []


async def test_many_acts_at_once_are_one_chain_each_signed(topic: Topic, writer: RevisjonWriter) -> None:
    await writer.record("operator-kari", "dlq.parkert", "0", signer=Signs())
    await writer.record_all("operator-kari", "dlq.gjenkjort", {"1": {}, "2": {"runde": "3"}}, signer=Signs())
    heads = [digest_of(one) for one in topic.written]
    assert [one.forrige for one in topic.records()] == [None, *heads[:-1]]
    assert all(one.signatur == Signs().sign(canonical(one)) for one in topic.records())


async def test_one_act_of_many_that_may_not_stand_there_stops_them_all(topic: Topic, writer: RevisjonWriter) -> None:
    with pytest.raises(AuditError):
        await writer.record_all("operator-kari", "x", {"1": {}, "2": {"tekst": "01810012345"}})
    assert topic.written == []
    await writer.record("operator-kari", "x", "1")
    assert topic.records()[0].forrige is None
