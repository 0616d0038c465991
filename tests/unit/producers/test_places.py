from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from producers.places import Places
from schemas.errors import RefusedError
from schemas.names import Eier

ONE, OTHER = Eier("1" * 64), Eier("2" * 64)


async def test_one_person_gets_no_more_than_his_own() -> None:
    places = Places(3, 1, wait_s=0.01)
    async with places.place(ONE), places.place(OTHER):
        with pytest.raises(RefusedError) as refused:
            await AsyncExitStack().enter_async_context(places.place(ONE))
        assert (refused.value.status, refused.value.reason) == (503, "opptatt")
    async with places.place(ONE):
        pass


async def test_a_place_that_comes_back_goes_to_whoever_waits() -> None:
    places = Places(1, 1, wait_s=10)
    release, held = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with places.place(ONE):
            held.set()
            await release.wait()

    holder = asyncio.create_task(hold())
    await held.wait()
    release.set()
    async with places.place(OTHER):
        assert holder.done()
    await holder


async def test_it_is_not_ready_while_all_places_are_taken_and_none_is_given() -> None:
    places = Places(2, 2, wait_s=0)
    async with places.place(ONE):
        assert places.problem() is None
        async with places.patiently():
            assert places.problem() is not None
    assert places.problem() is None
    busy = Places(1, 1, wait_s=60)
    async with busy.place(ONE):
        assert busy.problem() is None


async def test_nothing_is_remembered_of_who_has_gone() -> None:
    places = Places(1, 1, wait_s=0.01)
    async with places.place(ONE):
        with pytest.raises(RefusedError):
            await AsyncExitStack().enter_async_context(places.place(OTHER))
        assert places.persons == 1
    assert places.persons == 0
