"""What is there: records on the topics, files at the fagsystemer, what the status API answers. Read, never judged.

Everything is read as a stranger would: with librdkafka's plain consumer, from folders, over HTTP. Shares no code with the
product.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

READ_WITHIN_S: Final = 30.0
_ABOUT: Final = frozenset({"leveranse.json", "svar.json", "FERDIG"})
"""What a fagsystem keeps beside the citizen's own files."""
_BATCH: Final = 500
A_LIFE: Final = 1_000_000_000
"""Added to offsets for each time that the topics were made anew, so that later records are behind earlier ones."""


@dataclass(frozen=True)
class Raw:
    """A record as it lies on its topic."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Delivery:
    """One message that a fagsystem has.

    Attributes:
        place: Its folder, relative to the fagsystem's root.
        kommunenummer: Whose folder it lies in.
        leveranse: ``leveranse.json``.
        status: What the fagsystem answered: MOTTATT, LEVERT or AVVIST; empty when it has not.
        files: SHA-256 in hex by name, as they lie on the disk.
        at_ns: When it came, as the disk knows it.
    """

    place: str
    kommunenummer: str
    leveranse: dict[str, Any]
    status: str
    files: dict[str, str]
    at_ns: int


@dataclass(frozen=True)
class Letter:
    """One letter set in the print queue, or printed.

    Attributes:
        place: Its folder, relative to the print channel's.
        melding_id: Whose it is.
        files: SHA-256 in hex by name, as they lie on the disk.
    """

    place: str
    melding_id: str
    files: dict[str, str]


@dataclass(frozen=True)
class Seen:
    """What the status API answered: to the citizen, and to another citizen who asked for the same."""

    code: int
    view: dict[str, Any]
    stranger: int | None = None

    @property
    def status(self) -> str:
        """The citizen's status; empty when there is none."""
        return str(self.view.get("status") or "")


