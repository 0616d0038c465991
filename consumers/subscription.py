"""What a session needs of its subscription to Kafka, beside what every ``Subscriber`` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from broker.ports import Subscriber

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.record import TopicPartition


class Subscription(Subscriber, Protocol):
    """A ``Subscriber`` that is started and stopped, and knows where records are."""

    async def start(self) -> None:
        """Join the group."""
        ...

    async def stop(self) -> None:
        """Tell the listener that all partitions are revoked, and leave the group. May be called twice."""
        ...

    def partition_of(self, topic: str, key: bytes) -> int | None:
        """Return the partition of records with this key; None while the topic is not known."""
        ...

    async def positions(self) -> Mapping[TopicPartition, int]:
        """Return the offset after the last record that was handed out, for each partition that is ours."""
        ...
