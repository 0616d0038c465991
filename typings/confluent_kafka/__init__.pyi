# The part of confluent-kafka 2.16 that broker.kafka uses. Its own types leave every Future without a result and export half of the names.
from collections.abc import Sequence
from enum import Enum

class KafkaError:
    TOPIC_AUTHORIZATION_FAILED: int
    GROUP_AUTHORIZATION_FAILED: int
    CLUSTER_AUTHORIZATION_FAILED: int
    SASL_AUTHENTICATION_FAILED: int
    MSG_SIZE_TOO_LARGE: int
    UNKNOWN_TOPIC_OR_PART: int
    TOPIC_ALREADY_EXISTS: int
    _AUTHENTICATION: int
    def __init__(self, error: int, reason: str = ...) -> None: ...
    def code(self) -> int: ...
    def name(self) -> str: ...
    def retriable(self) -> bool: ...

class KafkaException(Exception):
    args: tuple[KafkaError]
    def __init__(self, error: KafkaError) -> None: ...

class TopicPartition:
    topic: str
    partition: int
    offset: int
    def __init__(self, topic: str, partition: int = ..., offset: int = ...) -> None: ...

class TopicCollection:
    def __init__(self, topic_names: Sequence[str]) -> None: ...

class ConsumerGroupTopicPartitions:
    topic_partitions: list[TopicPartition] | None
    def __init__(self, group_id: str, topic_partitions: list[TopicPartition] | None = ...) -> None: ...

class IsolationLevel(Enum):
    READ_COMMITTED = ...
    READ_UNCOMMITTED = ...
