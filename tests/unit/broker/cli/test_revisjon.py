from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from broker.cli import revisjon
from broker.cli.main import app
from broker.operatorer import Operatorer
from broker.record import Incoming
from broker.revisjon_records import canonical, new_record, revisjon_outgoing
from broker.revisjonskontroll import read_act
from broker.routing import REVISJON

if TYPE_CHECKING:
    from schemas.names import Sha256

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class Topic:
    """The revisjon in memory, as the commands read it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.records: list[Incoming] = []
        operatorer = Operatorer(data)
        operatorer.add("kari", NOW)
        self.kari = operatorer.choose("kari", NOW)

    def write(self, aktor: str, handling: str, objekt: str, *, signed: bool = False) -> None:
        heads: list[Sha256] = [
            act.digest for act in map(read_act, self.records) if act is not None and act.record.aktor == aktor
        ]
        record = new_record(aktor, handling, objekt, now=NOW, forrige=heads[-1] if heads else None, begrunnelse="[x]")
        if signed:
            record = record.model_copy(update={"signatur": self.kari.sign(canonical(record))})
        outgoing = revisjon_outgoing(record)
        self.records.append(Incoming(REVISJON, 0, len(self.records), 0, outgoing.key, outgoing.value or b""))

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["revisjon", *arguments, "--data", str(self.data)])


@pytest.fixture
def topic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Topic:
    topic = Topic(tmp_path)

    async def read_records(*_: object) -> list[Incoming]:
        return topic.records

    async def read_acts(*_: object) -> list[Any]:
        return [read_act(record) for record in topic.records]

    monkeypatch.setattr(revisjon, "read_records", read_records)
    monkeypatch.setattr(revisjon, "read_acts", read_acts)
    monkeypatch.setattr(revisjon, "kafka_access", lambda _: None)
    topic.write("producers", "avsenderkopi.destruert", "a")
    topic.write("operator-kari", "dlq.parkert", "b", signed=True)
    topic.write("producers", "avsenderkopi.destruert", "c")
    return topic


def test_acts_are_listed_by_who_what_and_with_what(topic: Topic) -> None:
    def objects(*arguments: str) -> list[str]:
        return [one["objekt"] for one in json.loads(topic.run("list", "--json", *arguments).output)]

    assert objects() == ["a", "b", "c"]
    assert objects("--aktor", "operator-kari") == ["b"]
    assert objects("--handling", "avsenderkopi") == ["a", "c"]
    assert objects("--objekt", "c") == ["c"]
    assert objects("--siste", "1d") in ([], ["a", "b", "c"])


def test_the_list_for_people_shows_reasons_as_they_stand(topic: Topic) -> None:
    assert "[x]" in topic.run("list").output


def test_a_revisjon_that_holds_is_said_to(topic: Topic) -> None:
    found = topic.run("verify", "--json")
    assert found.exit_code == 0
    assert json.loads(found.output) == {
        "holder": True,
        "antall": {"operator-kari": 1, "producers": 2},
        "signerte": 1,
        "problemer": [],
    }
    assert "alt holder" in topic.run("verify").output


def test_one_that_does_not_hold_is_told_where(topic: Topic) -> None:
    del topic.records[0]
    topic.write("operator-kari", "dlq.lukket", "d")
    topic.records.insert(0, Incoming(REVISJON, 0, 0, 0, b"x", b"tull"))
    found = topic.run("verify", "--json")
    assert found.exit_code == 1
    assert {one["kode"] for one in json.loads(found.output)["problemer"]} == {"uleselig", "hull", "usignert"}
    assert "mangler" in topic.run("verify").output
