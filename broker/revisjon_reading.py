"""Reading ``fiks.revisjon.v1`` as an operator's command does: to its present end, and no further."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.catch_up import read_until_caught_up
from broker.kafka.admin import KafkaAdmin
from broker.kafka.subscriber import KafkaTail
from broker.revisjonskontroll import read_act
from broker.routing import REVISJON

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.kafka.settings import KafkaSettings
    from broker.record import Incoming, TopicPartition
    from broker.revisjonskontroll import Act
    from schemas.names import Sha256

FIRST_LOOK: Final = 1_000
LOOK_FURTHER: Final = 20


async def read_records(
    settings: KafkaSettings, topics: Sequence[str], offsets: Mapping[TopicPartition, int] | None = None
) -> list[Incoming]:
    """Return all that lies on ``topics`` now, from ``offsets`` on; for topics that fit in memory.

    Raises:
        TransportError: Kafka does not answer, or refuses.
    """
    found: list[Incoming] = []

    async def keep(batch: Sequence[Incoming]) -> None:
        found.extend(batch)

    async with KafkaTail(settings, topics, offsets=offsets) as tail:
        await read_until_caught_up(tail, keep)
    return found


async def read_acts(settings: KafkaSettings, *, since_ms: int | None = None) -> list[Act]:
    """Return the acts that Kafka took at ``since_ms`` (since 1970) or later, or all that can be read.

    Raises:
        TransportError: Kafka does not answer, or refuses.
    """
    offsets = None
    if since_ms is not None:
        async with KafkaAdmin(settings) as admin:
            offsets = await admin.offsets_from([REVISJON], since_ms)
    records = await read_records(settings, [REVISJON], offsets)
    return [act for act in map(read_act, records) if act is not None]


async def find_head(settings: KafkaSettings, aktor: str) -> Sha256 | None:
    """Return the digest of the actor's last record, or None: looks at the end of the topic first, then further and further back.

    Raises:
        TransportError: Kafka does not answer, or refuses.
    """
    async with KafkaAdmin(settings) as admin:
        ends, starts = await admin.end_offsets([REVISJON]), await admin.start_offsets([REVISJON])
    look = FIRST_LOOK
    while True:
        offsets = {partition: max(end - look, starts[partition]) for partition, end in ends.items()}
        records = await read_records(settings, [REVISJON], offsets)
        own = [act for act in map(read_act, records) if act is not None and act.record.aktor == aktor]
        if own:
            return own[-1].digest
        if offsets == starts:
            return None
        look *= LOOK_FURTHER
