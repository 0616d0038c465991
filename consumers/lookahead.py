"""Reads on for withdrawals alone while the fagsystem is down and the kommune's partitions are paused.

A søknad that its sender withdraws during an outage is so taken out of the line before the fagsystem is back, however much lies
between the two. Nothing else is kept of what is read: memory does not grow with the backlog.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from broker.delivery_messages import WithdrawalSeen
from broker.log import get_logger
from consumers.job import Job
from schemas.errors import MeldingsformidlerError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from broker.ports import OpenTail, Tail
    from broker.record import Incoming, TopicPartition
    from schemas.names import Kommunenummer

MAX_BYTES: Final = 8 * 1024
"""A withdrawal has no package; what is larger is not even decoded."""
PAUSE_S: Final = 5.0


class Lookahead:
    """Works for one kommune.

    Args:
        kommunenummer: The kommune.
        topic: Its søknad topic.
        open_tail: Reads the partitions that it is given, from there on, and no others.
    """

    def __init__(self, kommunenummer: Kommunenummer, *, topic: str, open_tail: OpenTail) -> None:
        self._kommunenummer = kommunenummer
        self._topic = topic
        self._open_tail = open_tail

    async def run(self, positions: Mapping[TopicPartition, int], seen: Callable[[WithdrawalSeen], None]) -> None:
        """Tell of every withdrawal from these positions on, until cancelled; the same one may be told of twice."""
        while positions:
            try:
                async with _opened(self._open_tail([self._topic], positions)) as tail:
                    async for batch in tail:
                        for withdrawal in map(self._withdrawal, batch):
                            if withdrawal is not None:
                                seen(withdrawal)
            except MeldingsformidlerError as error:
                get_logger().warning("lookahead_broke", kommunenummer=self._kommunenummer, exc_info=error)
            await asyncio.sleep(PAUSE_S)

    def _withdrawal(self, incoming: Incoming) -> WithdrawalSeen | None:
        if len(incoming.value) > MAX_BYTES:
            return None
        job = Job.of(incoming, self._kommunenummer)
        if job.error is not None or not job.withdraws or job.melding_id is None:
            return None
        return WithdrawalSeen(incoming.partition, job.key, job.melding_id)


@asynccontextmanager
async def _opened(tail: AbstractAsyncContextManager[Tail]) -> AsyncGenerator[Tail]:
    """Open ``tail`` whole or not at all: a client that is cut off while it connects leaves its connection behind."""
    opening = asyncio.ensure_future(tail.__aenter__())
    try:
        opened = await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait((opening,))
        if opening.exception() is None:
            await tail.__aexit__(None, None, None)
        raise
    try:
        yield opened
    finally:
        await tail.__aexit__(None, None, None)
