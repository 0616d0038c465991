from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from broker.topic_identity import TopicIdentity, Verdict
from producers.topic_watch import ACCEPT_COMMAND, TopicWatch
from schemas.errors import BrokerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable

TRANSPORT = "fiks.transport.v1"
SOKNAD = "fiks.0301.soknad.v1"


class Cluster:
    """Topics as Kafka has them; two partitions as the katalog says."""

    def __init__(self) -> None:
        self.topics = {TRANSPORT: TopicIdentity("t1", 4), SOKNAD: TopicIdentity("s1", 2)}
        self.away = False
        self.asked: list[set[str]] = []

    async def seen(self, topics: Iterable[str]) -> dict[str, TopicIdentity]:
        self.asked.append(set(topics))
        if self.away:
            raise BrokerUnavailableError("borte")
        return {name: self.topics[name] for name in topics if name in self.topics}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def opened() -> list[int]:
    return []


@pytest.fixture
def watch(world: Any, cluster: Cluster, opened: list[int]) -> TopicWatch:
    return TopicWatch(world.database, cluster, world.katalog, lambda: opened.append(1))


async def test_nothing_is_open_before_it_was_looked_at_and_everything_known_is_open_afterwards(
    watch: TopicWatch, opened: list[int]
) -> None:
    assert watch.closed(SOKNAD)
    assert watch.problem() is not None
    await watch.look()
    assert not watch.closed(SOKNAD)
    assert not watch.closed(TRANSPORT)
    assert (watch.problem(), opened) == (None, [1])


async def test_topics_that_are_not_the_outboxs_own_are_nobodys_business(watch: TopicWatch) -> None:
    assert not watch.closed("fiks.revisjon.v1")
    assert not watch.closed("noe annet")


@pytest.mark.parametrize(
    ("now", "verdict", "text"),
    [
        (TopicIdentity("s2", 2), "laget-pa-nytt", "laget på nytt"),
        (TopicIdentity("s1", 3), "annet-antall-partisjoner", "3 partisjoner, ikke 2"),
        (None, "mangler", "finnes ikke"),
    ],
)
async def test_a_topic_that_is_another_is_closed_alone_and_told_with_what_to_do(
    watch: TopicWatch, cluster: Cluster, now: TopicIdentity | None, verdict: str, text: str
) -> None:
    await watch.look()
    version = watch.version
    cluster.topics.pop(SOKNAD)
    if now is not None:
        cluster.topics[SOKNAD] = now
    with structlog.testing.capture_logs() as logs:
        await watch.look()
        await watch.look()
    assert watch.closed(SOKNAD)
    assert not watch.closed(TRANSPORT)
    assert watch.version != version
    assert text in (watch.problem() or "")
    assert (f"{ACCEPT_COMMAND} {SOKNAD}" in (watch.problem() or "")) == (now is not None)
    assert watch.verdicts()[SOKNAD][0] == verdict
    assert [log["log_level"] for log in logs if log["event"] == "topic_closed"] == ["critical"]  # once


async def test_what_was_remembered_outlives_the_process(watch: TopicWatch, cluster: Cluster, world: Any) -> None:
    await watch.look()
    cluster.topics[SOKNAD] = TopicIdentity("s2", 2)
    again = TopicWatch(world.database, cluster, world.katalog, lambda: None)
    await again.look()
    assert again.closed(SOKNAD)


async def test_a_person_lets_a_topic_go_on(watch: TopicWatch, cluster: Cluster, opened: list[int]) -> None:
    await watch.look()
    cluster.topics[SOKNAD] = TopicIdentity("s2", 2)
    await watch.look()
    assert await watch.accept(SOKNAD) is Verdict.NEW
    assert not watch.closed(SOKNAD)
    assert len(opened) == 2
    await watch.look()
    assert watch.verdicts()[SOKNAD] == ("samme", None)


async def test_a_person_cannot_overrule_the_katalog(watch: TopicWatch, cluster: Cluster) -> None:
    cluster.topics[SOKNAD] = TopicIdentity("s1", 3)
    await watch.look()
    assert await watch.accept(SOKNAD) is Verdict.REPARTITIONED
    assert watch.closed(SOKNAD)


async def test_a_kommune_that_has_left_the_katalog_is_looked_at_when_something_waits_for_it(
    watch: TopicWatch, cluster: Cluster
) -> None:
    cluster.topics["fiks.4601.soknad.v1"] = TopicIdentity("b1", 8)
    await watch.look()
    assert watch.closed("fiks.4601.soknad.v1")
    await watch.look()
    assert not watch.closed("fiks.4601.soknad.v1")


async def test_while_kafka_is_away_what_was_found_last_counts_and_the_watch_goes_on(
    watch: TopicWatch, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.topic_watch.SOON_S", 0.01)
    monkeypatch.setattr("producers.topic_watch.TURN_S", 0.01)
    monkeypatch.setattr("producers.topic_watch.LOOK_S", 0.01)
    await watch.look()
    cluster.away = True
    running = asyncio.create_task(watch.run())

    async def asked(times: int) -> None:
        before = len(cluster.asked)
        async with asyncio.timeout(10):
            while len(cluster.asked) < before + times:  # noqa: ASYNC110 - polls what has no event
                await asyncio.sleep(0.01)

    await asked(2)
    assert not watch.closed(SOKNAD)
    cluster.away = False
    cluster.topics[SOKNAD] = TopicIdentity("s2", 2)
    await asked(2)
    running.cancel()
    assert watch.closed(SOKNAD)
