from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

import pytest
from aiokafka.producer import message_accumulator
from aiokafka.record.util import calc_crc32c

from broker.kafka.subscriber import KafkaTail
from broker.record import Incoming, Outgoing, RecordPosition, TopicPartition
from broker.routing import consumer_group, kvittering_topic, soknad_topic
from schemas.errors import AccessDeniedError, BrokerUnavailableError, ConfigurationError, RecordTooLargeError

if TYPE_CHECKING:
    from conftest import KafkaHelp

pytestmark = pytest.mark.kafka


async def test_a_record_comes_back_as_it_was_with_its_headers_in_order(kafka: KafkaHelp) -> None:
    kommunenummer = await kafka.new_kommune()
    topic = soknad_topic(kommunenummer)
    headers = (("a", b"1"), ("b", b"\xff\x00"), ("a", b"2"))
    publisher = await kafka.publisher(await kafka.process("producers", kommunenummer))
    position = await publisher.publish(Outgoing(topic, b"key", b"value", headers))

    subscriber = await kafka.subscriber(
        [topic], group=consumer_group(kafka.vendor, kommunenummer), settings=await kafka.connector(kommunenummer)
    )
    (record,) = await kafka.take(subscriber, 1)
    assert (record.topic, record.partition, record.offset) == position
    assert (record.key, record.value, record.headers) == (b"key", b"value", headers)
    assert record.timestamp_ms > 1_700_000_000_000


async def test_many_records_are_published_in_order_for_each_key(kafka: KafkaHelp) -> None:
    topic = soknad_topic(await kafka.new_kommune())
    publisher = await kafka.publisher()
    records = [Outgoing(topic, b"%d" % (n % 7), b"%d" % n) for n in range(500)]
    positions = await publisher.publish_all(records)
    assert all(isinstance(one, RecordPosition) for one in positions)

    found = await kafka.take(await kafka.tail([topic]), 500)
    for key in range(7):
        mine = [int(record.value) for record in found if record.key == b"%d" % key]
        assert mine == [n for n in range(500) if n % 7 == key]


async def test_one_refused_record_harms_neither_those_beside_it_nor_those_after_it(kafka: KafkaHelp) -> None:
    kommunenummer = await kafka.new_kommune(partitions=1)
    topic = soknad_topic(kommunenummer)
    publisher = await kafka.publisher()
    await publisher.publish(Outgoing(topic, b"k", b"first"))
    # Larger than the topic takes, smaller than the client's own limit: it is the broker that refuses, after a sequence number.
    with pytest.raises(RecordTooLargeError):
        await publisher.publish(Outgoing(topic, b"k", bytes(1_500_000)))
    outcomes = await publisher.publish_all([Outgoing(topic, b"k", b"%d" % n) for n in range(10)])
    assert [one.offset for one in outcomes if isinstance(one, RecordPosition)] == list(range(1, 11))


async def test_a_record_too_large_for_any_topic_never_leaves(kafka: KafkaHelp) -> None:
    topic = soknad_topic(await kafka.new_kommune())
    publisher = await kafka.publisher()
    with pytest.raises(RecordTooLargeError):
        await publisher.publish(Outgoing(topic, b"k", bytes(3_000_000)))


async def test_a_topic_that_does_not_exist_is_worth_another_try_and_holds_up_nobody(kafka: KafkaHelp) -> None:
    topic = soknad_topic(await kafka.new_kommune())
    publisher = await kafka.publisher(delivery_timeout_s=2.0)
    missing = Outgoing("fiks.0000.soknad.v1", b"k", b"v")
    outcome, other = await asyncio.gather(
        publisher.publish(missing), publisher.publish(Outgoing(topic, b"k", b"v")), return_exceptions=True
    )
    assert isinstance(outcome, BrokerUnavailableError)
    assert isinstance(other, RecordPosition)


async def test_warming_learns_many_topics_at_once(kafka: KafkaHelp) -> None:
    topics = [soknad_topic(await kafka.new_kommune()) for _ in range(5)]
    publisher = await kafka.publisher()
    await publisher.warm([*topics, "fiks.0000.soknad.v1"])
    outcomes = await publisher.publish_all([Outgoing(topic, b"k", b"v") for topic in topics])
    assert all(isinstance(one, RecordPosition) for one in outcomes)


async def test_a_tail_reads_everything_says_when_it_has_caught_up_and_follows(kafka: KafkaHelp) -> None:
    topics = [soknad_topic(await kafka.new_kommune()) for _ in range(2)]
    publisher = await kafka.publisher()
    await publisher.publish_all([Outgoing(topic, b"%d" % n, b"v") for n in range(20) for topic in topics])
    tail = await kafka.tail(topics)
    assert not tail.caught_up.is_set()
    seen: list[Incoming] = []

    async def follow() -> None:
        async for batch in tail:
            seen.extend(batch)

    following = asyncio.create_task(follow())
    async with asyncio.timeout(20):
        await tail.caught_up.wait()
    assert len(seen) == 40
    await publisher.publish(Outgoing(topics[0], b"late", b"v"))
    async with asyncio.timeout(20):
        while len(seen) < 41:  # noqa: ASYNC110  # the reader is another task
            await asyncio.sleep(0.01)
    following.cancel()


