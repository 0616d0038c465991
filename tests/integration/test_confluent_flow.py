"""Confluent's own client reads what a real day puts on every topic: søknad, answers, dead letters, katalog and status."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from broker.kafka.publisher import KafkaPublisher
from broker.record import Outgoing
from broker.routing import (
    KATALOG,
    KVITTERING_DLQ,
    STATUS,
    TRANSPORT,
    dead_letter_topic,
    hendelse_topic,
    kvittering_topic,
    soknad_topic,
)
from broker.supervisor.bootstrap import bootstrap, choose_connectors
from broker.supervisor.up import running
from producers.demo.plan import plan_day
from producers.demo.portal import Portal
from schemas.names import DigisosId, Kommunenummer

if TYPE_CHECKING:
    from broker.kafka.settings import KafkaSettings

pytestmark = pytest.mark.kafka

KOMMUNER = tuple(Kommunenummer(number) for number in ("4641", "1811", "5612"))
WITHIN_S = 60.0


async def test_every_topic_of_a_real_day_is_read_by_confluents_deserializer(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    layout = bootstrap(tmp_path / "data", choose_connectors(KOMMUNER), now)
    soknad = next(s for s in plan_day(5, 8, KOMMUNER, now).soknader if s.kommunenummer == KOMMUNER[0])
    number, unknown = soknad.kommunenummer, DigisosId.new()
    async with running(layout, external=None, report=lambda _: None) as up, httpx.AsyncClient(timeout=30) as http:
        portal = Portal.of(layout, http)
        digisos_id = (await portal.send(soknad, await portal.public_key(soknad.person))).digisos_id
        async with asyncio.timeout(WITHIN_S), KafkaPublisher(up.kafka) as stranger:
            async for view in portal.follow(digisos_id, soknad.person):
                if view["status"] == "FERDIGBEHANDLET":
                    break
            await stranger.publish(Outgoing(soknad_topic(number), unknown.encode(), b"fremmed"))
            await stranger.publish(Outgoing(kvittering_topic(number), unknown.encode(), b"fremmed"))
        expected = {
            soknad_topic(number): str(digisos_id),
            kvittering_topic(number): str(digisos_id),
            hendelse_topic(number): str(digisos_id),
            dead_letter_topic(number): str(unknown),
            KVITTERING_DLQ: str(unknown),
            TRANSPORT: str(digisos_id),
            STATUS: str(digisos_id),
            KATALOG: str(number),
        }
        with SchemaRegistryClient({"url": f"{layout.address('broker')}/registry"}) as registry:
            read = await asyncio.to_thread(read_until, up.kafka, expected, AvroDeserializer(registry))
    assert read[soknad_topic(number)]["digisosId"] == digisos_id
    assert read[kvittering_topic(number)]["status"] == "MOTTATT"
    assert read[hendelse_topic(number)]["type"] == "no.nav.digisos.digisos.soker.v1"
    assert read[dead_letter_topic(number)]["opprinnelig"]["verdi"] == b"fremmed"
    assert read[KVITTERING_DLQ]["kode"] == "kontrakt.ukjent-skjema"
    assert read[TRANSPORT]["navEksternRefId"] == soknad.ref
    assert read[STATUS]["kommunenummer"] == number
    assert read[KATALOG]["navn"]


def read_until(settings: KafkaSettings, expected: dict[str, str], decode: Any) -> dict[str, Any]:
    """Return, for each topic, the first record with the expected key, as Confluent's client understands it."""
    assert settings.password is not None
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": settings.username,
            "sasl.password": settings.password.get_secret_value(),
            "group.id": "confluent",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    found: dict[str, Any] = {}
    deadline = time.monotonic() + WITHIN_S
    try:
        consumer.subscribe(list(expected))
        while found.keys() != expected.keys():
            assert time.monotonic() < deadline, f"nothing on {sorted(expected.keys() - found.keys())}"
            message = consumer.poll(0.5)
            if message is None or message.error() is not None or message.value() == b"fremmed":
                continue
            topic = message.topic()
            if message.key().decode() == expected[topic]:
                found.setdefault(topic, decode(message.value(), SerializationContext(topic, MessageField.VALUE)))
    finally:
        consumer.close()
    return found
