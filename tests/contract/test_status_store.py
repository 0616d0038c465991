"""One suite for the status store on every database: one batch, one transaction, whatever crashes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from broker.record import Incoming, TopicPartition
from broker.routing import KVITTERING_DLQ, STATUS, TRANSPORT, kvittering_topic
from crypto.keys import KeyRing
from kvittering.projection import project
from kvittering.reading import ReadRecord, read_record
from kvittering.store import StatusStore
from schemas.codec import decode, encode
from schemas.errors import StoreError
from schemas.names import DigisosId, Eier, Kommunenummer, MeldingId, NavEksternRefId, Sha256, Uuid
from schemas.records import StatusRecord, TransportRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KOMMUNE = Kommunenummer("0301")
OWNER, STRANGER = Eier("a" * 64), Eier("b" * 64)
FOREIGN_HEADERS = (("traceparent", b"00-abc"), ("rot", bytes(range(256))))


@dataclass
class Topics:
    """Gives each record its place."""

    ends: dict[str, int] = field(default_factory=dict)

    def put(self, topic: str, key: bytes, value: bytes) -> ReadRecord:
        offset = self.ends.get(topic, 0)
        self.ends[topic] = offset + 1
        record = Incoming(topic, 0, offset, int(NOW.timestamp() * 1000), key, value, FOREIGN_HEADERS)
        return read_record(record, konnektorer={}, keys=KeyRing([]))

    def transport(self, digisos_id: DigisosId, kind: str, after_s: float = 0, **changes: Any) -> ReadRecord:
        first = kind == "AKSEPTERT"
        fields: dict[str, Any] = {
            "hendelse_id": Uuid.new(),
            "melding_id": MeldingId(digisos_id),
            "digisos_id": digisos_id,
            "kommunenummer": KOMMUNE,
            "type": kind,
            "tidspunkt": NOW + timedelta(seconds=after_s),
            "nav_ekstern_ref_id": NavEksternRefId("ref-1"),
            "eier": OWNER if first else None,
            "sha256": Sha256.of(b"pakken") if first else None,
        }
        return self.put(TRANSPORT, digisos_id.encode(), encode(TransportRecord(**(fields | changes))))


@pytest.fixture
def topics() -> Topics:
    return Topics()


@pytest.fixture
async def store(database_place: str) -> AsyncIterator[StatusStore]:
    async with StatusStore(database_place) as opened:
        yield opened


async def statuses(store: StatusStore) -> list[str]:
    out = [one.outgoing for one in await store.pending(1000) if one.outgoing.topic == STATUS]
    return [decode(StatusRecord, one.value or b"").status for one in out]


async def everything(store: StatusStore) -> tuple[Any, ...]:
    return await store.all_states(), await store.pending(1000), await store.offsets(), await store.figures()


async def test_a_batch_gives_states_statuses_and_offsets_at_once_and_a_replay_nothing(
    store: StatusStore, topics: Topics
) -> None:
    one, two = DigisosId.new(), DigisosId.new()
    batch = [
        topics.transport(one, "AKSEPTERT"),
        topics.transport(two, "AKSEPTERT", 5, eier=STRANGER),
        topics.transport(one, "SENDT", 1),
        topics.put(kvittering_topic(KOMMUNE), b"\xff\0", b"rot\0\xff"),
    ]
    applied = await store.apply(batch, NOW)
    assert [each.resultat for each in applied] == ["MOTTATT", "MOTTATT", "MOTTATT", "UNDERKJENT"]
    assert await statuses(store) in (["SENDT", "AKSEPTERT"], ["AKSEPTERT", "SENDT"])
    assert await store.offsets() == {TopicPartition(TRANSPORT, 0): 3, TopicPartition(kvittering_topic(KOMMUNE), 0): 1}
    before = await everything(store)
    assert [each.resultat for each in await store.apply(batch, NOW)] == ["LEST_FOR"] * 4
    assert await everything(store) == before


async def test_what_could_not_be_read_is_kept_and_goes_out_byte_for_byte(store: StatusStore, topics: Topics) -> None:
    broken = topics.put(kvittering_topic(KOMMUNE), b"\xff\0key", b"rot\0\xff")
    await store.apply([broken], NOW)
    (letter,) = await store.pending(10)
    assert letter.outgoing.topic == KVITTERING_DLQ
    assert letter.outgoing.key == b"\xff\0key"
    assert b"rot\0\xff" in (letter.outgoing.value or b"")
    assert dict(letter.outgoing.headers)["rot"] == bytes(range(256)), "headers are bytes, whatever they hold"


async def test_a_header_and_a_key_with_nul_stop_nothing(store: StatusStore, topics: Topics) -> None:
    """PostgreSQL's texts hold no NUL; what foreigners write into a record must not come into one."""
    batch = [
        topics.put(TRANSPORT, b"\0", b"\0"),
        topics.put(kvittering_topic(KOMMUNE), str(DigisosId.new()).encode() + b"\0", b""),
        topics.transport(DigisosId.new(), "AKSEPTERT"),
    ]
    assert [each.resultat for each in await store.apply(batch, NOW)] == ["UNDERKJENT", "UNDERKJENT", "MOTTATT"]
    assert len(await store.all_states()) == 1


