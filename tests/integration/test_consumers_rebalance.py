"""Two processes of one connector, each with a store of its own, on a real Kafka: partitions move in the middle of everything."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from connector_world import World
from patience import until

from broker.routing import kommune_topics
from consumers.connector import Avvist, Leveranse, Levert, Mottatt
from consumers.dedup import DedupStore
from kvittering.chain import connect, verify_ledd
from schemas.codec import decode
from schemas.errors import FagsystemUnavailableError
from schemas.names import DigisosId, MeldingId
from schemas.records import ETTERSENDELSE, TILBAKEKALL, KvitteringRecord, SoknadRecord

if TYPE_CHECKING:
    from kvittering.facts import Ledd

pytestmark = pytest.mark.kafka


@pytest.fixture
async def world(kafka: Any, tmp_path: Path) -> World:
    number = await kafka.new_kommune()
    return World(kafka, number, await kafka.connector(number), tmp_path)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.session.DRAIN_S", 0.2)


class Slow:
    """A fagsystem that stores at once and answers its first callers when it is told to."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch, *, first: int) -> None:
        self.answer = asyncio.Event()
        self.asked: list[MeldingId] = []
        self._first = first
        self._deliver = world.connector.deliver
        monkeypatch.setattr(world.connector, "deliver", self.deliver)

    async def deliver(self, leveranse: Leveranse) -> Mottatt | Levert | Avvist:
        self.asked.append(leveranse.melding_id)
        slow = len(self.asked) <= self._first
        svar = await self._deliver(leveranse)
        if slow:
            await self.answer.wait()
        return svar


async def links(world: World) -> list[Ledd]:
    """Return every kvittering that lies on the topic now, in its order."""
    found: list[Ledd] = []
    tail = await world.kafka.tail([f"fiks.{world.number}.kvittering.v1"])

    async def read() -> None:
        async for batch in tail:
            found.extend(
                verify_ledd(decode(KvitteringRecord, one.value).jws, [world.issuer.certificate]) for one in batch
            )

    reading = asyncio.create_task(read())
    await tail.caught_up.wait()
    reading.cancel()
    return found


async def one_chain_for_each(world: World, *records: SoknadRecord, forks: bool = False) -> None:
    """Wait until every melding has a kvittering with a place in its søknad's chain; there is one chain and no gap."""
    async with asyncio.timeout(30):
        while True:
            found = await links(world)
            by_case: dict[DigisosId, list[Ledd]] = defaultdict(list)
            for ledd in found:
                by_case[ledd.claims.digisos_id].append(ledd)
            chains = [connect(each) for each in by_case.values()]
            answered = {ledd.claims.melding_id for chain in chains for ledd in chain.linked}
            if {record.melding_id for record in records} <= answered:
                break
            await asyncio.sleep(0.1)
    assert [ledd.claims.nr for chain in chains for ledd in chain.waiting] == []
    if not forks:
        assert [str(error) for chain in chains for error in chain.broken.values()] == []
        repeats = [ledd.claims.melding_id for ledd in {each.digest: each for each in found}.values()]
        assert len(repeats) == len(set(repeats)), "a melding has two kvitteringer"


