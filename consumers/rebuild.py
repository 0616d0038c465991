"""Brings the local store up to date with the kommune's kvittering topic, before anything is delivered.

After a lost disk this is where the store comes from; after a rebalance it is how this process learns what another one answered.
Only kvitteringer that this very connector signed are taken over; what others wrote there is the central side's concern.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from broker.log import get_logger
from broker.routing import kvittering_topic
from schemas.codec import decode
from schemas.errors import DecodeError, MeldingsformidlerError, SignatureError
from schemas.records import KvitteringRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from broker.record import Incoming, TopicPartition
    from consumers.dedup import DedupStore, Issued
    from consumers.kvitteringer import Issuer
    from schemas.names import Kommunenummer


class Tail(Protocol):
    """What is read of ``broker.kafka.subscriber.KafkaTail``."""

    caught_up: asyncio.Event

    def __aiter__(self) -> AsyncIterator[Sequence[Incoming]]:
        """Iterate over batches."""
        ...


if TYPE_CHECKING:
    OpenTail = Callable[[Iterable[str], Mapping[TopicPartition, int]], AbstractAsyncContextManager[Tail]]
    """Opens a reader of topics, from these offsets on."""


class Rebuilder:
    """Works for one kommune.

    Args:
        kommunenummer: The kommune.
        issuer: Whose kvitteringer count.
        store: The local store.
        open_tail: Reads Kafka.
    """

    def __init__(self, kommunenummer: Kommunenummer, *, issuer: Issuer, store: DedupStore, open_tail: OpenTail) -> None:
        self._kommunenummer = kommunenummer
        self._issuer = issuer
        self._store = store
        self._open_tail = open_tail

    async def catch_up(self) -> None:
        """Return when everything that lies on the topic now is in the store.

        Raises:
            TransportError: Kafka does not answer, or refuses.
            StoreError: The store cannot be written.
        """
        topic = kvittering_topic(self._kommunenummer)
        async with self._open_tail([topic], await self._store.positions(topic)) as tail:
            reader = asyncio.ensure_future(self._read(tail))
            done = asyncio.ensure_future(tail.caught_up.wait())
            try:
                await asyncio.wait((reader, done), return_when=asyncio.FIRST_COMPLETED)
                if reader.done():
                    reader.result()
            finally:
                for task in (reader, done):
                    task.cancel()
                await asyncio.gather(reader, done, return_exceptions=True)

    async def _read(self, tail: Tail) -> None:
        async for batch in tail:
            found: dict[TopicPartition, list[Issued]] = {}
            reached: dict[TopicPartition, int] = {}
            for incoming in batch:
                issued = self._ours(incoming)
                found.setdefault(incoming.topic_partition, []).extend([issued] if issued else [])
                reached[incoming.topic_partition] = incoming.offset + 1
            for partition, kvitteringer in found.items():
                await self._store.take_over(kvitteringer, partition, reached[partition])

    def _ours(self, incoming: Incoming) -> Issued | None:
        try:
            return self._issuer.verify(decode(KvitteringRecord, incoming.value).jws)
        except (SignatureError, DecodeError):
            return None
        except MeldingsformidlerError as error:
            get_logger().warning(
                "kvittering_passed_over", topic=incoming.topic, partition=incoming.partition, offset=incoming.offset,
                exc_info=error,
            )  # fmt: skip
            return None
