from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from patience import until

from broker.katalog import Katalog
from broker.record import TopicPartition
from broker.routing import TRANSPORT, hendelse_topic, kvittering_topic
from broker.topic_identity import TopicIdentity
from crypto.keys import KeyRing
from kvittering import emnevakt
from kvittering import follower as module
from kvittering.applier import Applier
from kvittering.emnevakt import TopicGuard
from kvittering.follower import CENTRAL, Follower, halve, topics_of
from kvittering.hub import Hub
from kvittering.projection import project
from kvittering.store import StatusStore
from schemas.errors import AccessDeniedError, BrokerUnavailableError, StoreError, TopicShorterError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from pathlib import Path


class Tail:
    """One reader of topics in memory: batches as they are put, an error as one that is raised."""

    def __init__(
        self, batches: asyncio.Queue[list[Any] | Exception], topics: Topics, first: Mapping[TopicPartition, int]
    ) -> None:
        self.caught_up = asyncio.Event()
        self.first = first
        self.total = batches.qsize()
        self._batches = batches
        self._topics = topics
        self._dealt_with = 0

    async def ends(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        if self._topics.silent:
            raise BrokerUnavailableError("borte")
        return {TopicPartition(min(topics), 0): self._dealt_with + self._batches.qsize() + self._handed_out}

    async def has_read(self, ends: Mapping[TopicPartition, int]) -> bool:
        return all(self._dealt_with >= end for end in ends.values())

    _handed_out = 0

    async def __aiter__(self) -> AsyncIterator[list[Any]]:
        while True:
            if self._batches.empty():
                self.caught_up.set()
            batch = await self._batches.get()
            if isinstance(batch, Exception):
                raise batch
            self._handed_out = 1
            yield batch
            self._handed_out, self._dealt_with = 0, self._dealt_with + 1


class Topics:
    """Topics in memory; those that are ``missing`` cannot be opened, and none while Kafka is ``down``."""

    def __init__(self) -> None:
        self.opened: list[tuple[frozenset[str], dict[TopicPartition, int]]] = []
        self.central: asyncio.Queue[list[Any] | Exception] = asyncio.Queue()
        self.kommuner: asyncio.Queue[list[Any] | Exception] = asyncio.Queue()
        self.missing: set[str] = set()
        self.down = False
        self.silent = False
        self.attempts = 0
        self.first: dict[TopicPartition, int] = {}
        self.ends: dict[TopicPartition, int] = {}
        self.ids: dict[str, str] = {}

    async def seen(self, topics: Iterable[str]) -> dict[str, TopicIdentity]:
        return {topic: TopicIdentity(self.ids.get(topic, "den første"), 2) for topic in topics}

    @asynccontextmanager
    async def open(self, topics: Iterable[str], offsets: Mapping[TopicPartition, int]) -> AsyncIterator[Tail]:
        wanted = frozenset(topics)
        self.attempts += 1
        if self.down:
            raise BrokerUnavailableError("borte")
        if wanted & self.missing:
            raise AccessDeniedError("ikke lov")
        short = frozenset(
            one.topic for one, end in self.ends.items() if one.topic in wanted and offsets.get(one, 0) > end
        )
        if short:
            raise TopicShorterError("for kort", topics=short)
        self.opened.append((wanted, dict(offsets)))
        first = {one: offset for one, offset in self.first.items() if one.topic in wanted}
        yield Tail(self.central if wanted == CENTRAL else self.kommuner, self, first)

    def names(self) -> list[frozenset[str]]:
        return [topics for topics, _ in self.opened]


class Shell:
    def __init__(self, kit: Any, store: StatusStore, *issuers: Any) -> None:
        self.katalog = Katalog(issuer.entry() for issuer in issuers)
        self.changed, self.ready = asyncio.Event(), asyncio.Event()
        self.topics = Topics()
        self.follower = Follower(
            katalog=self.katalog,
            changed=self.changed,
            open_tail=self.topics.open,
            store=store,
            applier=Applier(katalog=self.katalog, store=store, keys=KeyRing([]), hub=Hub(), clock=lambda: kit.now),
            guard=TopicGuard(store, self.topics.seen),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.follower.run(self.ready))
        try:
            yield
        finally:
            task.cancel()
            outcome = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(outcome[0], asyncio.CancelledError), outcome


def of(*kommuner: str) -> frozenset[str]:
    return frozenset(topic for knr in kommuner for topic in (kvittering_topic(knr), hendelse_topic(knr)))  # type: ignore[arg-type]  # a plain string will do


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[StatusStore]:
    async with StatusStore(tmp_path / "k.sqlite") as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    monkeypatch.setattr(emnevakt, "CHECK_EVERY_S", 0.005)


async def test_nothing_is_read_before_the_katalog_is_there(kit: Any, oslo: Any, store: StatusStore) -> None:
    shell = Shell(kit, store, oslo)
    async with shell.running():
        assert shell.follower.problem() == "venter på katalogen"
        assert shell.topics.attempts == 0
        shell.ready.set()
        await until(lambda: shell.follower.problem() is None)
    assert sorted(shell.topics.names(), key=len) == [CENTRAL, of("0301")]


async def test_it_is_ready_when_all_that_was_there_has_been_taken_in(kit: Any, oslo: Any, store: StatusStore) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    shell.ready.set()
    shell.topics.central.put_nowait([log.transport(soknad.transport("AKSEPTERT"))])
    shell.topics.kommuner.put_nowait([log.kvittering(oslo.issue(soknad))])
    async with shell.running():
        await until(lambda: shell.follower.problem() is None)
    state = await store.state(soknad.digisos_id)
    assert state is not None
    assert project(state).status == "MOTTATT"


async def test_reading_goes_on_from_the_stores_offsets_when_reading_has_failed(
    kit: Any, oslo: Any, store: StatusStore
) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    shell.ready.set()
    shell.topics.central.put_nowait([log.transport(soknad.transport("AKSEPTERT"))])
    shell.topics.central.put_nowait(BrokerUnavailableError("borte"))
    async with shell.running():
        await until(lambda: shell.topics.names().count(CENTRAL) == 2)
    assert [offsets for topics, offsets in shell.topics.opened if topics == CENTRAL] == [
        {},
        {TopicPartition(TRANSPORT, 0): 1},
    ]


async def test_while_kafka_is_away_it_is_not_ready_and_nobody_is_blamed(
    kit: Any, oslo: Any, bergen: Any, store: StatusStore
) -> None:
    shell = Shell(kit, store, oslo, bergen)
    shell.ready.set()
    shell.topics.down = True
    async with shell.running():
        await until(lambda: shell.topics.attempts > 3)
        assert "Kafka: transport.megler-utilgjengelig" in str(shell.follower._problems)
        shell.topics.down = False
        await until(lambda: shell.follower.problem() is None)
    assert sorted(shell.topics.names(), key=len) == [CENTRAL, of("0301", "4601")]


async def test_a_new_kommune_is_followed_and_the_others_are_left_alone(
    kit: Any, oslo: Any, bergen: Any, store: StatusStore
) -> None:
    shell = Shell(kit, store, oslo)
    shell.ready.set()
    async with shell.running():
        await until(lambda: len(shell.topics.opened) == 2)
        shell.katalog.put(bergen.entry())
        shell.changed.set()
        await until(lambda: len(shell.topics.opened) == 3)
        shell.katalog.remove(kit.oslo)
        shell.changed.set()
        await until(lambda: not shell.changed.is_set())
    assert shell.topics.names()[2] == of("4601")
    assert len(shell.topics.opened) == 3


async def test_a_kommune_whose_topics_cannot_be_opened_holds_nobody_up(
    kit: Any, oslo: Any, bergen: Any, store: StatusStore
) -> None:
    third = kit.issuer(name="konnektor-tre", kommunenummer=kit.trondheim)
    shell = Shell(kit, store, oslo, bergen, third)
    shell.ready.set()
    shell.topics.missing = {kvittering_topic(kit.bergen)}
    async with shell.running():
        await until(lambda: shell.follower.problem() is None)
        assert set(shell.topics.names()) == {CENTRAL, of("0301"), of("5001")}
        shell.topics.missing = set()
        await until(lambda: of("4601") in shell.topics.names())


def test_halves_are_whole_kommuner_and_one_kommune_has_none() -> None:
    assert set(halve(of("0301", "4601", "5001"))) == {of("0301"), of("4601", "5001")}
    assert halve(of("0301")) == ()


def test_the_topics_are_those_of_the_katalog_and_the_central_one(oslo: Any) -> None:
    assert topics_of(Katalog([oslo.entry()])) == CENTRAL | of("0301")


async def test_a_store_that_cannot_be_read_is_waited_for_and_shown(
    kit: Any, oslo: Any, store: StatusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, broken = store.offsets, [True]

    async def offsets() -> dict[TopicPartition, int]:
        if broken:
            raise StoreError("disken er full")
        return await real()

    monkeypatch.setattr(store, "offsets", offsets)
    shell = Shell(kit, store, oslo)
    shell.ready.set()
    async with shell.running():
        await until(lambda: shell.follower.problem() == "lageret: lager")
        broken.clear()
        await until(lambda: shell.follower.problem() is None)
    assert sorted(shell.topics.names(), key=len) == [CENTRAL, of("0301")]


async def test_silence_is_known_to_be_silence_when_all_that_lay_there_has_been_taken_in(
    kit: Any, oslo: Any, store: StatusStore
) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    shell.ready.set()
    async with shell.running():
        assert await shell.follower.up_to_date([kit.oslo], 0.05) == frozenset()  # nothing is open yet
        await until(lambda: shell.follower.problem() is None)
        assert await shell.follower.up_to_date([kit.oslo, kit.bergen], 5) == {kit.oslo}
        shell.topics.central.put_nowait([log.transport(soknad.transport("AKSEPTERT"))])
        assert await shell.follower.up_to_date([kit.oslo], 5) == {kit.oslo}
    assert await store.state(soknad.digisos_id) is not None


async def test_a_broker_that_does_not_answer_is_not_silence(kit: Any, oslo: Any, store: StatusStore) -> None:
    shell = Shell(kit, store, oslo)
    shell.ready.set()
    async with shell.running():
        await until(lambda: shell.follower.problem() is None)
        shell.topics.silent = True
        assert await shell.follower.up_to_date([kit.oslo], 5) == frozenset()


async def test_what_has_been_read_and_is_not_stored_yet_is_not_silence(
    kit: Any, oslo: Any, store: StatusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    go_on, real = asyncio.Event(), store.apply

    async def slow(*args: Any) -> Any:
        await go_on.wait()
        return await real(*args)

    shell.ready.set()
    async with shell.running():
        await until(lambda: shell.follower.problem() is None)
        monkeypatch.setattr(store, "apply", slow)
        shell.topics.kommuner.put_nowait([log.kvittering(oslo.issue(soknad))])
        assert await shell.follower.up_to_date([kit.oslo], 0.1) == frozenset()
        go_on.set()
        assert await shell.follower.up_to_date([kit.oslo], 5) == {kit.oslo}


async def test_a_topic_that_was_made_again_while_nobody_looked_is_not_read_and_the_others_are(
    kit: Any, oslo: Any, bergen: Any, store: StatusStore
) -> None:
    first = Shell(kit, store, oslo, bergen)
    first.ready.set()
    async with first.running():
        await until(lambda: first.follower.problem() is None)
    shell, wrong = Shell(kit, store, oslo, bergen), kvittering_topic(kit.oslo)
    shell.ready.set()
    shell.topics.ids[wrong] = "en annen"
    async with shell.running():
        await until(lambda: len(shell.topics.opened) == 2)
        await until(shell.follower.caught_up.is_set)
        assert wrong in str(shell.follower.problem())
        assert f"formidler status godta-emner --topic {wrong}" in str(shell.follower.problem())
        assert await shell.follower.up_to_date([kit.oslo, kit.bergen], 1) == {kit.bergen}
    assert set(shell.topics.names()) == {CENTRAL, of("0301", "4601") - {wrong}}


async def test_a_topic_that_is_made_again_while_it_is_read_is_not_taken_in_any_more(
    kit: Any, oslo: Any, store: StatusStore
) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    shell.ready.set()
    wrong, late = kvittering_topic(kit.oslo), log.kvittering(oslo.issue(soknad))
    async with shell.running():
        await until(lambda: shell.follower.problem() is None)
        shell.topics.ids[wrong] = "en annen"
        await until(lambda: shell.follower.problem() is not None)
        shell.topics.kommuner.put_nowait([late])
        shell.topics.central.put_nowait([log.transport(soknad.transport("AKSEPTERT"))])
        await until(lambda: shell.topics.kommuner.empty() and shell.topics.central.empty())
        async with asyncio.timeout(5):
            while await store.state(soknad.digisos_id) is None:  # noqa: ASYNC110 - the store has no event for each søknad
                await asyncio.sleep(0.005)
    state = await store.state(soknad.digisos_id)
    assert state is not None
    assert state.kvitteringer == ()


async def test_a_topic_that_gives_what_came_before_again_was_made_again(
    kit: Any, oslo: Any, store: StatusStore
) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    shell.ready.set()
    record = log.kvittering(oslo.issue(soknad))
    async with shell.running():
        shell.topics.kommuner.put_nowait([record])
        await until(lambda: shell.follower.problem() is None)
        shell.topics.kommuner.put_nowait([record])
        await until(lambda: shell.follower.problem() is not None)
        assert "ga post 0 etter at det var lest til 1" in str(shell.follower.problem())


async def test_a_topic_that_ends_before_what_was_read_of_it_stops_alone(
    kit: Any, oslo: Any, bergen: Any, store: StatusStore
) -> None:
    soknad, log = kit.soknad(), kit.log()
    await store.apply([kit.read(log.kvittering(oslo.issue(soknad)), oslo)], kit.now)
    shell = Shell(kit, store, oslo, bergen)
    shell.ready.set()
    short = TopicPartition(kvittering_topic(kit.oslo), 0)
    shell.topics.ends[short] = 0
    async with shell.running():
        await until(lambda: len(shell.topics.opened) == 2)
        await until(shell.follower.caught_up.is_set)
        assert short.topic in str(shell.follower.problem())
    assert set(shell.topics.names()) == {CENTRAL, of("0301", "4601") - {short.topic}}


async def test_records_that_are_gone_before_they_were_read_stop_the_topic(
    kit: Any, oslo: Any, store: StatusStore
) -> None:
    soknad, log = kit.soknad(), kit.log()
    await store.apply([kit.read(log.kvittering(oslo.issue(soknad)), oslo)], kit.now)
    shell, cut = Shell(kit, store, oslo), TopicPartition(kvittering_topic(kit.oslo), 0)
    shell.ready.set()
    shell.topics.first[cut] = 7
    async with shell.running():
        await until(lambda: "umulig å bygge opp igjen" in str(shell.follower.problem()))
        assert cut.topic in str(shell.follower.problem())


async def test_a_topic_that_had_lost_its_beginning_when_it_was_first_seen_is_read_from_there(
    kit: Any, oslo: Any, store: StatusStore
) -> None:
    cut = TopicPartition(kvittering_topic(kit.oslo), 1)
    for shell in (Shell(kit, store, oslo), Shell(kit, store, oslo)):
        shell.ready.set()
        shell.topics.first[cut] = 7
        async with shell.running():
            async with asyncio.timeout(5):
                await shell.follower.caught_up.wait()
            assert shell.follower.problem() is None
        assert (await store.offsets())[cut] == 7


async def test_what_is_queued_may_go_out_when_everything_has_been_read_once(
    kit: Any, oslo: Any, store: StatusStore
) -> None:
    shell = Shell(kit, store, oslo)
    shell.ready.set()
    shell.topics.down = True
    async with shell.running():
        await until(lambda: shell.topics.attempts > 3)
        assert not shell.follower.caught_up.is_set()
        shell.topics.down = False
        await until(shell.follower.caught_up.is_set)
