from __future__ import annotations

from collections.abc import Iterable

import pytest

from broker.topic_identity import TopicIdentity
from consumers.dedup import DedupStore
from consumers.topic_guard import TopicGuard
from schemas.errors import TopicChangedError

TOPICS = ("fiks.4601.soknad.v1", "fiks.4601.kvittering.v1")


class Kafka:
    def __init__(self) -> None:
        self.topics = {topic: TopicIdentity(f"id-{topic}", 2) for topic in TOPICS}

    async def seen(self, topics: Iterable[str]) -> dict[str, TopicIdentity]:
        return {topic: self.topics[topic] for topic in topics if topic in self.topics}


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


@pytest.fixture
def guard(kafka: Kafka, store: DedupStore) -> TopicGuard:
    return TopicGuard(TOPICS, identities=kafka, store=store)


async def test_a_topic_is_remembered_when_it_is_first_seen_and_may_be_read_as_long_as_it_is_the_same(
    guard: TopicGuard, kafka: Kafka, store: DedupStore
) -> None:
    for _ in range(2):
        await guard.check()
    assert await store.known_topics() == kafka.topics


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (TopicIdentity("another", 2), "slettet og laget på nytt"),
        (TopicIdentity(f"id-{TOPICS[0]}", 3), "3 partisjoner, ikke 2"),
        (None, "finnes ikke"),
    ],
)
async def test_another_topic_is_not_read_and_the_error_says_what_to_do(
    guard: TopicGuard, kafka: Kafka, other: TopicIdentity | None, said: str
) -> None:
    await guard.check()
    if other is None:
        del kafka.topics[TOPICS[0]]
    else:
        kafka.topics[TOPICS[0]] = other
    with pytest.raises(TopicChangedError, match=said) as raised:
        await guard.check()
    assert TOPICS[0] in str(raised.value)
    if other is not None:
        assert f"formidler connector godta-emne --config konnektor.yaml {TOPICS[0]}" in str(raised.value)


async def test_an_accepted_topic_is_read_from_its_beginning(guard: TopicGuard, kafka: Kafka, store: DedupStore) -> None:
    await guard.check()
    kafka.topics[TOPICS[1]] = TopicIdentity("another", 2)
    assert await store.forget_topic(TOPICS[1])
    assert not await store.forget_topic(TOPICS[1])
    await guard.check()
    assert await store.known_topics() == kafka.topics
    assert await store.positions(TOPICS[1]) == {}
