"""Every topic, consumer group and right, by name: the one place that builds and parses them.

Rules:

1. The kommune stands in the topic's name, so that an ACL, a quota and a consumer can be one kommune's alone.
2. Rights are literal, never prefixed: ``fiks.0301.`` would be safe as a prefix, but a typing error in a prefix is silent.
3. Every topic's time stamps are the broker's own (``LogAppendTime``): a client with a wrong clock would otherwise decide what
   retention deletes.
4. The broker unpacks what a client compressed: a reader without that codec would otherwise stop at it for ever.
5. A dead-letter topic takes larger records than the topic whose records it holds, so that a dead letter always fits.

Administration (topics, rights, users) is done by an administrator's principal and has no rights in this table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from schemas.errors import InvalidNameError
from schemas.names import Kommunenummer
from schemas.records import PARTITIONS_PER_KOMMUNE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Kind = Literal[
    "soknad", "kvittering", "hendelse", "soknad-dlq", "transport", "kvittering-dlq", "katalog", "status", "revisjon"
]
Process = Literal["producers", "broker", "kvittering"]
ResourceType = Literal["topic", "group"]
Operation = Literal["READ", "WRITE"]

TRANSPORT: Final = "fiks.transport.v1"
KVITTERING_DLQ: Final = "fiks.kvittering.v1.dlq"
KATALOG: Final = "fiks.katalog.v1"
STATUS: Final = "fiks.status.v1"
REVISJON: Final = "fiks.revisjon.v1"

MAX_RECORD_BYTES: Final = 1024 * 1024
"""Largest record on a topic, key and headers included; a package above 512 KiB goes to the dokumentlager."""
MAX_DEAD_LETTER_BYTES: Final = 2 * MAX_RECORD_BYTES

SOKNAD_RETENTION: Final = timedelta(days=90)
KVITTERING_RETENTION: Final = timedelta(days=15 * 31 + 31)
"""15 months, which is how long a citizen may look, and a margin of 31 days."""
REVISJON_RETENTION: Final = timedelta(days=5 * 366)
FOREVER: Final = None


@dataclass(frozen=True, slots=True)
class Retention:
    """How long topics keep what is on them; see ``broker.retention`` for the settings.

    Attributes:
        soknad: Søknader, and kvitteringer that were refused.
        kvittering: Kvitteringer, case updates and transport events.
        revisjon: The audit trail.
    """

    soknad: timedelta = SOKNAD_RETENTION
    kvittering: timedelta = KVITTERING_RETENTION
    revisjon: timedelta = REVISJON_RETENTION


USUAL: Final = Retention()

_CENTRAL: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        TRANSPORT: "transport",
        KVITTERING_DLQ: "kvittering-dlq",
        KATALOG: "katalog",
        STATUS: "status",
        REVISJON: "revisjon",
    }
)
_OF_KOMMUNE = re.compile(r"fiks\.(?P<knr>[0-9]{4})\.(?P<kind>soknad|kvittering|hendelse)\.v1(?P<dlq>\.dlq)?", re.ASCII)
_VENDOR = re.compile(r"[a-z][a-z0-9-]{0,39}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TopicName:
    """What a topic's name says: its kind, and whose it is (``None``: central)."""

    kind: Kind
    kommunenummer: Kommunenummer | None


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be.

    Attributes:
        name: The full name.
        partitions: How many; never changed while søknader are in flight.
        config: Kafka's own topic settings, names and values as strings.
    """

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class AclRule:
    """One principal's rights on one resource, named literally. Describe comes with each of them."""

    principal: str
    resource_type: ResourceType
    name: str
    operations: tuple[Operation, ...]


def soknad_topic(kommunenummer: Kommunenummer) -> str:
    """Return the topic that carries søknader to the kommune."""
    return f"fiks.{kommunenummer}.soknad.v1"


def kvittering_topic(kommunenummer: Kommunenummer) -> str:
    """Return the topic that carries the kommune's kvitteringer back."""
    return f"fiks.{kommunenummer}.kvittering.v1"


def hendelse_topic(kommunenummer: Kommunenummer) -> str:
    """Return the topic that carries updates of the case."""
    return f"fiks.{kommunenummer}.hendelse.v1"


def dead_letter_topic(kommunenummer: Kommunenummer) -> str:
    """Return the topic where søknader lie that could not be delivered."""
    return f"fiks.{kommunenummer}.soknad.v1.dlq"


@lru_cache(maxsize=4096)
def parse_topic(name: str) -> TopicName:
    """Return what ``name`` says.

    Raises:
        InvalidNameError: It is no topic of ours.
    """
    if (central := _CENTRAL.get(name)) is not None:
        return TopicName(central, None)
    match = _OF_KOMMUNE.fullmatch(name)
    if match is None or (match["dlq"] and match["kind"] != "soknad"):
        raise InvalidNameError("emnet har ikke et navn som Meldingsformidler bruker")
    kommunenummer = Kommunenummer(match["knr"])
    if match["dlq"]:
        return TopicName("soknad-dlq", kommunenummer)
    match match["kind"]:
        case "soknad":
            return TopicName("soknad", kommunenummer)
        case "kvittering":
            return TopicName("kvittering", kommunenummer)
        case _:
            return TopicName("hendelse", kommunenummer)


def consumer_group(vendor: str, kommunenummer: Kommunenummer) -> str:
    """Return the group in which a vendor's connectors share the kommune's søknader: ``fiks.<vendor>.<knr>``.

    Args:
        vendor: Short name of the vendor: lower-case letters, digits and hyphens, at most 40.
        kommunenummer: The kommune.

    Raises:
        InvalidNameError: The vendor's name has another form.
    """
    if not _VENDOR.fullmatch(vendor):
        raise InvalidNameError("leverandørens navn skal være 1 til 40 tegn av a-z, 0-9 og -, med en bokstav først")
    return f"fiks.{vendor}.{kommunenummer}"


