"""What topics are now: their ids and partitions, asked of Kafka with no more rights than to write or read them.

Through confluent-kafka's AdminClient in a thread: aiokafka's metadata is older than topic ids. DESCRIBE comes with every right on
a topic, so each process can ask for its own topics.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from broker.kafka.errors import mapped
from broker.topic_identity import TopicIdentity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.kafka.settings import KafkaSettings

NO_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"
"""What a cluster without topic ids says, in base64."""
_NOT_SEEN: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED})


class KafkaIdentities:
    """Asks for topics as one principal.

    Args:
        settings: Where, and as whom.
        timeout_s: For one question.
    """

    def __init__(self, settings: KafkaSettings, *, timeout_s: float = 10.0) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._client: AdminClient | None = None
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka-identities")

    def close(self) -> None:
        """Let go of the thread. May be called twice."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def seen(self, topics: Iterable[str]) -> dict[str, TopicIdentity]:
        """Return those of ``topics`` that are there and that we may see.

        Raises:
            BrokerUnavailableError: No answer in time.
            TransportError: Any other refusal.
        """
        asked = sorted(set(topics))
        if not asked:
            return {}
        with mapped():
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, asked)

    def _ask(self, topics: list[str]) -> dict[str, TopicIdentity]:
        if self._client is None:
            self._client = AdminClient(self._settings.confluent())
        futures = self._client.describe_topics(TopicCollection(topics), request_timeout=self._timeout_s)
        found: dict[str, TopicIdentity] = {}
        for name, future in futures.items():
            try:
                description = future.result(self._timeout_s)
            except KafkaException as error:
                if error.args[0].code() in _NOT_SEEN:
                    continue
                raise
            topic_id = str(description.topic_id)
            found[name] = TopicIdentity(None if topic_id == NO_ID else topic_id, len(description.partitions))
        return found
