from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from broker.routing import STATUS, TRANSPORT
from kvittering import oppbevaring
from kvittering.oppbevaring import forget, keep_retention, newest
from kvittering.store import StatusStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from broker.sql import Connection

KEPT = timedelta(days=496)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[StatusStore]:
    async with StatusStore(tmp_path / "kvittering.sqlite") as opened:
        yield opened


async def rows(store: StatusStore, table: str) -> int:
    def count(connection: Connection) -> int:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    return await store.write(count)


async def take_in(store: StatusStore, kit: Any, oslo: Any, soknad: Any, log: Any = None) -> None:
    log = log or kit.log()
    batch = [
        kit.read(log.transport(soknad.transport("AKSEPTERT"))),
        kit.read(log.kvittering(oslo.issue(soknad)), oslo),
    ]
    await store.apply(batch, kit.now)
    await store.published([one.nr for one in await store.pending(100)])


async def test_a_soknad_that_nothing_happened_to_for_long_is_gone_with_all_that_it_was_read_from(
    kit: Any, oslo: Any, store: StatusStore
) -> None:
    soknad = kit.soknad()
    await take_in(store, kit, oslo, soknad)
    assert await forget(store, kit.now + timedelta(days=1)) == 1
    assert await store.state(soknad.digisos_id) is None
    assert await rows(store, "innkommet") == 0


async def test_its_status_is_taken_from_the_topic_by_a_tombstone(kit: Any, oslo: Any, store: StatusStore) -> None:
    soknad = kit.soknad()
    await take_in(store, kit, oslo, soknad)
    await forget(store, kit.now + timedelta(days=1))
    (pending,) = await store.pending(10)
    assert (pending.outgoing.topic, pending.outgoing.key, pending.outgoing.value) == (
        STATUS,
        soknad.digisos_id.encode(),
        None,
    )


async def test_the_newest_thing_decides_so_that_a_case_that_is_worked_on_stays(
    kit: Any, oslo: Any, store: StatusStore
) -> None:
    soknad = kit.soknad()
    await take_in(store, kit, oslo, soknad)
    state = await store.state(soknad.digisos_id)
    assert state is not None
    last = newest(state)
    assert last is not None
    assert last > kit.now
    assert await forget(store, last) == 0
    assert await forget(store, last + timedelta(seconds=1)) == 1


async def test_all_are_looked_at_some_at_a_time(
    kit: Any, oslo: Any, store: StatusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oppbevaring, "AT_A_TIME", 2)
    log = kit.log()
    for _ in range(5):
        await take_in(store, kit, oslo, kit.soknad(), log)
    assert await forget(store, kit.now + timedelta(days=1)) == 5
    assert await rows(store, "soknad") == 0


async def test_what_was_about_no_soknad_goes_by_kafkas_time(kit: Any, store: StatusStore) -> None:
    broken = kit.read(kit.log().put(TRANSPORT, b"ingens", b"tull"))
    await store.apply([broken], kit.now)
    await forget(store, kit.now - timedelta(days=1))
    assert await rows(store, "innkommet") == 1
    await forget(store, kit.now + timedelta(days=1))
    assert await rows(store, "innkommet") == 0


async def test_whoever_publishes_is_woken_when_there_are_tombstones(kit: Any, oslo: Any, store: StatusStore) -> None:
    await take_in(store, kit, oslo, kit.soknad())
    forgotten = asyncio.Event()
    task = asyncio.create_task(keep_retention(store, KEPT, lambda: kit.now + 2 * KEPT, forgotten))
    async with asyncio.timeout(5):
        await forgotten.wait()
    assert await rows(store, "soknad") == 0
    task.cancel()
