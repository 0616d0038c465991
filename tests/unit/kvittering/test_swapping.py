from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from kvittering import swapping
from kvittering.store import StatusStore
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


async def fill(path: Path, kit: Any) -> Any:
    soknad = kit.soknad()
    async with StatusStore(path) as store:
        await store.apply([kit.read(kit.log().transport(soknad.transport("AKSEPTERT")))], kit.now)
    return soknad


async def knows(path: Path, soknad: Any) -> bool:
    async with StatusStore(path, read_only=True) as store:
        return await store.state(soknad.digisos_id) is not None


async def test_the_new_store_takes_the_place_of_the_old_one_which_is_kept(kit: Any, tmp_path: Path) -> None:
    running = tmp_path / "kvittering.sqlite"
    new = swapping.beside(str(running))
    old_one, new_one = await fill(running, kit), await fill(new, kit)
    former = swapping.swap(running, new, NOW)
    assert former == tmp_path / "kvittering.sqlite.gammel-20261123T120000"
    assert await knows(running, new_one)
    assert not await knows(running, old_one)
    assert await knows(former, old_one)
    assert not new.exists()


async def test_a_crash_in_the_middle_leaves_a_store_to_start_with(
    kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = tmp_path / "kvittering.sqlite"
    new = swapping.beside(str(running))
    old_one, _ = await fill(running, kit), await fill(new, kit)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", crash)
        with pytest.raises(KeyboardInterrupt):
            swapping.swap(running, new, NOW)
    assert await knows(running, old_one)


async def test_a_store_that_a_process_has_open_stays_where_it_is(kit: Any, tmp_path: Path) -> None:
    running, new = tmp_path / "kvittering.sqlite", tmp_path / "ny.sqlite"
    await fill(new, kit)
    async with StatusStore(running):
        with pytest.raises(ConfigurationError, match="åpen i en annen prosess"):
            swapping.swap(running, new, NOW)
    assert new.exists()


async def test_where_there_was_no_store_the_new_one_is_the_first(kit: Any, tmp_path: Path) -> None:
    running, new = tmp_path / "kvittering.sqlite", tmp_path / "ny.sqlite"
    soknad = await fill(new, kit)
    assert swapping.swap(running, new, NOW) is None
    assert await knows(running, soknad)


async def test_a_store_is_removed_with_what_lies_beside_it(kit: Any, tmp_path: Path) -> None:
    path = tmp_path / "ny.sqlite"
    await fill(path, kit)
    (tmp_path / "ny.sqlite-wal").touch()
    swapping.remove(path)
    swapping.remove(path)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - an asynchronous test may not use Path's


@pytest.mark.parametrize(
    ("running", "new"),
    [("postgresql://a/b", "/x/ny.sqlite"), ("/x/k.sqlite", "postgres://a/b"), ("/x/k.sqlite", "/y/k")],
)
def test_only_files_beside_each_other_are_exchanged(running: str, new: str) -> None:
    with pytest.raises(ConfigurationError, match="--bytt"):
        swapping.check_swappable(running, new)


def test_two_files_in_one_folder_may_be_exchanged() -> None:
    swapping.check_swappable("/x/k.sqlite", str(swapping.beside("/x/k.sqlite")))
    assert not swapping.exists("/x/finnes/ikke")
    assert swapping.exists("postgresql://a/b")