def process_group(process: Process) -> str:
    """Return the group of a central process; two parts, so it never meets a vendor's."""
    return f"fiks.{process}"


def kommune_topics(
    kommunenummer: Kommunenummer, partitions: int = PARTITIONS_PER_KOMMUNE, retention: Retention = USUAL
) -> tuple[TopicSpec, ...]:
    """Return the four topics of a kommune.

    Args:
        kommunenummer: The kommune.
        partitions: As chosen in the katalog when the kommune was created.
        retention: How long they keep what is on them.
    """
    return (
        TopicSpec(soknad_topic(kommunenummer), partitions, _kept(retention.soknad)),
        TopicSpec(kvittering_topic(kommunenummer), partitions, _kept(retention.kvittering)),
        TopicSpec(hendelse_topic(kommunenummer), partitions, _kept(retention.kvittering)),
        TopicSpec(dead_letter_topic(kommunenummer), partitions, _kept(FOREVER, MAX_DEAD_LETTER_BYTES)),
    )


def central_topics(retention: Retention = USUAL) -> tuple[TopicSpec, ...]:
    """Return the topics that belong to no kommune."""
    return (
        TopicSpec(TRANSPORT, 4, _kept(retention.kvittering)),
        TopicSpec(KVITTERING_DLQ, 1, _kept(retention.soknad, MAX_DEAD_LETTER_BYTES)),
        TopicSpec(KATALOG, 1, _compacted()),
        TopicSpec(STATUS, 4, _compacted()),
        TopicSpec(REVISJON, 1, _kept(retention.revisjon)),
    )


def connector_rights(principal: str, vendor: str, kommunenummer: Kommunenummer) -> tuple[AclRule, ...]:
    """Return all that a connector may do for one kommune. It cannot write a søknad, nor read a dead letter.

    Args:
        principal: The connector's user name, without ``User:``.
        vendor: Whose consumer group it joins.
        kommunenummer: The kommune it serves; a connector for several has this for each.
    """
    return (
        AclRule(principal, "topic", soknad_topic(kommunenummer), ("READ",)),
        AclRule(principal, "topic", kvittering_topic(kommunenummer), ("READ", "WRITE")),
        AclRule(principal, "topic", hendelse_topic(kommunenummer), ("WRITE",)),
        AclRule(principal, "topic", dead_letter_topic(kommunenummer), ("WRITE",)),
        AclRule(principal, "group", consumer_group(vendor, kommunenummer), ("READ",)),
    )


_PER_KOMMUNE: Final[Mapping[Process, tuple[tuple[Kind, tuple[Operation, ...]], ...]]] = MappingProxyType(
    {
        "producers": (("soknad", ("WRITE",)), ("kvittering", ("READ",))),
        "kvittering": (("kvittering", ("READ",)), ("hendelse", ("READ",))),
        "broker": (("soknad", ("WRITE",)), ("soknad-dlq", ("READ",)), ("kvittering", ("READ",))),
    }
)
_CENTRALLY: Final[Mapping[Process, tuple[tuple[str, tuple[Operation, ...]], ...]]] = MappingProxyType(
    {
        "producers": ((TRANSPORT, ("READ", "WRITE")), (KATALOG, ("READ",)), (REVISJON, ("WRITE",))),
        "kvittering": (
            (TRANSPORT, ("READ", "WRITE")),
            (KATALOG, ("READ",)),
            (STATUS, ("WRITE",)),
            (KVITTERING_DLQ, ("WRITE",)),
            (REVISJON, ("WRITE",)),
        ),
        "broker": ((KATALOG, ("READ", "WRITE")), (KVITTERING_DLQ, ("READ",)), (REVISJON, ("READ", "WRITE"))),
    }
)


def process_rights(
    process: Process, kommunenummer: Iterable[Kommunenummer], *, principal: str | None = None
) -> tuple[AclRule, ...]:
    """Return all that a central process may do.

    Args:
        process: Which one.
        kommunenummer: Every kommune there is; rights are literal, so a new kommune means new rights.
        principal: Its user name, without ``User:``; the process' own name if not given.
    """
    who = principal or process
    build = {
        "soknad": soknad_topic,
        "kvittering": kvittering_topic,
        "hendelse": hendelse_topic,
        "soknad-dlq": dead_letter_topic,
    }
    rules = [AclRule(who, "group", process_group(process), ("READ",))]
    rules += [AclRule(who, "topic", name, operations) for name, operations in _CENTRALLY[process]]
    rules += [
        AclRule(who, "topic", build[kind](knr), operations)
        for knr in kommunenummer
        for kind, operations in _PER_KOMMUNE[process]
    ]
    return tuple(rules)


def _kept(retention: timedelta | None, max_bytes: int = MAX_RECORD_BYTES) -> Mapping[str, str]:
    milliseconds = -1 if retention is None else int(retention.total_seconds() * 1000)
    return MappingProxyType(
        {
            "cleanup.policy": "delete",
            "retention.ms": str(milliseconds),
            "retention.bytes": "-1",
            "max.message.bytes": str(max_bytes),
            "message.timestamp.type": "LogAppendTime",
            "compression.type": "uncompressed",
        }
    )


def _compacted() -> Mapping[str, str]:
    return MappingProxyType(
        {
            "cleanup.policy": "compact",
            "max.message.bytes": str(MAX_RECORD_BYTES),
            "message.timestamp.type": "LogAppendTime",
            "compression.type": "uncompressed",
            "segment.bytes": str(64 * 1024 * 1024),  # the newest segment is never compacted, so it is kept small
        }
    )
