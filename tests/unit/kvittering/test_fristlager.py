from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.routing import TRANSPORT
from kvittering import fristlager
from kvittering.frister import Frister, withdrawal_id
from kvittering.fristlager import AT_A_TIME, changed_kommuner, due_kommuner, list_frister, overdue, withdraw_due
from kvittering.oppbevaring import forget
from kvittering.store import StatusStore
from schemas.codec import decode
from schemas.names import Kommunenummer
from schemas.records import TransportRecord

SHORT = Frister(timedelta(hours=1), timedelta(hours=2), timedelta(minutes=10))


class World:
    """A status store, and topics that are read into it."""

    def __init__(self, kit: Any, path: Path) -> None:
        self.kit = kit
        self.log = kit.log()
        self.frister: dict[str, Frister] = {}
        self.store = StatusStore(path, frister_of=self.frister_of)

    def frister_of(self, kommunenummer: Kommunenummer | None) -> Frister:
        return self.frister.get(kommunenummer or "", SHORT)

    def at(self, hours: float) -> Any:
        return self.kit.now + timedelta(hours=hours)

    async def transport(self, *records: TransportRecord) -> None:
        await self.store.apply([self.kit.read(self.log.transport(one)) for one in records], self.kit.now)

    async def kvittering(self, issuer: Any, ledd: Any) -> None:
        await self.store.apply([self.kit.read(self.log.kvittering(ledd), issuer)], self.kit.now)

    async def due(self, hours: float) -> frozenset[str]:
        return await self.store.read(lambda connection: due_kommuner(connection, self.at(hours)))

    async def withdraw(self, hours: float, *kommuner: Kommunenummer) -> list[TransportRecord]:
        asked = kommuner or (self.kit.oslo,)
        return await self.store.write(
            lambda connection: withdraw_due(connection, asked, self.frister_of, self.at(hours))
        )

    async def listed(self, hours: float, kommune: Any = None, limit: int = 100) -> list[tuple[Any, str]]:
        found = await self.store.read(
            lambda connection: list_frister(connection, self.at(hours), kommunenummer=kommune, limit=limit)
        )
        return [(one.digisos_id, one.arsak) for one in found]

    async def queued(self) -> list[TransportRecord]:
        pending = [one.outgoing for one in await self.store.pending(1000)]
        return [decode(TransportRecord, one.value or b"") for one in pending if one.topic == TRANSPORT]


@pytest.fixture
async def world(kit: Any, tmp_path: Path) -> Any:
    world = World(kit, tmp_path / "kvittering.sqlite")
    async with world.store:
        yield world


async def test_what_is_due_is_withdrawn_and_queued_in_one_go_and_not_again(world: World, kit: Any) -> None:
    soknad = kit.soknad()
    await world.transport(soknad.transport("AKSEPTERT"), soknad.transport("SENDT", 5))
    assert await world.due(1.1) == frozenset()
    assert await world.due(1.2) == {kit.oslo}
    (event,) = await world.withdraw(1.2)
    assert (event.type, event.kanal, event.melding_id) == ("TTL_TIDSAVBRUDD", "KAFKA", soknad.melding_id)
    assert await world.queued() == [event]
    assert await world.due(100) == frozenset()
    assert await world.withdraw(100) == []


