from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from broker.record import Incoming, TopicPartition
from broker.routing import TRANSPORT
from producers import eskalering_follower as module
from producers import eskalering_rows as rows
from producers.eskalering_follower import Withdrawals
from producers.eskalering_rows import Tilstand
from schemas.codec import encode
from schemas.errors import BrokerUnavailableError, ConfigurationError, StoreError, TopicShorterError
from schemas.names import DigisosId, Kommunenummer, MeldingId, NavEksternRefId, Uuid
from schemas.records import TransportRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping


def make_record(world: Any, kind: str, offset: int, partition: int = 0, **changes: Any) -> Incoming:
    values: dict[str, Any] = {
        "hendelse_id": Uuid.new(),
        "melding_id": MeldingId.new(),
        "digisos_id": DigisosId.new(),
        "kommunenummer": Kommunenummer("0301"),
        "type": kind,
        "tidspunkt": world.now,
        "nav_ekstern_ref_id": NavEksternRefId("ref-1"),
    }
    return Incoming(TRANSPORT, partition, offset, 0, b"k", encode(TransportRecord(**(values | changes))), ())


class Topic:
    """The transport topic in memory: batches, or errors to raise."""

    def __init__(self, *batches: list[Incoming] | Exception) -> None:
        self.batches = list(batches)
        self.opened: list[dict[TopicPartition, int]] = []

    @asynccontextmanager
    async def open(self, topics: Iterable[str], offsets: Mapping[TopicPartition, int]) -> AsyncIterator[Any]:
        assert list(topics) == [TRANSPORT]
        self.opened.append(dict(offsets))
        yield self

    async def __aiter__(self) -> AsyncIterator[list[Incoming]]:
        while self.batches:
            batch = self.batches.pop(0)
            if isinstance(batch, Exception):
                raise batch
            yield batch
        await asyncio.Event().wait()


async def test_only_withdrawals_begin_anything_and_everything_read_is_noted(world: Any) -> None:
    withdrawals = Withdrawals(world.database, Topic().open, world.clock)
    batch = [make_record(world, kind, nr) for nr, kind in enumerate(("AKSEPTERT", "SENDT", "TTL_TIDSAVBRUDD"))]
    batch += [make_record(world, "MAX_RETRIESAVBRUDD", 8, partition=3, kanal="SVARINN")]
    assert await withdrawals.take_in(batch) == 2
    due = await world.database.read(lambda connection: rows.due(connection, Tilstand.VENTER, world.now))
    assert sorted(row.fra_kanal for row in due) == ["KAFKA", "SVARINN"]
    assert await world.database.read(rows.offsets) == {TopicPartition(TRANSPORT, 0): 3, TopicPartition(TRANSPORT, 3): 9}


async def test_what_cannot_be_read_is_passed_over_and_stops_nothing(world: Any) -> None:
    withdrawals = Withdrawals(world.database, Topic().open, world.clock)
    broken = Incoming(TRANSPORT, 0, 0, 0, b"k", b"ikke avro", ())
    assert await withdrawals.take_in([broken, make_record(world, "TTL_TIDSAVBRUDD", 1)]) == 1


@pytest.mark.parametrize(
    "error", [BrokerUnavailableError("borte"), StoreError("full"), ConfigurationError("et annet emne")]
)
async def test_it_goes_on_from_where_it_was_when_reading_has_failed(
    world: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    topic = Topic([make_record(world, "TTL_TIDSAVBRUDD", 0)], error, [make_record(world, "TTL_TIDSAVBRUDD", 1)])
    withdrawals = Withdrawals(world.database, topic.open, world.clock)
    assert withdrawals.problem() is not None
    running = asyncio.create_task(withdrawals.run())
    async with asyncio.timeout(10):
        while len(await world.database.read(lambda c: rows.due(c, Tilstand.VENTER, world.now))) < 2:  # noqa: ASYNC110 - rows have no event
            await asyncio.sleep(0.001)
    assert topic.opened == [{}, {TopicPartition(TRANSPORT, 0): 1}]
    assert withdrawals.problem() is None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_topic_that_was_made_anew_is_read_from_its_beginning(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    again = make_record(world, "TTL_TIDSAVBRUDD", 0)
    topic = Topic(
        [make_record(world, "TTL_TIDSAVBRUDD", 7)], TopicShorterError("kortere", topics=frozenset({TRANSPORT})), [again]
    )
    running = asyncio.create_task(Withdrawals(world.database, topic.open, world.clock).run())
    async with asyncio.timeout(10):
        while await world.database.read(rows.offsets) != {TopicPartition(TRANSPORT, 0): 1}:  # noqa: ASYNC110 - rows have no event
            await asyncio.sleep(0.001)
    assert topic.opened == [{}, {}]
    assert len(await world.database.read(lambda c: rows.due(c, Tilstand.VENTER, world.now))) == 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("kind", ["STOPPET", "TILBAKEKALT"])
@pytest.mark.parametrize("together", [True, False])
async def test_what_a_person_ended_is_not_escalated_when_the_withdrawal_is_read_after_it(
    world: Any, kind: str, *, together: bool
) -> None:
    withdrawals, melding = Withdrawals(world.database, Topic().open, world.clock), MeldingId.new()
    batch = [
        make_record(world, kind, 0, melding_id=melding),
        make_record(world, "TTL_TIDSAVBRUDD", 1, melding_id=melding),
        make_record(world, "TTL_TIDSAVBRUDD", 2, melding_id=melding, kanal="SVARINN"),
        make_record(world, "TTL_TIDSAVBRUDD", 3),
    ]
    parts = [batch] if together else [[one] for one in batch]
    assert sum([await withdrawals.take_in(part) for part in (*parts, *parts)]) == 1  # read twice, as when made anew
    (due,) = await world.database.read(lambda connection: rows.due(connection, Tilstand.VENTER, world.now))
    assert due.melding_id != melding