async def test_a_rebalance_in_the_middle_of_slow_deliveries_leaves_one_chain_and_one_file_for_each(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [world.soknad() for _ in range(8)]
    slow = Slow(world, monkeypatch, first=len(records))
    await world.send(*records)
    async with world.running(store="en"):
        await until(lambda: len(slow.asked) == len(records))
        async with world.running(store="to"):
            await until(lambda: len(slow.asked) > len(records))  # the other one asks, with the same key
            slow.answer.set()
            await one_chain_for_each(world, *records)
        later = [world.soknad(digisos_id=record.digisos_id, type=ETTERSENDELSE) for record in records]
        await world.send(*later)
        await one_chain_for_each(world, *records, *later)
    assert sorted(world.connector.order) == sorted([*(r.melding_id for r in records), *(r.melding_id for r in later)])


async def test_a_kvittering_that_was_on_its_way_when_the_partition_went_cannot_leave_a_broken_chain(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.session.SECOND_LOOK_S", 2.0)
    records = [world.soknad() for _ in range(8)]
    on_its_way = asyncio.Event()
    await world.send(*records)
    async with world.running(store="en", hold=on_its_way):
        await until(lambda: len(world.connector.order) == len(records))
        slow = Slow(world, monkeypatch, first=len(records))
        async with world.running(store="to"):
            await until(lambda: bool(slow.asked))  # the new owner has read the topic, and found nothing
            on_its_way.set()
            await world.kvitteringer(1)
            slow.answer.set()
            later = [world.soknad(digisos_id=record.digisos_id, type=ETTERSENDELSE) for record in records]
            await world.send(*later)
            await one_chain_for_each(world, *records, *later, forks=True)
    assert len(world.connector.order) == len(set(world.connector.order)) == 2 * len(records)


async def test_order_is_kept_while_processes_come_and_go(world: World) -> None:
    cases = [DigisosId.new() for _ in range(10)]
    records = [
        world.soknad(digisos_id=case, **({"type": ETTERSENDELSE} if nr else {})) for nr in range(4) for case in cases
    ]
    async with world.running(store="en"):
        await world.send(*records[:15])
        async with world.running(store="to"):
            await world.send(*records[15:30])
            await until(lambda: len(world.connector.order) >= 15)
        await world.send(*records[30:])
        async with world.running(store="tre"):
            await one_chain_for_each(world, *records)
    for case in cases:
        sent = [record.melding_id for record in records if record.digisos_id == case]
        assert [each for each in world.connector.order if each in sent] == sent


async def test_a_key_that_died_in_one_process_is_dead_in_the_next(world: World) -> None:
    firsts = [world.soknad() for _ in range(8)]
    seconds = [world.soknad(digisos_id=first.digisos_id, type=ETTERSENDELSE) for first in firsts]
    async with world.running(store="to") as other:
        await until(lambda: other.problem() is None)
        async with world.running(store="en") as one:
            await until(lambda: one.problem() is None and other.problem() is None)
            await world.send(*[first.model_copy(update={"storrelse": first.storrelse + 1}) for first in firsts])
            await world.kvitteringer(8)
        await world.send(*seconds)
        claims = await world.kvitteringer(16)
    late = {record.melding_id for record in seconds}
    assert [claim.kode for claim in claims if claim.melding_id in late] == ["levering.venter-bak-dodt-brev"] * 8
    assert world.connector.deliveries == 0


async def test_what_died_is_redriven_in_order_though_it_dies_once_more_on_the_way(world: World) -> None:
    first = world.soknad()
    broken = first.model_copy(update={"storrelse": first.storrelse + 1})
    second, third, last = [world.soknad(digisos_id=first.digisos_id, type=ETTERSENDELSE) for _ in range(3)]
    await world.send(broken, second, third)
    async with world.running():
        await world.kvitteringer(3)
    await world.send(broken, second, third, redrives=1)
    async with world.running(store="tapt"):
        await world.kvitteringer(6)
        assert world.connector.order == []
        await world.send(first, second, third, redrives=2)
        await world.kvitteringer(9)
        await world.send(last)
        claims = await world.kvitteringer(10)
    assert world.connector.order == [first.melding_id, second.melding_id, third.melding_id, last.melding_id]
    assert [one.status for one in claims] == ["AVVIST"] * 6 + ["MOTTATT"] * 4
    rounds = [(letter.melding_id, letter.gjenkjoringer) for _, letter in await world.dead_letters(6)]
    assert rounds == [(one.melding_id, nr) for nr in (0, 1) for one in (first, second, third)]


async def test_a_soknad_is_withdrawn_while_the_fagsystem_is_down_and_nothing_is_read(world: World) -> None:
    world.connector.down = FagsystemUnavailableError("nede")
    withdrawn, kept = world.soknad(), world.soknad()
    await world.send(withdrawn, kept)
    async with world.running():
        await until(lambda: world.connector.deliveries > 0)
        itself = withdrawn.model_copy(update={"type": TILBAKEKALL, "pakke": None, "storrelse": 0})
        await world.send(itself)
        (claims,) = await world.kvitteringer(1)
        assert (claims.melding_id, claims.kode) == (withdrawn.melding_id, "levering.tilbakekalt")
        world.connector.down = None
        await one_chain_for_each(world, kept)
    assert world.connector.order == [kept.melding_id]


async def test_an_expired_soknad_is_a_dead_letter_and_what_was_handed_over_in_time_keeps_its_answer(
    world: World,
) -> None:
    in_time, late = world.soknad(), world.soknad()
    await world.send(in_time)
    async with world.running():
        (original,) = await world.kvitteringer(1)
        expired = {"gyldig_til": late.innsendt}
        await world.send(in_time.model_copy(update=expired), late.model_copy(update=expired))
        claims = await world.kvitteringer(3)
        while {in_time.melding_id, late.melding_id} - {one.melding_id for one in claims[1:]}:
            claims = await world.kvitteringer(len(claims) + 1)  # an answer may be repeated more than once
    said = {one.melding_id: one for one in claims[1:]}
    assert said[in_time.melding_id] == original
    assert (said[late.melding_id].status, said[late.melding_id].kode) == ("AVVIST", "levering.utlopt")
    assert [letter.kode for _, letter in await world.dead_letters(1)] == ["levering.utlopt"]
    assert world.connector.order == [in_time.melding_id]


@pytest.mark.parametrize("kind", ["soknad", "kvittering"])
async def test_a_topic_that_was_made_again_is_not_read_until_a_person_accepts_it(world: World, kind: str) -> None:
    first, second = world.soknad(), world.soknad()
    await world.send(first)
    async with world.running():
        await world.kvitteringer(1)
    topic = f"fiks.{world.number}.{kind}.v1"
    await world.kafka.admin.delete_topics([topic])
    await world.kafka.admin.ensure_topics(kommune_topics(world.number))
    await world.send(first, second)
    async with world.running() as runner:
        await until(lambda: "laget på nytt" in (runner.problem() or ""))
        assert world.connector.order == [first.melding_id]
    async with DedupStore(world.folder / "lokalt.sqlite") as store:
        assert await store.forget_topic(topic)
    async with world.running() as runner:
        await one_chain_for_each(world, second)
        await until(lambda: runner.problem() is None)
    assert world.connector.order == [first.melding_id, second.melding_id]
