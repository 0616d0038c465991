from __future__ import annotations

from datetime import timedelta
from typing import Any

from producers import kopi_rows
from producers.kopi_rows import Utvalg
from schemas.names import NokkelId, Sha256, Uuid


async def copied(world: Any, sending: Any) -> Any:
    assert (await world.post(sending)).status_code == 202
    (kopi,) = await world.kopier.alive()
    return kopi


async def test_a_melding_that_was_sealed_again_keeps_every_digest(world: Any, sending: Any) -> None:
    kopi = await copied(world, sending)
    new = kopi.record.model_copy(update={"sha256": Sha256.of(b"ny"), "nokkel_id": NokkelId("a" * 64), "pakke": b"ny"})
    event = kopi_rows.omforseglet(kopi.aksept, Uuid.new(), new.sha256, world.now + timedelta(hours=1))

    await world.database.write(lambda connection: kopi_rows.replace_sealing(connection, new, event))

    (again,) = await world.kopier.alive()
    known = await world.database.read(lambda connection: kopi_rows.sealings(connection, kopi.melding_id))
    events = await world.database.read(lambda connection: kopi_rows.resealed_events(connection, again))
    assert list(known.items()) == [(kopi.sha256, kopi.aksept.hendelse_id), (new.sha256, event.hendelse_id)]
    assert (again.sha256, again.nokkel_id) == (new.sha256, new.nokkel_id)
    assert (await world.kopier.record(kopi.melding_id)).pakke == b"ny"
    assert events == [event]


async def test_an_event_of_sealing_again_names_no_owner(world: Any, sending: Any) -> None:
    kopi = await copied(world, sending)
    event = kopi_rows.omforseglet(kopi.aksept, Uuid.new(), Sha256.of(b"ny"), world.now)

    assert kopi.aksept.eier is not None
    assert (event.type, event.eier, event.melding_id) == ("OMFORSEGLET", None, kopi.melding_id)


async def test_runs_that_send_again_are_counted(world: Any, sending: Any) -> None:
    kopi = await copied(world, sending)
    for omgang in ("en", "to"):
        await world.database.write(
            lambda connection, omgang=omgang: kopi_rows.mark_sent(connection, [kopi.melding_id], omgang)
        )
    (again,) = await world.kopier.alive()
    assert (again.omsendinger, again.omgang) == (2, "to")


def test_a_choice_of_everything_is_no_condition() -> None:
    assert Utvalg().where() == ("", [])
