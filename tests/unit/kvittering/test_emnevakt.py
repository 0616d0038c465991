from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from broker.record import TopicPartition
from broker.routing import TRANSPORT
from broker.topic_identity import TopicIdentity
from kvittering.emnevakt import TopicGuard
from kvittering.store import StatusStore
from schemas.errors import BrokerUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

ANNET = "fiks.0301.kvittering.v1"


class Kafka:
    def __init__(self) -> None:
        self.topics = {TRANSPORT: TopicIdentity("a", 4), ANNET: TopicIdentity("b", 2)}
        self.down = False

    async def seen(self, topics: Iterable[str]) -> dict[str, TopicIdentity]:
        if self.down:
            raise BrokerUnavailableError("borte")
        return {topic: self.topics[topic] for topic in topics if topic in self.topics}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[StatusStore]:
    async with StatusStore(tmp_path / "k.sqlite") as opened:
        yield opened


BOTH = frozenset([TRANSPORT, ANNET])


@pytest.mark.parametrize(
    ("change", "word"),
    [(TopicIdentity("c", 2), "laget på nytt"), (TopicIdentity("b", 3), "3 partisjoner, ikke 2")],
)
async def test_a_topic_that_is_another_is_stopped_told_once_and_stays_stopped_over_a_restart(
    store: StatusStore, change: TopicIdentity, word: str
) -> None:
    kafka = Kafka()
    assert await TopicGuard(store, kafka.seen).readable(BOTH) == BOTH
    kafka.topics[ANNET] = change
    guard = TopicGuard(store, kafka.seen)
    with capture_logs() as logs:
        for _ in range(2):
            assert await guard.readable(BOTH) == {TRANSPORT}
    assert [(line["event"], line["log_level"], line["topic"]) for line in logs] == [
        ("topic_stopped", "critical", ANNET)
    ]
    assert word in str(guard.problem())
    assert f"`formidler status godta-emner --topic {ANNET}`" in str(guard.problem())
    assert REGISTRY.get_sample_value("fiks_topics_stopped") == 1
    kafka.topics[ANNET] = TopicIdentity("b", 2)  # whatever it looks like now: somebody must say that it may go on
    assert await TopicGuard(store, kafka.seen).readable(BOTH) == {TRANSPORT}


async def test_a_topic_that_is_away_is_not_stopped_and_is_judged_when_it_comes_back(store: StatusStore) -> None:
    kafka = Kafka()
    guard = TopicGuard(store, kafka.seen)
    await guard.readable(BOTH)
    former = kafka.topics.pop(ANNET)
    assert await guard.readable(BOTH) == BOTH
    kafka.topics[ANNET] = TopicIdentity("ny", former.partitions)
    assert await guard.readable(BOTH) == {TRANSPORT}


async def test_while_kafka_is_away_nothing_is_judged(store: StatusStore) -> None:
    kafka = Kafka()
    kafka.down = True
    guard = TopicGuard(store, kafka.seen)
    with pytest.raises(BrokerUnavailableError):
        await guard.readable(BOTH)
    assert guard.problem() is None


async def test_several_stopped_topics_are_one_sentence_with_a_count(store: StatusStore) -> None:
    guard = TopicGuard(store, Kafka().seen)
    await guard.stop({ANNET: f"{ANNET} er for kort", TRANSPORT: "også"})
    assert guard.problem() == f"{ANNET} er for kort (og 1 emner til)"


async def test_only_what_is_gone_before_it_was_read_is_a_hole(store: StatusStore) -> None:
    guard, one, two = TopicGuard(store, Kafka().seen), TopicPartition(ANNET, 0), TopicPartition(ANNET, 1)
    await guard.readable(BOTH)
    assert await guard.check_holes({}, {one: 5, two: 0}) == frozenset()  # new: it begins where it begins
    offsets = await store.offsets()
    assert offsets == {one: 5, two: 0}
    assert await guard.check_holes(offsets, {one: 5, two: 0}) == frozenset()
    assert await guard.check_holes(offsets | {one: 9}, {one: 7, two: 0}) == frozenset()
    assert await guard.check_holes(offsets, {one: 6, two: 0}) == {ANNET}
    assert f"begynner på {6}" in str(guard.problem())


async def test_a_record_that_came_before_stops_its_topic(store: StatusStore) -> None:
    guard = TopicGuard(store, Kafka().seen)
    await guard.rewound(TopicPartition(ANNET, 0), 10, 3)
    assert await guard.readable(BOTH) == {TRANSPORT}
