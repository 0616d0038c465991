from __future__ import annotations

import asyncio
from typing import Any

import pytest

from producers.dokument import Dokument
from producers.places import Places
from schemas.errors import AlreadyAcceptedError, RefusedError, StoreError
from schemas.names import Fodselsnummer, Kommunenummer, NavEksternRefId

KNR = Kommunenummer("0301")


def arguments(sending: Any) -> dict[str, Any]:
    return {
        "soknad_json": sending.soknad_json,
        "vedlegg_json": sending.vedlegg_json,
        "files": sending.files,
        "person": Fodselsnummer(sending.fodselsnummer),
    }


async def test_a_python_call_takes_files_in_clear_and_does_the_same_as_http(world: Any, make_sending: Any) -> None:
    sending = make_sending()
    digisos_id = await world.producer.submit(KNR, NavEksternRefId("a"), **arguments(sending))
    _, soknad = await world.queued()
    assert soknad.message.digisos_id == digisos_id


async def test_a_python_call_tells_a_duplicate_with_its_id(world: Any, make_sending: Any) -> None:
    sending = make_sending()
    digisos_id = await world.producer.submit(KNR, NavEksternRefId("a"), **arguments(sending))
    with pytest.raises(AlreadyAcceptedError) as duplicate:
        await world.producer.submit(KNR, NavEksternRefId("a"), **arguments(sending))
    assert duplicate.value.digisos_id == digisos_id


async def test_a_full_outbox_leaves_no_package(world: Any, make_sending: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> None:
        raise StoreError("disken er full")

    monkeypatch.setattr(world.outbox, "accept", fail)
    sending = make_sending(sizes=(1_500_000, 3000, 2500))
    with pytest.raises(StoreError):
        await world.producer.submit(KNR, NavEksternRefId("a"), **arguments(sending))
    assert world.stored_files() == []


async def test_a_full_dokumentlager_is_told_and_leaves_nothing(
    world: Any, make_sending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Any:
        raise StoreError("disken er full")

    monkeypatch.setattr(world.dokumentlager, "create", fail)
    sending = make_sending(sizes=(1_500_000, 3000, 2500))
    with pytest.raises(StoreError):
        await world.producer.submit(KNR, NavEksternRefId("a"), **arguments(sending))
    assert await world.queued() == []


async def test_a_caller_that_is_cancelled_leaves_nothing(world: Any, make_sending: Any) -> None:
    sending = make_sending(sizes=(2_000_000, 3000, 2500))
    reached, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow() -> Any:
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(10)
        yield sending.content["Soknad.pdf"]

    sending.files[0] = Dokument("Soknad.pdf", "application/pdf", 2_000_000, slow)
    task = asyncio.create_task(world.producer.submit(KNR, NavEksternRefId("a"), **arguments(sending)))
    await reached.wait()
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.stored_files() == []
    assert await world.queued() == []


async def test_no_more_than_the_setting_are_under_way_at_once(world: Any, make_sending: Any) -> None:
    world.producer.places = Places(1, 1)
    sending = make_sending()
    person = Fodselsnummer(sending.fodselsnummer)
    async with world.producer.receive(KNR, NavEksternRefId("a"), person):
        other = asyncio.create_task(world.producer.submit(KNR, NavEksternRefId("b"), **arguments(sending)))
        await asyncio.sleep(0)
        assert not other.done()
    assert await other


async def test_another_person_is_refused(world: Any, make_sending: Any) -> None:
    given = arguments(make_sending()) | {"person": Fodselsnummer("17912345678")}
    with pytest.raises(RefusedError) as refused:
        await world.producer.submit(KNR, NavEksternRefId("a"), **given)
    assert refused.value.status == 403
