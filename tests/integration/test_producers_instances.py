"""Several ``python -m producers`` over one PostgreSQL and one Kafka: all is published once, in order, whoever dies."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from patience import until
from producers_world import (  # fixtures among them
    Process,
    World,
    authority,
    issuer,
    know_the_topic,
    make_citizen,
    running,
    world,
)

from broker.routing import soknad_topic
from producers.http_client import SoknadClient
from schemas.codec import decode
from schemas.names import DigisosId, NavEksternRefId
from schemas.records import SoknadRecord, TransportRecord

if TYPE_CHECKING:
    from broker.record import Incoming

pytestmark = pytest.mark.kafka

__all__ = ["authority", "issuer", "world"]


@pytest.fixture
async def shared(world: World, postgres_url: str) -> World:
    """A sender whose database several processes open."""
    world.environment["FORMIDLER_PRODUCERS_DATABASE"] = postgres_url
    await know_the_topic(world.kafka, postgres_url)
    return world


async def metric(process: Process, name: str) -> float:
    text = (await process.http.get("/metrics")).text
    found = re.search(rf"^{name} ([0-9.e+]+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def has_half(*processes: Process) -> None:
    async def even() -> bool:
        return [await metric(one, "fiks_relay_buckets") for one in processes] == [256 / len(processes)] * len(processes)

    await until(even)


async def send_until_taken(processes: list[Process], world: World, nr: int) -> DigisosId:
    """Send one søknad, again and elsewhere when an instance dies under it."""
    citizen = make_citizen(nr, world.number, pdf_bytes=700_000 if nr % 10 == 0 else 4000)
    async with asyncio.timeout(60):
        for attempt in range(1000):
            process = processes[(nr + attempt) % len(processes)]
            try:
                return await process.send(citizen, f"ref-{nr}")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
    raise AssertionError("nobody took it")


def check_once_and_in_order(
    soknader: list[Incoming], events: list[TransportRecord], accepted: dict[int, DigisosId]
) -> int:
    """See that each søknad is there once, its events in order; return how many messages came more than once."""
    records = [decode(SoknadRecord, record.value) for record in soknader]
    assert {one.digisos_id for one in records} == set(accepted.values())
    melding_ids = defaultdict(set)
    for one in records:
        melding_ids[one.digisos_id].add((one.melding_id, one.sha256, one.nav_ekstern_ref_id))
    assert all(len(ids) == 1 for ids in melding_ids.values())
    first: dict[str, list[str]] = defaultdict(list)
    ids: dict[tuple[str, str], set[str]] = defaultdict(set)
    for event in events:
        if event.type not in first[event.digisos_id]:
            first[event.digisos_id].append(event.type)
        ids[event.digisos_id, event.type].add(event.hendelse_id)
    assert {digisos_id: first[digisos_id] for digisos_id in accepted.values()} == {
        digisos_id: ["AKSEPTERT", "SENDT"] for digisos_id in accepted.values()
    }
    assert all(len(one) == 1 for one in ids.values())  # one SENDT in all, though it may come twice
    repeated = Counter(record.key for record in soknader)
    return sum(count - 1 for count in repeated.values())


async def everything(world: World, accepted: dict[int, DigisosId]) -> tuple[list[Incoming], list[TransportRecord]]:
    events = await world.transport(*accepted.values())
    wanted = {one.encode() for one in accepted.values()}
    found = await world.records(soknad_topic(world.number), lambda found: {record.key for record in found} == wanted)
    return found, events


async def test_two_instances_share_the_work_and_one_that_is_killed_loses_and_doubles_nothing(shared: World) -> None:
    accepted: dict[int, DigisosId] = {}

    async def send(processes: list[Process], nr: int) -> None:
        accepted[nr] = await send_until_taken(processes, shared, nr)

    async with running(shared, name="en") as one, running(shared, name="to") as two:
        await has_half(one, two)
        sending = [asyncio.create_task(send([one, two], nr)) for nr in range(60)]
        await until(lambda: len(accepted) >= 20)
        one.child.kill()
        await asyncio.gather(*sending)
        soknader, events = await everything(shared, accepted)
        await has_half(two)
    repeated = check_once_and_in_order(soknader, events, accepted)
    assert repeated <= 60  # what was under way at the kill, and never more than once more
    assert len(accepted) == 60


async def test_an_instance_that_slept_past_its_leases_does_no_harm_when_it_wakes(shared: World) -> None:
    accepted: dict[int, DigisosId] = {}
    async with running(shared, name="en") as one, running(shared, name="to") as two:
        await has_half(one, two)
        os.kill(one.child.pid, signal.SIGSTOP)
        try:
            for nr in range(100, 120):
                accepted[nr] = await send_until_taken([two], shared, nr)
            soknader, events = await everything(shared, accepted)  # when its leases have run out
        finally:
            os.kill(one.child.pid, signal.SIGCONT)
        await has_half(one, two)
        for nr in range(120, 130):
            accepted[nr] = await send_until_taken([one, two], shared, nr)
        soknader, events = await everything(shared, accepted)
    assert check_once_and_in_order(soknader, events, accepted) == 0


async def test_one_that_stops_in_order_hands_its_work_over_at_once(shared: World) -> None:
    async with running(shared, name="en") as one, running(shared, name="to") as two:
        await has_half(one, two)
        assert await one.end(signal.SIGTERM) == 0
        async with asyncio.timeout(8):  # well before a lease would have run out, with a heartbeat's time
            await has_half(two)


async def same_reference(world: World, processes: list[Process]) -> None:
    """Send one reference a hundred times at once; everybody gets the one digisosId."""
    citizen = make_citizen(7, world.number)

    async def send(nr: int) -> Any:
        process = processes[nr % len(processes)]
        return await SoknadClient(process.address, process.http).send(
            world.number,
            NavEksternRefId("den-samme"),
            soknad_json=citizen.soknad_json,
            vedlegg_json=citizen.vedlegg_json,
            files=citizen.files,
            token=world.token(citizen),
            encrypt_for=world.mottak,
        )

    answers = await asyncio.gather(*[send(nr) for nr in range(100)])
    assert len({answer.digisos_id for answer in answers}) == 1
    assert [answer.duplicate for answer in answers].count(False) == 1
    digisos_id = answers[0].digisos_id
    events = await world.transport(digisos_id)
    assert Counter(event.type for event in events) == {"AKSEPTERT": 1, "SENDT": 1}
    found = await world.records(soknad_topic(world.number), lambda found: len(found) >= 1)
    assert [record.key for record in found] == [digisos_id.encode()]


async def test_one_reference_a_hundred_times_at_once_over_two_instances_is_one_soknad(shared: World) -> None:
    async with running(shared, name="en") as one, running(shared, name="to") as two:
        await same_reference(shared, [one, two])


async def test_one_reference_a_hundred_times_at_once_in_a_file_is_one_soknad(world: World) -> None:
    async with running(world) as process:
        await same_reference(world, [process])


async def test_a_second_process_on_one_file_is_refused_at_once_with_what_to_do(world: World) -> None:
    async with running(world), running(world, name="to", ready=False) as second:
        assert await asyncio.to_thread(second.child.wait, 30) != 0
        assert "en annen prosess" in second.log.read_text()
