"""Commits coalesced: the newest offset of each partition, one request at a time, repeated until Kafka has it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from broker.krasj import crash_point
from broker.log import get_logger
from broker.retry import ALWAYS, Random, delay
from schemas.errors import PartitionLostError, TransportError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.record import TopicPartition
    from schemas.names import Kommunenummer


class Commits(Protocol):
    """The part of a ``Subscriber`` that commits."""

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Record that everything before these offsets is done."""
        ...


class Committer:
    """Works for one session.

    Args:
        kommunenummer: The kommune, for the log.
        random: Spreads retries.
    """

    def __init__(self, kommunenummer: Kommunenummer, random: Random) -> None:
        self._random = random
        self._offsets: dict[TopicPartition, int] = {}
        self._wanted = asyncio.Event()
        self._log = get_logger().bind(kommunenummer=kommunenummer)

    def want(self, partition: TopicPartition, offset: int) -> None:
        """Let everything before ``offset`` be committed soon."""
        self._offsets[partition] = offset
        self._wanted.set()

    def forget(self, partitions: frozenset[TopicPartition]) -> None:
        """Commit no more for partitions that are gone."""
        self._offsets = {place: offset for place, offset in self._offsets.items() if place not in partitions}

    async def run(self, subscriber: Commits) -> None:
        """Commit what is wanted, until cancelled."""
        failures = 0
        while True:
            await self._wanted.wait()
            if await self.commit_now(subscriber):
                failures = 0
                continue
            failures += 1
            await asyncio.sleep(delay(ALWAYS, failures, self._random).total_seconds())

    async def commit_now(self, subscriber: Commits) -> bool:
        """Commit what there is; whether it worked, or need not be tried again."""
        offsets, self._offsets = self._offsets, {}
        self._wanted.clear()
        if not offsets:
            return True
        try:
            crash_point("consumers.session.before-commit")
            await subscriber.commit(offsets)
            crash_point("consumers.session.after-commit")
        except PartitionLostError:
            return True  # whoever has it now reads the records again, and finds them answered
        except TransportError as error:
            self._offsets = offsets | self._offsets
            self._wanted.set()
            self._log.warning("commit_failed", exc_info=error)
            return False
        return True