@dataclass
class Observed:
    """Everything that was read, for one judgement.

    Attributes:
        records: Each partition in order.
        deliveries: Of every fagsystem.
        statuses: By digisosId.
        signers: Certificates in PEM that each kommune's connector may sign with.
        root: The CA's certificate in PEM.
        letters: Of the print channel.
    """

    records: list[Raw] = field(default_factory=list[Raw])
    deliveries: list[Delivery] = field(default_factory=list[Delivery])
    statuses: dict[str, Seen] = field(default_factory=dict[str, Seen])
    signers: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    root: str = ""
    letters: list[Letter] = field(default_factory=list[Letter])

    def dump(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return {
            "records": [
                {
                    **asdict(one),
                    "key": _text(one.key),
                    "value": None if one.value is None else _text(one.value),
                    "headers": [(name, _text(value)) for name, value in one.headers],
                }
                for one in self.records
            ],
            "deliveries": [asdict(one) for one in self.deliveries],
            "statuses": {name: asdict(one) for name, one in self.statuses.items()},
            "signers": self.signers,
            "root": self.root,
            "letters": [asdict(one) for one in self.letters],
        }

    @classmethod
    def load(cls, document: dict[str, Any]) -> Observed:
        """Return what ``dump`` gave."""
        records = [
            Raw(
                **one
                | {
                    "key": _bytes(one["key"]),
                    "value": None if one["value"] is None else _bytes(one["value"]),
                    "headers": tuple((name, _bytes(value)) for name, value in one["headers"]),
                }
            )
            for one in document["records"]
        ]
        return cls(
            records,
            [Delivery(**one) for one in document["deliveries"]],
            {name: Seen(**one) for name, one in document["statuses"].items()},
            document["signers"],
            document["root"],
            [Letter(**one) for one in document["letters"]],
        )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


class TopicReader:
    """Reads every topic whose name begins with ``fiks.``, from the start, and each time what has come since.

    Args:
        options: librdkafka's: address and login of somebody who may read everything.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options | {
            "group.id": "kontrollor",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
            "log_level": 0,
        }
        self.records: list[Raw] = []
        self._next: dict[tuple[str, int], int] = {}
        self._lives = 0

    def begin_again(self, options: dict[str, Any]) -> None:
        """Go on with topics that were made anew; what was read of the former ones stays, before them."""
        self._options |= options
        self._next.clear()
        self._lives += 1

    def read(self) -> list[Raw]:
        """Return all records there are, those of earlier calls first; each partition in order."""
        consumer = Consumer(self._options)
        try:
            partitions = self._partitions(consumer)
            consumer.assign(partitions)
            self._drain(consumer, {(one.topic, one.partition) for one in partitions})
        finally:
            consumer.close()
        return self.records

    def _partitions(self, consumer: Consumer) -> list[TopicPartition]:
        known = consumer.list_topics(timeout=READ_WITHIN_S).topics
        return [
            TopicPartition(name, number, self._next.get((name, number), OFFSET_BEGINNING))
            for name, topic in known.items()
            if name.startswith("fiks.")
            for number in topic.partitions
        ]

    def _drain(self, consumer: Consumer, left: set[tuple[str, int]]) -> None:
        deadline = time.monotonic() + READ_WITHIN_S
        while left:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(left)} partisjoner lot seg ikke lese til slutten")
            for message in consumer.consume(_BATCH, timeout=0.2):
                place = str(message.topic()), int(message.partition() or 0)
                error = message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    left.discard(place)
                    continue
                self._next[place] = int(message.offset() or 0) + 1
                self.records.append(
                    Raw(
                        *place,
                        int(message.offset() or 0) + self._lives * A_LIFE,
                        int(message.timestamp()[1]),
                        bytes(message.key() or b""),
                        message.value(),
                        tuple((name, bytes(value or b"")) for name, value in message.headers() or ()),
                    )
                )


_DIGESTS: Final[dict[tuple[int, int, int], str]] = {}
"""What was read of each file, by inode, size and time: a file is read again when it has changed."""


def _digest(path: Path) -> str:
    stat = path.stat()
    version = stat.st_ino, stat.st_size, stat.st_mtime_ns
    if version not in _DIGESTS:
        _DIGESTS[version] = hashlib.sha256(path.read_bytes()).hexdigest()
    return _DIGESTS[version]


def read_deliveries(root: Path) -> list[Delivery]:
    """Return every message in the fagsystemer's folders under ``root``."""
    found: dict[int, Delivery] = {}
    for pattern in ("http/*/soknader/*", "mapper/*/inn/*", "mapper/*/arkiv/*"):
        for folder in sorted(root.glob(pattern)):
            if folder.name.startswith("."):
                continue
            with suppress(FileNotFoundError):
                # One that is moved while we look is seen in both places, and is the same folder.
                found[folder.stat().st_ino] = _delivery(root, folder)
    return list(found.values())


def _delivery(root: Path, folder: Path) -> Delivery:
    """Return what lies in one folder; ``FileNotFoundError`` when it is taken away while we look."""
    over_folders = folder.parent.name != "soknader"
    leveranse = json.loads((folder / "leveranse.json").read_bytes())
    files = {path.name: _digest(path) for path in sorted(folder.iterdir()) if path.name not in _ABOUT}
    at_ns = (folder / "leveranse.json").stat().st_mtime_ns
    if over_folders:
        (folder / "FERDIG").stat()  # the one file that is written last
    kommune = folder.parents[1]
    status = _receipt(kommune, folder.name) if over_folders else json.loads((folder / "svar.json").read_bytes())
    return Delivery(str(folder.relative_to(root)), kommune.name, leveranse, str(status.get("status", "")), files, at_ns)


def _receipt(kommune: Path, melding_id: str) -> dict[str, Any]:
    for place in ("ut", "behandlet", "avvist"):
        try:
            return dict(json.loads((kommune / place / f"{melding_id}.kvittering.json").read_bytes()))
        except FileNotFoundError:
            continue
    return {}


def read_letters(root: Path) -> list[Letter]:
    """Return every letter set under the print channel's folder."""
    found: dict[int, Letter] = {}
    for folder in sorted([*root.glob("ko/*"), *root.glob("ferdig/*")]):
        with suppress(FileNotFoundError):  # one that is moved while we look is seen in its new place
            files = {path.name: _digest(path) for path in sorted(folder.iterdir())}
            found[folder.stat().st_ino] = Letter(str(folder.relative_to(root)), folder.name, files)
    return list(found.values())


class StatusReader:
    """Asks the status API as citizens do.

    Args:
        issuer: Base URL of who gives tokens.
        status: Base URL of the status API.
    """

    def __init__(self, issuer: str, status: str) -> None:
        self._issuer = issuer
        self._status = status
        self._tokens: dict[str, str] = {}
        self._http = httpx.Client(timeout=10)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def forget_tokens(self) -> None:
        """Ask for new tokens from now on: time has been moved."""
        self._tokens.clear()

    def read(self, owners: Iterable[tuple[str, str]], *, stranger: str | None = None) -> dict[str, Seen]:
        """Return what each owner is shown.

        Args:
            owners: digisosId and person.
            stranger: A person who asks for all of them too, and must not get them.
        """
        return dict(self._each(owners, stranger))

    def _each(self, owners: Iterable[tuple[str, str]], stranger: str | None) -> Iterator[tuple[str, Seen]]:
        for digisos_id, person in owners:
            answer = self._ask(digisos_id, person)
            other = self._ask(digisos_id, stranger).status_code if stranger else None
            yield digisos_id, Seen(answer.status_code, answer.json() if answer.is_success else {}, other)

    def _ask(self, digisos_id: str, person: str) -> httpx.Response:
        if person not in self._tokens:
            answer = self._http.post(f"{self._issuer}/utvikling/borgertoken", json={"pid": person})
            self._tokens[person] = str(answer.raise_for_status().json()["access_token"])
        headers = {"Authorization": f"Bearer {self._tokens[person]}"}
        return self._http.get(f"{self._status}/innsyn/v1/soknader/{digisos_id}", headers=headers)


def read_signers(folder: Path) -> tuple[dict[str, list[str]], str]:
    """Return who may sign kvitteringer for each kommune of a data folder, and the CA's certificate, all in PEM."""
    setup = json.loads((folder / "oppsett.json").read_bytes())
    signers: dict[str, list[str]] = {}
    for name, connector in setup["konnektorer"].items():
        pem = (folder / "nokler" / f"konnektor-{name}.pem").read_text("ascii")
        for number in connector["kommuner"]:
            signers.setdefault(number, []).append(pem)
    return signers, (folder / "nokler" / "ca.pem").read_text("ascii")
