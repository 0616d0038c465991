from __future__ import annotations

import os
import stat
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from broker.record import TopicPartition, header
from broker.routing import KVITTERING_DLQ, STATUS, TRANSPORT, kvittering_topic
from kvittering.projection import project
from kvittering.store import StatusStore
from schemas.codec import decode
from schemas.errors import ConfigurationError
from schemas.names import DigisosId, Sha256
from schemas.records import DeadLetterRecord, StatusRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[StatusStore]:
    async with StatusStore(tmp_path / "kvittering.sqlite") as opened:
        yield opened


async def outgoing(store: StatusStore, topic: str) -> list[Any]:
    return [one.outgoing for one in await store.pending(1000) if one.outgoing.topic == topic]


async def statuses(store: StatusStore) -> list[StatusRecord]:
    return [decode(StatusRecord, one.value) for one in await outgoing(store, STATUS)]


async def dead_letters(store: StatusStore) -> list[DeadLetterRecord]:
    return [decode(DeadLetterRecord, one.value) for one in await outgoing(store, KVITTERING_DLQ)]


async def test_a_batch_gives_states_statuses_and_offsets_at_once(kit: Any, oslo: Any, store: StatusStore) -> None:
    soknad, log = kit.soknad(), kit.log()
    batch = [
        kit.read(log.transport(soknad.transport("AKSEPTERT"))),
        kit.read(log.kvittering(oslo.issue(soknad)), oslo),
    ]
    applied = await store.apply(batch, kit.now)
    assert [one.resultat for one in applied] == ["MOTTATT", "MOTTATT"]
    state = await store.state(soknad.digisos_id)
    assert state is not None
    assert project(state).status == "MOTTATT"
    assert await store.offsets() == {
        TopicPartition(TRANSPORT, 0): 1,
        TopicPartition(kvittering_topic(kit.oslo), 0): 1,
    }
    (status,) = await statuses(store)
    assert (status.status, status.digisos_id) == ("MOTTATT", soknad.digisos_id)


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    async with StatusStore(tmp_path / "x.sqlite"):
        names = os.listdir(tmp_path)  # noqa: PTH208 - an asynchronous test may not use Path's
        modes = {stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in names}  # noqa: PTH116 - as above
    assert modes == {0o600}


async def test_a_replay_takes_no_effect(kit: Any, oslo: Any, store: StatusStore) -> None:
    soknad, log = kit.soknad(), kit.log()
    batch = [
        kit.read(log.transport(soknad.transport("AKSEPTERT"))),
        kit.read(log.kvittering(oslo.issue(soknad)), oslo),
        kit.read(log.put(kvittering_topic(kit.oslo), "x", b"rot"), oslo),
    ]
    await store.apply(batch, kit.now)
    before = (await store.all_states(), await store.pending(10), await store.offsets())
    applied = await store.apply(batch, kit.now + timedelta(days=1))
    assert [one.resultat for one in applied] == ["LEST_FOR"] * 3
    assert (await store.all_states(), await store.pending(10), await store.offsets()) == before


async def test_a_repeat_on_a_new_offset_moves_on_and_changes_nothing(kit: Any, oslo: Any, store: StatusStore) -> None:
    soknad, log = kit.soknad(), kit.log()
    ledd = oslo.issue(soknad)
    await store.apply([kit.read(log.kvittering(ledd), oslo)], kit.now)
    (applied,) = await store.apply([kit.read(log.kvittering(ledd), oslo)], kit.now)
    assert applied.resultat == "GJENTATT"
    assert await store.offsets() == {TopicPartition(kvittering_topic(kit.oslo), 0): 2}


async def test_a_kvittering_that_cannot_be_read_becomes_a_dead_letter_byte_for_byte(
    kit: Any, oslo: Any, store: StatusStore
) -> None:
    record = kit.log().put(kvittering_topic(kit.oslo), DigisosId.new(), b"rot")
    (applied,) = await store.apply([kit.read(record, oslo)], kit.now)
    assert (applied.resultat, applied.kode) == ("UNDERKJENT", "kontrakt.ukjent-skjema")
    (letter,) = await dead_letters(store)
    assert letter.opprinnelig.verdi == b"rot"
    assert letter.opprinnelig.nokkel == record.key
    assert letter.digisos_id == record.key.decode()
    assert letter.kommunenummer == kit.oslo
    assert (letter.kode, letter.trinn) == ("kontrakt.ukjent-skjema", "KVITTERING")
    (out,) = await outgoing(store, KVITTERING_DLQ)
    assert header(out.headers, "fiks_kode") == b"kontrakt.ukjent-skjema"
    assert header(out.headers, "traceparent") == b"00-abc"
    assert await store.all_states() == []


