"""Finding and deleting what is over age on topics (``broker.retention``), as an administrator's principal.

Each partition is read from its beginning until the first record that is kept, so where nothing is over age one record is read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as AioPartition

from broker.kafka.errors import mapped
from broker.kafka.subscriber import incoming
from broker.log import get_logger
from broker.record import TopicPartition
from broker.retention import own_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from broker.kafka.admin import KafkaAdmin
    from broker.kafka.settings import KafkaSettings
    from broker.retention import Cutoff

TOPICS_AT_A_TIME: Final = 100
POLL_MS: Final = 500
READ_WITHIN_S: Final = 120.0
"""For some topics' beginnings; Kafka that goes away meanwhile is no reason to ask for ever."""


async def expired(settings: KafkaSettings, cutoffs: Sequence[Cutoff]) -> AsyncIterator[dict[TopicPartition, int]]:
    """Find what is over age, some topics at a time.

    Args:
        settings: A principal that may read the topics.
        cutoffs: The topics; all must exist.

    Yields:
        For each partition that has something over age the offset of the first record that is kept.

    Raises:
        TransportError: A topic cannot be read.
    """
    for first in range(0, len(cutoffs), TOPICS_AT_A_TIME):
        found = await _expired(settings, cutoffs[first : first + TOPICS_AT_A_TIME])
        if found:
            yield found


async def delete_expired(settings: KafkaSettings, admin: KafkaAdmin, cutoffs: Sequence[Cutoff]) -> dict[str, int]:
    """Delete what is over age.

    Args:
        settings: A principal that may read the topics.
        admin: One that may delete from them.
        cutoffs: The topics.

    Returns:
        How many records went, by topic.

    Raises:
        TransportError: Kafka refused; what was deleted so far stays deleted.
    """
    gone: dict[str, int] = {}
    async for before in expired(settings, cutoffs):
        starts = await admin.start_offsets({partition.topic for partition in before})
        await admin.delete_records(before)
        for partition, offset in before.items():
            gone[partition.topic] = gone.get(partition.topic, 0) + offset - starts.get(partition, 0)
    for topic, count in gone.items():
        get_logger().info("records_expired", topic=topic, antall=count)
    return gone


async def _expired(settings: KafkaSettings, cutoffs: Sequence[Cutoff]) -> dict[TopicPartition, int]:
    by_topic = {cutoff.topic: cutoff for cutoff in cutoffs}
    consumer = AIOKafkaConsumer(
        *by_topic,
        **settings.connection(),
        client_id="oppbevaring",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        request_timeout_ms=settings.request_timeout_ms,
    )
    with mapped():
        try:
            async with asyncio.timeout(settings.request_timeout_ms / 1000):
                await consumer.start()
            async with asyncio.timeout(READ_WITHIN_S):
                return await _read_heads(consumer, by_topic)
        finally:
            await consumer.stop()


async def _read_heads(consumer: AIOKafkaConsumer, cutoffs: dict[str, Cutoff]) -> dict[TopicPartition, int]:
    starts = await consumer.beginning_offsets(consumer.assignment())
    ends = await consumer.end_offsets(consumer.assignment())
    looking = {partition for partition, end in ends.items() if end > starts[partition]}
    kept: dict[AioPartition, int] = {}
    while looking:
        for partition, records in (await consumer.getmany(*looking, timeout_ms=POLL_MS)).items():
            cutoff = cutoffs[partition.topic]
            first = next((r.offset for r in records if own_time(incoming(r), cutoff.now) >= cutoff.before), None)
            if first is not None:
                kept[partition] = first
                looking.discard(partition)
                consumer.pause(partition)
        for partition in tuple(looking):
            if await consumer.position(partition) >= ends[partition]:
                kept[partition] = ends[partition]
                looking.discard(partition)
    return {TopicPartition(*partition): offset for partition, offset in kept.items() if offset > starts[partition]}