async def test_a_batch_that_fails_keeps_nothing_and_is_taken_again(
    store: StatusStore, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [topics.transport(DigisosId.new(), "AKSEPTERT") for _ in range(3)]
    before = await everything(store)

    def no_room(*_: object) -> None:
        raise StoreError("disken er full")

    with monkeypatch.context() as patch:
        patch.setattr("kvittering.taking_in._save", no_room)
        with pytest.raises(StoreError):
            await store.apply(batch, NOW)
    assert await everything(store) == before
    assert [each.resultat for each in await store.apply(batch, NOW)] == ["MOTTATT"] * 3


async def test_only_the_newest_status_waits_to_go_out(store: StatusStore, topics: Topics) -> None:
    case = DigisosId.new()
    await store.apply([topics.transport(case, "AKSEPTERT")], NOW)
    await store.apply([topics.transport(case, "SENDT", 1)], NOW)
    assert await statuses(store) == ["SENDT"]
    (waiting,) = await store.pending(10)
    await store.published([waiting.nr])
    assert await store.pending(10) == []
    await store.apply([topics.transport(case, "SENDT", 1)], NOW)
    assert await store.pending(10) == [], "no news"


async def test_what_kafka_never_takes_is_set_aside(store: StatusStore, topics: Topics) -> None:
    await store.apply([topics.transport(DigisosId.new(), "AKSEPTERT") for _ in range(3)], NOW)
    first, second, third = await store.pending(10)
    assert [first.nr, second.nr, third.nr] == sorted([first.nr, second.nr, third.nr])
    assert await store.pending(1) == [first]
    await store.set_aside([second.nr], "transport.for-stor")
    assert await store.pending(10) == [first, third]
    figures = await store.figures()
    assert (figures.unpublished, figures.set_aside) == (2, 1)


async def test_an_owner_sees_their_own_newest_first(store: StatusStore, topics: Topics) -> None:
    old, new, foreign = DigisosId.new(), DigisosId.new(), DigisosId.new()
    for case, after_s, eier in ((old, 0, OWNER), (new, 60, OWNER), (foreign, 30, STRANGER)):
        await store.apply([topics.transport(case, "AKSEPTERT", after_s, eier=eier)], NOW)
    assert [state.digisos_id for state in await store.owned_by(OWNER)] == [new, old]
    assert await store.state(foreign, OWNER) is None
    assert await store.state(foreign, STRANGER) is not None
    unknown = DigisosId.new()
    assert await store.delivered([old, unknown]) == {old: False, unknown: False}


async def test_figures_tell_what_waits(store: StatusStore, topics: Topics) -> None:
    empty = await store.figures()
    assert (empty.oldest_unacknowledged_ms, empty.waiting, empty.unpublished, empty.set_aside) == (None, 0, 0, 0)
    await store.apply(
        [topics.transport(DigisosId.new(), "SENDT", 1), topics.transport(DigisosId.new(), "AKSEPTERT")], NOW
    )
    figures = await store.figures()
    assert figures.oldest_unacknowledged_ms == int(NOW.timestamp() * 1000)
    assert figures.unpublished >= 1


async def test_everything_is_there_after_a_restart(database_place: str, topics: Topics) -> None:
    case = DigisosId.new()
    async with StatusStore(database_place) as store:
        await store.apply([topics.transport(case, "AKSEPTERT")], NOW)
        before = await everything(store)
    async with StatusStore(database_place) as store:
        assert await everything(store) == before
        await store.apply([topics.transport(case, "SENDT", 1)], NOW)
        state = await store.state(case)
        assert state is not None
        assert project(state).status == "SENDT"


async def test_a_reader_beside_the_process_sees_what_it_sees(
    database_place: str, store: StatusStore, topics: Topics
) -> None:
    await store.apply([topics.transport(DigisosId.new(), "AKSEPTERT") for _ in range(20)], NOW)
    async with StatusStore(database_place, read_only=True) as reader:
        assert await reader.all_states() == await store.all_states()
        assert await reader.offsets() == await store.offsets()


async def test_both_databases_come_to_the_same(tmp_path: Any, postgres_url: str, topics: Topics) -> None:
    """The same records in the same order: states, offsets and queue are equal, also in their order."""
    cases = [DigisosId.new() for _ in range(30)]
    records = [topics.transport(case, "AKSEPTERT", nr) for nr, case in enumerate(cases)]
    records += [topics.transport(case, kind, 100) for case in cases for kind in ("SENDT", "BEKREFTET", "LEST")]
    records.append(topics.put(TRANSPORT, b"x", b"rot"))
    found = []
    async with StatusStore(tmp_path / "k.sqlite") as one, StatusStore(postgres_url) as two:
        for store in (one, two):
            for start in range(0, len(records), 7):
                await store.apply(records[start : start + 7], NOW)
            out = [
                (each.nr, each.outgoing.topic, each.outgoing.key, each.outgoing.value)
                for each in await store.pending(1000)
            ]
            states = (await store.all_states(), await store.owned_by(OWNER))
            found.append((states, await store.offsets(), await store.figures(), out))
    assert found[0] == found[1]