async def test_a_tail_of_empty_topics_has_caught_up_at_once(kafka: KafkaHelp) -> None:
    tail = await kafka.tail([kvittering_topic(await kafka.new_kommune())])
    reading = asyncio.create_task(anext(aiter(tail)))
    async with asyncio.timeout(10):
        await tail.caught_up.wait()
    reading.cancel()


async def test_a_record_that_a_client_compressed_is_stored_unpacked(kafka: KafkaHelp) -> None:
    from aiokafka import AIOKafkaProducer  # noqa: PLC0415  # a foreign client, here only

    topic = soknad_topic(await kafka.new_kommune(partitions=1))
    async with AIOKafkaProducer(**kafka.admin_settings.connection(), compression_type="gzip") as producer:
        await producer.send_and_wait(topic, bytes(10_000), key=b"k")
    (record,) = await kafka.take(await kafka.tail([topic]), 1)
    assert record.value == bytes(10_000)
    logs = (kafka.server.folder.data / f"{topic}-0").glob("*.log")
    assert sum(log.stat().st_size for log in logs) > 10_000


async def test_publishing_after_stopping_is_a_mistake_of_the_caller(kafka: KafkaHelp) -> None:
    publisher = await kafka.publisher()
    await publisher.stop()
    with pytest.raises(RuntimeError):
        await publisher.publish(Outgoing("fiks.0000.soknad.v1", b"k", b"v"))


async def test_a_wrong_password_is_told_apart_from_a_broker_that_is_away(kafka: KafkaHelp) -> None:
    with pytest.raises(AccessDeniedError):
        await kafka.publisher(kafka.admin_settings.as_user("admin", "wrong"))
    with pytest.raises(BrokerUnavailableError):
        await kafka.publisher(kafka.admin_settings.model_copy(update={"bootstrap": "127.0.0.1:9"}))


async def test_a_tail_reads_on_from_where_its_reader_was(kafka: KafkaHelp) -> None:
    topic = soknad_topic(await kafka.new_kommune(partitions=1))
    partition = TopicPartition(topic, 0)
    publisher = await kafka.publisher()
    await publisher.publish_all([Outgoing(topic, b"k", b"%d" % n) for n in range(5)])
    async with KafkaTail(kafka.admin_settings, [topic], offsets={partition: 3}) as tail:
        assert [record.offset for record in await kafka.take(tail, 2)] == [3, 4]


async def test_a_topic_that_was_made_anew_is_told_and_not_read_as_if_it_were_the_old_one(kafka: KafkaHelp) -> None:
    topic = soknad_topic(await kafka.new_kommune(partitions=1))
    partition = TopicPartition(topic, 0)
    publisher = await kafka.publisher()
    await publisher.publish(Outgoing(topic, b"k", b"v"))
    with pytest.raises(ConfigurationError, match="laget på nytt"):
        await KafkaTail(kafka.admin_settings, [topic], offsets={partition: 3}).start()


async def test_a_header_name_that_is_no_utf8_stops_no_reader_and_no_record(
    kafka: KafkaHelp, monkeypatch: pytest.MonkeyPatch
) -> None:
    kommunenummer = await kafka.new_kommune(partitions=1)
    topic = soknad_topic(kommunenummer)
    with monkeypatch.context() as patched:
        spoil_names(patched)
        publisher = await kafka.publisher()
        outcomes = await publisher.publish_all(
            [Outgoing(topic, b"k", b"%d" % n, (("NAVN" if n == 1 else "a", b"v"),)) for n in range(4)]
        )
    assert [one.offset for one in outcomes if isinstance(one, RecordPosition)] == [0, 1, 2, 3]
    group = consumer_group(kafka.vendor, kommunenummer)
    for reader in (await kafka.tail([topic]), await kafka.subscriber([topic], group=group)):
        found = await kafka.take(reader, 4)
        assert [(one.offset, one.value, one.headers) for one in found] == [
            (n, b"%d" % n, (("??N?" if n == 1 else "a", b"v"),)) for n in range(4)
        ]


def spoil_names(patched: pytest.MonkeyPatch) -> None:
    """Let aiokafka's producers write a name that is no UTF-8 for NAVN: no client offers to, and the broker does not look."""
    build = message_accumulator.BatchBuilder._build

    def build_spoiled(self: message_accumulator.BatchBuilder) -> bytes:
        batch = bytearray(bytes(build(self)).replace(b"NAVN", b"\xff\xfeN\x80"))
        struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[21:])))
        return bytes(batch)

    patched.setattr(message_accumulator.BatchBuilder, "_build", build_spoiled)
