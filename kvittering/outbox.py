"""From the store's queue to Kafka: statuses and dead letters, at least once, each key in order.

A record that is too large for its topic would be refused for ever: it is set aside, told of loudly, and holds up nobody.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from broker.krasj import crash_point
from broker.log import get_logger
from schemas.errors import RecordTooLargeError, StoreError, TransportError

if TYPE_CHECKING:
    from broker.ports import Publisher
    from kvittering.store import Pending, StatusStore

RETRY_S: Final = 1.0


class OutboxPublisher:
    """Publishes what the store has queued, until Kafka has it.

    Args:
        store: Whose queue.
        publisher: Where to.
        stored: Set when there may be more to publish.
        begin: Nothing is published before it is set: what is queued may be older than what is out (``follower``, rule 5).
    """

    BATCH: Final = 500

    def __init__(
        self, store: StatusStore, publisher: Publisher, stored: asyncio.Event, *, begin: asyncio.Event | None = None
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._stored = stored
        self._begin = begin
        self._problem: str | None = None

    def problem(self) -> str | None:
        """Return why records do not go out, for ``/isready``."""
        return self._problem

    async def run(self) -> None:
        """Publish until cancelled; what Kafka does not take is tried again."""
        if self._begin is not None:
            await self._begin.wait()
        while True:
            self._stored.clear()
            try:
                rest = await self.publish_once()
            except StoreError as error:
                self._problem, rest = f"lageret: {error}", 1
            if rest == 0:
                await self._stored.wait()
            elif self._problem is not None:
                await asyncio.sleep(RETRY_S)

    async def publish_once(self) -> int:
        """Publish the oldest records; return how many were queued when it began."""
        pending = await self._store.pending(self.BATCH)
        if not pending:
            self._problem = None
            return 0
        crash_point("kvittering.outbox.before-publish")
        outcomes = await self._publisher.publish_all(one.outgoing for one in pending)
        crash_point("kvittering.outbox.after-publish")
        done: list[int] = []
        held: set[tuple[str, bytes]] = set()  # behind a failed record of the same key nothing counts as published
        self._problem = None
        for one, outcome in zip(pending, outcomes, strict=True):
            key = (one.outgoing.topic, one.outgoing.key)
            if isinstance(outcome, RecordTooLargeError):
                await self._set_aside(one, outcome)
            elif isinstance(outcome, TransportError):
                held.add(key)
                self._problem = f"Kafka: {outcome.code}"
            elif key not in held:
                done.append(one.nr)
        if self._problem is not None:
            get_logger().warning("records_not_published", antall=len(pending) - len(done), kode=self._problem)
        await self._store.published(done)
        return len(pending)

    async def _set_aside(self, one: Pending, error: RecordTooLargeError) -> None:
        size = len(one.outgoing.value or b"")
        get_logger().critical("record_set_aside", topic=one.outgoing.topic, nr=one.nr, storrelse=size, kode=error.code)
        await self._store.set_aside([one.nr], error.code)
