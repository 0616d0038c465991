"""Records as they go to and come from Kafka, and the headers that they carry.

Headers follow what others' tools look for: CloudEvents in binary mode (Kafka protocol binding 1.0.2), W3C ``traceparent``, and
on a dead letter both Spring Kafka's and Kafka Connect's families. A header never carries anything from a søknad.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from broker.clock import timestamp
from schemas.errors import InvalidNameError
from schemas.names import DigisosId
from schemas.records import Header, Opprinnelig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from schemas.errors import MeldingsformidlerError
    from schemas.names import Kommunenummer

Headers = tuple[tuple[str, bytes], ...]

KODE_HEADER: Final = "fiks_kode"
FORSOK_HEADER: Final = "fiks_forsok"
GYLDIG_TIL_HEADER: Final = "fiks_gyldig_til"
"""On a søknad: until when its receiver may begin, as in the record, ISO 8601 in UTC."""
GJENKJORINGER_HEADER: Final = "fiks_gjenkjoringer"
"""On a record that an operator has sent again from a dead letter: how many times by now, as decimal text."""
NOKKEL_HEADER: Final = "fiks_nokkel_id"
"""On a søknad: the certificate that its package is sealed for, as in the record."""
DEAD_LETTER_HEADER: Final = "fiks_dead_letter_id"
"""On a record that was sent again from a dead letter: which one."""
FORBI_HEADER: Final = "fiks_forbi"
"""On a record that was sent again: an operator has closed for good what died before it in its søknad."""
TRACEPARENT: Final = "traceparent"
UTELATTE_HEADER: Final = "fiks_utelatte_headere"
"""On a dead letter whose record had more headers than it keeps: what those left out were."""

MAX_KEPT_HEADER_BYTES: Final = 4 * 1024
MAX_KEPT_NAME_BYTES: Final = 256
MAX_KEPT_HEADERS_BYTES: Final = 64 * 1024
HEADER_OVERHEAD_BYTES: Final = 32
"""What each header counts beside its name and value, so that there are not many small ones either."""
MAX_KEPT_KEY_BYTES: Final = 1024
"""A key of ours has 36. A dead letter says all but the value twice: with these limits it always fits its topic."""

_TRACEPARENT = re.compile(r"00-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})", re.ASCII)


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class RecordPosition(NamedTuple):
    """Where a published record lies."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to publish.

    Attributes:
        topic: Its topic's full name.
        key: Decides the partition; records of one key stay in order.
        value: Avro in the Confluent wire format; None takes the key away from a compacted topic.
        headers: In order; a name may occur more than once.
    """

    topic: str
    key: bytes
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Incoming:
    """A record as read. A null key, value or header value is read as empty bytes, which no schema of ours accepts.

    Attributes:
        topic: Its topic's full name.
        partition: From 0.
        offset: Its place in the partition; there may be holes.
        timestamp_ms: When the broker appended it, milliseconds since 1970 UTC.
        key: Its key.
        value: Its value.
        headers: In order; a name may occur more than once.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes
    headers: Headers = ()

    @property
    def topic_partition(self) -> TopicPartition:
        """The partition it came from."""
        return TopicPartition(self.topic, self.partition)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to deliver that failed: the error's stable code, and when (aware UTC)."""

    code: str
    at: datetime


def header(headers: Iterable[tuple[str, bytes]], name: str) -> bytes | None:
    """Return the *last* header of that name, as Kafka's own ``lastHeader`` does, or None."""
    found = None
    for key, value in headers:
        if key == name:
            found = value
    return found


def soknad_of(key: bytes) -> DigisosId | None:
    """Return the søknad that a record's key names; None when it names none."""
    try:
        return DigisosId(key.decode("ascii"))
    except (InvalidNameError, UnicodeDecodeError):
        return None


def original(incoming: Incoming) -> Opprinnelig:
    """Return a record as a dead letter keeps it: byte for byte, but for what ``kept_headers`` says of headers."""
    return Opprinnelig(
        topic=incoming.topic,
        partisjon=incoming.partition,
        offset=incoming.offset,
        tidsstempel=datetime.fromtimestamp(incoming.timestamp_ms / 1000, UTC),
        nokkel=incoming.key,
        verdi=incoming.value,
        headere=tuple(Header(navn=name, verdi=value) for name, value in kept_headers(incoming.headers)),
    )


def kept_headers(headers: Headers) -> Headers:
    """Return the headers as a dead letter repeats them: as they are, unless somebody has filled them.

    A value over 4 KiB becomes ``sha256:<hex>;<n> byte``, a name over 256 bytes ``sha256:<hex>``. Those after the first 64 KiB
    become one header ``fiks_utelatte_headere`` with the digest of them all and how many they were.
    """
    kept: list[tuple[str, bytes]] = []
    size = 0
    for nr, (name, value) in enumerate(headers):
        short = (_kept_name(name), _digest(value) if len(value) > MAX_KEPT_HEADER_BYTES else value)
        size += len(short[0].encode()) + len(short[1]) + HEADER_OVERHEAD_BYTES
        if size > MAX_KEPT_HEADERS_BYTES:
            rest = headers[nr:]
            digest = hashlib.sha256(repr(rest).encode()).hexdigest()
            return (*kept, (UTELATTE_HEADER, f"sha256:{digest};{len(rest)} headere".encode()))
        kept.append(short)
    return tuple(kept)


