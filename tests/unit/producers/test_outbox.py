from __future__ import annotations

import asyncio
import threading
from typing import Any

from broker.sql.sqlite import SqliteDatabase
from producers.database import MIGRATIONS
from producers.leases import SQLITE_NOW, SqlLeases
from producers.outbox import Sent
from producers.picking import Bounds
from producers.sharing import bucket_of
from schemas.names import DigisosId, NavEksternRefId


async def post(world: Any, make_sending: Any, nr: int) -> str:
    sending = make_sending(seed=nr, encrypt_for=world.keys.mottak)
    answer = await world.post(sending, path=f"0301/ref-{nr}")
    return str(answer.json())


async def test_messages_come_back_as_they_were_put_in(world: Any, make_sending: Any) -> None:
    digisos_id = await post(world, make_sending, 1)
    aksept, soknad = await world.queued()
    assert aksept.nr < soknad.nr
    assert soknad.message.queued == world.now
    assert dict(soknad.message.outgoing.headers)["ce_id"] == soknad.message.melding_id.encode()
    found = await world.outbox.find(NavEksternRefId("ref-1"))
    assert found is not None
    assert found.digisos_id == digisos_id


async def test_what_waits_comes_by_digisos_id_in_order_and_within_bounds(world: Any, make_sending: Any) -> None:
    ids = [await post(world, make_sending, nr) for nr in range(4)]

    async def waiting(**given: Any) -> list[tuple[str, list[str]]]:
        runs = (await world.outbox.waiting(Bounds(**({"max_runs": 10, "max_bytes": 10**9} | given)))).runs
        return [(run[0].message.digisos_id, [queued.message.type for queued in run]) for run in runs]

    both = ["AKSEPTERT", "SOKNAD"]
    assert await waiting() == [(digisos_id, both) for digisos_id in ids]
    assert await waiting(max_runs=2) == [(ids[0], both), (ids[1], both)]
    assert await waiting(busy=[ids[0], ids[2]]) == [(ids[1], both), (ids[3], both)]
    assert await waiting(held=["fiks.transport.v1"]) == []
    assert await waiting(held=["fiks.0301.soknad.v1"]) == [(digisos_id, ["AKSEPTERT"]) for digisos_id in ids]
    assert await waiting(max_bytes=1) == [(ids[0], ["AKSEPTERT"])]


async def test_a_replaced_message_is_gone_and_the_new_one_there(world: Any, make_sending: Any) -> None:
    await post(world, make_sending, 1)
    aksept, soknad = await world.queued()
    replaced = await world.outbox.replace([Sent(aksept), Sent(soknad, aksept.message)])
    (new,) = replaced.new
    assert (new.nr > soknad.nr, replaced.gone) == (True, 0)
    assert await world.queued() == [new]


async def test_what_follows_from_a_message_enters_once_however_often_the_message_is_removed(
    world: Any, make_sending: Any
) -> None:
    await post(world, make_sending, 1)
    aksept, soknad = await world.queued()
    first = await world.outbox.replace([Sent(soknad, aksept.message)])
    again = await world.outbox.replace([Sent(soknad, aksept.message)])
    assert (len(first.new), first.gone) == (1, 0)
    assert (again.new, again.gone) == ([], 1)
    assert len(await world.queued()) == 2


async def test_one_that_has_lost_its_lease_removes_nothing(world: Any, make_sending: Any) -> None:
    digisos_id = await post(world, make_sending, 1)
    aksept, _ = before = await world.queued()
    bucket = bucket_of(DigisosId(digisos_id))
    former, present = [SqlLeases(world.database, SQLITE_NOW, asyncio.Event(), instance=name) for name in "ab"]
    await former.beat()
    lost = former.fence(bucket)
    await former.release()
    assert await world.outbox.replace([Sent(aksept)], lost) is None
    await present.beat()
    assert await world.outbox.replace([Sent(aksept, aksept.message)], lost) is None
    assert await world.queued() == before
    assert (await world.outbox.replace([Sent(aksept)], present.fence(bucket))).gone == 0


async def test_messages_of_before_there_were_buckets_get_theirs(tmp_path: Any) -> None:
    ids = [str(DigisosId.new()) for _ in range(5)]
    async with SqliteDatabase(tmp_path / "gammel.sqlite", MIGRATIONS[:1]) as database:
        await database.write(
            lambda c: c.executemany(
                "INSERT INTO utboks (digisos_id, melding_id, kommunenummer, nav_ekstern_ref_id, type, topic, lagt_ms, storrelse,"
                " headere, verdi) VALUES (?, 'm', '0301', 'r', 'SENDT', 't', 0, 0, '[]', x'')",
                [(one,) for one in ids],
            )
        )
    async with SqliteDatabase(tmp_path / "gammel.sqlite", MIGRATIONS) as database:
        rows = await database.read(lambda c: c.execute("SELECT digisos_id, botte FROM utboks ORDER BY nr").fetchall())
    assert [(row[0], row[1]) for row in rows] == [(one, bucket_of(DigisosId(one))) for one in ids]


async def test_the_backlog_is_counted_with_its_oldest(world: Any, make_sending: Any) -> None:
    empty = await world.outbox.backlog()
    assert (empty.messages, empty.oldest) == (0, None)
    await post(world, make_sending, 1)
    backlog = await world.outbox.backlog()
    assert (backlog.messages, backlog.oldest) == (2, world.now)


async def test_the_packages_of_all_submissions_are_known(world: Any, make_sending: Any) -> None:
    assert await world.outbox.packages() == frozenset()
    sending = make_sending(encrypt_for=world.keys.mottak, sizes=(1_000_000, 3000, 2500))
    await world.post(sending)
    packages = await world.outbox.packages()
    assert {f"{one}.cms" for one in packages} == {path.name for path in world.stored_files()}


async def test_adding_wakes_whoever_waits(world: Any, make_sending: Any) -> None:
    world.outbox.added.clear()
    await post(world, make_sending, 1)
    assert world.outbox.added.is_set()


async def test_many_that_come_together_share_a_commit(world: Any, make_sending: Any) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        begun.set()
        assert go_on.wait(30)

    holding = asyncio.create_task(world.database.write(hold))
    assert await asyncio.to_thread(begun.wait, 30)
    before = world.database.commits
    posting = [asyncio.create_task(post(world, make_sending, nr)) for nr in range(30)]
    async with asyncio.timeout(30):
        while world.database._queue.qsize() < 30:  # noqa: ASYNC110 - the queue tells nobody
            await asyncio.sleep(0.01)
    go_on.set()
    await asyncio.gather(holding, *posting)
    assert world.database.commits - before == 2, "the one that was held, and theirs"


async def test_nothing_in_the_database_names_the_person(world: Any, sending: Any, tmp_path: Any) -> None:
    await world.post(sending)
    for path in tmp_path.glob("producers.sqlite*"):
        content = path.read_bytes()
        assert sending.fodselsnummer.encode() not in content
        assert b"personIdentifikator" not in content
        assert b"%PDF" not in content


async def test_the_outbox_knows_when_the_newest_thing_in_it_came(world: Any, make_sending: Any) -> None:
    assert await world.outbox.newest() is None
    await world.post(make_sending(seed=1, encrypt_for=world.keys.mottak), path="0301/ref-1")
    assert await world.outbox.newest() == world.now
