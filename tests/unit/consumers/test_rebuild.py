from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.record import Incoming, TopicPartition
from broker.routing import kvittering_topic
from consumers.dedup import DedupStore
from consumers.issued import claims_of
from consumers.kvitteringer import Answer, Issuer, Kvitteringer
from consumers.rebuild import Rebuilder
from schemas.codec import encode
from schemas.errors import BrokerUnavailableError
from schemas.kvittering import GRAD_LAGRET, MOTTATT
from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256, Uuid
from schemas.records import KvitteringRecord

NUMBER = Kommunenummer("4601")
TOPIC = kvittering_topic(NUMBER)


class FakeTail:
    """Hands out batches, is caught up when the reader comes back, and then waits for ever."""

    def __init__(self, batches: list[list[Incoming]], error: Exception | None = None) -> None:
        self.caught_up = asyncio.Event()
        self.batches = batches
        self.error = error

    async def __aiter__(self) -> AsyncIterator[Sequence[Incoming]]:
        for batch in self.batches:
            yield batch
        if self.error is not None:
            raise self.error
        self.caught_up.set()
        await asyncio.Event().wait()


class Opened:
    """Gives a tail, and notes from where it was to read."""

    def __init__(self, tail: FakeTail) -> None:
        self.tail = tail
        self.positions: list[Mapping[TopicPartition, int]] = []

    @asynccontextmanager
    async def __call__(self, topics: Iterable[str], positions: Mapping[TopicPartition, int]) -> AsyncIterator[FakeTail]:
        assert list(topics) == [TOPIC]
        self.positions.append(positions)
        yield self.tail


async def issued_records(kvitteringer: Kvitteringer, count: int) -> tuple[list[Any], list[Incoming]]:
    issued = [
        await kvitteringer.issue(Answer(DigisosId.new(), MeldingId.new(), Sha256.of(b"x"), MOTTATT, GRAD_LAGRET))
        for _ in range(count)
    ]
    return issued, [incoming(one.jws, offset) for offset, one in enumerate(issued)]


def incoming(jws: str, offset: int) -> Incoming:
    record = claims_of(jws).record(jws)
    return Incoming(TOPIC, offset % 2, offset, 0, record.digisos_id.encode(), encode(record))


@pytest.fixture
async def lost(tmp_path: Path) -> AsyncIterator[DedupStore]:
    async with DedupStore(tmp_path / "nytt.sqlite") as store:
        yield store


async def test_a_lost_store_comes_back_from_the_topic(lost: DedupStore, kvitteringer: Kvitteringer, keys: Any) -> None:
    issued, records = await issued_records(kvitteringer, 5)
    opened = Opened(FakeTail([records[:3], records[3:]]))
    rebuilder = Rebuilder(NUMBER, issuer=keys.issuer, store=lost, open_tail=opened)
    await rebuilder.catch_up()
    assert [await lost.of_melding(one.melding_id) for one in issued] == [(one,) for one in issued]
    await rebuilder.catch_up()
    assert opened.positions == [{}, {TopicPartition(TOPIC, 0): 5, TopicPartition(TOPIC, 1): 4}]


async def test_what_others_wrote_and_what_is_broken_is_passed_over(
    lost: DedupStore, kvitteringer: Kvitteringer, keys: Any
) -> None:
    (good,), (record,) = await issued_records(kvitteringer, 1)
    junk = [Incoming(TOPIC, 0, n, 0, b"k", value) for n, value in enumerate((b"", b"\0\0\0\0\2x", b"\0\0\0\0\1"), 5)]
    opened = Opened(FakeTail([[*junk, record], [incoming(good.jws, 9)]]))
    await Rebuilder(NUMBER, issuer=keys.issuer, store=lost, open_tail=opened).catch_up()
    assert await lost.of_melding(good.melding_id) == (good,)


@pytest.mark.parametrize("how", ["forged", "another's"])
async def test_a_kvittering_that_we_did_not_sign_is_not_taken_over(
    lost: DedupStore, kvitteringer: Kvitteringer, keys: Any, how: str
) -> None:
    (good,), (record,) = await issued_records(kvitteringer, 1)
    issuer = keys.issuer
    if how == "forged":
        record = incoming(good.jws[:-6] + "AAAAAA", 0)
    else:
        issuer = Issuer("acme", *keys.other)
    await Rebuilder(NUMBER, issuer=issuer, store=lost, open_tail=Opened(FakeTail([[record]]))).catch_up()
    assert await lost.of_melding(good.melding_id) == ()
    assert await lost.positions(TOPIC) == {TopicPartition(TOPIC, 0): 1}


async def test_a_record_that_makes_our_own_code_fail_is_passed_over_loudly(
    lost: DedupStore, kvitteringer: Kvitteringer, keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (poison, good), records = await issued_records(kvitteringer, 2)
    verify = Issuer.verify

    def deep(issuer: Issuer, jws: str) -> Any:
        if jws == poison.jws:
            raise RecursionError("12345678901")
        return verify(issuer, jws)

    monkeypatch.setattr(Issuer, "verify", deep)
    opened = Opened(FakeTail([records]))
    with capture_logs() as lines:
        await Rebuilder(NUMBER, issuer=keys.issuer, store=lost, open_tail=opened).catch_up()
    assert await lost.of_melding(good.melding_id) == (good,)
    assert (await lost.positions(TOPIC)).keys() == {TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)}
    assert [(line["log_level"], line["feiltype"]) for line in lines] == [("critical", "RecursionError")]


async def test_a_header_of_thousands_of_brackets_is_passed_over(lost: DedupStore, keys: Any) -> None:
    header = base64.urlsafe_b64encode(b"[" * 45_000).decode().rstrip("=")
    record = KvitteringRecord(
        kvittering_id=Uuid.new(),
        digisos_id=DigisosId.new(),
        melding_id=MeldingId.new(),
        kommunenummer=NUMBER,
        status=MOTTATT,
        tidspunkt=datetime(2026, 11, 23, tzinfo=UTC),
        jws=f"{header}.e30.AAAA",
    )
    poison = Incoming(TOPIC, 0, 0, 0, record.digisos_id.encode(), encode(record))
    await Rebuilder(NUMBER, issuer=keys.issuer, store=lost, open_tail=Opened(FakeTail([[poison]]))).catch_up()
    assert await lost.positions(TOPIC) == {TopicPartition(TOPIC, 0): 1}


async def test_an_outage_in_the_middle_comes_out(lost: DedupStore, keys: Any) -> None:
    opened = Opened(FakeTail([], BrokerUnavailableError("nede")))
    with pytest.raises(BrokerUnavailableError):
        await Rebuilder(NUMBER, issuer=keys.issuer, store=lost, open_tail=opened).catch_up()
