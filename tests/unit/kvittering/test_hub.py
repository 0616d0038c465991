from __future__ import annotations

import asyncio

import pytest

from kvittering.hub import MAX_QUEUE, Hub, View
from schemas.names import DigisosId


def make_view(version: str = "1") -> View:
    return View(version, b"{}")


async def test_a_listener_gets_what_is_published_about_its_soknad_and_nothing_else() -> None:
    hub, mine, other = Hub(), DigisosId.new(), DigisosId.new()
    with hub.listen(mine) as listener:
        hub.publish(other, make_view("en annens"))
        hub.publish(mine, make_view("1"))
        assert await listener.next(1) == make_view("1")
        assert await listener.next(0.001) is None


async def test_one_that_does_not_keep_up_loses_the_oldest() -> None:
    hub, digisos_id = Hub(), DigisosId.new()
    with hub.listen(digisos_id) as listener:
        for version in range(MAX_QUEUE + 3):
            hub.publish(digisos_id, make_view(str(version)))
        assert await listener.next(1) == make_view("3")


async def test_a_listener_that_waits_is_woken() -> None:
    hub, digisos_id = Hub(), DigisosId.new()
    with hub.listen(digisos_id) as listener:
        waiting = asyncio.create_task(listener.next(10))
        await asyncio.wait([waiting], timeout=0.001)
        hub.publish(digisos_id, make_view())
        assert await waiting == make_view()


async def test_a_soknad_is_watched_for_as_long_as_somebody_listens() -> None:
    hub, digisos_id = Hub(), DigisosId.new()
    with hub.listen(digisos_id):
        with hub.listen(digisos_id):
            assert hub.is_watched(digisos_id)
        assert hub.is_watched(digisos_id)
    assert not hub.is_watched(digisos_id)


async def test_closing_ends_streams_after_what_they_have_left_and_those_that_come_later() -> None:
    hub, digisos_id = Hub(), DigisosId.new()
    with hub.listen(digisos_id) as listener:
        hub.publish(digisos_id, make_view())
        hub.close()
        assert await listener.next(10) == make_view()
        with pytest.raises(EOFError):
            await listener.next(10)
    with hub.listen(digisos_id) as late, pytest.raises(EOFError):
        await late.next(10)
