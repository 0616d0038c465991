from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.operator_register import Register
from broker.operatorer import Operatorer
from broker.record import Incoming
from broker.revisjon_records import canonical, new_record, revisjon_outgoing
from broker.revisjonskontroll import (
    GAFFEL,
    HULL,
    NOKKEL,
    SIGNATUR,
    UKJENT_OPERATOR,
    ULESELIG,
    USIGNERT,
    read_act,
    verify_revisjon,
)
from broker.routing import REVISJON
from schemas.names import Sha256
from schemas.records import RevisjonRecord

if TYPE_CHECKING:
    from broker.operatorer import Operator

EMPTY = Register()


class Topic:
    """A revisjon topic in memory."""

    def __init__(self, now: datetime, first: int = 0) -> None:
        self.now = now
        self.records: list[Incoming] = []
        self.first = first

    def write(self, aktor: str, *, forrige: Sha256 | None = None, signer: Operator | None = None) -> Sha256:
        record = new_record(aktor, "dlq.parkert", f"objekt-{len(self.records)}", now=self.now, forrige=forrige)
        if signer is not None:
            record = record.model_copy(update={"signatur": signer.sign(canonical(record))})
        return self.put(record)

    def put(self, record: RevisjonRecord, key: bytes | None = None) -> Sha256:
        outgoing = revisjon_outgoing(record)
        value = outgoing.value or b""
        offset = self.first + len(self.records)
        self.records.append(Incoming(REVISJON, 0, offset, 0, outgoing.key if key is None else key, value))
        return Sha256.of(value)

    def chain(self, aktor: str, length: int) -> list[Sha256]:
        heads: list[Sha256] = []
        for _ in range(length):
            heads.append(self.write(aktor, forrige=heads[-1] if heads else None))
        return heads

    def codes(self, register: Register = EMPTY) -> list[tuple[str, int]]:
        return [(one.kode, one.offset) for one in verify_revisjon(self.records, register).problemer]


@pytest.fixture
def topic(now: datetime) -> Topic:
    return Topic(now)


@pytest.fixture
def kari(tmp_path: Path, now: datetime) -> tuple[Operator, Operatorer]:
    operatorer = Operatorer(tmp_path)
    operatorer.add("kari", now)
    return operatorer.choose("kari", now), operatorer


def test_chains_of_several_actors_hold(topic: Topic) -> None:
    topic.chain("producers", 4)
    topic.chain("kvittering", 1)
    found = verify_revisjon(topic.records, EMPTY)
    assert found.holder
    assert found.antall == {"kvittering": 1, "producers": 4}


def test_an_empty_revisjon_holds() -> None:
    assert verify_revisjon([], EMPTY).holder


def test_the_same_record_again_is_a_repeat(topic: Topic) -> None:
    topic.chain("producers", 3)
    topic.records.append(topic.records[1])
    found = verify_revisjon(topic.records, EMPTY)
    assert found.holder
    assert found.antall == {"producers": 3}


@given(st.permutations(range(5)))
def test_the_order_on_the_topic_does_not_matter(order: list[int]) -> None:
    topic = Topic(datetime(2026, 11, 23, tzinfo=UTC))
    topic.chain("producers", 5)
    assert verify_revisjon([topic.records[0], *(topic.records[nr] for nr in order)], EMPTY).holder


def test_a_record_that_is_taken_out_shows(topic: Topic) -> None:
    topic.chain("producers", 3)
    del topic.records[1]
    assert topic.codes() == [(HULL, 2)]


def test_a_record_that_is_changed_shows(topic: Topic) -> None:
    topic.chain("producers", 3)
    changed = topic.records[1]
    act = read_act(changed)
    assert act is not None
    other = revisjon_outgoing(act.record.model_copy(update={"objekt": "et annet"}))
    topic.records[1] = Incoming(REVISJON, 0, 1, 0, changed.key, other.value or b"")
    assert topic.codes() == [(HULL, 2)]


def test_a_fork_shows(topic: Topic) -> None:
    head = topic.write("producers")
    topic.write("producers", forrige=head)
    topic.write("producers", forrige=head)
    topic.write("producers")
    assert topic.codes() == [(GAFFEL, 2), (GAFFEL, 3)]


