"""Reading through aiokafka: as a member of a group (``KafkaSubscriber``), or everything from the beginning (``KafkaTail``).

Rules:

1. Nothing is committed but by ``commit``; a group without a commit starts at the beginning; only committed transactions are
   seen.
2. A header's name is others' to choose, and stops nobody (``broker.kafka.lenient``).
3. aiokafka logs and drops what a rebalance listener raises. Ours is kept and raised from the iteration.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Self

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as AioPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.partitioner import murmur2

from broker.kafka import lenient
from broker.kafka.errors import mapped
from broker.kafka.login import check_login
from broker.record import Incoming, TopicPartition
from schemas.errors import BrokerUnavailableError, PartitionLostError, TopicShorterError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
    from types import TracebackType

    from aiokafka.structs import ConsumerRecord

    from broker.kafka.settings import KafkaSettings
    from broker.ports import RebalanceListener

POLL_MS: Final = 1_000
"""How long one poll waits for records; an iteration polls until there are some."""
MAX_RECORDS: Final = 500

lenient.install()


class KafkaSubscriber:
    """A ``Subscriber``. Use as an asynchronous context manager, or call ``start`` and ``stop``.

    Args:
        settings: Where, and as whom.
        topics: What to read; all must exist.
        group: The consumer group's name.
        listener: Is told when partitions come and go.
        client_id: Shown in the broker's log and metrics.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Iterable[str],
        *,
        group: str,
        listener: RebalanceListener | None = None,
        client_id: str = "meldingsformidler",
    ) -> None:
        self._settings = settings
        self._topics = tuple(topics)
        self._relay = _ListenerRelay(listener)
        self._stopped = False
        self._consumer = AIOKafkaConsumer(
            **settings.connection(),
            client_id=client_id,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.session_timeout_ms // 3,
            request_timeout_ms=settings.request_timeout_ms,
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect, join the group and wait for the first assignment, which may be empty.

        Raises:
            BrokerUnavailableError: Nobody answers, or a topic is not there (yet).
            AccessDeniedError: Credentials are refused, or a right is missing.
        """
        self._consumer.subscribe(self._topics, listener=self._relay)
        await _start(self._consumer, self._settings)

    async def stop(self) -> None:
        """Tell the listener that all partitions are revoked, leave the group and disconnect. May be called twice."""
        if self._stopped:
            return
        self._stopped = True
        try:
            await self._relay.revoke_all()
        finally:
            await self._consumer.stop()

    async def __aiter__(self) -> AsyncIterator[Sequence[Incoming]]:
        """Iterate over batches; see ``Subscriber.__aiter__``. Ends when the subscriber is stopped."""
        while not self._stopped:
            batch = await self._poll()
            if batch:
                yield batch

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit; see ``Subscriber.commit``. What is still ours is committed even if another partition is lost."""
        ours = {TopicPartition(*one) for one in self._consumer.assignment()}
        kept = {AioPartition(*partition): offset for partition, offset in offsets.items() if partition in ours}
        if kept:
            with mapped():
                async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                    await self._consumer.commit(kept)
        if len(kept) < len(offsets):
            raise PartitionLostError("partisjonen er ikke lenger vår")

    def pause(self, *partitions: TopicPartition) -> None:
        """Stop reading these; see ``Subscriber.pause``."""
        self._consumer.pause(*self._owned(partitions))

    def resume(self, *partitions: TopicPartition) -> None:
        """Read these again; see ``Subscriber.resume``."""
        self._consumer.resume(*self._owned(partitions))

    def partition_of(self, topic: str, key: bytes) -> int | None:
        """Return the partition where our publisher puts records with this key; None while the topic is not known."""
        partitions = sorted(self._consumer.partitions_for_topic(topic) or ())
        return partitions[(murmur2(key) & 0x7FFFFFFF) % len(partitions)] if partitions else None

    async def positions(self) -> dict[TopicPartition, int]:
        """Return the offset after the last record that was handed out, for each partition that is ours."""
        with mapped():
            return {TopicPartition(*one): await self._consumer.position(one) for one in self._consumer.assignment()}

    async def _poll(self) -> tuple[Incoming, ...]:
        with mapped():
            found = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)
        self._relay.raise_failure()
        return tuple(incoming(one) for records in found.values() for one in records)

    def _owned(self, partitions: Iterable[TopicPartition]) -> list[AioPartition]:
        ours = self._consumer.assignment()
        return [one for one in (AioPartition(*partition) for partition in partitions) if one in ours]


