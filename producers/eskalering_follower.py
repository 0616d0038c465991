"""Reads ``fiks.transport.v1`` for what the watch withdrew and what a person ended, from where the sender's database left off.

A topic that is shorter than what was read of it was made anew: it is read from its beginning, since a withdrawal is known by its
message and channel, and to read one twice is to read it once.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from broker.log import get_logger
from broker.record import TopicPartition
from broker.routing import TRANSPORT
from producers import eskalering_rows as rows
from schemas.codec import decode
from schemas.errors import ConfigurationError, ContractError, StoreError, TopicShorterError, TransportError
from schemas.records import (
    TRANSPORT_MAX_RETRIESAVBRUDD,
    TRANSPORT_STOPPET,
    TRANSPORT_TILBAKEKALT,
    TRANSPORT_TTL_TIDSAVBRUDD,
    TransportRecord,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from broker.clock import Clock
    from broker.ports import OpenTail
    from broker.record import Incoming
    from broker.sql import Connection, Database

RETRY_S: Final = 1.0
CLOCKS_APART: Final = timedelta(minutes=1)
"""How far ahead the watch's clock may be; by times it is judged whether BEKREFTET lifts a withdrawal. No message waits longer."""
WITHDRAWS: Final = frozenset({TRANSPORT_TTL_TIDSAVBRUDD, TRANSPORT_MAX_RETRIESAVBRUDD})
ENDS: Final = frozenset({TRANSPORT_STOPPET, TRANSPORT_TILBAKEKALT})


class Withdrawals:
    """Makes escalations of what it reads.

    Args:
        database: The producers'.
        open_tail: Opens a reader of topics.
        clock: What the time is.
    """

    def __init__(self, database: Database, open_tail: OpenTail, clock: Clock) -> None:
        self._database = database
        self._open_tail = open_tail
        self._clock = clock
        self._again = False
        self._problem: str | None = "overføringene er ikke lest ferdig"

    def problem(self) -> str | None:
        """Return why withdrawals are not known, for the log and for whoever asks; intake goes on without them."""
        return self._problem

    async def run(self) -> None:
        """Follow the topic until cancelled; when it cannot be read, try again."""
        while True:
            try:
                await self._follow()
            except TopicShorterError as error:
                get_logger().warning("withdrawals_read_again", topic=TRANSPORT, exc_info=error)
                self._again = True
            except (TransportError, StoreError, ConfigurationError) as error:
                self._problem = f"overføringene kan ikke leses ({error.code})"
                get_logger().warning("withdrawals_not_read", topic=TRANSPORT, vent_s=RETRY_S, exc_info=error)
            await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        if self._again:
            await self._database.write(rows.forget_offsets)
            self._again = False
        offsets = await self._database.read(rows.offsets)
        async with self._open_tail([TRANSPORT], offsets) as tail:
            self._problem = None
            async for batch in tail:
                await self.take_in(batch)

    async def take_in(self, batch: Sequence[Incoming]) -> int:
        """Note what a batch says, with how far was read; return how many escalations began.

        Raises:
            StoreError: Nothing of it was noted.
        """
        events = [event for record in batch if (event := _read(record)) is not None]
        read = {TopicPartition(record.topic, record.partition): record.offset + 1 for record in batch}
        now = self._clock()

        def write(connection: Connection) -> int:
            begun = 0
            for event in events:
                if event.type in WITHDRAWS:
                    begun += rows.insert(connection, event, event.kanal, _from(event, now))
                else:
                    rows.end(connection, event.melding_id, now)
            rows.note_offsets(connection, read)
            return begun

        return await self._database.write(write)


def _from(event: TransportRecord, now: datetime) -> datetime:
    """Return when to go on with a withdrawal: what is told of it then is later than it, though its writer's clock is ahead."""
    return max(now, min(event.tidspunkt, now + CLOCKS_APART))


def _read(record: Incoming) -> TransportRecord | None:
    """Return the event, if it is one of those that matter here."""
    try:
        event = decode(TransportRecord, record.value)
    except ContractError as error:  # kvittering makes a dead letter of it
        get_logger().warning(
            "transport_event_unreadable", partition=record.partition, offset=record.offset, exc_info=error
        )
        return None
    return event if event.type in WITHDRAWS | ENDS else None
