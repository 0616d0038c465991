from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import REGISTRY

from broker.katalog import Katalog
from kvittering import vakt as module
from kvittering.frister import Frister
from kvittering.store import StatusStore
from kvittering.vakt import Vakt, frister_of
from schemas.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Collection

    from schemas.names import Kommunenummer

HOUR = 3600
DEFAULTS = Frister(timedelta(hours=1), timedelta(hours=2), timedelta(minutes=10))


class World:
    """A watch over a store, with a clock and topics that a test decides about."""

    def __init__(self, kit: Any, path: Path, *issuers: Any) -> None:
        self.kit, self.log = kit, kit.log()
        self.now: datetime = kit.now
        self.katalog = Katalog(issuer.entry() for issuer in issuers)
        self.store = StatusStore(path, frister_of=frister_of(self.katalog, DEFAULTS))
        self.unread: set[Kommunenummer] = set()
        self.queued = asyncio.Event()
        self.vakt = self.make_vakt()

    def make_vakt(self) -> Vakt:
        return Vakt(
            store=self.store,
            katalog=self.katalog,
            defaults=DEFAULTS,
            reader=self,
            clock=lambda: self.now,
            queued=self.queued,
        )

    async def up_to_date(self, kommuner: Collection[Kommunenummer], within_s: float) -> frozenset[Kommunenummer]:
        assert within_s > 0
        return frozenset(kommuner) - self.unread

    async def put(self, *records: Any) -> None:
        await self.store.apply([self.kit.read(self.log.transport(one)) for one in records], self.kit.now)

    async def look(self, hours: float) -> list[str]:
        self.now = self.kit.now + timedelta(hours=hours)
        return [event.digisos_id for event in await self.vakt.look()]


def metric(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


@pytest.fixture
async def world(kit: Any, oslo: Any, bergen: Any, tmp_path: Path) -> Any:
    world = World(kit, tmp_path / "k.sqlite", oslo, bergen)
    async with world.store:
        yield world


async def test_the_watch_withdraws_at_its_time_once_and_wakes_whoever_publishes(world: World, kit: Any) -> None:
    soknad = kit.soknad()
    await world.put(soknad.transport("AKSEPTERT"))
    assert await world.look(1.1) == []
    assert not world.queued.is_set()
    assert await world.look(1.2) == [soknad.digisos_id]
    assert world.queued.is_set()
    world.vakt = world.make_vakt()  # a restart
    assert await world.look(50) == []


async def test_while_the_topics_cannot_be_read_nothing_is_withdrawn_and_the_others_are_not_held_up(
    world: World, kit: Any
) -> None:
    unread, other = kit.soknad(), kit.soknad(kommunenummer=kit.bergen)
    await world.put(unread.transport("AKSEPTERT"), other.transport("AKSEPTERT"))
    world.unread = {kit.oslo}
    assert await world.look(2) == [other.digisos_id]
    assert metric("fiks_watch_blind_kommuner") == 1
    world.unread = set()
    assert await world.look(2) == [unread.digisos_id]
    assert await world.look(2) == []
    assert metric("fiks_watch_blind_kommuner") == 0


async def test_more_than_one_transaction_takes_are_withdrawn_in_one_look(
    world: World, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvittering.fristlager.AT_A_TIME", 2)
    await world.put(*(kit.soknad().transport("AKSEPTERT") for _ in range(5)))
    assert len(await world.look(2)) == 5


async def test_a_kommunes_own_deadline_counts_and_a_change_of_it_is_heeded(
    world: World, kit: Any, oslo: Any, bergen: Any
) -> None:
    soknad, other = kit.soknad(), kit.soknad(kommunenummer=kit.bergen)
    world.katalog.put(oslo.entry().model_copy(update={"frist_bekreftet_s": 5 * HOUR}))
    await world.put(soknad.transport("AKSEPTERT"), other.transport("AKSEPTERT"))
    assert await world.look(0) == []
    world.katalog.put(oslo.entry().model_copy(update={"frist_bekreftet_s": 60}))
    world.katalog.put(bergen.entry().model_copy(update={"frist_bekreftet_s": 9 * HOUR}))
    assert await world.look(0.5) == [soknad.digisos_id]
    assert await world.look(8) == []
    assert await world.look(9.2) == [other.digisos_id]


async def test_a_store_from_before_the_watch_is_computed_at_its_first_look(world: World, kit: Any) -> None:
    soknad = kit.soknad()
    await world.put(soknad.transport("AKSEPTERT"))
    await world.store.write(lambda connection: connection.execute("DELETE FROM frist"))
    assert await world.look(2) == [soknad.digisos_id]


async def test_what_is_late_is_counted_by_kommune_and_reason(world: World, kit: Any) -> None:
    await world.put(*(kit.soknad().transport("AKSEPTERT") for _ in range(2)))
    world.now = kit.now + timedelta(hours=3)
    await world.vakt.refresh_figures()
    labels = {"kommunenummer": "0301", "aarsak": "ikke-sendt"}
    assert metric("fiks_soknader_overdue", **labels) == 2
    assert metric("fiks_oldest_overdue_seconds") == 2 * HOUR
    world.now = kit.now
    await world.vakt.refresh_figures()
    assert metric("fiks_soknader_overdue", **labels) is None
    assert metric("fiks_oldest_overdue_seconds") == 0


async def test_it_runs_on_when_the_store_fails_and_sees_a_clock_that_jumps(
    world: World, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    await world.put(kit.soknad().transport("AKSEPTERT"))
    real, failures = world.store.read, [StoreError("disken er full")] * 3

    async def read(call: Any) -> Any:
        if failures:
            raise failures.pop()
        return await real(call)

    monkeypatch.setattr(world.store, "read", read)
    ready = asyncio.Event()
    running = asyncio.create_task(world.vakt.run(ready))
    await asyncio.sleep(0)
    assert len(failures) == 3
    ready.set()
    async with asyncio.timeout(10):
        while failures:  # noqa: ASYNC110 - a list has no event
            await asyncio.sleep(0.001)
        assert not world.queued.is_set()
        world.now = kit.now + timedelta(days=20)
        await world.queued.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
