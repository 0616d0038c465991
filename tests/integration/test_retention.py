from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from broker.kafka.expiry import delete_expired, expired
from broker.record import Outgoing, TopicPartition, cloud_event_headers
from broker.retention import Cutoff
from broker.routing import kvittering_topic, soknad_topic
from schemas.names import Uuid

if TYPE_CHECKING:
    from tests.integration.conftest import KafkaHelp

pytestmark = pytest.mark.kafka

NOW = datetime.now(UTC)


def aged(topic: str, age: timedelta) -> Outgoing:
    """Return a record that its sender made ``age`` from now, in virtual time that lies ahead."""
    time = NOW + timedelta(days=1000) - age
    headers = cloud_event_headers(event_id=Uuid.new(), event_type="t", source="/t", subject="s", time=time)
    return Outgoing(topic, b"k", b"v", headers)


async def test_what_is_over_age_is_deleted_and_nothing_behind_the_first_that_is_kept(kafka: KafkaHelp) -> None:
    knr = await kafka.new_kommune(partitions=1)
    topic, other = soknad_topic(knr), kvittering_topic(knr)
    publisher = await kafka.publisher()
    for days in (200, 100, 10, 300):
        await publisher.publish(aged(topic, timedelta(days=days)))
    await publisher.publish(aged(other, timedelta(days=10)))
    virtual_now = NOW + timedelta(days=1000)
    kept_from = virtual_now - timedelta(days=90)

    gone = await delete_expired(
        kafka.admin_settings, kafka.admin, [Cutoff(one, kept_from, virtual_now) for one in (topic, other)]
    )

    assert gone == {topic: 2}
    assert (await kafka.admin.start_offsets([topic]))[TopicPartition(topic, 0)] == 2
    tail = await kafka.tail([topic])
    assert [record.offset for record in await kafka.take(tail, 2)] == [2, 3]


async def test_a_partition_where_everything_is_over_age_is_emptied_once(kafka: KafkaHelp) -> None:
    knr = await kafka.new_kommune(partitions=1)
    topic = soknad_topic(knr)
    publisher = await kafka.publisher()
    for _ in range(3):
        await publisher.publish(aged(topic, timedelta(days=200)))
    cutoff = [Cutoff(topic, NOW + timedelta(days=1000), NOW + timedelta(days=1000))]
    assert await delete_expired(kafka.admin_settings, kafka.admin, cutoff) == {topic: 3}
    assert [found async for found in expired(kafka.admin_settings, cutoff)] == []


async def test_young_records_and_empty_topics_are_left_alone(kafka: KafkaHelp) -> None:
    knr = await kafka.new_kommune()
    publisher = await kafka.publisher()
    await publisher.publish(aged(soknad_topic(knr), timedelta()))
    cutoffs = [Cutoff(topic(knr), NOW, NOW) for topic in (soknad_topic, kvittering_topic)]
    assert await delete_expired(kafka.admin_settings, kafka.admin, cutoffs) == {}
