from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import pytest

from broker.kafka.settings import KafkaSettings
from broker.routing import kommune_topics
from broker.supervisor import housekeeping
from broker.supervisor.housekeeping import EVERY, keep_retention
from schemas.errors import BrokerUnavailableError
from schemas.names import Kommunenummer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.retention import Cutoff

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class House:
    """A clock that a test moves, and the rounds that were made."""

    def __init__(self) -> None:
        self.now = NOON
        self.rounds: list[Sequence[Cutoff]] = []
        self.made = asyncio.Event()
        self.fails = False

    async def round(self, _settings: KafkaSettings, _admin: object, cutoffs: Sequence[Cutoff]) -> dict[str, int]:
        self.rounds.append(cutoffs)
        self.made.set()
        if self.fails:
            raise BrokerUnavailableError("borte")
        return {}

    async def next_round(self) -> None:
        self.made.clear()
        async with asyncio.timeout(5):
            await self.made.wait()


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    house = House()

    class NoAdmin:
        def __init__(self, *_: Any) -> None: ...

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None: ...

    monkeypatch.setattr(housekeeping, "KafkaAdmin", NoAdmin)
    monkeypatch.setattr(housekeeping, "delete_expired", house.round)
    return house


def start(house: House) -> asyncio.Task[None]:
    topics = kommune_topics(Kommunenummer("0301"))
    settings = KafkaSettings(bootstrap="localhost:1")
    return asyncio.create_task(keep_retention(settings, lambda: topics, lambda: house.now, look_s=0))


async def test_it_looks_at_once_and_again_when_an_hour_has_gone_or_time_was_moved(house: House) -> None:
    task = start(house)
    await house.next_round()
    assert house.rounds[-1][0].before == NOON - timedelta(days=90)
    house.now += timedelta(days=20)
    await house.next_round()
    assert house.rounds[-1][0].before == NOON - timedelta(days=70)
    assert len(house.rounds) == 2
    task.cancel()


async def test_a_failure_is_no_end(house: House) -> None:
    house.fails = True
    task = start(house)
    await house.next_round()
    house.now += EVERY
    await house.next_round()
    assert not task.done()
    task.cancel()