async def test_a_new_fact_before_the_echo_does_not_queue_it_twice(world: World, kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    await world.transport(soknad.transport("AKSEPTERT"))
    (event,) = await world.withdraw(1.2)
    await world.kvittering(oslo, oslo.issue(soknad, "LEVERT"))
    assert await world.withdraw(100) == []
    await world.transport(event)
    assert await world.withdraw(100) == []
    assert await world.queued() == [event]


async def test_a_replay_into_another_store_finds_the_event_in_the_facts(world: World, kit: Any, tmp_path: Path) -> None:
    soknad = kit.soknad()
    accepted = soknad.transport("AKSEPTERT")
    await world.transport(accepted)
    (event,) = await world.withdraw(1.2)
    other = World(kit, tmp_path / "ny.sqlite")
    async with other.store:
        await other.transport(accepted, event)
        assert await other.withdraw(100) == []
        assert await other.queued() == []


async def test_two_instances_with_stores_of_their_own_write_the_same_event(
    world: World, kit: Any, tmp_path: Path
) -> None:
    accepted = kit.soknad().transport("AKSEPTERT")
    await world.transport(accepted)
    other = World(kit, tmp_path / "ny.sqlite")
    async with other.store:
        await other.transport(accepted)
        (here,), (there,) = await world.withdraw(1.2), await other.withdraw(1.3)
    assert here.hendelse_id == there.hendelse_id == withdrawal_id(accepted.melding_id, "KAFKA")


async def test_what_was_answered_in_time_is_never_due(world: World, kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    await world.transport(soknad.transport("AKSEPTERT"))
    await world.kvittering(oslo, oslo.issue(soknad))
    assert await world.due(1000) == frozenset()
    assert await world.listed(1000) == []
    figures = await world.store.figures()
    assert figures.oldest_unacknowledged_ms is None


async def test_only_the_kommuner_that_were_asked_for_are_withdrawn(world: World, kit: Any) -> None:
    ours, theirs = kit.soknad(), kit.soknad(kommunenummer=kit.bergen)
    await world.transport(ours.transport("AKSEPTERT"), theirs.transport("AKSEPTERT"))
    assert await world.due(2) == {kit.oslo, kit.bergen}
    assert [event.kommunenummer for event in await world.withdraw(2, kit.bergen)] == [kit.bergen]
    assert await world.due(2) == {kit.oslo}


async def test_many_are_withdrawn_some_at_a_time_the_longest_overdue_first(world: World, kit: Any) -> None:
    soknader = [kit.soknad() for _ in range(AT_A_TIME + 3)]
    await world.transport(*(one.transport("AKSEPTERT", -nr) for nr, one in enumerate(soknader)))
    first, second = await world.withdraw(5), await world.withdraw(5)
    assert (len(first), len(second)) == (AT_A_TIME, 3)
    assert [event.digisos_id for event in second] == [one.digisos_id for one in reversed(soknader[:3])]
    assert await world.withdraw(5) == []


async def test_the_list_is_of_what_is_late_who_has_waited_longest_first_by_kommune(
    world: World, kit: Any, oslo: Any
) -> None:
    late, later, near = kit.soknad(), kit.soknad(), kit.soknad(kommunenummer=kit.bergen)
    await world.transport(
        later.transport("AKSEPTERT", 600), late.transport("AKSEPTERT"), near.transport("AKSEPTERT", 3600)
    )
    await world.transport(late.transport("SENDT", 5))
    await world.kvittering(oslo, oslo.issue(later, "AVVIST", kode="krypto.apning"))
    expected = [(late.digisos_id, "ikke-bekreftet"), (later.digisos_id, "dodt-brev")]
    assert await world.listed(0.9) == []
    assert await world.listed(1.5) == expected
    assert await world.listed(1.5, limit=1) == expected[:1]
    assert await world.listed(9, kit.bergen) == [(near.digisos_id, "ikke-sendt")]
    found = await world.store.read(lambda connection: overdue(connection, world.at(9)))
    assert found.counts == {("0301", "ikke-bekreftet"): 1, ("0301", "dodt-brev"): 1, ("4601", "ikke-sendt"): 1}
    assert found.oldest == world.at(1)
    none = await world.store.read(lambda connection: overdue(connection, kit.now))
    assert (dict(none.counts), none.oldest) == ({}, None)


async def test_a_letter_is_no_longer_listed_when_it_is_printed(world: World, kit: Any) -> None:
    soknad = kit.soknad()
    await world.transport(soknad.transport("AKSEPTERT"), soknad.transport("TTL_TIDSAVBRUDD", 5000))
    assert await world.listed(2) == [(soknad.digisos_id, "ikke-sendt")]
    await world.transport(soknad.transport("SENDT", 5001, kanal="PRINT"))
    assert await world.listed(2) == []
    assert await world.listed(3) == [(soknad.digisos_id, "ikke-bekreftet")]
    await world.transport(soknad.transport("UTSKREVET", 9000, kanal="PRINT"))
    assert await world.listed(1000) == []


async def test_a_deadline_that_is_changed_is_found_and_the_kommunes_rows_follow_it(world: World, kit: Any) -> None:
    soknad, other = kit.soknad(), kit.soknad(kommunenummer=kit.bergen)
    await world.transport(soknad.transport("AKSEPTERT"), other.transport("AKSEPTERT"))
    now = {kit.oslo: SHORT, kit.bergen: SHORT}
    assert await world.store.read(lambda c: changed_kommuner(c, now)) == {kit.oslo: False, kit.bergen: False}
    await world.store.write(lambda c: fristlager.note_frister(c, now))
    assert await world.store.read(lambda c: changed_kommuner(c, now)) == {}
    longer = Frister(timedelta(hours=9), timedelta(hours=18), timedelta(minutes=10))
    world.frister = {kit.oslo: longer}
    assert await world.store.read(lambda c: changed_kommuner(c, now | {kit.oslo: longer})) == {kit.oslo: True}
    ids = await world.store.read(lambda c: fristlager.kommunes_waiting(c, kit.oslo))
    assert ids == [soknad.digisos_id]
    await world.store.write(lambda c: fristlager.recompute(c, ids, world.frister_of))
    assert await world.due(2) == {kit.bergen}
    assert await world.due(9.2) == {kit.oslo, kit.bergen}


async def test_rows_that_were_computed_with_a_shorter_deadline_are_judged_anew_and_not_acted_on(
    world: World, kit: Any
) -> None:
    await world.transport(kit.soknad().transport("AKSEPTERT"))
    world.frister = {kit.oslo: Frister()}
    assert await world.due(2) == {kit.oslo}
    assert await world.withdraw(2) == []
    assert await world.due(2) == frozenset()
    assert len(await world.withdraw(25)) == 1


async def test_what_has_no_rows_yet_is_found_among_the_undelivered(world: World, kit: Any, oslo: Any) -> None:
    soknad, done = kit.soknad(), kit.soknad()
    await world.transport(soknad.transport("AKSEPTERT"), done.transport("AKSEPTERT"))
    await world.kvittering(oslo, oslo.issue(done))
    await world.store.write(lambda connection: connection.execute("DELETE FROM frist"))
    ids = await world.store.read(fristlager.undelivered)
    assert ids == [soknad.digisos_id]
    await world.store.write(lambda connection: fristlager.recompute(connection, ids, world.frister_of))
    assert await world.due(2) == {kit.oslo}


async def test_a_soknad_that_is_forgotten_leaves_nothing_here(world: World, kit: Any) -> None:
    await world.transport(kit.soknad().transport("AKSEPTERT"))
    assert len(await world.withdraw(2)) == 1
    assert await forget(world.store, world.at(1)) == 1
    for table in ("frist", "tilbaketrekking"):
        count = await world.store.read(
            lambda connection, table=table: connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
        )
        assert count == 0


async def test_the_lists_that_are_read_each_second_use_an_index(world: World) -> None:
    def plans(connection: Any) -> list[str]:
        asked = (
            ("SELECT DISTINCT kommunenummer FROM frist WHERE sjekk_ms <= ?", (1,)),
            ("SELECT digisos_id FROM frist WHERE kommunenummer = ? AND sjekk_ms <= ? ORDER BY sjekk_ms LIMIT ?", "011"),
        )
        return [str(tuple(connection.execute(f"EXPLAIN QUERY PLAN {sql}", args).fetchone())) for sql, args in asked]

    assert all("USING" in plan and "INDEX" in plan for plan in await world.store.read(plans))
