"""Topics, rights and users, through confluent-kafka's AdminClient in threads: aiokafka's admin has neither ACLs nor SCRAM.

Rules:

1. Every ``ensure_*`` may be called again and changes nothing that is right already.
2. A change is acknowledged by the controller and reaches the broker later, so each call returns when *describe* shows the
   change.
3. A number of partitions is never changed here: it would break the order per søknad. A difference is a ``ConfigurationError``.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
)
from confluent_kafka import TopicPartition as ConfluentPartition
from confluent_kafka.admin import (
    AclBinding,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewTopic,
    OffsetSpec,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from broker.kafka.acls import EVERYTHING, bindings, exact, rule_of
from broker.kafka.errors import mapped
from broker.record import TopicPartition
from schemas.errors import BrokerUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Future
    from types import TracebackType

    from broker.kafka.settings import KafkaSettings
    from broker.routing import AclRule, TopicSpec

T = TypeVar("T")

POLL_S: Final = 0.01
MAX_POLL_S: Final = 0.25
SCRAM_ITERATIONS: Final = 8192
MAX_TOPICS: Final = 250
MAX_ACLS: Final = 2_000
"""Most in one request: the controller refuses one that makes more than 10 000 records, and a topic of ours makes about ten."""


class KafkaAdmin:
    """Administration as one principal. Use as an asynchronous context manager.

    Every method raises ``AccessDeniedError`` when the principal may not, ``BrokerUnavailableError`` when no answer comes or a
    change does not show within ``timeout_s``, and ``TransportError`` for any other refusal.

    Args:
        settings: Where, and as whom.
        timeout_s: For one whole call.
    """

    def __init__(self, settings: KafkaSettings, *, timeout_s: float = 30.0) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka-admin")
        self._client = AdminClient(settings.confluent())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the thread; the client disconnects when it is collected."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def ensure_topics(self, specs: Iterable[TopicSpec], *, replication_factor: int = -1) -> frozenset[str]:
        """Create what is missing, set what differs, and return the names that were created.

        Args:
            specs: The topics as they should be.
            replication_factor: -1 for the cluster's own default.

        Raises:
            ConfigurationError: A topic has another number of partitions.
        """
        wanted = {spec.name: spec for spec in specs}
        present = await self.describe_topics(wanted)
        differing = sorted(name for name, partitions in present.items() if partitions != wanted[name].partitions)
        if differing:
            raise ConfigurationError(f"emnet har et annet antall partisjoner enn avtalt: {', '.join(differing)}")
        missing = [spec for name, spec in wanted.items() if name not in present]
        if missing:
            await self._create(missing, replication_factor)
        await self._align([wanted[name] for name in present])
        return frozenset(spec.name for spec in missing)

    async def delete_topics(self, names: Iterable[str]) -> None:
        """Delete topics; one that is not there is passed over."""
        gone = tuple(names)

        def delete() -> None:
            for some in _batches(gone, MAX_TOPICS):
                for future in self._client.delete_topics(some, operation_timeout=self._timeout_s).values():
                    _result(future, self._timeout_s, tolerate=KafkaError.UNKNOWN_TOPIC_OR_PART)

        await self._run(delete)

        async def absent() -> bool:
            return not await self.describe_topics(gone)

        await self._until(absent, "sletting av emner")

    async def describe_topics(self, names: Iterable[str]) -> dict[str, int]:
        """Return those of ``names`` that exist and that we may see, with their number of partitions."""
        asked = list(names)
        if not asked:
            return {}

        def describe() -> dict[str, int]:
            found: dict[str, int] = {}
            for name, future in self._client.describe_topics(TopicCollection(asked)).items():
                description = _result(future, self._timeout_s, tolerate=KafkaError.UNKNOWN_TOPIC_OR_PART)
                if description is not None:
                    found[name] = len(description.partitions)
            return found

        return await self._run(describe)

    async def list_topics(self) -> frozenset[str]:
        """Return the names of all topics that this principal may see."""
        return await self._run(lambda: frozenset(self._client.list_topics(timeout=self._timeout_s).topics))

    async def ensure_acls(self, rules: Iterable[AclRule]) -> None:
        """Grant these rights; whatever else the principals have stays."""
        wanted = bindings(rules)
        present = await self._bindings()
        missing = wanted - present
        if not missing:
            return

        def create() -> None:
            for some in _batches(missing, MAX_ACLS):
                _all(self._client.create_acls(some), self._timeout_s)

        await self._run(create)

        async def shown() -> bool:
            return missing <= await self._bindings()

        await self._until(shown, "rettigheter")

    async def delete_acls(self, rules: Iterable[AclRule]) -> None:
        """Take these rights away; one that is not there is passed over."""
        unwanted = bindings(rules)
        if not unwanted:
            return

        def delete() -> None:
            for some in _batches(map(exact, unwanted), MAX_ACLS):
                _all(self._client.delete_acls(some), self._timeout_s)

        await self._run(delete)

        async def absent() -> bool:
            return not unwanted & await self._bindings()

        await self._until(absent, "fjerning av rettigheter")

    async def describe_acls(self, principal: str | None = None) -> frozenset[AclRule]:
        """Return all literal rights, of one principal or of all, one operation in each rule."""
        rules = (rule_of(binding) for binding in await self._bindings())
        return frozenset(rule for rule in rules if rule is not None and principal in {None, rule.principal})

    async def upsert_user(self, username: str, password: str) -> None:
        """Create the SCRAM-SHA-512 user, or give it a new password, and return when it can log in."""
        existed = username in await self.users()
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, SCRAM_ITERATIONS)
        change = UserScramCredentialUpsertion(username, info, password.encode())
        await self._run(lambda: _all(self._client.alter_user_scram_credentials([change]), self._timeout_s))

        async def shown() -> bool:
            # Describe tells that there is a user, but not whether the password is the new one.
            return (
                await self._run(lambda: self._logs_in(username, password))
                if existed
                else username in await self.users()
            )

        await self._until(shown, "bruker")

    async def delete_user(self, username: str) -> None:
        """Delete the SCRAM-SHA-512 user."""
        change = UserScramCredentialDeletion(username, ScramMechanism.SCRAM_SHA_512)
        await self._run(lambda: _all(self._client.alter_user_scram_credentials([change]), self._timeout_s))

        async def absent() -> bool:
            return username not in await self.users()

        await self._until(absent, "sletting av bruker")

    async def users(self) -> frozenset[str]:
        """Return the names of all SCRAM users."""
        return await self._run(
            lambda: frozenset(self._client.describe_user_scram_credentials().result(self._timeout_s))
        )

    async def end_offsets(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        """Return where each partition of ``topics`` ends: the offset that its next record will have."""
        return await self._offsets(topics, OffsetSpec.latest())

    async def start_offsets(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        """Return where each partition of ``topics`` begins: the offset of the oldest record that is kept."""
        return await self._offsets(topics, OffsetSpec.earliest())

    async def offsets_from(self, topics: Iterable[str], at_ms: int) -> dict[TopicPartition, int]:
        """Return, for each partition, its first record that Kafka took at ``at_ms`` (since 1970) or later, or else its end."""
        asked = tuple(topics)
        ends = await self.end_offsets(asked)
        found = await self._offsets(asked, OffsetSpec.for_timestamp(at_ms))
        return {
            partition: found[partition] if found.get(partition, -1) >= 0 else end for partition, end in ends.items()
        }

    async def committed(self, group: str) -> dict[TopicPartition, int]:
        """Return all that a consumer group has committed."""

        def committed() -> dict[TopicPartition, int]:
            futures = self._client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
            partitions = futures[group].result(self._timeout_s).topic_partitions or []
            return {TopicPartition(one.topic, one.partition): one.offset for one in partitions if one.offset >= 0}

        return await self._run(committed)

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete everything before these offsets, for good."""
        targets = [ConfluentPartition(*partition, offset) for partition, offset in before.items()]
        await self._run(lambda: _all(self._client.delete_records(targets), self._timeout_s))

    async def topic_config(self, name: str) -> dict[str, str]:
        """Return what is set on the topic itself, without what it has from the cluster."""
        return (await self._configs([name]))[name]

    async def _create(self, specs: list[TopicSpec], replication_factor: int) -> None:
        """Create topics, some at a time: a broker needs a second for a hundred, and each step has the whole time-out."""
        for some in _batches(specs, MAX_TOPICS):
            new = [
                NewTopic(
                    one.name,
                    num_partitions=one.partitions,
                    replication_factor=replication_factor,
                    config=dict(one.config),
                )
                for one in some
            ]
            await self._run(functools.partial(self._create_now, new))
            await self._until(functools.partial(self._all_listed, {one.name for one in some}), "emner")

    def _create_now(self, new: list[NewTopic]) -> None:
        for future in self._client.create_topics(new, operation_timeout=self._timeout_s).values():
            _result(future, self._timeout_s, tolerate=KafkaError.TOPIC_ALREADY_EXISTS)  # another was quicker

    async def _all_listed(self, names: set[str]) -> bool:
        return names <= await self.list_topics()

    async def _align(self, specs: list[TopicSpec]) -> None:
        """Set what differs on topics that exist."""
        differing = await self._differing(specs)
        if not differing:
            return
        changes = [_config_change(name, values) for name, values in differing.items()]

        def alter() -> None:
            for some in _batches(changes, MAX_TOPICS):
                _all(self._client.incremental_alter_configs(some), self._timeout_s)

        await self._run(alter)

        async def shown() -> bool:
            return not await self._differing(specs)

        await self._until(shown, "innstillinger på emner")

    async def _differing(self, specs: list[TopicSpec]) -> dict[str, dict[str, str]]:
        """Return, for each topic that has other settings than it should, those that it should have."""
        present = await self._configs([spec.name for spec in specs])
        wanted = {
            spec.name: {name: value for name, value in spec.config.items() if present[spec.name].get(name) != value}
            for spec in specs
        }
        return {name: values for name, values in wanted.items() if values}

    async def _configs(self, names: list[str]) -> dict[str, dict[str, str]]:
        """Return what is set on the topics themselves."""
        if not names:
            return {}

        def describe() -> dict[str, dict[str, str]]:
            resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
            return {
                resource.name: {
                    key: str(entry.value)
                    for key, entry in future.result(self._timeout_s).items()
                    if entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value
                }
                for resource, future in self._client.describe_configs(resources).items()
            }

        return await self._run(describe)

    async def _bindings(self) -> frozenset[AclBinding]:
        def describe() -> frozenset[AclBinding]:
            return frozenset(self._client.describe_acls(EVERYTHING).result(self._timeout_s))

        return await self._run(describe)

    async def _offsets(self, topics: Iterable[str], spec: OffsetSpec) -> dict[TopicPartition, int]:
        partitions = await self.describe_topics(topics)
        asked = {ConfluentPartition(name, nr): spec for name, count in partitions.items() for nr in range(count)}
        if not asked:
            return {}

        def offsets() -> dict[TopicPartition, int]:
            found = self._client.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED)
            return {
                TopicPartition(one.topic, one.partition): future.result(self._timeout_s).offset
                for one, future in found.items()
            }

        return await self._run(offsets)

    def _logs_in(self, username: str, password: str) -> bool:
        client = AdminClient(self._settings.as_user(username, password).confluent())
        try:
            return bool(client.list_topics(timeout=1.0).brokers)
        except KafkaException:
            return False

    async def _run(self, call: Callable[[], T]) -> T:
        """Run a blocking call in our thread, its errors mapped."""
        with mapped():
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def _until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """Poll until the broker shows what the controller has acknowledged (rule 2)."""
        try:
            pause_s = POLL_S
            async with asyncio.timeout(self._timeout_s):
                while not await condition():  # Kafka has no event to wait for
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, MAX_POLL_S)
        except TimeoutError as error:
            raise BrokerUnavailableError(f"Kafka viser ikke endringen i tide: {what}") from error


def _result(future: Future[T], timeout_s: float, *, tolerate: int | None = None) -> T | None:
    """Wait for one answer; the tolerated error is None."""
    try:
        return future.result(timeout_s)
    except KafkaException as error:
        if tolerate is not None and error.args[0].code() == tolerate:
            return None
        raise


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _all(futures: Mapping[Any, Future[Any]], timeout_s: float) -> None:
    for future in futures.values():
        future.result(timeout_s)


def _config_change(topic: str, values: Mapping[str, str]) -> ConfigResource:
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in values.items()]
    return ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
