from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from broker.record import TopicPartition
from broker.routing import KVITTERING_DLQ, TRANSPORT, kvittering_topic
from broker.topic_identity import TopicIdentity
from kvittering import emner
from kvittering.emner import Emne
from kvittering.projection import project
from kvittering.store import StatusStore
from schemas.codec import decode
from schemas.records import DeadLetterRecord, StatusRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FIRST, SECOND = TopicIdentity("den første", 4), TopicIdentity("den andre", 4)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[StatusStore]:
    async with StatusStore(tmp_path / "k.sqlite") as opened:
        yield opened


async def test_a_topic_is_remembered_as_it_was_when_it_was_first_seen(store: StatusStore) -> None:
    for identity in (FIRST, SECOND):
        await store.write(lambda connection, seen=identity: emner.remember(connection, {TRANSPORT: seen}))
    assert await store.read(emner.known) == {TRANSPORT: Emne(FIRST, None)}


async def test_what_is_wrong_is_kept_until_it_is_accepted(store: StatusStore) -> None:
    await store.write(lambda connection: emner.remember(connection, {TRANSPORT: FIRST}))
    await store.write(lambda connection: emner.note(connection, {TRANSPORT: "laget på nytt", "et.annet": "for kort"}))
    assert {topic: one.avvik for topic, one in (await store.read(emner.known)).items()} == {
        TRANSPORT: "laget på nytt",
        "et.annet": "for kort",
    }
    await store.write(lambda connection: emner.accept(connection, [TRANSPORT]))
    assert set(await store.read(emner.known)) == {"et.annet"}


async def test_an_accepted_topic_is_read_from_its_first_record_and_what_comes_again_is_a_repeat(
    kit: Any, oslo: Any, store: StatusStore
) -> None:
    soknad, log, again = kit.soknad(), kit.log(), kit.log()
    accepted, sent = soknad.transport("AKSEPTERT"), soknad.transport("SENDT", 1)
    ledd = oslo.issue(soknad)
    await store.apply([kit.read(log.transport(accepted)), kit.read(log.kvittering(ledd), oslo)], kit.now)
    await store.write(lambda connection: emner.accept(connection, [TRANSPORT]))
    assert set(await store.offsets()) == {TopicPartition(kvittering_topic(kit.oslo), 0)}
    applied = await store.apply([kit.read(again.transport(one)) for one in (sent, accepted)], kit.now)
    assert [one.resultat for one in applied] == ["MOTTATT", "GJENTATT"]
    state = await store.state(soknad.digisos_id)
    assert state is not None
    assert project(state).status == "MOTTATT"
    assert state.transport == (accepted, sent)


async def test_a_fact_that_waited_on_a_former_topic_has_its_own_dead_letter_though_the_place_is_anothers_now(
    kit: Any, bergen: Any, store: StatusStore
) -> None:
    soknad, other, log, again = kit.soknad(), kit.soknad(), kit.log(), kit.log()
    foreign = log.kvittering(bergen.issue(soknad))
    await store.apply([kit.read(foreign, bergen)], kit.now)
    for _ in range(2):  # twice the same misfortune
        await store.write(lambda connection: emner.accept(connection, [foreign.topic]))
    await store.apply([kit.read(again.kvittering(bergen.issue(other)), bergen)], kit.now)
    await store.apply([kit.read(log.transport(soknad.transport("AKSEPTERT")))], kit.now)
    (letter,) = [
        decode(DeadLetterRecord, one.outgoing.value)
        for one in await store.pending(10)
        if one.outgoing.topic == KVITTERING_DLQ
    ]
    assert (letter.opprinnelig.topic, letter.opprinnelig.verdi) == (foreign.topic, foreign.value)


async def test_every_status_is_published_again_since_its_topic_may_be_gone_too(
    kit: Any, oslo: Any, store: StatusStore
) -> None:
    log, soknader = kit.log(), [kit.soknad() for _ in range(3)]
    for soknad in soknader:
        await store.apply([kit.read(log.transport(soknad.transport("AKSEPTERT")))], kit.now)
    await store.published([one.nr for one in await store.pending(100)])
    await store.apply([kit.read(log.kvittering(oslo.issue(soknader[0])), oslo)], kit.now)
    await store.write(lambda connection: emner.accept(connection, [TRANSPORT]))
    queued = [decode(StatusRecord, one.outgoing.value) for one in await store.pending(100)]
    assert {one.digisos_id: one.status for one in queued} == {
        soknader[0].digisos_id: "MOTTATT",
        soknader[1].digisos_id: "AKSEPTERT",
        soknader[2].digisos_id: "AKSEPTERT",
    }
    assert len(queued) == 3


async def test_accepting_nothing_publishes_nothing(kit: Any, store: StatusStore) -> None:
    await store.apply([kit.read(kit.log().transport(kit.soknad().transport("AKSEPTERT")))], kit.now)
    await store.published([one.nr for one in await store.pending(100)])
    await store.write(lambda connection: emner.accept(connection, []))
    assert await store.pending(100) == []
