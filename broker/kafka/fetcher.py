"""Reading single records where they are known to lie."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as AioPartition

from broker.kafka import lenient
from broker.kafka.errors import mapped
from broker.kafka.subscriber import incoming
from broker.routing import MAX_DEAD_LETTER_BYTES
from schemas.errors import TransportError

if TYPE_CHECKING:
    from types import TracebackType

    from broker.kafka.settings import KafkaSettings
    from broker.record import Incoming

lenient.install()


class KafkaFetcher:
    """Fetches records by place. Use as an asynchronous context manager; one fetch at a time.

    Args:
        settings: Where, and as whom.
        client_id: Shown in the broker's log and metrics.
    """

    def __init__(self, settings: KafkaSettings, *, client_id: str = "meldingsformidler") -> None:
        self._timeout_s = settings.request_timeout_ms / 1000
        self._consumer = AIOKafkaConsumer(
            **settings.connection(),
            client_id=client_id,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            request_timeout_ms=settings.request_timeout_ms,
            max_partition_fetch_bytes=MAX_DEAD_LETTER_BYTES,
        )

    async def __aenter__(self) -> Self:
        try:
            with mapped():
                async with asyncio.timeout(self._timeout_s):
                    await self._consumer.start()
        except BaseException:
            await self._consumer.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._consumer.stop()

    async def fetch(self, topic: str, partition: int, offset: int) -> Incoming:
        """Return the record at this place.

        Raises:
            BrokerUnavailableError: No answer in time.
            TransportError: The record is not there any more, or we may not read it.
        """
        place = AioPartition(topic, partition)
        with mapped():
            async with asyncio.timeout(self._timeout_s):
                if self._consumer.assignment() != {place}:
                    self._consumer.assign([place])
                    self._consumer.seek(place, offset)
                elif await self._consumer.position(place) != offset:
                    self._consumer.seek(place, offset)
                found = await self._consumer.getone(place)
        if found.offset != offset:
            raise TransportError(f"meldingen på {topic}/{partition}/{offset} er der ikke lenger")
        return incoming(found)
