from __future__ import annotations

from typing import Any

import pytest

from producers.revisjonsbok import write_act
from schemas.codec import decode
from schemas.errors import AuditError
from schemas.names import MeldingId, Sha256
from schemas.records import RevisjonRecord


async def write(world: Any, **detaljer: str) -> None:
    melding_id = MeldingId.new()
    await world.database.write(
        lambda connection: write_act(connection, "test.gjort", melding_id, detaljer=detaljer, now=world.now)
    )


async def test_an_act_leaves_for_the_revisjon_under_its_actor(world: Any) -> None:
    await write(world, antall="3")
    (queued,) = await world.queued()
    record = decode(RevisjonRecord, queued.message.outgoing.value)

    assert (queued.message.outgoing.topic, queued.message.outgoing.key) == ("fiks.revisjon.v1", b"producers")
    assert (record.aktor, record.handling, record.detaljer, record.forrige) == (
        "producers",
        "test.gjort",
        {"antall": "3"},
        None,
    )


async def test_each_act_names_the_former_one_also_when_that_has_left(world: Any) -> None:
    await write(world)
    (first,) = await world.queued()
    await world.database.write(lambda connection: connection.execute("DELETE FROM utboks"))
    await write(world)
    (second,) = await world.queued()

    assert decode(RevisjonRecord, second.message.outgoing.value).forrige == Sha256.of(first.message.outgoing.value)


async def test_an_act_that_may_not_be_written_undoes_what_it_tells_of(world: Any) -> None:
    with pytest.raises(AuditError):
        await write(world, hvem="010203 12345")
    assert await world.queued() == []
    await write(world)
    (queued,) = await world.queued()
    assert decode(RevisjonRecord, queued.message.outgoing.value).forrige is None
