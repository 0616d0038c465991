from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from structlog.testing import capture_logs

from broker.rounds import rounds
from schemas.errors import BrokerUnavailableError

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Work:
    """Work that remembers when it was done, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.now = NOON
        self.done: list[datetime] = []
        self.looks = 0
        self.fails = 0

    def clock(self) -> datetime:
        self.looks += 1
        return self.now

    async def __call__(self, now: datetime) -> None:
        if self.fails:
            self.fails -= 1
            raise BrokerUnavailableError("borte")
        self.done.append(now)

    async def look(self, times: int = 3) -> None:
        before = self.looks
        for _ in range(10 * times):
            await asyncio.sleep(0)
        assert self.looks >= before + times


@asynccontextmanager
async def at_work(work: Work) -> AsyncIterator[Work]:
    task = asyncio.create_task(rounds("prøve", work, every=HOUR, clock=work.clock, look_s=0))
    yield work
    assert not task.done()
    task.cancel()


async def test_it_is_done_at_once_and_not_again_before_its_time() -> None:
    async with at_work(Work()) as work:
        await work.look()
        work.now += HOUR - timedelta(seconds=1)
        await work.look()
        assert work.done == [NOON]


async def test_it_is_done_again_when_time_has_gone_by_or_was_moved() -> None:
    async with at_work(Work()) as work:
        await work.look()
        work.now += timedelta(days=20)
        await work.look()
        assert work.done == [NOON, NOON + timedelta(days=20)]


async def test_what_failed_is_tried_again_at_the_next_look_and_told_once() -> None:
    work = Work()
    work.fails = 3
    with capture_logs() as logs:
        async with at_work(work):
            await work.look(6)
    assert work.done == [NOON]
    assert [line["event"] for line in logs] == ["round_failed"]
