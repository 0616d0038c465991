from __future__ import annotations

import asyncio
import os
from datetime import datetime, timedelta
from typing import Any

import pytest

from broker.clock import system_clock
from producers.oppbevaring import Kept, clear, keep_retention
from schemas.errors import PackageMissingError
from schemas.names import DokumentlagerId, MeldingId, Uuid

LARGE = (1_000_000, 3000, 2500)
KEPT = Kept(kopi=timedelta(days=180), pakke=timedelta(days=90))
DAY = timedelta(days=1)


@pytest.fixture
async def melding_id(world: Any, make_sending: Any) -> MeldingId:
    """A melding whose package is in the dokumentlager."""
    sending = make_sending(seed=1, encrypt_for=world.keys.mottak, sizes=LARGE)
    assert (await world.post(sending, path="0301/ref-1")).status_code == 202
    (kopi,) = await world.kopier.alive()
    assert kopi.record.dokumentlager_id is not None
    return MeldingId(kopi.melding_id)


async def is_there(world: Any, melding_id: MeldingId) -> bool:
    kopi = await world.kopier.get(melding_id)
    try:
        world.dokumentlager.size(kopi.record.dokumentlager_id)
    except PackageMissingError:
        return False
    return True


async def test_a_copy_that_nobody_vouched_for_is_destroyed_when_its_time_is_over(
    world: Any, melding_id: MeldingId
) -> None:
    await clear(world.kopier, KEPT, world.now + KEPT.kopi - DAY)
    assert len(await world.kopier.alive()) == 1
    await clear(world.kopier, KEPT, world.now + KEPT.kopi + DAY)
    assert await world.kopier.alive() == []
    kopi = await world.kopier.get(melding_id)
    assert kopi.arsak == "utlopt"


async def test_a_package_stays_until_its_topic_has_forgotten_the_melding(world: Any, melding_id: MeldingId) -> None:
    await world.kopier.destroy(melding_id, now=world.now, kvittering_id=Uuid.new())
    assert await clear(world.kopier, KEPT, world.now + KEPT.pakke - DAY) == 0
    assert await is_there(world, melding_id)
    assert await clear(world.kopier, KEPT, world.now + KEPT.pakke + DAY) == 1
    assert not await is_there(world, melding_id)


async def test_a_package_whose_copy_is_alive_is_never_deleted(world: Any, melding_id: MeldingId) -> None:
    kept = Kept(kopi=timedelta(days=10_000), pakke=timedelta())
    assert await clear(world.kopier, kept, world.now + timedelta(days=5_000)) == 0
    assert await is_there(world, melding_id)


async def test_a_crash_between_file_and_row_is_made_good_by_the_next_round(world: Any, melding_id: MeldingId) -> None:
    await world.kopier.destroy(melding_id, now=world.now, kvittering_id=Uuid.new())
    world.dokumentlager.delete((await world.kopier.get(melding_id)).record.dokumentlager_id)
    later = world.now + KEPT.pakke + DAY
    assert await clear(world.kopier, KEPT, later) == 1
    assert await clear(world.kopier, KEPT, later) == 0


WHOLE = KEPT.kopi + KEPT.pakke


def level() -> bool:
    return True


def packages(world: Any) -> frozenset[DokumentlagerId]:
    found: frozenset[DokumentlagerId] = world.dokumentlager.ids()
    return found


def store(world: Any, when: datetime) -> DokumentlagerId:
    """Put a package in the dokumentlager that nothing refers to."""
    sink = world.dokumentlager.create()
    sink.write(b"chiffer")
    dokumentlager_id: DokumentlagerId = sink.commit()
    os.utime(world.folder / f"{dokumentlager_id}.cms", (when.timestamp(), when.timestamp()))
    return dokumentlager_id


@pytest.mark.usefixtures("melding_id")
async def test_a_package_that_nothing_refers_to_goes_when_a_copy_and_a_package_would_have_gone(world: Any) -> None:
    old, young = store(world, world.now - WHOLE - DAY), store(world, world.now - WHOLE + DAY)
    (known,) = await world.outbox.packages()
    os.utime(world.folder / f"{known}.cms", (0, 0))
    assert await clear(world.kopier, KEPT, world.now, level) == 1
    assert packages(world) == {young, known}
    assert old not in packages(world)


async def test_a_package_that_nothing_refers_to_stays_while_the_register_may_not_know_all(world: Any) -> None:
    old = store(world, world.now - WHOLE - DAY)
    assert await clear(world.kopier, KEPT, world.now, lambda: False) == 0
    assert await clear(world.kopier, KEPT, world.now) == 0
    assert packages(world) == {old}


async def test_a_register_that_falls_behind_meanwhile_stops_it(world: Any) -> None:
    for _ in range(2):
        store(world, world.now - WHOLE - DAY)
    answers = iter([True, True, False])
    assert await clear(world.kopier, KEPT, world.now, lambda: next(answers, False)) == 1
    assert len(packages(world)) == 1


async def test_a_package_that_is_being_taken_in_stays_wherever_the_clock_is(world: Any) -> None:
    new = store(world, system_clock())
    assert await clear(world.kopier, KEPT, system_clock() + 2 * WHOLE, level) == 0
    assert packages(world) == {new}


@pytest.mark.usefixtures("melding_id")
async def test_the_package_of_a_reference_that_was_read_back_goes_in_its_time(world: Any) -> None:
    for table in ("avsenderkopi", "kopiinnhold", "forsegling"):
        await world.database.write(lambda connection, table=table: connection.execute(f"DELETE FROM {table}").rowcount)
    assert await clear(world.kopier, KEPT, world.now + WHOLE - DAY, level) == 0
    assert len(packages(world)) == 1
    assert await clear(world.kopier, KEPT, world.now + WHOLE + DAY, lambda: False) == 0
    assert await clear(world.kopier, KEPT, world.now + WHOLE + DAY, level) == 1
    assert packages(world) == frozenset()
    assert await world.outbox.packages() == frozenset()


async def test_it_follows_the_clock(world: Any, melding_id: MeldingId) -> None:
    task = asyncio.create_task(keep_retention(world.kopier, KEPT, lambda: world.now + 2 * KEPT.kopi))
    async with asyncio.timeout(10):
        while True:
            if (await world.kopier.get(melding_id)).destruert is not None:
                break
            await asyncio.sleep(0.01)
    task.cancel()
