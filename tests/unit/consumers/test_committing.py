from __future__ import annotations

import asyncio
from collections.abc import Mapping

from broker.record import TopicPartition
from consumers.committing import Committer
from schemas.errors import BrokerUnavailableError, PartitionLostError
from schemas.names import Kommunenummer

NUMBER = Kommunenummer("4601")
ZERO, ONE = TopicPartition("t", 0), TopicPartition("t", 1)


class Group:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls: list[Mapping[TopicPartition, int]] = []
        self.quiet = asyncio.Event()

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.calls.append(dict(offsets))
        if self.errors:
            raise self.errors.pop(0)
        self.quiet.set()


async def test_the_newest_offset_of_each_partition_goes_in_one_request() -> None:
    committer, group = Committer(NUMBER, lambda: 0.0), Group()
    for offset in range(1, 4):
        committer.want(ZERO, offset)
    committer.want(ONE, 9)
    assert await committer.commit_now(group)
    assert await committer.commit_now(group)
    assert group.calls == [{ZERO: 3, ONE: 9}]


async def test_one_that_fails_is_wanted_still_unless_a_newer_one_is() -> None:
    committer, group = Committer(NUMBER, lambda: 0.0), Group(BrokerUnavailableError("x"))
    committer.want(ZERO, 3)
    assert not await committer.commit_now(group)
    committer.want(ZERO, 4)
    assert await committer.commit_now(group)
    assert group.calls == [{ZERO: 3}, {ZERO: 4}]


async def test_a_lost_partition_is_let_go() -> None:
    committer, group = Committer(NUMBER, lambda: 0.0), Group(PartitionLostError("x"))
    committer.want(ZERO, 3)
    assert await committer.commit_now(group)
    committer.want(ONE, 1)
    committer.forget(frozenset({ONE}))
    assert await committer.commit_now(group)
    assert group.calls == [{ZERO: 3}]


async def test_what_is_wanted_is_committed_until_it_is() -> None:
    committer, group = Committer(NUMBER, lambda: 0.0), Group(BrokerUnavailableError("x"))
    running = asyncio.create_task(committer.run(group))
    committer.want(ZERO, 3)
    async with asyncio.timeout(5):
        await group.quiet.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert group.calls == [{ZERO: 3}, {ZERO: 3}]