def dead_letter_key(record: Incoming) -> bytes:
    """Return the key of the dead letter that ``record`` becomes: its own, or the digest of one that is no key of ours."""
    return record.key if len(record.key) <= MAX_KEPT_KEY_BYTES else _digest(record.key)


def _kept_name(name: str) -> str:
    raw = name.encode()
    return name if len(raw) <= MAX_KEPT_NAME_BYTES else f"sha256:{hashlib.sha256(raw).hexdigest()}"


def _digest(value: bytes) -> bytes:
    return f"sha256:{hashlib.sha256(value).hexdigest()};{len(value)} byte".encode()


def next_traceparent(parent: bytes | str | None = None, *, random: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return a W3C ``traceparent`` for a new span, in the parent's trace if the parent is valid.

    Args:
        parent: The header that came in, if any; a malformed one starts a new trace, as the specification demands.
        random: Returns that many random bytes.

    Returns:
        ``00-<32 hex>-<16 hex>-<2 hex>``.

    Source: W3C Trace Context, Recommendation of 2021-11-23, sections 3.2 and 4.3.
    """
    text = parent.decode("latin-1") if isinstance(parent, bytes) else parent or ""
    match = _TRACEPARENT.fullmatch(text)
    valid = match is not None and match["trace"].strip("0") and match["span"].strip("0")
    trace, flags = (match["trace"], match["flags"]) if match is not None and valid else (random(16).hex(), "01")
    return f"00-{trace}-{random(8).hex()}-{flags}"


def cloud_event_headers(
    *,
    event_id: str,
    event_type: str,
    source: str,
    subject: Kommunenummer | str,
    time: datetime,
    parent: bytes | str | None = None,
) -> Headers:
    """Return the headers of a record that is a CloudEvent in binary mode.

    Args:
        event_id: Unique for the source; a repeat of the same record has the same id.
        event_type: For example ``no.fiks.soknad.v1``.
        source: A URI reference of the process that wrote it, for example ``/producers``.
        subject: The kommunenummer.
        time: When it happened; aware.
        parent: ``traceparent`` of what led to it.

    Source: CloudEvents 1.0.2, Kafka protocol binding section 3.2.
    """
    pairs = (
        ("ce_specversion", "1.0"),
        ("ce_id", event_id),
        ("ce_type", event_type),
        ("ce_source", source),
        ("ce_subject", subject),
        ("ce_time", timestamp(time)),
        ("content-type", "application/avro"),
        (TRACEPARENT, next_traceparent(parent)),
    )
    return tuple((name, value.encode("utf-8")) for name, value in pairs)


def dead_letter_headers(
    record: Incoming, *, error: MeldingsformidlerError, group: str, attempts: Sequence[Attempt]
) -> Headers:
    """Return the headers of the dead letter that ``record`` becomes: its own (``kept_headers``), then the story of this failure.

    Nothing is replaced: a record that dies twice carries both stories, and readers that take the last header see the latest.
    The error's text is left out on purpose; only its class and its stable code travel.

    Args:
        record: The record that cannot be delivered.
        error: Why.
        group: The consumer group that gave up.
        attempts: Every attempt, oldest first.

    Source: spring-kafka ``KafkaHeaders`` (numbers big-endian), Kafka Connect ``DeadLetterQueueReporter`` (numbers as text).
    """
    code, name = error.code, f"{type(error).__module__}.{type(error).__qualname__}"
    forsok = [{"nr": nr, "kode": one.code, "tidspunkt": timestamp(one.at)} for nr, one in enumerate(attempts, 1)]
    spring = (
        ("kafka_dlt-original-topic", record.topic.encode()),
        ("kafka_dlt-original-partition", struct.pack(">i", record.partition)),
        ("kafka_dlt-original-offset", struct.pack(">q", record.offset)),
        ("kafka_dlt-original-timestamp", struct.pack(">q", record.timestamp_ms)),
        ("kafka_dlt-original-timestamp-type", b"LogAppendTime"),
        ("kafka_dlt-original-consumer-group", group.encode()),
        ("kafka_dlt-exception-fqcn", name.encode()),
        ("kafka_dlt-exception-message", code.encode()),
        ("kafka_deliveryAttempt", struct.pack(">i", len(attempts))),
    )
    connect = (
        ("__connect.errors.topic", record.topic.encode()),
        ("__connect.errors.partition", str(record.partition).encode()),
        ("__connect.errors.offset", str(record.offset).encode()),
        ("__connect.errors.connector.name", group.encode()),
        ("__connect.errors.exception.class.name", name.encode()),
        ("__connect.errors.exception.message", code.encode()),
    )
    own = ((KODE_HEADER, code.encode()), (FORSOK_HEADER, json.dumps(forsok, separators=(",", ":")).encode()))
    return (*kept_headers(record.headers), *spring, *connect, *own)