async def test_a_forged_kvittering_changes_nothing_but_the_dead_letters(
    kit: Any, oslo: Any, bergen: Any, store: StatusStore
) -> None:
    soknad, log = kit.soknad(), kit.log()
    forged = bergen.issue(soknad, kommunenummer=kit.oslo, utsteder=oslo.name)
    await store.apply([kit.read(log.transport(soknad.transport("AKSEPTERT")))], kit.now)
    (applied,) = await store.apply([kit.read(log.kvittering(forged), oslo)], kit.now)
    assert (applied.resultat, applied.kode) == ("UNDERKJENT", "kvittering.signatur")
    assert [status.status for status in await statuses(store)] == ["AKSEPTERT"]
    assert [letter.kode for letter in await dead_letters(store)] == ["kvittering.signatur"]


async def test_a_foreign_kvittering_that_waited_becomes_its_own_dead_letter(
    kit: Any, bergen: Any, store: StatusStore
) -> None:
    soknad, log = kit.soknad(), kit.log()
    foreign = log.kvittering(bergen.issue(soknad))
    (applied,) = await store.apply([kit.read(foreign, bergen)], kit.now)
    assert (applied.resultat, applied.kode) == ("VENTER", "venter.soknad")
    assert (await store.figures()).waiting == 1
    assert await dead_letters(store) == []
    (accepted,) = await store.apply([kit.read(log.transport(soknad.transport("AKSEPTERT")))], kit.now)
    assert (accepted.resultat, accepted.refused) == ("MOTTATT", ("kontrakt.avvik",))
    (letter,) = await dead_letters(store)
    assert letter.opprinnelig.topic == foreign.topic
    assert letter.opprinnelig.verdi == foreign.value
    assert letter.opprinnelig.headere[0].navn == "traceparent"
    assert (await store.figures()).waiting == 0


async def test_dead_letters_of_one_place_have_one_id(kit: Any, oslo: Any, store: StatusStore, tmp_path: Path) -> None:
    record = kit.log().put(kvittering_topic(kit.oslo), "x", b"rot")
    await store.apply([kit.read(record, oslo)], kit.now)
    async with StatusStore(tmp_path / "en annen.sqlite") as rebuilt:
        await rebuilt.apply([kit.read(record, oslo)], kit.now + timedelta(days=1))
        assert [one.dead_letter_id for one in await dead_letters(rebuilt)] == [
            one.dead_letter_id for one in await dead_letters(store)
        ]


async def test_only_the_newest_status_waits_to_go_out(kit: Any, oslo: Any, store: StatusStore) -> None:
    soknad, log = kit.soknad(), kit.log()
    for fact in (soknad.transport("AKSEPTERT"), soknad.transport("SENDT", 1)):
        await store.apply([kit.read(log.transport(fact))], kit.now)
    assert [status.status for status in await statuses(store)] == ["SENDT"]
    await store.published([one.nr for one in await store.pending(10)])
    await store.apply([kit.read(log.transport(soknad.transport("BEKREFTET", 2)))], kit.now)
    assert await store.pending(10) == []
    await store.apply([kit.read(log.kvittering(oslo.issue(soknad)), oslo)], kit.now)
    assert [status.status for status in await statuses(store)] == ["MOTTATT"]


async def test_a_new_code_is_news_though_the_status_is_the_same(kit: Any, oslo: Any, store: StatusStore) -> None:
    soknad, log = kit.soknad(), kit.log()
    await store.apply([kit.read(log.transport(soknad.transport("AKSEPTERT")))], kit.now)
    await store.apply([kit.read(log.transport(soknad.transport("SENDT", 1)))], kit.now)
    await store.published([one.nr for one in await store.pending(10)])
    await store.apply([kit.read(log.kvittering(oslo.issue(soknad, "AVVIST", kode="x")), oslo)], kit.now)
    assert [(status.status, status.kode) for status in await statuses(store)] == [("SENDT", "x")]


