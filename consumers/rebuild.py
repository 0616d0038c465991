"""Brings the local store up to date with the kommune's kvittering topic, before anything is delivered.

After a lost disk this is where the store comes from; after a rebalance it is how this process learns what another one answered.
Only kvitteringer that this very connector signed are taken over; what others wrote there is the central side's concern.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.catch_up import read_until_caught_up
from broker.krasj import crash_point
from broker.log import get_logger
from broker.routing import kvittering_topic
from consumers.job import unexpected
from schemas.codec import decode
from schemas.errors import DecodeError, MeldingsformidlerError, SignatureError
from schemas.records import KvitteringRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.ports import OpenTail
    from broker.record import Incoming, TopicPartition
    from consumers.dedup import DedupStore
    from consumers.issued import Issued
    from consumers.kvitteringer import Issuer
    from consumers.topic_guard import TopicGuard
    from schemas.names import Kommunenummer


class Rebuilder:
    """Works for one kommune.

    Args:
        kommunenummer: The kommune.
        issuer: Whose kvitteringer count.
        store: The local store.
        open_tail: Reads Kafka.
        guard: Judges whether the topics are the ones that the store knows; None judges nothing.
    """

    def __init__(
        self,
        kommunenummer: Kommunenummer,
        *,
        issuer: Issuer,
        store: DedupStore,
        open_tail: OpenTail,
        guard: TopicGuard | None = None,
    ) -> None:
        self._kommunenummer = kommunenummer
        self._issuer = issuer
        self._store = store
        self._open_tail = open_tail
        self._guard = guard

    async def catch_up(self) -> None:
        """Return when everything that lies on the topic now is in the store.

        Raises:
            TopicChangedError: A topic is another one than before.
            TransportError: Kafka does not answer, or refuses.
            StoreError: The store cannot be written.
        """
        if self._guard is not None:
            await self._guard.check()
        topic = kvittering_topic(self._kommunenummer)
        async with self._open_tail([topic], await self._store.positions(topic)) as tail:
            await read_until_caught_up(tail, self._take_in)

    async def dead_keys(self) -> frozenset[str]:
        """Return the keys that are dead, as the store knows them when it has caught up.

        Raises:
            StoreError: The store cannot be read.
        """
        return await self._store.dead_keys(self._kommunenummer)

    async def _take_in(self, batch: Sequence[Incoming]) -> None:
        found: dict[TopicPartition, list[Issued]] = {}
        reached: dict[TopicPartition, int] = {}
        for incoming in batch:
            issued = self._ours(incoming)
            found.setdefault(incoming.topic_partition, []).extend([issued] if issued else [])
            reached[incoming.topic_partition] = incoming.offset + 1
        for partition, kvitteringer in found.items():
            crash_point("consumers.rebuild.before-store")
            await self._store.take_over(kvitteringer, partition, reached[partition])
            crash_point("consumers.rebuild.after-store")

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
        except Exception as error:  # noqa: BLE001 - one record on a topic must never keep a kommune from its søknader
            unexpected(error, incoming)
            return None
