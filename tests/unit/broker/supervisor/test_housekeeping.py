from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import pytest

from broker.kafka.settings import KafkaSettings
from broker.routing import kommune_topics
from broker.supervisor import housekeeping
from broker.supervisor.housekeeping import keep_house
from schemas.names import Kommunenummer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.retention import Cutoff

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class NoAdmin:
    def __init__(self, *_: Any) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...


async def test_what_is_over_age_by_the_set_ups_time_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: asyncio.Queue[Sequence[Cutoff]] = asyncio.Queue()

    async def delete(_settings: KafkaSettings, _admin: object, cutoffs: Sequence[Cutoff]) -> dict[str, int]:
        await asked.put(cutoffs)
        return {}

    monkeypatch.setattr(housekeeping, "KafkaAdmin", NoAdmin)
    monkeypatch.setattr(housekeeping, "delete_expired", delete)
    topics = kommune_topics(Kommunenummer("0301"))
    task = asyncio.create_task(keep_house(KafkaSettings(bootstrap="localhost:1"), lambda: topics, lambda: NOON))
    async with asyncio.timeout(5):
        cutoffs = await asked.get()
    assert cutoffs[0].before == NOON - timedelta(days=90)
    task.cancel()
