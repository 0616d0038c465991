from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.record import TopicPartition
from broker.routing import kommune_topics, kvittering_topic, soknad_topic
from consumers.dedup import DedupStore
from consumers.issued import Issued
from consumers.kvitteringer import Answer, Kvitteringer
from schemas.errors import StoreError
from schemas.kvittering import AVVIST, GRAD_INGEN, GRAD_LAGRET, GRAD_VALIDERT, MOTTATT, KvitteringClaims
from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256, Uuid

NUMBER = Kommunenummer("4601")
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DIGEST = Sha256.of(b"x")


def answer(digisos_id: DigisosId, *, melding_id: MeldingId | None = None, dead: bool = False) -> Answer:
    status, grad = (AVVIST, GRAD_INGEN) if dead else (MOTTATT, GRAD_LAGRET)
    return Answer(digisos_id, melding_id or MeldingId.new(), DIGEST, status, grad)


async def test_a_chain_is_numbered_and_each_names_the_one_before(store: DedupStore, kvitteringer: Kvitteringer) -> None:
    _ = store
    case = DigisosId.new()
    issued = [await kvitteringer.issue(answer(case)) for _ in range(3)]
    other = await kvitteringer.issue(answer(DigisosId.new()))
    assert [one.nr for one in issued] == [1, 2, 3]
    assert other.nr == 1


async def test_many_at_once_cannot_fork_a_chain(kvitteringer: Kvitteringer) -> None:
    case = DigisosId.new()
    issued = await asyncio.gather(*(kvitteringer.issue(answer(case)) for _ in range(20)))
    assert sorted(one.nr for one in issued) == list(range(1, 21))


async def test_what_was_issued_is_found_again_by_its_melding_also_after_a_restart(
    store: DedupStore, kvitteringer: Kvitteringer, tmp_path: Path
) -> None:
    melding_id = MeldingId.new()
    issued = await kvitteringer.issue(answer(DigisosId.new(), melding_id=melding_id))
    assert await store.of_melding(melding_id) == (issued,)
    await store.close()
    async with DedupStore(tmp_path / "lokalt.sqlite") as again:
        assert await again.of_melding(melding_id) == (issued,)
        assert await again.of_melding(MeldingId.new()) == ()


async def test_what_is_issued_after_its_caller_was_cancelled_is_known(store: DedupStore) -> None:
    """Or the fagsystem would be asked again for something that has its answer."""
    case, melding_id = DigisosId.new(), MeldingId.new()
    signing, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def sign(nr: int, forrige: Sha256 | None) -> tuple[KvitteringClaims, str]:
        loop.call_soon_threadsafe(signing.set)
        assert go_on.wait(10)
        claims = KvitteringClaims(
            kvittering_id=Uuid.new(),
            digisos_id=case,
            melding_id=melding_id,
            kommunenummer=NUMBER,
            utsteder="acme",
            status=MOTTATT,
            grad=GRAD_LAGRET,
            sha256=Sha256.of(b"x"),
            tidspunkt=NOW,
            nr=nr,
            forrige=forrige,
        )
        return claims, "e30.e30.x"

    issuing = asyncio.create_task(store.issue(NUMBER, case, sign))
    await signing.wait()
    issuing.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await issuing
    await store.mark_published([])  # the writes before it are done
    assert [each.status for each in await store.of_melding(melding_id)] == [MOTTATT]


async def test_a_failed_signature_issues_nothing(store: DedupStore) -> None:
    case = DigisosId.new()

    def broken(nr: int, forrige: Sha256 | None) -> Any:
        _ = nr, forrige
        raise ValueError("no key")

    with pytest.raises(ValueError, match="no key"):
        await store.issue(NUMBER, case, broken, dead_key=case)
    assert await store.unpublished(NUMBER) == ()
    assert await store.dead_keys(NUMBER) == frozenset()


async def test_a_key_dies_with_its_kvittering(store: DedupStore, kvitteringer: Kvitteringer) -> None:
    case = DigisosId.new()
    await kvitteringer.issue(answer(case, dead=True), dead_key=case)
    assert await store.dead_keys(NUMBER) == {case}
    assert await store.dead_keys(Kommunenummer("0301")) == frozenset()


async def test_a_key_lives_again_when_its_last_dead_melding_is_answered(
    store: DedupStore, kvitteringer: Kvitteringer
) -> None:
    case, first, second = DigisosId.new(), MeldingId.new(), MeldingId.new()
    for melding_id in (first, second):
        await kvitteringer.issue(answer(case, melding_id=melding_id, dead=True), dead_key=case)
    await kvitteringer.issue(answer(case, melding_id=first))
    assert await store.judge_key(NUMBER, case)
    assert await store.dead_keys(NUMBER) == {case}
    await kvitteringer.issue(answer(case, melding_id=second))
    assert not await store.judge_key(NUMBER, case)
    assert await store.dead_keys(NUMBER) == frozenset()


