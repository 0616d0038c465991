from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding
from patience import until
from structlog.testing import capture_logs

from broker.katalog import Katalog, load_katalog
from broker.katalog_publisher import KatalogPublisher, changes
from broker.record import Outgoing, RecordPosition
from broker.routing import KATALOG
from schemas.codec import decode
from schemas.errors import BrokerUnavailableError, ConfigurationError, TransportError
from schemas.records import KatalogRecord


class FakePublisher:
    """Keeps what is published; the first ``failures`` calls fail."""

    def __init__(self, failures: int = 0) -> None:
        self.records: list[Outgoing] = []
        self.failures = failures

    async def publish(self, outgoing: Outgoing) -> RecordPosition:
        if self.failures:
            self.failures -= 1
            raise BrokerUnavailableError("borte")
        self.records.append(outgoing)
        return RecordPosition(outgoing.topic, 0, len(self.records))

    async def publish_all(self, batch: Iterable[Outgoing]) -> Sequence[RecordPosition | TransportError]:
        return [await self.publish(outgoing) for outgoing in batch]

    async def warm(self, topics: Iterable[str]) -> None:
        _ = topics


def break_file(path: Path) -> None:
    path.write_text("kommuner: [", "utf-8")
    os.utime(path, (2_000_000, 2_000_000))


@pytest.fixture
def katalog_file(tmp_path: Path, issue: Any, connector_key: Any) -> Callable[..., Path]:
    (tmp_path / "k.pem").write_bytes(issue("kryptering")[0].public_bytes(Encoding.PEM))
    (tmp_path / "s.pem").write_bytes(connector_key[0].public_bytes(Encoding.PEM))
    times = iter(range(1, 100))

    def write(*names: str, navn: str = "Prøve") -> Path:
        entries = [
            {
                "kommunenummer": name,
                "navn": navn,
                "organisasjonsnummer": "958935420",
                "leverandor": "acme",
                "konnektor": "acme",
                "krypteringssertifikater": ["k.pem"],
                "kvitteringssertifikater": ["s.pem"],
                "endret": "2026-11-23T12:00:00.123456+00:00",
            }
            for name in names
        ]
        path = tmp_path / "katalog.yaml"
        path.write_text(yaml.safe_dump({"kommuner": entries}), "utf-8")
        os.utime(path, (1_000_000 + next(times),) * 2)
        return path

    return write


def test_only_what_differs_is_published(make_entry: Any) -> None:
    present = Katalog([make_entry("0301"), make_entry("4601"), make_entry("1103")])
    wanted = Katalog([make_entry("0301"), make_entry("4601", navn="ny"), make_entry("5001")])
    new, gone = changes(wanted, present)
    assert [entry.kommunenummer for entry in new] == ["4601", "5001"]
    assert [entry.kommunenummer for entry in gone] == ["1103"]


def test_the_same_katalog_needs_nothing(make_entry: Any) -> None:
    assert changes(Katalog([make_entry()]), Katalog([make_entry()])) == ([], [])


def test_an_entry_that_came_back_from_the_topic_is_the_one_that_was_sent(katalog_file: Any) -> None:
    wanted = load_katalog(katalog_file("0301"))
    publisher = FakePublisher()

    async def publish() -> Katalog:
        present = Katalog()
        await KatalogPublisher(Path(), present, publisher, lambda: wanted.all()[0].endret).publish(wanted)
        return Katalog([decode(KatalogRecord, publisher.records[0].value)])  # as the follower sees it

    assert changes(wanted, asyncio.run(publish())) == ([], [])


async def test_an_entry_is_a_record_and_a_withdrawal_a_tombstone(make_entry: Any, clock: Any) -> None:
    present = Katalog([make_entry("1103")])
    publisher = FakePublisher()
    publishing = KatalogPublisher(Path(), present, publisher, clock)
    assert publishing.problem() is not None
    await publishing.publish(Katalog([make_entry("0301")]))
    first, second = publisher.records
    assert (first.topic, first.key) == (KATALOG, b"0301")
    assert decode(KatalogRecord, first.value) == make_entry("0301")
    assert dict(first.headers)["ce_subject"] == b"0301"
    assert (second.key, second.value) == (b"1103", None)
    assert [entry.kommunenummer for entry in present.all()] == ["0301"]
    assert publishing.problem() is None


async def test_a_katalog_that_is_not_taken_is_tried_again(
    katalog_file: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.katalog_publisher.CHECK_EVERY_S", 0.005)
    publisher = FakePublisher(failures=2)
    publishing, stop = KatalogPublisher(katalog_file("0301"), Katalog(), publisher, clock), asyncio.Event()
    running = asyncio.create_task(publishing.run(stop))
    await until(publishing.published.is_set)
    stop.set()
    await running
    assert [record.key for record in publisher.records] == [b"0301"]


async def test_an_edited_file_is_published_and_a_broken_one_changes_nothing(
    katalog_file: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.katalog_publisher.CHECK_EVERY_S", 0.005)
    publisher, present, stop = FakePublisher(), Katalog(), asyncio.Event()
    path: Path = katalog_file("0301")
    with capture_logs() as logs:
        running = asyncio.create_task(KatalogPublisher(path, present, publisher, clock).run(stop))
        await until(lambda: len(publisher.records) == 1)
        break_file(path)
        await until(lambda: any(line["event"] == "katalog_refused" for line in logs))
        katalog_file("0301", "4601", navn="ny")
        await until(lambda: len(publisher.records) == 3)
        stop.set()
        await running
    assert [record.key for record in publisher.records] == [b"0301", b"0301", b"4601"]
    assert [entry.navn for entry in present.all()] == ["ny", "ny"]


async def test_a_file_that_is_broken_from_the_start_stops_the_process(tmp_path: Path, clock: Any) -> None:
    publishing = KatalogPublisher(tmp_path / "finnes-ikke.yaml", Katalog(), FakePublisher(), clock)
    with pytest.raises(ConfigurationError):
        await publishing.run(asyncio.Event())