class KafkaTail:
    """Reads whole topics from the first record on, and follows them; no group, no commits.

    For what is rebuilt from a topic at each start: the katalog, the status.

    Args:
        settings: Where, and as whom.
        topics: What to read, all partitions; all must exist.
        offsets: Where to read on, for a reader that keeps what it has read; partitions that are not named start at the
            beginning.
        client_id: Shown in the broker's log and metrics.
        only_offsets: Read the partitions that ``offsets`` names, and no others.

    Attributes:
        caught_up: Set when everything that lay on the topics at ``start`` was handed out *and* the caller came back for more,
            so that a single reader has then dealt with it.
        first: The first offset that each partition still had at ``start``.
        total: How many records there were to read at ``start``, holes counted.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Iterable[str],
        *,
        offsets: Mapping[TopicPartition, int] | None = None,
        client_id: str = "meldingsformidler",
        only_offsets: bool = False,
    ) -> None:
        self._settings = settings
        self._topics = tuple(topics)
        self._offsets = offsets or {}
        self._stopped = False
        self._ends: dict[AioPartition, int] = {}
        self._handed_out = False
        self.first: Mapping[TopicPartition, int] = {}
        self.total = 0
        self.caught_up = asyncio.Event()
        self._chosen = [AioPartition(*partition) for partition in self._offsets] if only_offsets else []
        self._consumer = AIOKafkaConsumer(
            *(() if only_offsets else self._topics),
            **settings.connection(),
            client_id=client_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            request_timeout_ms=settings.request_timeout_ms,
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect and note where the topics end now.

        Raises:
            BrokerUnavailableError: Nobody answers, or a topic is not there (yet).
            AccessDeniedError: Credentials are refused, or a right is missing.
            TopicShorterError: A topic ends before its offset: it was deleted and made again, and what we keep is of another
            one.
        """
        await _start(self._consumer, self._settings)
        try:
            with mapped():
                if self._chosen:
                    self._consumer.assign(self._chosen)
                partitions = self._consumer.assignment()
                self._ends = await self._consumer.end_offsets(partitions)
                first = await self._consumer.beginning_offsets(partitions)
                self._seek()
            self.first = {TopicPartition(*partition): offset for partition, offset in first.items()}
            self.total = sum(
                max(end - max(self._offsets.get(TopicPartition(*one), 0), first.get(one, 0)), 0)
                for one, end in self._ends.items()
            )
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Disconnect. May be called twice."""
        if not self._stopped:
            self._stopped = True
            await self._consumer.stop()

    async def __aiter__(self) -> AsyncIterator[Sequence[Incoming]]:
        """Iterate over batches, never empty, in order for each partition.

        Raises:
            AccessDeniedError: Our principal may not read these topics.
            TransportError: Reading cannot go on. Outages are waited out and do not come out of here.
        """
        while not self._stopped:
            end_if_cancelled()
            await self._note_progress()
            with mapped():
                found = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)
            batch = tuple(incoming(one) for records in found.values() for one in records)
            if batch:
                self._handed_out = True
                yield batch
                self._handed_out = False

    async def ends(self, topics: Collection[str]) -> dict[TopicPartition, int]:
        """Return where those of ``topics`` that are read here end now, as the broker says.

        Raises:
            TransportError: The broker does not say.
        """
        asked = [one for one in self._consumer.assignment() if one.topic in topics]
        with mapped():
            async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                ends = await self._consumer.end_offsets(asked) if asked else {}
        return {TopicPartition(*partition): offset for partition, offset in ends.items()}

    async def has_read(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Return whether everything before these offsets was handed out *and* the caller came back for more."""
        with mapped():
            for partition, end in ends.items():
                if end > 0 and await self._consumer.position(AioPartition(*partition)) < end:
                    return False
        return not self._handed_out  # asked last: the positions go forward when a batch is fetched

    def _seek(self) -> None:
        offsets = {
            partition: offset
            for partition in self._ends
            if (offset := self._offsets.get(TopicPartition(*partition))) is not None
        }
        short = [partition for partition, offset in offsets.items() if offset > self._ends[partition]]
        if short:
            first = short[0]
            raise TopicShorterError(
                f"{first.topic} slutter på {self._ends[first]}, men er lest til {offsets[first]}: er emnet laget på nytt?",
                topics=frozenset(partition.topic for partition in short),
            )
        for partition, offset in offsets.items():
            self._consumer.seek(partition, offset)

    async def _note_progress(self) -> None:
        if self.caught_up.is_set():
            return
        with mapped():
            for partition, end in tuple(self._ends.items()):
                if end == 0 or await self._consumer.position(partition) >= end:
                    del self._ends[partition]
        if not self._ends:
            self.caught_up.set()


