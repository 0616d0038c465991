"""One suite for the connector's memory on every database: byte for byte, without a fork, also after a restart."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from broker.record import TopicPartition
from consumers.dedup import DedupStore
from consumers.issued import Issued
from schemas.kvittering import AVVIST, GRAD_INGEN, GRAD_LAGRET, MOTTATT, KvitteringClaims
from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256, Uuid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KOMMUNE, OTHER = Kommunenummer("4601"), Kommunenummer("0301")
DIGEST = Sha256.of(b"x")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
async def store(database_place: str) -> AsyncIterator[DedupStore]:
    async with DedupStore(database_place) as opened:
        yield opened


def signing(
    digisos_id: DigisosId, melding_id: MeldingId | None, *, dead: bool = False, calls: list[int] | None = None
) -> Callable[[int, Sha256 | None], tuple[KvitteringClaims, str]]:
    """Sign as a connector does, but with a signature that nobody here looks at."""

    def sign(nr: int, forrige: Sha256 | None) -> tuple[KvitteringClaims, str]:
        if calls is not None:
            calls.append(nr)
        claims = KvitteringClaims(
            kvittering_id=Uuid.new(),
            digisos_id=digisos_id,
            melding_id=melding_id,
            kommunenummer=KOMMUNE,
            utsteder="acme-bergen",
            status=AVVIST if dead else MOTTATT,
            grad=GRAD_INGEN if dead else GRAD_LAGRET,
            sha256=DIGEST,
            tidspunkt=NOW,
            nr=nr,
            forrige=forrige,
        )
        payload = base64.urlsafe_b64encode(claims.to_json()).decode("ascii").rstrip("=")
        return claims, f"e30.{payload}.sig"

    return sign


async def issue(
    store: DedupStore, digisos_id: DigisosId, melding_id: MeldingId | None = None, *, dead: bool = False
) -> Issued:
    return await store.issue(KOMMUNE, digisos_id, signing(digisos_id, melding_id or MeldingId.new(), dead=dead))


async def test_many_at_once_cannot_fork_a_chain(store: DedupStore) -> None:
    case = DigisosId.new()
    issued = sorted(await asyncio.gather(*[issue(store, case) for _ in range(50)]), key=lambda each: each.nr)
    assert [each.nr for each in issued] == list(range(1, 51))
    claims = [KvitteringClaims.from_json(base64.urlsafe_b64decode(each.jws.split(".")[1] + "==")) for each in issued]
    assert [each.forrige for each in claims] == [None, *[Sha256.of(each.jws.encode()) for each in issued[:-1]]]
    assert (await issue(store, DigisosId.new())).nr == 1


async def test_two_processes_on_one_database_cannot_fork_a_chain_either(postgres_url: str) -> None:
    """Only one is meant to own it; if two do, the chain holds all the same."""
    case, melding_id, calls = DigisosId.new(), MeldingId.new(), list[int]()
    async with DedupStore(postgres_url) as one, DedupStore(postgres_url) as two:
        issued = await asyncio.gather(*[issue([one, two][n % 2], case) for n in range(40)])
        assert sorted(each.nr for each in issued) == list(range(1, 41))
        sign = signing(case, melding_id, calls=calls)
        same = await asyncio.gather(
            *[[one, two][n % 2].issue(KOMMUNE, case, sign, unless=(melding_id, lambda _: True)) for n in range(20)]
        )
        assert len(set(same)) == 1
        assert calls == [41]


async def test_what_was_issued_is_found_byte_for_byte_after_a_restart(database_place: str) -> None:
    case, melding_id = DigisosId.new(), MeldingId.new()
    async with DedupStore(database_place) as store:
        issued = await issue(store, case, melding_id)
        unreadable = await store.issue(KOMMUNE, case, signing(case, None, dead=True))
    async with DedupStore(database_place) as store:
        assert await store.of_melding(melding_id) == (issued,)
        assert await store.of_melding(MeldingId.new()) == ()
        assert await store.of_unreadable(case, DIGEST) == (unreadable,)
        assert await store.unpublished(KOMMUNE) == (issued, unreadable)
        assert await store.unpublished(OTHER) == ()


async def test_an_answer_that_is_there_is_given_again_and_nothing_signed(store: DedupStore) -> None:
    case, melding_id, calls = DigisosId.new(), MeldingId.new(), list[int]()
    sign = signing(case, melding_id, calls=calls)
    issued = await asyncio.gather(
        *[store.issue(KOMMUNE, case, sign, unless=(melding_id, lambda each: each.is_final)) for _ in range(10)]
    )
    assert set(issued) == {issued[0]}
    assert calls == [1]


async def test_a_failed_signature_issues_nothing_and_kills_no_key(store: DedupStore) -> None:
    case = DigisosId.new()

    def broken(nr: int, forrige: Sha256 | None) -> tuple[KvitteringClaims, str]:
        raise ValueError(f"no key for {nr} after {forrige}")

    outcomes = await asyncio.gather(
        store.issue(KOMMUNE, case, broken, dead_key=case), issue(store, DigisosId.new()), return_exceptions=True
    )
    assert isinstance(outcomes[0], ValueError)
    assert isinstance(outcomes[1], Issued)
    assert await store.dead_keys(KOMMUNE) == frozenset()
    assert await store.unpublished(KOMMUNE) == (outcomes[1],)


async def test_a_key_dies_with_its_kvittering_and_lives_again(store: DedupStore) -> None:
    case, melding_id = DigisosId.new(), MeldingId.new()
    await store.issue(KOMMUNE, case, signing(case, melding_id, dead=True), dead_key=case)
    assert await store.dead_keys(KOMMUNE) == {case}
    assert await store.dead_keys(OTHER) == frozenset()
    await issue(store, case, melding_id)
    assert not await store.judge_key(KOMMUNE, case)
    assert await store.dead_keys(KOMMUNE) == frozenset()
    for _ in range(2):
        await store.add_dead_key(KOMMUNE, "ikke-en-uuid")
    assert await store.dead_keys(KOMMUNE) == {"ikke-en-uuid"}


async def test_what_is_published_is_marked(store: DedupStore) -> None:
    first, second = (
        await issue(store, DigisosId("0" * 8 + "-0000-4000-8000-000000000001")),
        await issue(store, DigisosId("0" * 8 + "-0000-4000-8000-000000000002")),
    )
    assert await store.unpublished(KOMMUNE) == (first, second)
    await store.mark_published([])
    await store.mark_published([first.kvittering_id, first.kvittering_id])
    assert await store.unpublished(KOMMUNE) == (second,)


async def test_what_the_topic_has_is_taken_over_once_with_the_place_up_to_which_it_was_read(store: DedupStore) -> None:
    case, melding_id = DigisosId.new(), MeldingId.new()
    claims, jws = signing(case, melding_id, dead=True)(1, None)
    found = Issued.of(claims, jws)
    for offset in (17, 18):
        await store.take_over([found], TopicPartition("t", 1), offset)
    await store.take_over([], TopicPartition("t", 0), 5)
    assert await store.positions("t") == {TopicPartition("t", 0): 5, TopicPartition("t", 1): 18}
    assert await store.positions("u") == {}
    assert await store.of_melding(melding_id) == (found,)
    assert await store.unpublished(KOMMUNE) == ()
    assert await store.dead_keys(KOMMUNE) == {case}


async def test_cases_and_texts_are_kept_for_each_kommune(database_place: str) -> None:
    case = DigisosId.new()
    async with DedupStore(database_place) as store:
        for _ in range(2):
            await store.add_case(KOMMUNE, case)
        state = store.state(KOMMUNE)
        assert await state.get("cursor") is None
        for value in ("1", "æ?%'\"\n"):
            await state.put("cursor", value)
    async with DedupStore(database_place) as store:
        assert await store.has_case(KOMMUNE, case)
        assert not await store.has_case(OTHER, case)
        assert await store.state(KOMMUNE).get("cursor") == "æ?%'\"\n"
        assert await store.state(OTHER).get("cursor") is None
