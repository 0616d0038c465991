from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from broker.sql.sqlite import SqliteDatabase
from producers import leases as leases_module
from producers.leases import MARGIN_S, MIGRATION, SQLITE_NOW, TTL_S, Fence, SoleLeases, SqlLeases, boot_time
from producers.sharing import BUCKETS
from schemas.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TTL = TTL_S - MARGIN_S


class Instances:
    """Instances over one database, whose clock and theirs are ours to move."""

    def __init__(self, database: SqliteDatabase) -> None:
        self.database = database
        self.now_s = 1_000.0
        self.changed = asyncio.Event()

    def start(self, name: str) -> SqlLeases:
        return SqlLeases(
            self.database, "SELECT ms FROM klokke", self.changed, instance=name, elapsed=lambda: self.now_s
        )

    async def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        await self.database.write(lambda c: c.execute("UPDATE klokke SET ms = ?", (round(self.now_s * 1000),)))

    async def tokens(self) -> dict[str, int]:
        rows = await self.database.read(lambda c: c.execute("SELECT botte, symbol FROM leie").fetchall())
        return {row[0]: row[1] for row in rows}


@pytest.fixture
async def instances(tmp_path: Path) -> AsyncIterator[Instances]:
    clock = "CREATE TABLE klokke (ms INTEGER NOT NULL) STRICT;\nINSERT INTO klokke (ms) VALUES (1000000);"
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(SqliteDatabase(tmp_path / "leier.sqlite", (MIGRATION, clock)))
        yield Instances(database)


def held(leases: SqlLeases) -> frozenset[str]:
    found = leases.buckets()
    assert found is not None
    return found


async def test_the_first_instance_gets_everything_and_is_told_that_there_is_more_to_do(instances: Instances) -> None:
    one = instances.start("a")
    assert held(one) == frozenset()
    assert one.problem() is not None
    await one.beat()
    assert held(one) == frozenset(BUCKETS)
    assert instances.changed.is_set()
    assert one.problem() is None


async def test_one_that_joins_gets_its_share_and_no_bucket_is_anybodys_twice(instances: Instances) -> None:
    one, two = instances.start("a"), instances.start("b")
    await one.beat()
    await two.beat()
    assert held(two) == frozenset()  # the other has them all, and is not done
    for _ in range(2):  # the first sees the other and leaves its half; then it gives it back
        await one.beat()
        assert not held(one) & held(two)
    await two.beat()
    assert (len(held(one)), len(held(two))) == (128, 128)
    assert not held(one) & held(two)


async def test_a_bucket_with_something_under_way_is_given_back_when_that_has_ended(instances: Instances) -> None:
    one, two = instances.start("a"), instances.start("b")
    await one.beat()
    busy = max(held(one))
    with one.working(busy):
        fence = one.fence(busy)
        await two.beat()
        for _ in range(3):
            await one.beat()
        await two.beat()
        assert busy not in held(one)  # nothing new
        assert busy not in held(two)
        assert one.holds(fence)  # what is under way goes on
    await one.beat()
    await two.beat()
    assert busy in held(two)
    assert not one.holds(fence)


async def test_what_a_dead_instance_had_is_taken_when_its_leases_have_run_out(instances: Instances) -> None:
    one, two = instances.start("a"), instances.start("b")
    await one.beat()
    before = await instances.tokens()
    await instances.pass_time(TTL_S - 1)
    await two.beat()
    assert held(two) == frozenset()
    await instances.pass_time(1.1)
    await two.beat()
    assert held(two) == frozenset(BUCKETS)
    assert all(token == before[bucket] + 1 for bucket, token in (await instances.tokens()).items())


async def test_an_instance_believes_in_its_leases_for_less_time_than_the_database_does(instances: Instances) -> None:
    one = instances.start("a")
    await one.beat()
    fence = one.fence("00")
    await instances.pass_time(TTL - 0.01)
    assert one.holds(fence)
    await instances.pass_time(0.02)
    assert held(one) == frozenset()
    assert not one.holds(fence)
    assert "ikke fornyet" in (one.problem() or "")


