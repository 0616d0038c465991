"""A day with misfortunes: records come in any order and twice, the process dies anywhere, and the answer is the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from broker.record import Incoming, TopicPartition
from broker.routing import STATUS, TRANSPORT, kvittering_topic
from kvittering import taking_in
from kvittering.bulk_store import BulkStore
from kvittering.comparing import Comparison, compare
from kvittering.projection import project
from kvittering.store import StatusStore
from schemas.codec import decode
from schemas.names import Sha256
from schemas.records import StatusRecord

if TYPE_CHECKING:
    from pathlib import Path

SOKNADER = 3


class _DiedError(Exception):
    """The process is gone before the commit."""


class Day(RuleBasedStateMachine):
    """Topics that are written to, and a store that reads them. A test gives it ``kit``, ``issuer`` and ``folder``."""

    kit: Any
    issuer: Any
    folder: Path
    runs = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).runs += 1
        self.loop = asyncio.Runner()
        self.path = self.folder / f"{self.runs}.sqlite"
        self.log = self.kit.log()
        self.topics: dict[str, list[Incoming]] = {TRANSPORT: [], kvittering_topic(self.kit.oslo): []}
        self.soknader = [self.kit.soknad() for _ in range(SOKNADER)]
        self.store = StatusStore(self.path)
        self.loop.run(self.store.__aenter__())

    def _put(self, record: Incoming) -> None:
        self.topics[record.topic].append(record)

    @rule(at=st.integers(0, SOKNADER - 1), kind=st.sampled_from(["AKSEPTERT", "SENDT", "BEKREFTET"]))
    def transport(self, at: int, kind: str) -> None:
        self._put(self.log.transport(self.soknader[at].transport(kind)))

    @rule(at=st.integers(0, SOKNADER - 1), status=st.sampled_from(["LEVERT", "MOTTATT", "AVVIST"]))
    def kvittering(self, at: int, status: str) -> None:
        self._put(self.log.kvittering(self.issuer.issue(self.soknader[at], status)))

    @rule(at=st.integers(0, SOKNADER - 1))
    def fork(self, at: int) -> None:
        heads = dict(self.issuer.heads)
        link = self.issuer.issue(self.soknader[at], "AVVIST", kode="x", forrige=Sha256.of(b"en annen"))
        self.issuer.heads = heads
        self._put(self.log.kvittering(link))

    @rule(at=st.integers(0, SOKNADER - 1))
    def a_link_is_lost(self, at: int) -> None:
        self.issuer.issue(self.soknader[at], "LEVERT")

    @rule(data=st.data())
    @precondition(lambda self: any(self.topics.values()))
    def the_same_record_again(self, data: st.DataObject) -> None:
        former = data.draw(st.sampled_from([one for lane in self.topics.values() for one in lane]))
        self._put(self.log.put(former.topic, former.key, former.value))

    @rule(topic=st.sampled_from([TRANSPORT, "kvittering"]), count=st.integers(1, 5))
    def read(self, topic: str, count: int) -> None:
        self._apply(self._next(topic, count))

    @rule(topic=st.sampled_from([TRANSPORT, "kvittering"]), back=st.integers(1, 4), count=st.integers(1, 6))
    def read_what_was_read(self, topic: str, back: int, count: int) -> None:
        lane, start = self._lane(topic)
        self._apply(lane[max(start - back, 0) :][:count])

    @rule(topic=st.sampled_from([TRANSPORT, "kvittering"]), count=st.integers(1, 5))
    def die_before_the_commit(self, topic: str, count: int) -> None:
        before = self.loop.run(self.store.offsets())

        def die(_: str) -> None:
            raise _DiedError

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(taking_in, "crash_point", die)
            with pytest.raises(_DiedError):
                self._apply(self._next(topic, count))
        self.restart()
        assert self.loop.run(self.store.offsets()) == before

    @rule()
    def restart(self) -> None:
        self.loop.run(self.store.__aexit__(None, None, None))
        self.store = StatusStore(self.path)
        self.loop.run(self.store.__aenter__())

    def teardown(self) -> None:
        for topic in self.topics:
            self._apply(self._next(topic, 10_000))
        try:
            self.loop.run(self._check())
        finally:
            self.loop.run(self.store.__aexit__(None, None, None))
            self.loop.close()

    async def _check(self) -> None:
        """The store says what a straight replay says, and the portal is told the last of it."""
        straight = self.path.with_suffix(".igjen")
        async with StatusStore(straight) as again:
            await again.apply([self._judged(one) for lane in self.topics.values() for one in lane], self.kit.now)
        async with BulkStore(self.path, read_only=True) as kept, BulkStore(straight, read_only=True) as replayed:
            assert [one async for one in compare(kept, replayed, Comparison())] == []
            assert await kept.offsets() == await replayed.offsets()
        queued = {
            one.outgoing.key: one.outgoing.value
            for one in await self.store.pending(1000)
            if one.outgoing.topic == STATUS
        }
        for soknad in self.soknader:
            state = await self.store.state(soknad.digisos_id)
            status = None if state is None else project(state).status
            value = queued.get(soknad.digisos_id.encode())
            assert (None if value is None else decode(StatusRecord, value).status) == status or project(
                state
            ).soknad is None

    def _lane(self, topic: str) -> tuple[list[Incoming], int]:
        name = topic if topic in self.topics else kvittering_topic(self.kit.oslo)
        return self.topics[name], self.loop.run(self.store.offsets()).get(TopicPartition(name, 0), 0)

    def _next(self, topic: str, count: int) -> list[Incoming]:
        lane, start = self._lane(topic)
        return lane[start : start + count]

    def _judged(self, record: Incoming) -> Any:
        return self.kit.read(record, self.issuer)

    def _apply(self, batch: list[Incoming]) -> None:
        self.loop.run(self.store.apply([self._judged(one) for one in batch], self.kit.now))


def test_whatever_happens_on_the_way_the_store_comes_to_what_a_straight_replay_comes_to(
    kit: Any, oslo: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    day = type("Day", (Day,), {"kit": kit, "issuer": oslo, "folder": tmp_path_factory.mktemp("dager")})
    run_state_machine_as_test(
        day,
        settings=settings(
            max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