async def test_a_rebuild_knows_dead_keys_from_rejections(
    store: DedupStore, kvitteringer: Kvitteringer, tmp_path: Path
) -> None:
    dead, rejected, redriven = DigisosId.new(), DigisosId.new(), DigisosId.new()
    again = MeldingId.new()
    issued = [
        await kvitteringer.issue(answer(dead, dead=True)),
        await kvitteringer.issue(Answer(rejected, MeldingId.new(), DIGEST, AVVIST, GRAD_VALIDERT, "demo.nei")),
        await kvitteringer.issue(answer(redriven, melding_id=again, dead=True)),
        await kvitteringer.issue(answer(redriven, melding_id=again)),
    ]
    _ = store
    async with DedupStore(tmp_path / "nytt.sqlite") as lost:
        await lost.take_over(issued, TopicPartition("t", 1), 17)
        assert await lost.dead_keys(NUMBER) == {dead}
        assert await lost.positions("t") == {TopicPartition("t", 1): 17}
        assert await lost.of_melding(again) == tuple(issued[2:])
        assert await lost.unpublished(NUMBER) == ()


async def test_taking_over_twice_changes_nothing(store: DedupStore, kvitteringer: Kvitteringer) -> None:
    issued = await kvitteringer.issue(answer(DigisosId.new()))
    for _ in range(2):
        await store.take_over([issued], TopicPartition("t", 0), 1)
    assert issued.melding_id is not None
    assert await store.of_melding(issued.melding_id) == (issued,)
    assert await store.unpublished(NUMBER) == (), "it lies on the topic"


async def test_what_is_published_is_marked(store: DedupStore, kvitteringer: Kvitteringer) -> None:
    first, second = [await kvitteringer.issue(answer(DigisosId.new())) for _ in range(2)]
    await store.mark_published([first.kvittering_id])
    assert await store.unpublished(NUMBER) == (second,)


async def test_a_record_that_could_not_be_read_is_known_by_key_and_digest(
    store: DedupStore, kvitteringer: Kvitteringer
) -> None:
    case = DigisosId.new()
    issued = await kvitteringer.issue(Answer(case, None, DIGEST, AVVIST, GRAD_INGEN, "kontrakt.uleselig"))
    assert await store.of_unreadable(case, DIGEST) == (issued,)
    assert await store.of_unreadable(case, Sha256.of(b"y")) == ()


async def test_cases_and_texts_are_kept_for_each_kommune(store: DedupStore) -> None:
    case = DigisosId.new()
    await store.add_case(NUMBER, case)
    await store.add_case(NUMBER, case)
    assert await store.has_case(NUMBER, case)
    assert not await store.has_case(Kommunenummer("0301"), case)
    state = store.state(NUMBER)
    assert await state.get("cursor") is None
    await state.put("cursor", "1")
    await state.put("cursor", "2")
    assert await state.get("cursor") == "2"
    assert await store.state(Kommunenummer("0301")).get("cursor") is None


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_bytes(b"not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(StoreError):
        await DedupStore(tmp_path / "x.sqlite").open()


async def test_a_chain_is_not_added_to_when_there_is_such_an_answer_already(
    kvitteringer: Kvitteringer, store: DedupStore
) -> None:
    case, melding_id = DigisosId.new(), MeldingId.new()

    async def once() -> Issued:
        return await kvitteringer.issue(answer(case, melding_id=melding_id), unless=lambda each: each.is_final)

    issued = await asyncio.gather(*(once() for _ in range(5)))
    assert set(issued) == {issued[0]}
    assert await store.of_melding(melding_id) == (issued[0],)


def test_after_a_lost_disk_answers_are_known_longer_than_a_soknad_can_be_read_again() -> None:
    kept = {spec.name: int(spec.config["retention.ms"]) for spec in kommune_topics(NUMBER)}
    assert kept[kvittering_topic(NUMBER)] > 2 * kept[soknad_topic(NUMBER)] > 0


async def test_a_link_that_does_not_continue_the_chain_is_passed_over(
    store: DedupStore, kvitteringer: Kvitteringer, tmp_path: Path
) -> None:
    case = DigisosId.new()
    first, second = [await kvitteringer.issue(answer(case)) for _ in range(2)]
    async with DedupStore(tmp_path / "annet.sqlite") as other:
        other_first = await Kvitteringer(
            NUMBER, issuer=kvitteringer._issuer, store=other, publisher=kvitteringer._publisher, clock=lambda: NOW
        ).issue(answer(case))
        await other.take_over([other_first, first, second], TopicPartition("t", 0), 3)
        assert first.melding_id is not None
        assert second.melding_id is not None
        assert await other.of_melding(first.melding_id) == (), "its place is taken"
        assert await other.of_melding(second.melding_id) == (), "it continues a branch that lost"
        assert await other.displaced(NUMBER) == ()
    _ = store
