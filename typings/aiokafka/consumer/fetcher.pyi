# What broker.kafka.lenient replaces: the parser of a fetch.
from typing import Any

MemoryRecords: Any
