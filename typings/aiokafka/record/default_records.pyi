# One batch of version 2, as broker.kafka.lenient reads it, and how its test writes one.
from collections.abc import Iterator
from typing import Any

class DefaultRecordBatch:
    def __init__(self, buffer: bytes) -> None: ...
    def __iter__(self) -> Iterator[Any]: ...

class DefaultRecordBatchBuilder:
    def __init__(
        self,
        magic: int,
        compression_type: int,
        is_transactional: int,
        producer_id: int,
        producer_epoch: int,
        base_sequence: int,
        batch_size: int,
    ) -> None: ...
    def append(
        self, offset: int, timestamp: int, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
    ) -> object: ...
    def build(self) -> bytearray: ...
