from __future__ import annotations

from datetime import timedelta
from typing import Any

from broker.record import TopicPartition
from producers import eskalering_rows as rows
from producers.eskalering_rows import Eskalering, Tilstand
from schemas.names import DigisosId, Kommunenummer, MeldingId, NavEksternRefId

PLACE = TopicPartition("fiks.transport.v1", 0)


def make_row(**changes: Any) -> Eskalering:
    values: dict[str, Any] = {
        "melding_id": MeldingId.new(),
        "fra_kanal": "KAFKA",
        "digisos_id": DigisosId.new(),
        "kommunenummer": Kommunenummer("0301"),
        "nav_ekstern_ref_id": NavEksternRefId("ref-1"),
        "tilstand": Tilstand.VENTER,
        "til_kanal": None,
        "forsok": 0,
        "neste_ms": 0,
    }
    return Eskalering(**(values | changes))


async def test_a_row_is_claimed_by_one_instance_and_comes_back_when_it_does_nothing(world: Any) -> None:
    await world.database.write(lambda connection: rows.insert(connection, make_row(), "KAFKA", world.now))
    (row,) = await world.database.read(lambda connection: rows.due(connection, Tilstand.VENTER, world.now))
    until = world.now + timedelta(minutes=5)
    assert await world.database.write(lambda connection: rows.claim(connection, row, until))
    assert not await world.database.write(lambda connection: rows.claim(connection, row, until))
    assert await world.database.read(lambda connection: rows.due(connection, Tilstand.VENTER, world.now)) == []
    assert len(await world.database.read(lambda connection: rows.due(connection, Tilstand.VENTER, until))) == 1


async def test_a_row_moves_once(world: Any) -> None:
    row = make_row()
    await world.database.write(lambda connection: rows.insert(connection, row, "KAFKA", world.now))
    moved = [
        await world.database.write(lambda connection: rows.move(connection, row, Tilstand.SENDT, "PRINT"))
        for _ in range(2)
    ]
    assert moved == [True, False]
    (sent,) = await world.database.read(lambda connection: rows.sent_to(connection, "PRINT", ""))
    assert (sent.melding_id, sent.til_kanal) == (row.melding_id, "PRINT")
    assert await world.database.read(lambda connection: rows.sent_to(connection, "PRINT", sent.melding_id)) == []


async def test_offsets_never_go_back(world: Any) -> None:
    for offset in (5, 3, 7):
        await world.database.write(lambda connection, offset=offset: rows.note_offsets(connection, {PLACE: offset}))
    assert await world.database.read(rows.offsets) == {PLACE: 7}