async def test_the_time_between_question_and_answer_counts_against_the_lease(instances: Instances) -> None:
    class Slow:
        def __init__(self, database: Any) -> None:
            self._database = database

        async def write(self, call: Any) -> Any:
            answer = await self._database.write(call)
            instances.now_s += TTL
            return answer

    one = SqlLeases(
        Slow(instances.database), "SELECT ms FROM klokke", instances.changed, elapsed=lambda: instances.now_s
    )  # type: ignore[arg-type]  # a stand-in that is slow
    await one.beat()
    assert held(one) == frozenset()


async def test_a_zombie_that_comes_back_finds_that_its_buckets_are_others(instances: Instances) -> None:
    one, two = instances.start("a"), instances.start("b")
    await one.beat()
    fence = one.fence("00")
    await instances.pass_time(TTL_S + 1)
    await two.beat()
    assert not one.holds(fence)
    await one.beat()
    assert not one.holds(fence)
    assert held(one) == frozenset()


async def test_leases_that_are_released_are_free_at_once(instances: Instances) -> None:
    one, two = instances.start("a"), instances.start("b")
    await one.beat()
    await one.release()
    assert held(one) == frozenset()
    await two.beat()
    assert held(two) == frozenset(BUCKETS)


async def test_a_database_that_is_away_leaves_the_leases_until_they_run_out(
    instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = instances.start("a")
    await one.beat()

    async def away(_: object) -> None:
        raise StoreError("borte")

    monkeypatch.setattr(instances.database, "write", away)
    with pytest.raises(StoreError):
        await one.beat()
    assert held(one) == frozenset(BUCKETS)
    await one.release()  # tells nobody, and raises nothing


async def test_renewing_goes_on_after_an_error_of_the_database(
    instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = instances.database.write, 0

    async def sometimes(call: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StoreError("borte")
        return await real(call)

    monkeypatch.setattr(instances.database, "write", sometimes)
    one = instances.start("a")
    running = asyncio.create_task(one.run())
    async with asyncio.timeout(10):
        await instances.changed.wait()
    running.cancel()
    assert held(one) == frozenset(BUCKETS)


async def test_an_outage_of_the_database_is_told_once_and_so_is_the_next(
    instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "HAND_OVER_S", 0.001)
    real = instances.database.write
    beats: list[bool] = []
    done = asyncio.Event()

    async def write(call: Any) -> Any:
        beats.append(len(beats) % 10 < 9)  # nine that fail, one that does not
        if len(beats) == 20:
            done.set()
        if beats[-1]:
            raise StoreError("borte")
        return await real(call)

    monkeypatch.setattr(instances.database, "write", write)
    one = SqlLeases(
        instances.database, "SELECT ms FROM klokke", instances.changed, beat_s=0.001, elapsed=lambda: instances.now_s
    )
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(one.run())
        async with asyncio.timeout(60):
            await done.wait()
        running.cancel()
    assert len([log for log in logs if log["event"] == "leases_not_renewed"]) == 2


async def test_the_databases_own_clock_is_milliseconds_of_now(instances: Instances) -> None:
    (ms,) = await instances.database.read(lambda c: c.execute(SQLITE_NOW).fetchone())
    assert abs(ms / 1000 - time.time()) < 5


def test_one_alone_has_everything_without_any_lease() -> None:
    sole = SoleLeases()
    assert sole.buckets() is None
    assert sole.fence("00") is None
    assert sole.holds(None)
    assert not sole.holds(Fence("00", "a", 1))
    assert (sole.problem(), sole.poll_s) == (None, None)
    with sole.working("00"):
        pass


def test_the_boot_clock_goes_forward() -> None:
    assert boot_time() <= boot_time()
