from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from broker.sql import SqliteDatabase
from crypto.key_wrap import KeyWrapper
from crypto.trust import Trust
from producers import kopi_rows
from producers.avsenderkopi import Avsenderkopier, Utvalg
from producers.database import MIGRATIONS
from schemas.codec import decode
from schemas.errors import CopyGoneError, KeyFileError, UnsealError
from schemas.names import Kommunenummer, MeldingId, Uuid
from schemas.records import RevisjonRecord

if TYPE_CHECKING:
    from pathlib import Path

LARGE = (1_000_000, 3000, 2500)


async def post(world: Any, make_sending: Any, nr: int = 1, **given: Any) -> MeldingId:
    sending = make_sending(seed=nr, encrypt_for=world.keys.mottak, **given)
    answer = await world.post(sending, path=f"0301/ref-{nr}")
    assert answer.status_code == 202
    queued = [one for one in await world.queued() if one.message.digisos_id == answer.json()]
    return MeldingId(queued[0].message.melding_id)


async def acts(world: Any) -> list[RevisjonRecord]:
    return [
        decode(RevisjonRecord, one.message.outgoing.value)
        for one in await world.queued()
        if one.message.type == "REVISJON"
    ]


async def wrapped_key(world: Any, melding_id: MeldingId) -> bytes:
    found = await world.database.read(lambda connection: kopi_rows.content(connection, melding_id))
    assert found is not None
    return bytes(found.key.data)


def files_with(needle: bytes, folder: Path) -> list[str]:
    return [path.name for path in sorted(folder.glob("producers.sqlite*")) if needle in path.read_bytes()]


@pytest.mark.parametrize("sizes", [(4096, 3000, 2500), LARGE])
async def test_what_was_accepted_can_be_read_by_its_sender(world: Any, make_sending: Any, sizes: Any) -> None:
    melding_id = await post(world, make_sending, sizes=sizes)
    sent = make_sending(seed=1, sizes=sizes)

    with await world.kopier.open(melding_id, world.now) as opened:
        assert {"soknad.json", "vedlegg.json", "forsendelse.json", "Soknad.pdf"} <= {file.name for file in opened.files}
        assert opened.read_bytes("Soknad.pdf", 2_000_000) == sent.content["Soknad.pdf"]
        assert b"".join(opened.read("soknad.json")) == sent.soknad_json


async def test_opening_a_copy_is_an_act_in_the_revisjon(world: Any, make_sending: Any) -> None:
    melding_id = await post(world, make_sending)
    (await world.kopier.open(melding_id, world.now)).close()

    (act,) = await acts(world)
    assert (act.handling, act.objekt, act.aktor) == ("avsenderkopi.apnet", melding_id, "producers")


async def test_what_is_known_of_a_copy_is_what_was_sent(world: Any, make_sending: Any) -> None:
    melding_id = await post(world, make_sending)
    kopi = await world.kopier.get(melding_id)
    _, soknad = await world.queued()

    assert kopi is not None
    assert (kopi.melding_id, kopi.digisos_id) == (melding_id, soknad.message.digisos_id)
    assert (kopi.kommunenummer, kopi.kanal, kopi.omsendinger, kopi.destruert) == ("0301", "KAFKA", 0, None)
    assert kopi.aksept.sha256 == kopi.sha256
    assert kopi.record.pakke is None
    assert (await world.kopier.record(melding_id)).pakke is not None
    assert await world.kopier.get(MeldingId.new()) is None


async def test_a_refused_submission_leaves_no_copy(world: Any, make_sending: Any) -> None:
    await post(world, make_sending)
    again = await world.post(make_sending(seed=1, encrypt_for=world.keys.mottak), path="0301/ref-1")

    assert again.status_code == 400
    assert await world.kopier.count(Utvalg()) == 1


