from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from broker.record import TopicPartition
from kvittering.bulk_store import BulkStore, Kept
from kvittering.comparing import (
    MANGLER_I_LAGERET,
    MANGLER_PA_EMNENE,
    ULESELIG,
    Comparison,
    Difference,
    compare,
    difference,
)
from kvittering.facts import SoknadState
from kvittering.oppbevaring import forget
from kvittering.projection import project
from kvittering.rows import soknad_row
from kvittering.store import StatusStore

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("eier", "kommunenummer", "status", "akseptert_ms", "levert", "venter")


def kept(state: SoknadState) -> Kept:
    row = soknad_row(project(state), None)
    return Kept(state.digisos_id, str(row[7]), dict(zip(COLUMNS, row[1:7], strict=True)))


async def found(one: Path, other: Path) -> tuple[list[Difference], Comparison]:
    result = Comparison()
    async with BulkStore(one, read_only=True) as left, BulkStore(other, read_only=True) as right:
        return [each async for each in compare(left, right, result)], result


async def fill(kit: Any, path: Path, *records: Any) -> None:
    async with StatusStore(path) as store:
        await store.apply([kit.read(record) for record in records], kit.now)


def test_states_that_are_shown_alike_do_not_differ(kit: Any) -> None:
    soknad = kit.soknad()
    state = SoknadState(digisos_id=soknad.digisos_id, transport=(soknad.transport("AKSEPTERT"),))
    assert difference(kept(state), kept(state.model_copy())) == ()


def test_a_difference_names_the_fields(kit: Any) -> None:
    soknad = kit.soknad()
    accepted, sent = soknad.transport("AKSEPTERT"), soknad.transport("SENDT", 1)
    one = SoknadState(digisos_id=soknad.digisos_id, transport=(accepted,))
    other = SoknadState(digisos_id=soknad.digisos_id, transport=(accepted, sent))
    assert difference(kept(one), kept(other)) == ("historikk", "meldinger", "oppdatert", "status")


def test_a_column_that_does_not_follow_from_the_state_is_a_difference(kit: Any) -> None:
    soknad = kit.soknad()
    right = kept(SoknadState(digisos_id=soknad.digisos_id, transport=(soknad.transport("AKSEPTERT"),)))
    wrong = replace(right, kolonner=right.kolonner | {"status": "MOTTATT"})  # type: ignore[operator]  # it is a dict
    assert difference(wrong, right) == ("kolonne:status",)


def test_a_soknad_that_one_store_lacks_is_a_difference(kit: Any) -> None:
    soknad = kit.soknad()
    one = kept(SoknadState(digisos_id=soknad.digisos_id, transport=(soknad.transport("AKSEPTERT"),)))
    assert difference(one, None) == (MANGLER_PA_EMNENE,)
    assert difference(None, one) == (MANGLER_I_LAGERET,)


def test_a_state_that_cannot_be_read_is_told_as_that(kit: Any) -> None:
    soknad = kit.soknad()
    one = kept(SoknadState(digisos_id=soknad.digisos_id, transport=(soknad.transport("AKSEPTERT"),)))
    assert difference(replace(one, tilstand="{}"), one) == (ULESELIG,)


async def test_stores_that_read_the_same_are_the_same_and_a_missing_row_is_found(kit: Any, tmp_path: Path) -> None:
    soknader, log = [kit.soknad() for _ in range(5)], kit.log()
    records = [log.transport(one.transport("AKSEPTERT")) for one in soknader]
    for name in ("a", "b"):
        await fill(kit, tmp_path / name, *records)
    assert await found(tmp_path / "a", tmp_path / "b") == ([], Comparison(compared=5))
    gone = sorted(soknader, key=lambda one: one.digisos_id)[2].digisos_id
    async with StatusStore(tmp_path / "a") as store:
        await store._database.write(lambda c: c.execute("DELETE FROM soknad WHERE digisos_id = ?", (gone,)))
    differences, result = await found(tmp_path / "a", tmp_path / "b")
    assert differences == [Difference(gone, (MANGLER_I_LAGERET,))]
    assert (result.compared, result.differing) == (5, 1)
    differences, _ = await found(tmp_path / "b", tmp_path / "a")
    assert differences == [Difference(gone, (MANGLER_PA_EMNENE,))]


async def test_a_soknad_that_one_store_has_forgotten_by_age_is_no_difference(kit: Any, tmp_path: Path) -> None:
    old, new, log = kit.soknad(), kit.soknad(), kit.log()
    records = [log.transport(old.transport("AKSEPTERT", -3600)), log.transport(new.transport("AKSEPTERT"))]
    for name in ("a", "b"):
        await fill(kit, tmp_path / name, *records)
    async with StatusStore(tmp_path / "a") as store:
        await forget(store, kit.now - timedelta(minutes=1))
    result = Comparison()
    async with BulkStore(tmp_path / "a", read_only=True) as left, BulkStore(tmp_path / "b", read_only=True) as right:
        before = kit.now - timedelta(minutes=1)
        assert [one async for one in compare(left, right, result, forgotten_before=before)] == []
        assert result.forgotten == 1
        earlier = kit.now - timedelta(hours=2)
        found = [one async for one in compare(left, right, Comparison(), forgotten_before=earlier)]
        assert found == [Difference(old.digisos_id, (MANGLER_I_LAGERET,))]


@pytest.mark.parametrize("ahead", ["a", "b"])
async def test_a_soknad_that_one_store_has_read_more_about_is_under_way_and_no_difference(
    kit: Any, tmp_path: Path, ahead: str
) -> None:
    old, new, log = kit.soknad(), kit.soknad(), kit.log()
    first = log.transport(old.transport("AKSEPTERT"))
    later = [log.transport(old.transport("SENDT", 1)), log.transport(new.transport("AKSEPTERT"))]
    for name in ("a", "b"):
        await fill(kit, tmp_path / name, first, *(later if name == ahead else ()))
    differences, result = await found(tmp_path / "a", tmp_path / "b")
    assert differences == []
    assert result.under_way == 2


async def test_pages_hold_every_soknad_once_and_in_order(
    kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvittering.bulk_store.PAGE", 2)
    soknader, log = [kit.soknad() for _ in range(5)], kit.log()
    await fill(kit, tmp_path / "a", *(log.transport(one.transport("AKSEPTERT")) for one in soknader))
    async with BulkStore(tmp_path / "a", read_only=True) as store:
        ids = [one.digisos_id async for one in store.soknader()]
        assert await store.places(ids[0]) != []
        assert [partition for partition, _ in await store.places(ids[0])] == [TopicPartition("fiks.transport.v1", 0)]
    assert ids == sorted(one.digisos_id for one in soknader)
