from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import routing
from broker.routing import (
    KATALOG,
    KVITTERING_DLQ,
    REVISJON,
    STATUS,
    TRANSPORT,
    AclRule,
    TopicName,
    central_topics,
    connector_rights,
    consumer_group,
    dead_letter_topic,
    hendelse_topic,
    kommune_topics,
    kvittering_topic,
    parse_topic,
    process_group,
    process_rights,
    soknad_topic,
)
from schemas.errors import InvalidNameError
from schemas.names import Kommunenummer

OSLO = Kommunenummer("0301")
DAY_MS = 24 * 60 * 60 * 1000

kommunenummer = st.from_regex(r"[0-9]{4}", fullmatch=True, alphabet=st.characters(codec="ascii")).map(Kommunenummer)


def test_the_topics_have_the_names_of_the_design() -> None:
    assert soknad_topic(OSLO) == "fiks.0301.soknad.v1"
    assert kvittering_topic(OSLO) == "fiks.0301.kvittering.v1"
    assert hendelse_topic(OSLO) == "fiks.0301.hendelse.v1"
    assert dead_letter_topic(OSLO) == "fiks.0301.soknad.v1.dlq"
    assert {spec.name for spec in central_topics()} == {
        "fiks.transport.v1",
        "fiks.kvittering.v1.dlq",
        "fiks.katalog.v1",
        "fiks.status.v1",
        "fiks.revisjon.v1",
    }


@given(kommunenummer)
def test_what_is_built_is_parsed_back(knr: Kommunenummer) -> None:
    assert parse_topic(soknad_topic(knr)) == TopicName("soknad", knr)
    assert parse_topic(kvittering_topic(knr)) == TopicName("kvittering", knr)
    assert parse_topic(hendelse_topic(knr)) == TopicName("hendelse", knr)
    assert parse_topic(dead_letter_topic(knr)) == TopicName("soknad-dlq", knr)


def test_central_topics_belong_to_no_kommune() -> None:
    assert [parse_topic(name) for name in (TRANSPORT, KVITTERING_DLQ, KATALOG, STATUS, REVISJON)] == [
        TopicName(kind, None) for kind in ("transport", "kvittering-dlq", "katalog", "status", "revisjon")
    ]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "fiks.301.soknad.v1",
        "fiks.03010.soknad.v1",
        "fiks.0301.soknad.v2",
        "fiks.0301.soknad.v1.dlq.dlq",
        "fiks.0301.kvittering.v1.dlq",
        "fiks.0301.transport.v1",
        "fiks.soknad.v1",
        "Fiks.0301.soknad.v1",
        "fiks.0301.soknad.v1\n",
        "fiks.٠٣٠١.soknad.v1",
        "__consumer_offsets",
    ],
)
def test_other_names_are_refused_without_being_repeated(name: str) -> None:
    with pytest.raises(InvalidNameError) as raised:
        parse_topic(name)
    assert not name or name not in str(raised.value)


def test_groups_of_vendors_and_processes_never_meet() -> None:
    assert consumer_group("acme", OSLO) == "fiks.acme.0301"
    assert process_group("kvittering") == "fiks.kvittering"


@pytest.mark.parametrize("vendor", ["", "Acme", "a.b", "acme*", "9a", "a" * 41, "å"])
def test_a_vendors_name_that_could_be_another_group_is_refused(vendor: str) -> None:
    with pytest.raises(InvalidNameError):
        consumer_group(vendor, OSLO)


def test_topics_are_kept_as_long_as_the_design_says() -> None:
    kept = {spec.name: spec.config.get("retention.ms") for spec in (*kommune_topics(OSLO), *central_topics())}
    assert kept[soknad_topic(OSLO)] == str(90 * DAY_MS)
    assert int(kept[kvittering_topic(OSLO)] or 0) >= (460 + 31) * DAY_MS
    assert kept[hendelse_topic(OSLO)] == kept[TRANSPORT] == kept[kvittering_topic(OSLO)]
    assert kept[dead_letter_topic(OSLO)] == "-1"
    assert kept[KVITTERING_DLQ] == str(90 * DAY_MS)
    assert int(kept[REVISJON] or 0) >= 5 * 365 * DAY_MS
    assert kept[KATALOG] is kept[STATUS] is None


def test_only_the_views_are_compacted() -> None:
    compacted = {
        spec.name for spec in (*kommune_topics(OSLO), *central_topics()) if spec.config["cleanup.policy"] == "compact"
    }
    assert compacted == {KATALOG, STATUS}


def test_a_dead_letter_topic_takes_more_than_the_topic_it_serves() -> None:
    limits = {spec.name: int(spec.config["max.message.bytes"]) for spec in (*kommune_topics(OSLO), *central_topics())}
    assert limits[dead_letter_topic(OSLO)] > limits[soknad_topic(OSLO)]
    assert limits[KVITTERING_DLQ] > limits[kvittering_topic(OSLO)]


def test_the_number_of_partitions_is_the_katalogs_choice() -> None:
    assert {spec.partitions for spec in kommune_topics(OSLO)} == {2}
    assert {spec.partitions for spec in kommune_topics(OSLO, partitions=5)} == {5}


def test_a_connectors_rights_are_those_of_the_design() -> None:
    assert set(connector_rights("c", "acme", OSLO)) == {
        AclRule("c", "topic", "fiks.0301.soknad.v1", ("READ",)),
        AclRule("c", "topic", "fiks.0301.kvittering.v1", ("READ", "WRITE")),
        AclRule("c", "topic", "fiks.0301.hendelse.v1", ("WRITE",)),
        AclRule("c", "topic", "fiks.0301.soknad.v1.dlq", ("WRITE",)),
        AclRule("c", "group", "fiks.acme.0301", ("READ",)),
    }


@pytest.mark.parametrize("process", ["producers", "broker", "kvittering"])
def test_every_process_has_its_own_name_unless_told_otherwise(process: routing.Process) -> None:
    assert {rule.principal for rule in process_rights(process, [OSLO])} == {process}
    assert {rule.principal for rule in process_rights(process, [OSLO], principal="p")} == {"p"}


def test_only_producers_and_broker_write_soknader_and_no_process_reads_them() -> None:
    rules = [rule for process in ("producers", "broker", "kvittering") for rule in process_rights(process, [OSLO])]
    touching = {(rule.principal, rule.operations) for rule in rules if rule.name == soknad_topic(OSLO)}
    assert touching == {("producers", ("WRITE",)), ("broker", ("WRITE",))}


def test_an_operators_commands_see_dead_letters_answers_and_acts_but_no_soknad() -> None:
    readable = {rule.name for rule in process_rights("broker", [OSLO]) if "READ" in rule.operations}
    assert readable == {
        dead_letter_topic(OSLO),
        kvittering_topic(OSLO),
        KATALOG,
        KVITTERING_DLQ,
        REVISJON,
        process_group("broker"),
    }


@given(st.lists(kommunenummer, unique=True, max_size=4))
def test_every_right_names_one_topic_of_ours_or_one_group(numbers: list[Kommunenummer]) -> None:
    for process in ("producers", "broker", "kvittering"):
        for rule in process_rights(process, numbers):
            if rule.resource_type == "topic":
                assert parse_topic(rule.name).kommunenummer in {None, *numbers}
            else:
                assert rule.name == process_group(process)
