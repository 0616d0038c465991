from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.web import FiksError
from kvittering.hub import Hub, View
from kvittering.stream import HEARTBEAT, event, events
from schemas.names import DigisosId, Eier

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

FIRST, SECOND = View("aa", b'{"status":"SENDT"}'), View("bb", b'{"status":"MOTTATT"}')


class Stream:
    def __init__(
        self, current: View | FiksError = FIRST, last: str | None = None, heartbeat_s: float = 10, max_s: float = 10
    ) -> None:
        self.hub = Hub()
        self.digisos_id = DigisosId.new()
        self.bytes: AsyncGenerator[bytes] = events(
            self.hub,
            self.digisos_id,
            Eier("a" * 64),
            self._current,
            last_event_id=last,
            heartbeat_s=heartbeat_s,
            max_stream_s=max_s,
        )
        self._answer = current

    async def _current(self) -> View:
        if isinstance(self._answer, FiksError):
            raise self._answer
        return self._answer

    async def next(self) -> bytes:
        return await anext(self.bytes)


def test_an_event_is_the_view_with_its_version_as_id() -> None:
    assert event(FIRST) == b'id: aa\nevent: status\ndata: {"status":"SENDT"}\n\n'


async def test_the_first_event_is_the_present_view_and_then_what_comes() -> None:
    stream = Stream()
    assert await stream.next() == event(FIRST)
    stream.hub.publish(stream.digisos_id, SECOND)
    assert await stream.next() == event(SECOND)


async def test_a_client_that_comes_back_with_the_present_version_is_not_told_again() -> None:
    stream = Stream(last="aa", heartbeat_s=0.001)
    assert await stream.next() == HEARTBEAT
    stream.hub.publish(stream.digisos_id, SECOND)
    assert await stream.next() == event(SECOND)


async def test_a_client_that_comes_back_with_an_older_version_gets_the_present_view() -> None:
    assert await Stream(last="gammel").next() == event(FIRST)


async def test_a_view_that_is_the_same_is_not_sent_twice() -> None:
    stream = Stream()
    await stream.next()
    stream.hub.publish(stream.digisos_id, FIRST)
    stream.hub.publish(stream.digisos_id, SECOND)
    assert await stream.next() == event(SECOND)


async def test_a_stream_ends_when_its_time_is_up() -> None:
    parts = [part async for part in Stream(max_s=0.01).bytes]
    assert parts[0] == event(FIRST)


async def test_a_stream_ends_when_the_process_stops() -> None:
    stream = Stream()
    await stream.next()
    stream.hub.close()
    with pytest.raises(StopAsyncIteration):
        await stream.next()


async def test_a_stream_ends_when_the_soknad_is_no_longer_the_citizens() -> None:
    assert [part async for part in Stream(FiksError(403, "nei")).bytes] == []


async def test_nobody_listens_after_the_client_has_gone() -> None:
    stream = Stream()
    await stream.next()
    assert stream.hub.is_watched(stream.digisos_id)
    await stream.bytes.aclose()
    assert not stream.hub.is_watched(stream.digisos_id)