def read_from_start(settings: KafkaSettings, topics: Iterable[str]) -> KafkaTail:
    """Return a reader of all that lies on ``topics``, and of what comes; start it with ``async with``."""
    return KafkaTail(settings, topics)


class _ListenerRelay(ConsumerRebalanceListener):
    """Stands between aiokafka and our listener (rule 3)."""

    def __init__(self, listener: RebalanceListener | None) -> None:
        self._listener = listener
        self._owned: frozenset[TopicPartition] = frozenset()
        self._failure: Exception | None = None

    async def on_partitions_revoked(self, revoked: set[AioPartition]) -> None:
        """Pass on; called by aiokafka."""
        if revoked:
            await self.revoke_all()

    async def on_partitions_assigned(self, assigned: set[AioPartition]) -> None:
        """Pass on; called by aiokafka."""
        self._owned = frozenset(TopicPartition(*one) for one in assigned)
        if self._listener is not None:
            try:
                await self._listener.assigned(self._owned)
            except Exception as error:  # noqa: BLE001  # kept, and raised from the iteration
                self._failure = error

    async def revoke_all(self) -> None:
        """Tell the listener that it has nothing any more; aiokafka's protocol is eager, so it is always everything."""
        owned, self._owned = self._owned, frozenset()
        if owned and self._listener is not None:
            try:
                await self._listener.revoked(owned)
            except Exception as error:  # noqa: BLE001  # kept, and raised from the iteration
                self._failure = error

    def raise_failure(self) -> None:
        """Raise what the listener raised."""
        if self._failure is not None:
            raise self._failure


async def _start(consumer: AIOKafkaConsumer, settings: KafkaSettings) -> None:
    """Start within the request time-out, or leave nothing behind."""
    try:
        with mapped():
            async with asyncio.timeout(settings.request_timeout_ms / 1000):
                await consumer.start()
        end_if_cancelled()
    except BrokerUnavailableError:
        await consumer.stop()
        end_if_cancelled()
        await check_login(settings)
        raise
    except BaseException:
        await consumer.stop()
        end_if_cancelled()
        raise


def end_if_cancelled() -> None:
    """Raise the cancellation of this task again when it got lost on the way.

    ``asyncio.wait_for``, which aiokafka waits with, loses one in Python 3.11 when what it waited for ends at the same moment.
    Whoever tries again after each error would then never end.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def incoming(record: ConsumerRecord) -> Incoming:
    """Return aiokafka's record as ours."""
    return Incoming(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=record.key or b"",
        value=record.value or b"",
        headers=tuple((name, value or b"") for name, value in record.headers),
    )
