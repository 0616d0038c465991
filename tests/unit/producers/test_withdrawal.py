from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from broker.record import Incoming
from consumers.job import Job
from producers.withdrawal import I_UTBOKSEN, MOTTATT, SENDT, TILBAKEKALT, TRUKKET, stand, withdraw_in, withdrawal
from schemas.codec import decode
from schemas.names import Uuid
from schemas.records import SoknadRecord

if TYPE_CHECKING:
    from producers.kopi_rows import Kopi

RECALL = Uuid("5a0e6f5c-6f6b-4c55-9a3b-0d6c3c2f4f11")


@pytest.fixture
async def kopi(world: Any, sending: Any) -> Kopi:
    await world.post(sending)
    (found,) = await world.kopier.alive()
    return found  # type: ignore[no-any-return]  # the world is untyped


async def where(world: Any, kopi: Kopi) -> str:
    present = await world.kopier.get(kopi.melding_id)
    return str(await world.database.read(lambda connection: stand(connection, present)))


async def test_how_far_a_melding_has_come_follows_from_the_register(world: Any, kopi: Kopi) -> None:
    assert await where(world, kopi) == I_UTBOKSEN
    await world.database.write(lambda connection: connection.execute("DELETE FROM utboks"))
    assert await where(world, kopi) == SENDT
    await world.database.write(lambda connection: withdraw_in(connection, kopi, RECALL, world.now))
    assert await where(world, kopi) == TILBAKEKALT
    await world.kopier.destroy(kopi.melding_id, now=world.now, kvittering_id=Uuid.new())
    assert await where(world, kopi) == MOTTATT


@pytest.mark.parametrize("arsak", ["utskrevet", "utlopt"])
async def test_a_copy_that_was_destroyed_for_another_reason_says_which(world: Any, kopi: Kopi, arsak: str) -> None:
    await world.kopier.destroy(kopi.melding_id, now=world.now, arsak=arsak)
    assert await where(world, kopi) == arsak.upper()


async def test_a_melding_is_withdrawn_once(world: Any, kopi: Kopi) -> None:
    first = await world.database.write(lambda connection: withdraw_in(connection, kopi, RECALL, world.now))
    second = await world.database.write(lambda connection: withdraw_in(connection, kopi, RECALL, world.now))
    assert (first, second) == (TRUKKET, TILBAKEKALT)


async def test_a_withdrawal_is_one_that_a_connector_understands(world: Any, kopi: Kopi) -> None:
    _, message = withdrawal(kopi, world.now)
    record = decode(SoknadRecord, message.outgoing.value)
    assert (record.melding_id, record.sha256) == (kopi.melding_id, kopi.sha256)
    assert message.outgoing.key == kopi.digisos_id.encode()
    outgoing = message.outgoing
    job = Job.of(Incoming(outgoing.topic, 0, 0, 0, outgoing.key, outgoing.value or b""), kopi.kommunenummer)
    assert (job.error, job.withdraws, job.melding_id) == (None, True, kopi.melding_id)


async def test_the_same_withdrawal_is_told_under_the_same_id(world: Any, kopi: Kopi) -> None:
    first, second = withdrawal(kopi, world.now)[0], withdrawal(kopi, world.now)[0]
    assert first.outgoing.headers[1] == second.outgoing.headers[1]
