"""Every topic has one schema, and every schema a topic."""

from __future__ import annotations

import typing

import pytest

from broker.routing import Kind, central_topics, kommune_topics, parse_topic
from schemas.names import Kommunenummer
from schemas.records import RECORD_TYPES

SCHEMA_OF = {
    "soknad": "soknad",
    "kvittering": "kvittering",
    "hendelse": "hendelse",
    "soknad-dlq": "dlq",
    "transport": "transport",
    "kvittering-dlq": "dlq",
    "katalog": "katalog",
    "status": "status",
    "revisjon": "revisjon",
}
ALL_TOPICS = [*kommune_topics(Kommunenummer("0301")), *central_topics()]
EXPECTED = {
    "fiks.0301.soknad.v1",
    "fiks.0301.kvittering.v1",
    "fiks.0301.hendelse.v1",
    "fiks.0301.soknad.v1.dlq",
    "fiks.transport.v1",
    "fiks.kvittering.v1.dlq",
    "fiks.katalog.v1",
    "fiks.status.v1",
    "fiks.revisjon.v1",
}


def test_the_topics_are_those_of_the_design() -> None:
    assert {topic.name for topic in ALL_TOPICS} == EXPECTED


@pytest.mark.parametrize("topic", ALL_TOPICS, ids=lambda t: t.name)
def test_every_topic_has_a_schema(topic: object) -> None:
    assert SCHEMA_OF[parse_topic(topic.name).kind] in RECORD_TYPES  # type: ignore[attr-defined]  # parametrize hides the type


def test_every_kind_of_topic_has_a_schema_and_every_schema_a_topic() -> None:
    assert set(SCHEMA_OF) == set(typing.get_args(Kind))
    assert set(SCHEMA_OF.values()) == set(RECORD_TYPES)
