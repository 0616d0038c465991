from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from broker.kafka.admin import KafkaAdmin
from broker.record import Outgoing, TopicPartition
from broker.routing import AclRule, connector_rights, kommune_topics, soknad_topic
from schemas.errors import BrokerUnavailableError, ConfigurationError
from schemas.names import Kommunenummer

if TYPE_CHECKING:
    from conftest import KafkaHelp

pytestmark = pytest.mark.kafka


async def test_topics_are_created_once_with_their_settings(kafka: KafkaHelp) -> None:
    kommunenummer = Kommunenummer("8001")
    specs = kommune_topics(kommunenummer, partitions=3)
    assert await kafka.admin.ensure_topics(specs) == {spec.name for spec in specs}
    assert await kafka.admin.ensure_topics(specs) == frozenset()
    assert await kafka.admin.describe_topics(spec.name for spec in specs) == {spec.name: 3 for spec in specs}
    for spec in specs:
        assert await kafka.admin.topic_config(spec.name) == dict(spec.config)


async def test_a_setting_that_differs_is_set(kafka: KafkaHelp) -> None:
    (spec, *_) = kommune_topics(await kafka.new_kommune())
    changed = replace(spec, config={**spec.config, "retention.ms": "1000000"})
    await kafka.admin.ensure_topics([changed])
    assert (await kafka.admin.topic_config(spec.name))["retention.ms"] == "1000000"
    await kafka.admin.ensure_topics([spec])
    assert (await kafka.admin.topic_config(spec.name))["retention.ms"] == spec.config["retention.ms"]


async def test_another_number_of_partitions_is_refused_and_nothing_is_changed(kafka: KafkaHelp) -> None:
    kommunenummer = await kafka.new_kommune(partitions=2)
    missing = replace(kommune_topics(kommunenummer)[0], name="fiks.8002.soknad.v1")
    with pytest.raises(ConfigurationError, match=soknad_topic(kommunenummer)):
        await kafka.admin.ensure_topics([missing, *kommune_topics(kommunenummer, partitions=4)])
    assert await kafka.admin.describe_topics([missing.name]) == {}


async def test_a_deleted_topic_is_gone_when_the_call_returns(kafka: KafkaHelp) -> None:
    topic = soknad_topic(await kafka.new_kommune())
    await kafka.admin.delete_topics([topic])
    assert topic not in await kafka.admin.list_topics()
    await kafka.admin.delete_topics([topic])


async def test_rights_are_given_once_shown_and_taken_away(kafka: KafkaHelp) -> None:
    name = f"acl-{secrets.token_hex(4)}"
    rules = connector_rights(name, "acme", Kommunenummer("8003"))
    single = {replace(rule, operations=(operation,)) for rule in rules for operation in rule.operations}
    await kafka.admin.ensure_acls(rules)
    await kafka.admin.ensure_acls(rules)
    assert await kafka.admin.describe_acls(name) == single
    await kafka.admin.delete_acls(rules[1:])
    assert await kafka.admin.describe_acls(name) == {AclRule(name, "topic", "fiks.8003.soknad.v1", ("READ",))}
    await kafka.admin.delete_acls(rules)
    assert await kafka.admin.describe_acls(name) == frozenset()
    await kafka.admin.delete_acls([])


async def test_users_come_get_a_new_password_and_go(kafka: KafkaHelp) -> None:
    name = f"user-{secrets.token_hex(4)}"
    await kafka.admin.upsert_user(name, "one")
    assert name in await kafka.admin.users()
    await kafka.admin.upsert_user(name, "two")
    rules = connector_rights(name, "acme", await kafka.new_kommune())
    await kafka.admin.ensure_acls(rules)
    async with asyncio.timeout(10):
        await kafka.publisher(kafka.admin_settings.as_user(name, "two"))
    await kafka.admin.delete_user(name)
    assert name not in await kafka.admin.users()


async def test_what_is_deleted_is_gone_and_the_end_stays_where_it_was(kafka: KafkaHelp) -> None:
    topic = soknad_topic(await kafka.new_kommune(partitions=1))
    publisher = await kafka.publisher()
    await publisher.publish_all([Outgoing(topic, b"k", b"v")] * 5)
    partition = TopicPartition(topic, 0)
    assert await kafka.admin.end_offsets([topic]) == {partition: 5}
    await kafka.admin.delete_records({partition: 3})
    tail = await kafka.tail([topic])
    assert [record.offset for record in await kafka.take(tail, 2)] == [3, 4]
    assert await kafka.admin.end_offsets(["fiks.0000.soknad.v1"]) == {}


async def test_a_broker_that_is_away_is_told_in_time(kafka: KafkaHelp) -> None:
    away = kafka.admin_settings.model_copy(update={"bootstrap": "127.0.0.1:9"})
    async with KafkaAdmin(away, timeout_s=1) as admin:
        with pytest.raises(BrokerUnavailableError):
            await admin.list_topics()
        with pytest.raises(BrokerUnavailableError):
            await admin.ensure_topics(kommune_topics(Kommunenummer("8004")))
