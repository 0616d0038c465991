from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from broker.kafka.admin import KafkaAdmin
from broker.record import Outgoing, RecordPosition
from broker.routing import (
    KATALOG,
    REVISJON,
    STATUS,
    TRANSPORT,
    AclRule,
    central_topics,
    connector_rights,
    consumer_group,
    dead_letter_topic,
    hendelse_topic,
    kommune_topics,
    kvittering_topic,
    soknad_topic,
)
from schemas.errors import AccessDeniedError, TransportError

if TYPE_CHECKING:
    from conftest import KafkaHelp

    from broker.kafka.settings import KafkaSettings
    from schemas.names import Kommunenummer

pytestmark = pytest.mark.kafka


async def may_write(kafka: KafkaHelp, settings: KafkaSettings, topics: list[str]) -> set[str]:
    publisher = await kafka.publisher(settings)
    allowed: set[str] = set()
    for topic in topics:
        try:
            await publisher.publish(Outgoing(topic, b"k", b"v"))
        except AccessDeniedError:
            continue
        allowed.add(topic)
    return allowed


async def may_read(kafka: KafkaHelp, settings: KafkaSettings, topics: list[str]) -> set[str]:
    publisher = await kafka.publisher()
    allowed: set[str] = set()
    for topic in topics:
        await publisher.publish(Outgoing(topic, b"k", b"v"))
        try:
            await anext(aiter(await kafka.tail([topic], settings)))
        except AccessDeniedError:
            continue
        allowed.add(topic)
    return allowed


def all_topics(*kommunenummer: Kommunenummer) -> list[str]:
    specs = [spec for one in kommunenummer for spec in kommune_topics(one)]
    return [spec.name for spec in (*specs, *central_topics())]


async def test_a_connector_may_do_what_its_kommune_needs_and_nothing_else(kafka: KafkaHelp) -> None:
    own, foreign = await kafka.new_kommune(), await kafka.new_kommune()
    await kafka.admin.ensure_topics(central_topics())
    connector = await kafka.connector(own)
    everything = all_topics(own, foreign)
    assert await may_write(kafka, connector, everything) == {
        kvittering_topic(own),
        hendelse_topic(own),
        dead_letter_topic(own),
    }
    assert await may_read(kafka, connector, everything) == {soknad_topic(own), kvittering_topic(own)}


async def test_a_connector_sees_no_topic_that_is_not_its_own(kafka: KafkaHelp) -> None:
    own = await kafka.new_kommune()
    await kafka.new_kommune()
    await kafka.admin.ensure_topics(central_topics())
    async with KafkaAdmin(await kafka.connector(own)) as admin:
        assert await admin.list_topics() == {spec.name for spec in kommune_topics(own)}
        with pytest.raises(AccessDeniedError):
            await admin.ensure_topics(kommune_topics(own, partitions=2)[:1])


async def test_a_connector_joins_no_group_but_its_vendors(kafka: KafkaHelp) -> None:
    own = await kafka.new_kommune()
    connector = await kafka.connector(own)
    topic = soknad_topic(own)
    await kafka.subscriber([topic], group=consumer_group(kafka.vendor, own), settings=connector)
    with pytest.raises(AccessDeniedError):
        await kafka.subscriber([topic], group=consumer_group("other", own), settings=connector)


async def test_each_process_may_do_what_the_design_says(kafka: KafkaHelp) -> None:
    own, foreign = await kafka.new_kommune(), await kafka.new_kommune()
    everything = all_topics(own, foreign)
    producers = await kafka.process("producers", own)
    assert await may_write(kafka, producers, everything) == {soknad_topic(own), TRANSPORT, REVISJON}
    assert await may_read(kafka, producers, everything) == {kvittering_topic(own), KATALOG, TRANSPORT}

    kvittering = await kafka.process("kvittering", own)
    assert await may_write(kafka, kvittering, everything) == {TRANSPORT, STATUS, REVISJON, "fiks.kvittering.v1.dlq"}
    assert await may_read(kafka, kvittering, everything) == {
        kvittering_topic(own),
        hendelse_topic(own),
        TRANSPORT,
        KATALOG,
    }

    broker = await kafka.process("broker", own)
    assert await may_write(kafka, broker, everything) == {soknad_topic(own), KATALOG, REVISJON}
    assert await may_read(kafka, broker, everything) == {
        dead_letter_topic(own),
        kvittering_topic(own),
        KATALOG,
        REVISJON,
        "fiks.kvittering.v1.dlq",
    }


async def test_a_right_given_later_is_enough_without_a_new_publisher(kafka: KafkaHelp) -> None:
    own = await kafka.new_kommune()
    name = f"late-{secrets.token_hex(4)}"
    first = AclRule(name, "topic", hendelse_topic(own), ("WRITE",))
    publisher = await kafka.publisher(await kafka.principal(name, [first]))
    outgoing = Outgoing(soknad_topic(own), b"k", b"v")
    with pytest.raises(AccessDeniedError):
        await publisher.publish(outgoing)
    await kafka.admin.ensure_acls([AclRule(name, "topic", outgoing.topic, ("WRITE",))])
    assert isinstance(await publisher.publish(outgoing), RecordPosition)


async def test_who_may_write_nowhere_is_refused_at_the_start(kafka: KafkaHelp) -> None:
    with pytest.raises(AccessDeniedError):
        await kafka.publisher(await kafka.principal(f"nobody-{secrets.token_hex(4)}"))


async def test_a_right_taken_away_is_missed_at_once_and_by_nobody_else(kafka: KafkaHelp) -> None:
    own = await kafka.new_kommune()
    name = f"fired-{secrets.token_hex(4)}"
    rules = connector_rights(name, kafka.vendor, own)
    publisher = await kafka.publisher(await kafka.principal(name, rules))
    other = await kafka.publisher(await kafka.connector(own))
    outgoing = Outgoing(kvittering_topic(own), b"k", b"v")
    await publisher.publish(outgoing)
    await kafka.admin.delete_acls(rules)
    with pytest.raises(AccessDeniedError):
        await publisher.publish(outgoing)
    assert isinstance(await other.publish(outgoing), RecordPosition)


async def test_a_wrong_password_is_refused_for_reading_and_administration_too(kafka: KafkaHelp) -> None:
    own = await kafka.new_kommune()
    wrong = (await kafka.connector(own)).as_user("admin", "wrong")
    with pytest.raises(AccessDeniedError):
        await kafka.subscriber([soknad_topic(own)], group=consumer_group(kafka.vendor, own), settings=wrong)
    async with KafkaAdmin(wrong, timeout_s=2) as admin:
        with pytest.raises(TransportError):
            await admin.list_topics()


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
@pytest.mark.parametrize("listener", ["port", "controller_port"])
async def test_no_listener_lets_anybody_in_without_a_password(kafka: KafkaHelp, listener: str, protocol: str) -> None:
    state = kafka.server.folder.state()
    assert state is not None
    options = {"bootstrap.servers": f"127.0.0.1:{getattr(state, listener)}", "security.protocol": protocol}
    if protocol == "SASL_PLAINTEXT":
        options |= {"sasl.mechanisms": "PLAIN", "sasl.username": "node", "sasl.password": "guess"}
    with pytest.raises(KafkaException):
        AdminClient({**options, "log_level": 0}).list_topics(timeout=1)
