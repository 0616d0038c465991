from __future__ import annotations

import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.katalog import Katalog
from broker.routing import AclRule, TopicSpec
from broker.supervisor.layout import ConnectorSetup, Layout
from broker.supervisor.provisioning import (
    connector_principal,
    kept_password,
    principals,
    provision,
    wanted_rights,
    wanted_topics,
)
from schemas.names import Kommunenummer, Organisasjonsnummer
from schemas.records import PARTITIONS_PER_KOMMUNE, KatalogRecord

CONNECTORS = {
    "acme": ConnectorSetup(leverandor="acme", type="http", kommuner=(Kommunenummer("0301"), Kommunenummer("4601"))),
    "mappe": ConnectorSetup(leverandor="mappe", type="filedrop", kommuner=(Kommunenummer("1811"),)),
}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.prepare(tmp_path, CONNECTORS)


class FakeAdmin:
    """Remembers what it was asked for, in order."""

    def __init__(self) -> None:
        self.topics: list[TopicSpec] = []
        self.rules: list[AclRule] = []
        self.users: dict[str, str] = {}
        self.present: frozenset[AclRule] = frozenset()

    async def ensure_topics(self, topics: list[TopicSpec]) -> None:
        self.topics = topics

    async def ensure_acls(self, rules: list[AclRule]) -> None:
        self.rules = rules

    async def describe_acls(self) -> frozenset[AclRule]:
        return self.present

    async def delete_acls(self, rules: set[AclRule]) -> None:
        self.present -= rules

    async def upsert_user(self, name: str, password: str) -> None:
        self.users[name] = password


def test_every_kommune_has_four_topics_beside_the_central_ones(layout: Layout) -> None:
    names = [topic.name for topic in wanted_topics(layout, Katalog())]
    assert len(names) == len(set(names)) == 5 + 3 * 4


def test_there_is_a_principal_for_each_process_and_each_connector(layout: Layout) -> None:
    assert principals(layout) == ["producers", "broker", "kvittering", "konnektor-acme", "konnektor-mappe"]


def test_a_connector_has_rights_on_its_own_kommuner_and_nothing_else(layout: Layout) -> None:
    rules = [rule for rule in wanted_rights(layout) if rule.principal == connector_principal("mappe")]
    topics = {rule.name: set(rule.operations) for rule in rules if rule.resource_type == "topic"}
    assert topics == {
        "fiks.1811.soknad.v1": {"READ"},
        "fiks.1811.kvittering.v1": {"READ", "WRITE"},
        "fiks.1811.hendelse.v1": {"WRITE"},
        "fiks.1811.soknad.v1.dlq": {"WRITE"},
    }
    assert {rule.name for rule in rules if rule.resource_type == "group"} == {"fiks.mappe.1811"}


def test_no_connector_may_write_a_soknad_or_read_anything_central(layout: Layout) -> None:
    for rule in wanted_rights(layout):
        if rule.principal.startswith("konnektor-") and rule.resource_type == "topic":
            assert not (rule.name.endswith(".soknad.v1") and "WRITE" in rule.operations)
            assert rule.name.split(".")[1].isdigit()


async def test_everything_is_made_and_each_password_is_kept(layout: Layout) -> None:
    first, second = FakeAdmin(), FakeAdmin()
    passwords = await provision(layout, Katalog(), first)  # type: ignore[arg-type]  # the methods that are used
    again = await provision(layout, Katalog(), second)  # type: ignore[arg-type]  # the methods that are used
    assert passwords == again == first.users
    assert set(passwords) == set(principals(layout))
    assert len(set(passwords.values())) == len(passwords)
    assert (first.topics, first.rules) == (wanted_topics(layout, Katalog()), wanted_rights(layout))


def entry(number: str, partitions: int) -> KatalogRecord:
    return KatalogRecord(
        kommunenummer=Kommunenummer(number),
        navn="Oslo",
        organisasjonsnummer=Organisasjonsnummer("889640782"),
        leverandor="acme",
        konnektor="acme",
        partisjoner=partitions,
        endret=datetime(2026, 11, 23, tzinfo=UTC),
    )


def test_a_kommunes_topics_have_as_many_partitions_as_the_katalog_says(layout: Layout) -> None:
    specs = {spec.name: spec.partitions for spec in wanted_topics(layout, Katalog([entry("0301", 7)]))}
    assert {count for name, count in specs.items() if name.startswith("fiks.0301.")} == {7}
    assert {count for name, count in specs.items() if name.startswith("fiks.1811.")} == {PARTITIONS_PER_KOMMUNE}


async def test_rights_that_are_not_wanted_any_more_are_taken_back_from_our_own_users_alone(layout: Layout) -> None:
    admin = FakeAdmin()
    wanted = {replace(rule, operations=(operation,)) for rule in wanted_rights(layout) for operation in rule.operations}
    strangers = AclRule("revisor", "topic", "fiks.0301.soknad.v1", ("READ",))
    old = {
        AclRule("kvittering", "topic", "fiks.0301.soknad.v1", ("READ",)),
        AclRule("konnektor-borte", "topic", "fiks.0301.soknad.v1", ("READ",)),
        AclRule("konnektor-mappe", "topic", "fiks.1811.soknad.v1", ("WRITE",)),
    }
    admin.present = frozenset(wanted | old | {strangers})
    await provision(layout, Katalog(), admin)  # type: ignore[arg-type]  # the methods that are used
    assert admin.present == wanted | {strangers}


def test_a_password_is_long_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "passord"
    assert len(kept_password(path)) >= 32
    assert kept_password(path) == kept_password(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