async def test_copies_are_chosen_by_what_is_known_of_them(world: Any, make_sending: Any) -> None:
    ids = [await post(world, make_sending, nr) for nr in range(3)]
    found = await world.kopier.alive()
    first = found[0]

    async def chosen(**given: Any) -> list[str]:
        return [kopi.melding_id for kopi in await world.kopier.alive(Utvalg(**given))]

    assert [kopi.melding_id for kopi in found] == ids
    assert await chosen(kommunenummer=Kommunenummer("0301")) == ids
    assert await chosen(kommunenummer=Kommunenummer("4601")) == []
    assert await chosen(meldinger=(ids[2], ids[0])) == [ids[0], ids[2]]
    assert await chosen(digisos_id=first.digisos_id) == [ids[0]]
    assert await chosen(nokkel_id=first.nokkel_id, kanal="KAFKA") == ids
    assert await chosen(fra=world.now, til=world.now + timedelta(seconds=1)) == ids
    assert await chosen(til=world.now) == []
    assert await chosen(avsenderversjon="en-annen") == []
    assert [kopi.melding_id for kopi in await world.kopier.alive(etter=first.nr, antall=1)] == [ids[1]]


async def test_a_destroyed_copy_is_gone_and_its_proof_is_in_the_outbox(world: Any, make_sending: Any) -> None:
    melding_id = await post(world, make_sending)
    key, kvittering_id = await wrapped_key(world, melding_id), Uuid.new()

    assert await world.kopier.destroy(melding_id, now=world.now, kvittering_id=kvittering_id)

    with pytest.raises(CopyGoneError):
        await world.kopier.open(melding_id, world.now)
    (act,) = await acts(world)
    kopi = await world.kopier.get(melding_id)
    assert kopi is not None
    assert (kopi.destruert, kopi.kvittering_id) == (world.now, kvittering_id)
    assert act.handling == "avsenderkopi.destruert"
    assert act.detaljer["kvitteringId"] == kvittering_id
    assert act.detaljer["sha256"] == kopi.sha256
    assert act.detaljer["nokkelDigest"] == kopi_rows.Sha256.of(key)
    assert await world.kopier.alive() == []


async def test_a_copy_is_destroyed_once(world: Any, make_sending: Any) -> None:
    melding_id = await post(world, make_sending)

    assert await world.kopier.destroy(melding_id, now=world.now, kvittering_id=Uuid.new())
    assert not await world.kopier.destroy(melding_id, now=world.now, kvittering_id=Uuid.new())
    assert not await world.kopier.destroy(MeldingId.new(), now=world.now)
    assert len(await acts(world)) == 1


async def test_a_destroyed_key_is_in_no_file_of_the_database(world: Any, make_sending: Any, tmp_path: Path) -> None:
    melding_id, other = await post(world, make_sending, 1), await post(world, make_sending, 2)
    key, kept = await wrapped_key(world, melding_id), await wrapped_key(world, other)
    assert files_with(key, tmp_path)

    await world.kopier.destroy(melding_id, now=world.now, kvittering_id=Uuid.new())
    assert await world.database.scrub()

    assert files_with(key, tmp_path) == []
    assert files_with(kept, tmp_path) == ["producers.sqlite"]


async def test_the_acts_of_all_copies_are_one_chain(world: Any, make_sending: Any) -> None:
    for nr in range(3):
        await world.kopier.destroy(await post(world, make_sending, nr), now=world.now, kvittering_id=Uuid.new())

    rows = [one.message.outgoing for one in await world.queued() if one.message.type == "REVISJON"]
    records = [decode(RevisjonRecord, row.value) for row in rows]
    digests = [kopi_rows.Sha256.of(row.value) for row in rows]
    assert [record.forrige for record in records] == [None, *digests[:-1]]
    assert {row.key for row in rows} == {b"producers"}


async def test_a_copy_that_was_altered_where_it_lies_does_not_open(world: Any, make_sending: Any) -> None:
    small, large = await post(world, make_sending, 1), await post(world, make_sending, 2, sizes=LARGE)

    def alter(connection: Any) -> None:
        pakke = bytearray(connection.execute("SELECT pakke FROM kopiinnhold WHERE pakke IS NOT NULL").fetchone()[0])
        pakke[-100] ^= 1
        connection.execute("UPDATE kopiinnhold SET pakke = ? WHERE pakke IS NOT NULL", (bytes(pakke),))

    await world.database.write(alter)
    (path,) = world.stored_files()
    path.write_bytes(path.read_bytes()[:-1] + b"x")

    for melding_id in (small, large):
        with pytest.raises(UnsealError):
            await world.kopier.open(melding_id, world.now)
    assert await acts(world) == []