def test_what_retention_took_from_the_beginning_is_no_hole_but_a_later_one_is(now: datetime) -> None:
    topic = Topic(now, first=100)
    heads = topic.chain("producers", 4)
    del topic.records[0]
    assert topic.codes() == []
    del topic.records[1]
    assert topic.codes() == [(HULL, 103)]
    assert len(heads) == 4


def test_what_cannot_be_read_or_lies_under_anothers_key_shows(topic: Topic, now: datetime) -> None:
    topic.put(new_record("producers", "x", "y", now=now, forrige=None), key=b"kvittering")
    topic.records.append(Incoming(REVISJON, 0, 1, 0, b"producers", b"tull"))
    assert topic.codes() == [(NOKKEL, 0), (ULESELIG, 1)]
    assert [read_act(one) for one in topic.records] == [None, None]


def test_an_operators_signature_holds(topic: Topic, kari: tuple[Operator, Operatorer]) -> None:
    operator, operatorer = kari
    head = topic.write(operator.aktor, signer=operator)
    topic.write(operator.aktor, forrige=head, signer=operator)
    found = verify_revisjon(topic.records, operatorer.load())
    assert found.holder
    assert found.signerte == 2


def test_an_operator_who_does_not_sign_shows(topic: Topic, kari: tuple[Operator, Operatorer]) -> None:
    topic.write("operator-kari")
    assert topic.codes(kari[1].load()) == [(USIGNERT, 0)]


def test_an_unknown_or_removed_operator_shows(topic: Topic, kari: tuple[Operator, Operatorer], now: datetime) -> None:
    operator, operatorer = kari
    topic.write(operator.aktor, signer=operator)
    assert topic.codes(EMPTY) == [(UKJENT_OPERATOR, 0)]
    operatorer.remove("kari", now)
    assert topic.codes(operatorer.load()) == [(UKJENT_OPERATOR, 0)]
    topic.now = now - timedelta(minutes=1)
    topic.records.clear()
    topic.write(operator.aktor, signer=operator)
    assert topic.codes(operatorer.load()) == []


def test_what_kafka_took_after_an_operator_was_removed_does_not_hold_whatever_time_it_says(
    topic: Topic, kari: tuple[Operator, Operatorer], now: datetime
) -> None:
    operator, operatorer = kari
    topic.now = now - timedelta(minutes=30)
    operatorer.remove("kari", now)
    for late in (-1, 1):
        topic.records.clear()
        topic.write(operator.aktor, signer=operator)
        at_ms = round((now + timedelta(seconds=late)).timestamp() * 1000)
        topic.records[0] = replace(topic.records[0], timestamp_ms=at_ms)
        assert topic.codes(operatorer.load()) == ([(UKJENT_OPERATOR, 0)] if late > 0 else [])


def test_an_unknown_operator_is_named_and_so_is_where_this_machine_looked(
    topic: Topic, kari: tuple[Operator, Operatorer]
) -> None:
    topic.write(kari[0].aktor, signer=kari[0])
    (problem,) = verify_revisjon(topic.records, EMPTY).problemer
    assert "kari er ukjent" in problem.tekst
    assert "operatorer.yaml" in problem.tekst


@pytest.mark.parametrize("what", ["begrunnelse", "objekt", "handling", "detaljer"])
def test_a_signature_is_over_everything(topic: Topic, kari: tuple[Operator, Operatorer], what: str) -> None:
    operator, operatorer = kari
    topic.write(operator.aktor, signer=operator)
    act = read_act(topic.records[0])
    assert act is not None
    topic.records.clear()
    topic.put(act.record.model_copy(update={what: {"x": "y"} if what == "detaljer" else "noe annet"}))
    assert topic.codes(operatorer.load()) == [(SIGNATUR, 0)]


def test_one_operators_signature_is_not_anothers(
    topic: Topic, kari: tuple[Operator, Operatorer], now: datetime
) -> None:
    operator, operatorer = kari
    operatorer.add("ola", now)
    record = new_record("operator-ola", "dlq.lukket", "x", now=now, forrige=None)
    topic.put(record.model_copy(update={"signatur": operator.sign(canonical(record))}))
    assert topic.codes(operatorer.load()) == [(SIGNATUR, 0)]
