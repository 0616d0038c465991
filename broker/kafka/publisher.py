"""Publishing through aiokafka: idempotent, ``acks=all``, pipelined.

Rules:

1. A record that Kafka refuses leaves a hole in the idempotent producer's sequence numbers, which aiokafka never closes: every
   later record of that partition would be refused as out of order. So after a refusal the producer is replaced, once what it
   holds is out.
2. aiokafka never gives up an idempotent batch whose broker is away. We do, after ``delivery_timeout_s``, and drop the producer
   with all that it holds, so that what the caller repeats is not also sent by the old one.
3. Ciphertext is not compressed.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Self

from aiokafka import AIOKafkaProducer
from aiokafka import errors as aio

from broker.kafka.errors import mapped
from broker.kafka.login import check_login
from broker.record import RecordPosition
from broker.routing import MAX_DEAD_LETTER_BYTES
from schemas.errors import AccessDeniedError, BrokerUnavailableError, RecordTooLargeError, TransportError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from aiokafka.structs import RecordMetadata

    from broker.kafka.settings import KafkaSettings
    from broker.record import Outgoing

MAX_BATCH_BYTES: Final = 256 * 1024
"""aiokafka's own 16 KiB costs five times as much a record of ours."""
LINGER_MS: Final = 2


class KafkaPublisher:
    """A ``Publisher``. Use as an asynchronous context manager, or call ``start`` and ``stop``.

    Args:
        settings: Where, and as whom.
        client_id: Shown in the broker's log and metrics.
        delivery_timeout_s: How long a record may be under way before its caller is told ``BrokerUnavailableError``.
    """

    def __init__(
        self, settings: KafkaSettings, *, client_id: str = "meldingsformidler", delivery_timeout_s: float = 30.0
    ) -> None:
        self._settings = settings
        self._client_id = client_id
        self._delivery_timeout_s = delivery_timeout_s
        self._producer: AIOKafkaProducer | None = None
        self._worn = False
        self._lock = asyncio.Lock()
        self._stopped = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerUnavailableError: Nobody answers. ``publish`` connects by itself later, so this may be passed over.
            AccessDeniedError: The credentials are refused.
        """
        await self._current()

    async def stop(self) -> None:
        """Send what is under way, for at most the delivery time-out, and disconnect. May be called twice."""
        self._stopped = True
        async with self._lock:
            producer, self._producer = self._producer, None
            if producer is not None:
                await _close(producer, self._delivery_timeout_s)

    async def publish(self, outgoing: Outgoing) -> RecordPosition:
        """Return when the record is durable on its topic; see ``Publisher.publish``."""
        (outcome,) = await self.publish_all((outgoing,))
        if isinstance(outcome, TransportError):
            raise outcome
        return outcome

    async def publish_all(self, batch: Iterable[Outgoing]) -> Sequence[RecordPosition | TransportError]:
        """Publish many, pipelined; see ``Publisher.publish_all``."""
        records = tuple(batch)
        try:
            producer = await self._current()
        except TransportError as error:
            return [error] * len(records)
        deadline = asyncio.get_running_loop().time() + self._delivery_timeout_s
        sent = [await self._send(producer, record, deadline) for record in records]
        return [await self._outcome(producer, record, one, deadline) for record, one in zip(records, sent, strict=True)]

    async def warm(self, topics: Iterable[str]) -> None:
        """Learn where the topics' partitions are, in one request; see ``Publisher.warm``."""
        producer = await self._current()
        with mapped():
            async with asyncio.timeout(self._delivery_timeout_s):
                # Adding is synchronous and the update is shared, so that all topics go into one request.
                await asyncio.gather(*[producer.client.add_topic(topic) for topic in topics])

    async def _send(
        self, producer: AIOKafkaProducer, record: Outgoing, deadline: float
    ) -> asyncio.Future[RecordMetadata] | TransportError:
        """Hand over one record; waits only for metadata of a new topic and for room in the buffer."""
        try:
            with mapped():
                async with asyncio.timeout_at(deadline):
                    return await producer.send(
                        record.topic, value=record.value, key=record.key, headers=list(record.headers)
                    )
        except (AccessDeniedError, RecordTooLargeError) as error:
            return error  # refused before it had a sequence number
        except TransportError as error:
            if not isinstance(error.__cause__, (TimeoutError, aio.UnknownTopicOrPartitionError)):
                await self._drop(producer)
            return error

    async def _outcome(
        self,
        producer: AIOKafkaProducer,
        record: Outgoing,
        sent: asyncio.Future[RecordMetadata] | TransportError,
        deadline: float,
    ) -> RecordPosition | TransportError:
        """Wait for Kafka's answer to one record."""
        if isinstance(sent, TransportError):
            return sent
        try:
            with mapped():
                async with asyncio.timeout_at(deadline):
                    metadata = await sent
        except BrokerUnavailableError as error:
            await self._drop(producer)
            return error
        except TransportError as error:
            self._worn = self._worn or producer is self._producer
            return error
        return RecordPosition(record.topic, metadata.partition, metadata.offset)

    async def _drop(self, producer: AIOKafkaProducer) -> None:
        """Make an end of the producer before its caller can repeat anything (rule 2)."""
        async with self._lock:
            if producer is self._producer:
                self._producer = None
                await _close(producer, 0)

    async def _current(self) -> AIOKafkaProducer:
        """Return a producer that works as far as we know, made now if need be."""
        async with self._lock:
            if self._stopped:
                raise RuntimeError("the publisher is stopped")
            if self._producer is not None and self._worn:  # rule 1
                worn, self._producer = self._producer, None
                await _close(worn, self._delivery_timeout_s)
            if self._producer is None:
                self._worn = False
                self._producer = await self._connect()
            return self._producer

    async def _connect(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **self._settings.connection(),
            client_id=self._client_id,
            request_timeout_ms=self._settings.request_timeout_ms,
            acks="all",
            enable_idempotence=True,
            max_batch_size=MAX_BATCH_BYTES,
            max_request_size=MAX_DEAD_LETTER_BYTES,
            linger_ms=LINGER_MS,
        )
        try:
            with mapped():
                async with asyncio.timeout(self._delivery_timeout_s):
                    await producer.start()
        except BrokerUnavailableError:
            await _close(producer, 0)
            await check_login(self._settings)
            raise
        except BaseException:
            await _close(producer, 0)
            raise
        return producer


async def _close(producer: AIOKafkaProducer, grace_s: float) -> None:
    """Stop the producer; after ``grace_s`` seconds fail what it still holds, so that it is sent by nobody."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_s):
            await producer.stop()
        return
    # aiokafka has no way to stop without sending everything first: that is why its private parts are used here.
    sender = producer._sender.sender_task  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    if sender is not None:
        sender.cancel()
    await producer.client.close()  # wakes the sender's open requests
    producer._message_accumulator.fail_all(aio.ProducerClosed())  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    if sender is not None:
        await asyncio.wait({sender}, timeout=0.5)
        sender.cancel()  # it may wait for a request that waits for metadata that nobody fetches any more
        await asyncio.wait({sender}, timeout=0.5)
    await producer.client.close()  # a request that was about to reconnect has done so after the first time
