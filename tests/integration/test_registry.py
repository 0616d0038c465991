"""Confluent's own client, which shares no code with us, reads our topics through our registry."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

from broker.app import create_app
from broker.katalog import Katalog
from broker.record import Outgoing
from broker.routing import soknad_topic
from broker.web import Health, serve
from schemas.codec import encode
from schemas.records import RECORD_TYPES, Record
from schemas.registry import SCHEMAS, latest, versions

if TYPE_CHECKING:
    from broker.kafka.settings import KafkaSettings

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="session")
def records() -> dict[str, Record]:
    path = Path(__file__).parents[1] / "vectors" / "avro" / "generate_avro.py"
    spec = importlib.util.spec_from_file_location("generate_avro", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.records()


@pytest.fixture
async def registry() -> AsyncIterator[SchemaRegistryClient]:
    """Confluent's client of the ``broker`` process' HTTP door, on a real port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stop = asyncio.Event()
    app = create_app(Katalog(), Health(), None)
    serving = asyncio.create_task(serve(app, "127.0.0.1", port, stop))
    async with asyncio.timeout(20):
        while not _listens(port):  # noqa: ASYNC110  # the port is another task's, which has no event for it
            await asyncio.sleep(0.01)
    with SchemaRegistryClient({"url": f"http://127.0.0.1:{port}/registry"}) as client:
        yield client
    stop.set()
    await serving


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_confluents_client_finds_every_schema(registry: SchemaRegistryClient) -> None:
    def look() -> None:
        assert registry.get_subjects() == sorted({schema.subject for schema in SCHEMAS})
        for schema in SCHEMAS:
            assert registry.get_schema(schema.id).schema_str == schema.text
            one = registry.get_version(schema.subject, schema.version)
            assert (one.schema_id, one.version) == (schema.id, schema.version)
        for kind in RECORD_TYPES:
            newest = registry.get_latest_version(latest(kind).subject)
            assert (newest.schema_id, newest.version) == (latest(kind).id, latest(kind).version)
            assert registry.get_versions(latest(kind).subject) == [schema.version for schema in versions(kind)]
        assert registry.get_compatibility() == "FULL_TRANSITIVE"

    await asyncio.to_thread(look)


async def test_confluents_client_is_told_what_is_not_there(registry: SchemaRegistryClient) -> None:
    with pytest.raises(SchemaRegistryError) as caught:
        await asyncio.to_thread(registry.get_latest_version, "finnes-ikke-value")
    assert caught.value.error_code == 40401


async def test_confluents_reader_understands_every_kind_of_record_from_a_real_topic(
    kafka: Any, registry: SchemaRegistryClient, records: dict[str, Record]
) -> None:
    topic = soknad_topic(await kafka.new_kommune(partitions=1))
    publisher = await kafka.publisher()
    for kind in RECORD_TYPES:
        await publisher.publish(Outgoing(topic, kind.encode(), encode(records[kind]), ()))

    read = await asyncio.to_thread(
        _read_all, kafka.admin_settings, topic, len(RECORD_TYPES), AvroDeserializer(registry)
    )

    assert set(read) == set(RECORD_TYPES)
    for kind, model in RECORD_TYPES.items():
        assert model.model_validate(read[kind]) == records[kind], kind


def _read_all(settings: KafkaSettings, topic: str, count: int, decode: Callable[..., Any]) -> dict[str, Any]:
    """Return what Confluent's consumer and deserializer make of the topic, by key."""
    password = settings.password
    assert password is not None
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": settings.username,
            "sasl.password": password.get_secret_value(),
            "group.id": f"confluent-{topic}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    found: dict[str, Any] = {}
    try:
        consumer.subscribe([topic])
        for _ in range(60):
            message = consumer.poll(1.0)
            if message is not None and message.error() is None:
                context = SerializationContext(topic, MessageField.VALUE)
                found[message.key().decode()] = decode(message.value(), context)
            if len(found) == count:
                break
    finally:
        consumer.close()
    return found