async def test_an_owner_sees_their_own_soknader_newest_first(kit: Any, store: StatusStore) -> None:
    log = kit.log()
    old, new, foreign = kit.soknad(), kit.soknad(), kit.soknad(fodselsnummer=kit.other_person)
    for soknad, after in ((old, 0), (new, 60), (foreign, 30)):
        await store.apply([kit.read(log.transport(soknad.transport("AKSEPTERT", after)))], kit.now)
    owned = await store.owned_by(old.eier())
    assert [state.digisos_id for state in owned] == [new.digisos_id, old.digisos_id]
    assert await store.state(foreign.digisos_id, old.eier()) is None
    assert await store.state(DigisosId.new(), old.eier()) is None
    assert await store.state(foreign.digisos_id, foreign.eier()) is not None


async def test_a_soknad_is_delivered_when_the_fagsystem_has_it_and_not_before(
    kit: Any, oslo: Any, store: StatusStore
) -> None:
    soknad, log, unknown = kit.soknad(), kit.log(), DigisosId.new()
    await store.apply([kit.read(log.transport(soknad.transport("AKSEPTERT")))], kit.now)
    await store.apply([kit.read(log.kvittering(oslo.issue(soknad, "LEVERT")), oslo)], kit.now)
    assert await store.delivered([soknad.digisos_id, unknown]) == {soknad.digisos_id: False, unknown: False}
    assert (await store.figures()).oldest_unacknowledged_ms == int(kit.now.timestamp() * 1000)
    await store.apply([kit.read(log.kvittering(oslo.issue(soknad, "MOTTATT")), oslo)], kit.now)
    assert await store.delivered([soknad.digisos_id]) == {soknad.digisos_id: True}
    assert (await store.figures()).oldest_unacknowledged_ms is None


async def test_everything_is_there_after_a_restart(kit: Any, oslo: Any, tmp_path: Path) -> None:
    soknad, log, path = kit.soknad(), kit.log(), tmp_path / "kvittering.sqlite"
    async with StatusStore(path) as store:
        await store.apply([kit.read(log.transport(soknad.transport("AKSEPTERT")))], kit.now)
    async with StatusStore(path) as store:
        await store.apply([kit.read(log.kvittering(oslo.issue(soknad)), oslo)], kit.now)
        state = await store.state(soknad.digisos_id)
        assert state is not None
        assert project(state).status == "MOTTATT"


async def test_a_wrong_digest_is_refused_once_and_repeats_are_quiet(kit: Any, oslo: Any, store: StatusStore) -> None:
    soknad, log = kit.soknad(), kit.log()
    await store.apply([kit.read(log.transport(soknad.transport("AKSEPTERT")))], kit.now)
    wrong = oslo.issue(soknad, sha256=Sha256.of(b"en annen pakke"))
    results = [(await store.apply([kit.read(log.kvittering(wrong), oslo)], kit.now))[0].resultat for _ in range(2)]
    assert results == ["UNDERKJENT", "GJENTATT"]
    assert len(await dead_letters(store)) == 1


async def test_the_store_knows_when_the_newest_soknad_was_accepted(kit: Any, store: StatusStore) -> None:
    assert await store.newest() is None
    log, soknad = kit.log(), kit.soknad()
    await store.apply([kit.read(log.transport(soknad.transport("AKSEPTERT", 60)))], kit.now)
    assert await store.newest() == kit.now + timedelta(seconds=60)


async def test_a_second_process_is_refused_the_file_of_the_first_and_may_read_it(kit: Any, tmp_path: Path) -> None:
    path = tmp_path / "kvittering.sqlite"
    soknad = kit.soknad()
    async with StatusStore(path) as store:
        await store.apply([kit.read(kit.log().transport(soknad.transport("AKSEPTERT")))], kit.now)
        with pytest.raises(ConfigurationError, match="åpen i en annen prosess"):
            await StatusStore(path).__aenter__()
        async with StatusStore(path, read_only=True) as beside:
            assert await beside.state(soknad.digisos_id) is not None
