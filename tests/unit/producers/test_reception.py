from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from producers.multipart import Event, MultipartReader
from schemas.errors import AlreadyAcceptedError, CertificateError, RefusedError, StoreError
from schemas.names import Fodselsnummer, Kommunenummer, NavEksternRefId

if TYPE_CHECKING:
    from collections.abc import Callable

KNR, REF = Kommunenummer("0301"), NavEksternRefId("ref-1")


def events(sending: Any) -> list[Event]:
    reader = MultipartReader("multipart/form-data; boundary=grense", max_parts=100)
    return reader.feed(sending.body())


def receiving(world: Any, sending: Any) -> Any:
    return world.producer.receive(KNR, REF, Fodselsnummer(sending.fodselsnummer))


@pytest.mark.parametrize("light", [True, False])
async def test_it_is_the_same_on_the_loop_and_in_a_thread(world: Any, sending: Any, *, light: bool) -> None:
    async with receiving(world, sending) as reception:
        await reception.feed(partial(events, sending), light=light)
        assert await world.queued() == []
        digisos_id = await reception.accept()
    assert reception.accepted.soknad.digisos_id == digisos_id
    assert [queued.message.digisos_id for queued in await world.queued()] == [digisos_id] * 2


async def test_without_accept_nothing_is_left(world: Any, make_sending: Any) -> None:
    sending = make_sending(encrypt_for=world.keys.mottak, sizes=(1_000_000, 3000, 2500))
    async with receiving(world, sending) as reception:
        await reception.feed(partial(events, sending))
        assert len(world.stored_files()) == 1
    assert world.stored_files() == []
    assert await world.queued() == []


async def test_a_reference_that_was_taken_meanwhile_leaves_no_second_package(world: Any, make_sending: Any) -> None:
    sending = make_sending(encrypt_for=world.keys.mottak, sizes=(1_000_000, 3000, 2500))
    async with receiving(world, sending) as first, receiving(world, sending) as second:
        for reception in (first, second):
            await reception.feed(partial(events, sending))
        digisos_id = await first.accept()
        with pytest.raises(AlreadyAcceptedError) as taken:
            await second.accept()
    assert taken.value.digisos_id == digisos_id
    assert len(world.stored_files()) == 1


async def test_an_outbox_that_fails_leaves_no_package(
    world: Any, make_sending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise StoreError("disken er full")

    monkeypatch.setattr(world.outbox, "accept", fail)
    sending = make_sending(encrypt_for=world.keys.mottak, sizes=(1_000_000, 3000, 2500))
    async with receiving(world, sending) as reception:
        await reception.feed(partial(events, sending))
        assert len(world.stored_files()) == 1
        with pytest.raises(StoreError):
            await reception.accept()
    assert world.stored_files() == []


async def test_close_waits_for_the_thread_that_is_at_work(world: Any, sending: Any) -> None:
    loop = asyncio.get_running_loop()
    reached, go_on = asyncio.Event(), asyncio.Event()
    order: list[str] = []

    def slow() -> list[Event]:
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(10)
        order.append("thread")
        return events(sending)

    async def send() -> None:
        async with receiving(world, sending) as reception:
            await reception.feed(slow)

    task = asyncio.create_task(send())
    await reached.wait()
    task.cancel()
    loop.call_soon(go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert order == ["thread"]
    assert await world.queued() == []


async def test_a_certificate_that_cannot_be_sealed_for_raises_the_alarm_and_asks_for_a_retry(
    world: Any, sending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise CertificateError("utløpt")

    monkeypatch.setattr("producers.reception.Submission", fail)
    feed: Callable[[], list[Event]] = partial(events, sending)
    with structlog.testing.capture_logs() as logs, pytest.raises(RefusedError) as refused:
        async with receiving(world, sending) as reception:
            await reception.feed(feed)
    assert refused.value.status == 503
    assert [log["log_level"] for log in logs if log["event"] == "recipient_certificate_unusable"] == ["critical"]