async def test_a_key_that_was_moved_to_another_copy_opens_nothing(world: Any, make_sending: Any) -> None:
    first, second = await post(world, make_sending, 1), await post(world, make_sending, 2)
    key = await wrapped_key(world, first)
    await world.database.write(
        lambda connection: connection.execute(
            "UPDATE kopiinnhold SET innpakket = ? WHERE melding_id = ?", (key, second)
        )
    )
    with pytest.raises(UnsealError):
        await world.kopier.open(second, world.now)


async def test_without_the_kek_nothing_opens_and_with_a_new_one_in_front_everything_does(
    world: Any, make_sending: Any
) -> None:
    melding_id = await post(world, make_sending)

    def kopier(*keks: bytes) -> Avsenderkopier:
        trust = Trust(pinned=[world.keys.signer.certificate])
        return Avsenderkopier(world.database, world.dokumentlager, wrapper=KeyWrapper(keks), trust=trust)

    with pytest.raises(KeyFileError):
        await kopier(b"n" * 32).open(melding_id, world.now)
    (await kopier(b"n" * 32, b"k" * 32).open(melding_id, world.now)).close()


async def test_a_copy_outlives_the_certificate_that_signed_it(world: Any, make_sending: Any) -> None:
    melding_id = await post(world, make_sending)
    (await world.kopier.open(melding_id, world.now + timedelta(days=4000))).close()


async def test_a_copy_survives_a_restart(make_sending: Any, tmp_path: Path, make_world: Any) -> None:
    async with SqliteDatabase(tmp_path / "producers.sqlite", MIGRATIONS) as database:
        world = make_world(database)
        melding_id = await post(world, make_sending)
        world.producer.close()
    async with SqliteDatabase(tmp_path / "producers.sqlite", MIGRATIONS) as database:
        world = make_world(database)
        (await world.kopier.open(melding_id, world.now)).close()
        world.producer.close()


async def test_a_copy_that_nobody_vouched_for_in_time_is_destroyed_with_an_alarm(world: Any, make_sending: Any) -> None:
    old = await post(world, make_sending, 1)
    world.now += timedelta(days=10)
    young = await post(world, make_sending, 2)

    with capture_logs() as logs:
        count = await world.kopier.expire(world.now - timedelta(days=1), world.now)

    (act,) = await acts(world)
    (alarm,) = [line for line in logs if line["log_level"] == "critical"]
    assert count == 1
    assert [kopi.melding_id for kopi in await world.kopier.alive()] == [young]
    assert (act.objekt, act.detaljer["arsak"]) == (old, "utlopt")
    assert (alarm["event"], alarm["melding_id"]) == ("sender_copy_expired", old)


async def test_a_row_that_has_lost_its_content_does_not_keep_the_others_from_expiring(
    world: Any, make_sending: Any
) -> None:
    lost, whole = [await post(world, make_sending, nr) for nr in (1, 2)]
    await world.database.write(
        lambda connection: connection.execute("DELETE FROM kopiinnhold WHERE melding_id = ?", (lost,)).rowcount
    )
    later = world.now + timedelta(days=1)
    async with asyncio.timeout(60):
        assert await world.kopier.expire(later, later) == 1
    assert (await world.kopier.get(whole)).arsak == "utlopt"


async def test_packages_may_go_when_their_copies_have_been_gone_long_enough(world: Any, make_sending: Any) -> None:
    small, large, alive = [
        await post(world, make_sending, nr, sizes=sizes) for nr, sizes in enumerate([(4096, 3000, 2500), LARGE, LARGE])
    ]
    for melding_id in (small, large):
        await world.kopier.destroy(melding_id, now=world.now, kvittering_id=Uuid.new())

    assert await world.kopier.removable_packages(world.now) == []
    (package,) = await world.kopier.removable_packages(world.now + timedelta(seconds=1))
    assert package == (await world.kopier.get(large)).record.dokumentlager_id
    assert package != (await world.kopier.get(alive)).record.dokumentlager_id

    await world.kopier.forget_package(package)
    assert await world.kopier.removable_packages(world.now + timedelta(seconds=1)) == []
    assert package not in await world.outbox.packages()


async def test_another_channel_can_take_a_melding_over(world: Any, make_sending: Any) -> None:
    melding_id = await post(world, make_sending)
    await world.kopier.move(melding_id, "PRINT")

    assert (await world.kopier.get(melding_id)).kanal == "PRINT"
    assert [one.message.type for one in await world.queued()] == ["AKSEPTERT"]
    assert await world.kopier.alive(Utvalg(kanal="KAFKA")) == []
