from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self

import pytest
from structlog.testing import capture_logs

from broker.delivery_messages import WithdrawalSeen
from broker.record import Incoming, TopicPartition
from broker.routing import soknad_topic
from consumers.lookahead import MAX_BYTES, Lookahead
from schemas.errors import BrokerUnavailableError
from schemas.names import Kommunenummer

NUMBER = Kommunenummer("4601")
TOPIC = soknad_topic(NUMBER)
ZERO = TopicPartition(TOPIC, 0)


class Tails:
    """Opens a tail each time, with these batches; an error is raised instead of read."""

    def __init__(self, *lives: list[Any]) -> None:
        self.lives = list(lives)
        self.opened: list[Mapping[TopicPartition, int]] = []
        self.caught_up = asyncio.Event()
        self.first: Mapping[TopicPartition, int] = {}
        self.total = 0

    def __call__(self, topics: Any, positions: Mapping[TopicPartition, int]) -> Self:
        assert list(topics) == [TOPIC]
        self.opened.append(positions)
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def __aiter__(self) -> AsyncIterator[Sequence[Incoming]]:
        for batch in self.lives.pop(0):
            if isinstance(batch, Exception):
                raise batch
            yield batch
        await asyncio.Event().wait()


def withdrawal(record: Any) -> Any:
    return record.model_copy(update={"type": "TILBAKEKALL", "pakke": None, "storrelse": 0})


async def found_by(tails: Tails, positions: Mapping[TopicPartition, int], count: int) -> list[WithdrawalSeen]:
    seen: list[WithdrawalSeen] = []
    enough = asyncio.Event()

    def note(withdrawal: WithdrawalSeen) -> None:
        seen.append(withdrawal)
        if len(seen) >= count:
            enough.set()

    running = asyncio.create_task(Lookahead(NUMBER, topic=TOPIC, open_tail=tails).run(positions, note))
    async with asyncio.timeout(5):
        await enough.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return seen


async def test_withdrawals_alone_are_told_of(make_record: Any, incoming: Any) -> None:
    record, big = make_record(), make_record(files={"x.bin": bytes(MAX_BYTES)})
    batch = [incoming(record), incoming(b"junk", key=b"?"), incoming(big), incoming(withdrawal(record), offset=3)]
    tails = Tails([batch])
    assert await found_by(tails, {ZERO: 7}, 1) == [WithdrawalSeen(0, record.digisos_id, record.melding_id)]
    assert tails.opened == [{ZERO: 7}]


async def test_one_under_another_soknads_key_withdraws_nothing(make_record: Any, incoming: Any) -> None:
    record, other = make_record(), make_record()
    moved = incoming(withdrawal(record), key=other.digisos_id.encode())
    tails = Tails([[moved, incoming(withdrawal(other))]])
    assert [one.melding for one in await found_by(tails, {ZERO: 0}, 1)] == [other.melding_id]


async def test_a_tail_that_breaks_is_opened_again_where_it_began(
    make_record: Any, incoming: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.lookahead.PAUSE_S", 0.0)
    tails = Tails([BrokerUnavailableError("x")], [[incoming(withdrawal(make_record()))]])
    with capture_logs() as lines:
        assert len(await found_by(tails, {ZERO: 4}, 1)) == 1
    assert tails.opened == [{ZERO: 4}, {ZERO: 4}]
    assert [line["event"] for line in lines] == ["lookahead_broke"]


async def test_without_partitions_there_is_nothing_to_look_for() -> None:
    tails = Tails()
    await Lookahead(NUMBER, topic=TOPIC, open_tail=tails).run({}, lambda _: None)
    assert tails.opened == []


async def test_one_that_is_cut_off_while_it_connects_is_closed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    tails, connecting, connected, closed = Tails([]), asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slowly(self: Tails) -> Tails:
        connecting.set()
        await connected.wait()
        return self

    async def close(*_: object) -> None:
        closed.set()

    monkeypatch.setattr(Tails, "__aenter__", slowly)
    monkeypatch.setattr(Tails, "__aexit__", close)
    running = asyncio.create_task(Lookahead(NUMBER, topic=TOPIC, open_tail=tails).run({ZERO: 0}, lambda _: None))
    await connecting.wait()
    running.cancel()
    await asyncio.sleep(0)
    assert not running.done()
    connected.set()
    await asyncio.gather(running, return_exceptions=True)
    assert closed.is_set()
    assert running.cancelled()
