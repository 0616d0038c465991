"""Somebody with rights to a topic that nobody should have, who changes a message on its way.

They take the søknad off the topic before the kommune has read it, change one byte of the sealed package, put the digest right
so that it fits again, and lay it back under the same key with the same headers. Only the signature inside can tell.
"""

from __future__ import annotations

import asyncio
from typing import Final

from broker.kafka.admin import KafkaAdmin
from broker.kafka.publisher import KafkaPublisher
from broker.kafka.settings import KafkaSettings
from broker.kafka.subscriber import read_from_start
from broker.record import Incoming, Outgoing, TopicPartition
from broker.routing import soknad_topic
from schemas.codec import decode, encode
from schemas.names import Kommunenummer, Sha256
from schemas.records import SoknadRecord

WITHIN_S: Final = 30.0


async def tamper(kafka: KafkaSettings, kommunenummer: Kommunenummer) -> SoknadRecord:
    """Tamper with the first søknad on the kommune's topic, and return what was laid back.

    Raises:
        TimeoutError: No søknad came within half a minute.
    """
    async with asyncio.timeout(WITHIN_S):
        found = await _first(kafka, kommunenummer)
    record = changed(decode(SoknadRecord, found.value))
    async with KafkaAdmin(kafka) as admin:
        await admin.delete_records({TopicPartition(found.topic, found.partition): found.offset + 1})
    async with KafkaPublisher(kafka, client_id="angriper") as publisher:
        await publisher.publish(Outgoing(found.topic, found.key, encode(record), found.headers))
    return record


def changed(record: SoknadRecord) -> SoknadRecord:
    """Return ``record`` with one bit of its package changed and its digest put right."""
    package = bytearray(record.pakke or b"")
    middle = len(package) // 2
    package[middle] ^= 0x01
    return record.model_copy(update={"pakke": bytes(package), "sha256": Sha256.of(bytes(package))})


async def _first(kafka: KafkaSettings, kommunenummer: Kommunenummer) -> Incoming:
    async with read_from_start(kafka, [soknad_topic(kommunenummer)]) as tail:
        async for batch in tail:
            return batch[0]
    raise TimeoutError
