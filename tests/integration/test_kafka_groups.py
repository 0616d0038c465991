from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from patience import until

from broker.record import Outgoing, TopicPartition
from broker.routing import consumer_group, soknad_topic
from schemas.errors import PartitionLostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import KafkaHelp

    from broker.kafka.subscriber import KafkaSubscriber

pytestmark = pytest.mark.kafka


class Events:
    def __init__(self) -> None:
        self.log: list[tuple[str, frozenset[TopicPartition]]] = []
        self.on_revoked: Callable[[], object] | None = None

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        self.log.append(("revoked", partitions))
        if self.on_revoked is not None:
            self.on_revoked()

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self.log.append(("assigned", partitions))


async def drive(subscriber: KafkaSubscriber) -> None:
    async for _ in subscriber:
        pass


async def fill(kafka: KafkaHelp, topic: str, count: int) -> None:
    publisher = await kafka.publisher()
    await publisher.publish_all([Outgoing(topic, b"%d" % n, b"%d" % n) for n in range(count)])


async def test_a_group_goes_on_where_it_committed_and_only_there(kafka: KafkaHelp) -> None:
    kommunenummer = await kafka.new_kommune(partitions=1)
    topic, group = soknad_topic(kommunenummer), consumer_group(kafka.vendor, kommunenummer)
    await fill(kafka, topic, 10)
    partition = TopicPartition(topic, 0)
    for committed in (4, 7):
        subscriber = await kafka.subscriber([topic], group=group)
        assert [record.offset for record in await kafka.take(subscriber, 1)][-1] == 9
        await subscriber.commit({partition: committed})
        await subscriber.stop()
    assert await kafka.admin.committed(group) == {partition: 7}
    subscriber = await kafka.subscriber([topic], group=group)
    assert [record.offset for record in await kafka.take(subscriber, 3)] == [7, 8, 9]


async def test_partitions_come_and_go_as_events(kafka: KafkaHelp) -> None:
    kommunenummer = await kafka.new_kommune()
    topic, group = soknad_topic(kommunenummer), consumer_group(kafka.vendor, kommunenummer)
    both = frozenset({TopicPartition(topic, 0), TopicPartition(topic, 1)})
    first, second = Events(), Events()
    one = await kafka.subscriber([topic], group=group, listener=first)
    driving = asyncio.create_task(drive(one))
    assert first.log == [("assigned", both)]

    two = await kafka.subscriber([topic], group=group, listener=second)
    await until(lambda: len(first.log) == 3)
    assert first.log[1] == ("revoked", both)
    mine, theirs = first.log[2][1], second.log[-1][1]
    assert len(mine) == len(theirs) == 1
    assert mine | theirs == both

    await two.stop()
    assert second.log[-1] == ("revoked", theirs)
    await until(lambda: len(first.log) == 5)
    assert first.log[4] == ("assigned", both)
    driving.cancel()


async def test_what_is_committed_while_partitions_are_revoked_counts(kafka: KafkaHelp) -> None:
    kommunenummer = await kafka.new_kommune(partitions=1)
    topic, group = soknad_topic(kommunenummer), consumer_group(kafka.vendor, kommunenummer)
    await fill(kafka, topic, 3)
    partition = TopicPartition(topic, 0)

    class Committing(Events):
        async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
            await subscriber.commit({partition: 2})
            await super().revoked(partitions)

    listener = Committing()
    subscriber = await kafka.subscriber([topic], group=group, listener=listener)
    await kafka.take(subscriber, 3)
    await subscriber.stop()
    assert await kafka.admin.committed(group) == {partition: 2}


async def test_committing_what_another_has_is_told_and_the_rest_is_kept(kafka: KafkaHelp) -> None:
    kommunenummer = await kafka.new_kommune(partitions=1)
    topic, group = soknad_topic(kommunenummer), consumer_group(kafka.vendor, kommunenummer)
    subscriber = await kafka.subscriber([topic], group=group)
    await fill(kafka, topic, 1)
    await kafka.take(subscriber, 1)
    mine, theirs = TopicPartition(topic, 0), TopicPartition(topic, 1)
    with pytest.raises(PartitionLostError):
        await subscriber.commit({mine: 1, theirs: 1})
    assert await kafka.admin.committed(group) == {mine: 1}


async def test_a_paused_partition_waits_while_others_flow(kafka: KafkaHelp) -> None:
    kommunenummer, other = await kafka.new_kommune(partitions=1), await kafka.new_kommune(partitions=1)
    held, free = soknad_topic(kommunenummer), soknad_topic(other)
    subscriber = await kafka.subscriber([held, free], group=consumer_group(kafka.vendor, kommunenummer))
    foreign = TopicPartition(held, 7)
    subscriber.pause(TopicPartition(held, 0), foreign)
    await fill(kafka, held, 5)
    await fill(kafka, free, 5)
    assert {record.topic for record in await kafka.take(subscriber, 5)} == {free}
    subscriber.resume(TopicPartition(held, 0), foreign)
    assert {record.topic for record in await kafka.take(subscriber, 5)} == {held}


async def test_pausing_holds_back_even_what_was_fetched_already(kafka: KafkaHelp) -> None:
    kommunenummer, other = await kafka.new_kommune(partitions=1), await kafka.new_kommune(partitions=1)
    topic, free = soknad_topic(kommunenummer), soknad_topic(other)
    await fill(kafka, topic, 1200)
    subscriber = await kafka.subscriber([topic, free], group=consumer_group(kafka.vendor, kommunenummer))
    first = await anext(aiter(subscriber))
    assert len(first) < 1200
    subscriber.pause(TopicPartition(topic, 0))
    for _ in range(3):  # what lies fetched would come with the first batch that comes at all
        await fill(kafka, free, 1)
        assert [record.topic for record in await kafka.take(subscriber, 1)] == [free]
    subscriber.resume(TopicPartition(topic, 0))
    rest = await kafka.take(subscriber, 1200 - len(first))
    assert [record.offset for record in (*first, *rest)] == list(range(1200))


async def test_what_a_listener_raises_comes_out_of_the_iteration(kafka: KafkaHelp) -> None:
    class Broken(Events):
        async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
            await super().assigned(partitions)
            raise LookupError("own")

    kommunenummer = await kafka.new_kommune()
    topic = soknad_topic(kommunenummer)
    subscriber = await kafka.subscriber([topic], group=consumer_group(kafka.vendor, kommunenummer), listener=Broken())
    await fill(kafka, topic, 1)
    with pytest.raises(LookupError):
        await kafka.take(subscriber, 1)
