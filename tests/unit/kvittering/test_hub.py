from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from broker.web import FiksError
from kvittering.hub import MAX_QUEUE, MAX_STREAMS, MAX_STREAMS_EACH, Hub, View
from schemas.names import DigisosId, Eier

EIER = Eier("a" * 64)


def make_view(version: str = "1") -> View:
    return View(version, b"{}")


async def test_a_listener_gets_what_is_published_about_its_soknad_and_nothing_else() -> None:
    hub, mine, other = Hub(), DigisosId.new(), DigisosId.new()
    with hub.listen(mine, EIER) as listener:
        hub.publish(other, make_view("en annens"))
        hub.publish(mine, make_view("1"))
        assert await listener.next(1) == make_view("1")
        assert await listener.next(0.001) is None


async def test_one_that_does_not_keep_up_loses_the_oldest() -> None:
    hub, digisos_id = Hub(), DigisosId.new()
    with hub.listen(digisos_id, EIER) as listener:
        for version in range(MAX_QUEUE + 3):
            hub.publish(digisos_id, make_view(str(version)))
        assert await listener.next(1) == make_view("3")


async def test_a_listener_that_waits_is_woken() -> None:
    hub, digisos_id = Hub(), DigisosId.new()
    with hub.listen(digisos_id, EIER) as listener:
        waiting = asyncio.create_task(listener.next(10))
        await asyncio.wait([waiting], timeout=0.001)
        hub.publish(digisos_id, make_view())
        assert await waiting == make_view()


async def test_a_soknad_is_watched_for_as_long_as_somebody_listens() -> None:
    hub, digisos_id = Hub(), DigisosId.new()
    with hub.listen(digisos_id, EIER):
        with hub.listen(digisos_id, EIER):
            assert hub.is_watched(digisos_id)
        assert hub.is_watched(digisos_id)
    assert not hub.is_watched(digisos_id)


async def test_closing_ends_streams_after_what_they_have_left_and_those_that_come_later() -> None:
    hub, digisos_id = Hub(), DigisosId.new()
    with hub.listen(digisos_id, EIER) as listener:
        hub.publish(digisos_id, make_view())
        hub.close()
        assert await listener.next(10) == make_view()
        with pytest.raises(EOFError):
            await listener.next(10)
    with hub.listen(digisos_id, EIER) as late, pytest.raises(EOFError):
        await late.next(10)


def test_one_owner_has_a_few_streams_and_others_their_own() -> None:
    hub, other = Hub(), Eier("b" * 64)
    with ExitStack() as open_streams:
        for _ in range(MAX_STREAMS_EACH):
            open_streams.enter_context(hub.listen(DigisosId.new(), EIER))
        with pytest.raises(FiksError) as refused:
            hub.check_room(EIER)
        with pytest.raises(FiksError):
            open_streams.enter_context(hub.listen(DigisosId.new(), EIER))
        hub.check_room(other)
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "30"})
    hub.check_room(EIER)


def test_all_together_have_so_many_that_the_process_still_serves() -> None:
    hub = Hub()
    with ExitStack() as open_streams:
        for nr in range(MAX_STREAMS):
            open_streams.enter_context(hub.listen(DigisosId.new(), Eier(f"{nr:064x}")))
        with pytest.raises(FiksError) as refused:
            hub.check_room(EIER)
    assert refused.value.status == 503
