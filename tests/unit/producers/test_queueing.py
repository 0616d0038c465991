from __future__ import annotations

from dataclasses import replace
from typing import Any

from producers.queueing import put_in_place, waits
from schemas.names import MeldingId


async def test_messages_take_the_place_of_those_of_their_types(world: Any, sending: Any) -> None:
    await world.post(sending)
    aksept, soknad = [one.message for one in await world.queued()]
    again = replace(soknad, queued=soknad.queued)

    await world.database.write(lambda connection: put_in_place(connection, [again]))

    assert [one.message.type for one in await world.queued()] == ["AKSEPTERT", "SOKNAD"]
    assert await world.database.read(lambda connection: waits(connection, aksept.melding_id, "SOKNAD"))
    assert not await world.database.read(lambda connection: waits(connection, aksept.melding_id, "OMFORSEGLET"))


async def test_what_has_left_comes_back_before_what_came_later(world: Any, make_sending: Any) -> None:
    for nr in (1, 2):
        await world.post(make_sending(seed=nr, encrypt_for=world.keys.mottak), path=f"0301/ref-{nr}")
    first, second = await world.kopier.alive()
    _, soknad, *_ = [one.message for one in await world.queued()]

    def as_one_soknad(connection: Any) -> None:
        connection.execute("DELETE FROM utboks WHERE melding_id = ?", (first.melding_id,))
        for table in ("utboks", "avsenderkopi"):
            connection.execute(f"UPDATE {table} SET digisos_id = ?", (first.digisos_id,))
        put_in_place(connection, [soknad])

    await world.database.write(as_one_soknad)
    waiting = [(one.message.melding_id, one.message.type) for one in await world.queued()]
    assert waiting == [
        (first.melding_id, "SOKNAD"),
        (second.melding_id, "AKSEPTERT"),
        (second.melding_id, "SOKNAD"),
    ]


async def test_what_moves_behind_keeps_its_deadline(world: Any, make_sending: Any) -> None:
    for nr in (1, 2):
        await world.post(make_sending(seed=nr, encrypt_for=world.keys.mottak), path=f"0301/ref-{nr}")
    first, second = await world.kopier.alive()
    _, soknad, *_ = [one.message for one in await world.queued()]

    def deadlines(connection: Any) -> list[Any]:
        rows = connection.execute(
            "SELECT utloper_ms FROM utboks WHERE melding_id = ? ORDER BY type", (second.melding_id,)
        )
        return [row[0] for row in rows.fetchall()]

    def move(connection: Any) -> None:
        for table in ("utboks", "avsenderkopi"):
            connection.execute(f"UPDATE {table} SET digisos_id = ?", (first.digisos_id,))
        put_in_place(connection, [soknad])

    before = await world.database.read(deadlines)
    await world.database.write(move)
    assert await world.database.read(deadlines) == before
    assert before[-1] is not None


async def test_a_melding_that_is_not_from_here_moves_nothing(world: Any, sending: Any) -> None:
    await world.post(sending)
    aksept, soknad = [one.message for one in await world.queued()]
    foreign = replace(soknad, melding_id=MeldingId.new())
    await world.database.write(lambda connection: put_in_place(connection, [foreign]))
    waiting = [one.message.melding_id for one in await world.queued()]
    assert waiting == [aksept.melding_id, soknad.melding_id, foreign.melding_id]
