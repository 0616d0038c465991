"""One suite for the outbox on every database, and a state machine that tries what nobody thought of."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from broker.record import Outgoing
from broker.sql import Connection, Database, open_database
from producers.database import MIGRATIONS
from producers.intake import Accepted
from producers.outbox import Message, Outbox, Queued, Sent
from producers.picking import Bounds
from schemas.errors import StoreError
from schemas.names import (
    DigisosId,
    DokumentlagerId,
    Eier,
    Kommunenummer,
    MeldingId,
    NavEksternRefId,
    Organisasjonsnummer,
    Sha256,
    Uuid,
)
from schemas.records import SOKNAD, TRANSPORT_AKSEPTERT, TRANSPORT_SENDT, SoknadRecord, TransportRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from postgres import PostgresServer

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KOMMUNE = Kommunenummer("0301")
OWNER = Eier("a" * 64)


def submission(ref: str, *, dokumentlager: bool = False) -> Accepted:
    melding_id, digisos_id, reference = MeldingId.new(), DigisosId.new(), NavEksternRefId(ref)
    digest = Sha256.of(melding_id.encode())
    soknad = SoknadRecord(
        melding_id=melding_id,
        digisos_id=digisos_id,
        kommunenummer=KOMMUNE,
        nav_ekstern_ref_id=reference,
        innsendt=NOW,
        avsender=Organisasjonsnummer("889640782"),
        nokkel_id=digest,
        sha256=digest,
        storrelse=3,
        pakke=None if dokumentlager else b"\0\xffx",
        dokumentlager_id=DokumentlagerId.new() if dokumentlager else None,
    )
    transport = TransportRecord(
        hendelse_id=Uuid.new(),
        melding_id=melding_id,
        digisos_id=digisos_id,
        kommunenummer=KOMMUNE,
        type=TRANSPORT_AKSEPTERT,
        tidspunkt=NOW,
        nav_ekstern_ref_id=reference,
        eier=OWNER,
    )
    return Accepted(soknad, transport, 1, bytes(32))


def messages(accepted: Accepted) -> tuple[Message, Message]:
    return (
        message(accepted, TRANSPORT_AKSEPTERT, "fiks.transport.v1"),
        message(accepted, SOKNAD, "fiks.0301.soknad.v1"),
    )


def message(accepted: Accepted, kind: str, topic: str, queued: datetime = NOW) -> Message:
    soknad = accepted.soknad
    headers = (("ce_id", soknad.melding_id.encode()), ("traceparent", "æ\u2028".encode()))
    outgoing = Outgoing(topic, soknad.digisos_id.encode(), f"{kind} {soknad.melding_id}".encode() + b"\0\xff", headers)
    return Message(
        soknad.digisos_id, soknad.melding_id, KOMMUNE, soknad.nav_ekstern_ref_id, kind, outgoing, queued=queued
    )


@pytest.fixture
async def database(database_place: str) -> AsyncIterator[Database]:
    async with open_database(database_place, MIGRATIONS) as opened:
        yield opened


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database)


async def queued(outbox: Outbox) -> list[Queued]:
    waiting = await outbox.waiting(Bounds(max_runs=10**6, max_bytes=2**40))
    return [one for run in waiting.runs for one in run]


async def test_what_was_accepted_comes_out_byte_for_byte_and_in_order(outbox: Outbox) -> None:
    one, two = submission("ref-1"), submission("ref-2")
    for accepted in (one, two):
        assert await outbox.accept(accepted, messages(accepted)) is None
    found = await queued(outbox)
    assert [each.message for each in found] == [*messages(one), *messages(two)]
    assert [each.nr for each in found] == sorted(each.nr for each in found)
    former = await outbox.find(NavEksternRefId("ref-1"))
    assert former is not None
    assert (former.digisos_id, former.eier) == (one.soknad.digisos_id, OWNER)
    assert await outbox.find(NavEksternRefId("ref-3")) is None


async def test_the_same_reference_a_hundred_times_at_once_is_one_soknad(outbox: Outbox) -> None:
    tries = [submission("ref-1") for _ in range(100)]
    answers = await asyncio.gather(*[outbox.accept(each, messages(each)) for each in tries])
    (won,) = [each for each, former in zip(tries, answers, strict=True) if former is None]
    assert {former.digisos_id for former in answers if former is not None} == {won.soknad.digisos_id}
    assert [each.message for each in await queued(outbox)] == list(messages(won))


async def test_the_same_reference_in_two_instances_at_once_is_one_soknad(postgres_url: str) -> None:
    tries = [submission("ref-1") for _ in range(100)]
    async with open_database(postgres_url, MIGRATIONS) as one, open_database(postgres_url, MIGRATIONS) as two:
        instances = [Outbox(one), Outbox(two)]
        answers = await asyncio.gather(*[instances[n % 2].accept(t, messages(t)) for n, t in enumerate(tries)])
        (won,) = [each for each, former in zip(tries, answers, strict=True) if former is None]
        assert {former.digisos_id for former in answers if former is not None} == {won.soknad.digisos_id}
        for outbox in instances:
            assert [each.message for each in await queued(outbox)] == list(messages(won))


async def test_a_submission_whose_copy_cannot_be_kept_leaves_nothing(outbox: Outbox) -> None:
    def no_room(_: Connection) -> None:
        raise StoreError("disken er full")

    accepted, other = submission("ref-1"), submission("ref-2")
    outcomes = await asyncio.gather(
        outbox.accept(accepted, messages(accepted), no_room),
        outbox.accept(other, messages(other)),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], StoreError)
    assert outcomes[1] is None
    assert await outbox.find(NavEksternRefId("ref-1")) is None
    assert [each.message for each in await queued(outbox)] == list(messages(other))


async def test_what_follows_enters_in_the_same_transaction_and_once(outbox: Outbox) -> None:
    accepted = submission("ref-1")
    await outbox.accept(accepted, messages(accepted))
    first, soknad = await queued(outbox)
    sent = message(accepted, TRANSPORT_SENDT, "fiks.transport.v1", NOW + timedelta(seconds=1))
    done = [Sent(first), Sent(soknad, sent)]
    replaced = await outbox.replace(done)
    again = await outbox.replace(done)
    assert replaced is not None
    assert again is not None
    assert [each.message for each in replaced.new] == [sent]
    assert replaced.new[0].nr > soknad.nr, "a number is never used again"
    assert (again.new, again.gone) == ([], 2)
    assert await queued(outbox) == replaced.new


async def test_numbers_of_messages_that_have_left_are_never_used_again(database_place: str) -> None:
    numbers = []
    for nr in range(3):
        async with open_database(database_place, MIGRATIONS) as database:
            outbox, accepted = Outbox(database), submission(f"ref-{nr}")
            await outbox.accept(accepted, messages(accepted))
            found = await queued(outbox)
            numbers += [each.nr for each in found]
            await outbox.replace([Sent(each) for each in found])
    assert numbers == sorted(set(numbers))


async def test_bounds_hold_on_a_long_queue(outbox: Outbox) -> None:
    submissions = [submission(f"ref-{nr}") for nr in range(700)]
    await asyncio.gather(*[outbox.accept(each, messages(each)) for each in submissions])
    ids = [each.soknad.digisos_id for each in submissions]
    found = await outbox.waiting(Bounds(busy=set(ids[:600]), max_runs=50))
    assert [run[0].message.digisos_id for run in found.runs] == ids[600:650]
    assert all(len(run) == 2 for run in found.runs)
    small = await outbox.waiting(Bounds(max_bytes=1))
    assert [len(run) for run in small.runs] == [1]
    held = await outbox.waiting(Bounds(held={"fiks.0301.soknad.v1"}, max_runs=3))
    assert [[each.message.type for each in run] for run in held.runs] == [[TRANSPORT_AKSEPTERT]] * 3


async def test_the_backlog_and_the_packages_are_known(outbox: Outbox) -> None:
    assert (await outbox.backlog()).messages == 0
    accepted = submission("ref-1", dokumentlager=True)
    await outbox.accept(accepted, messages(accepted))
    backlog = await outbox.backlog()
    assert (backlog.messages, backlog.oldest) == (2, NOW)
    package = accepted.soknad.dokumentlager_id
    assert package is not None
    assert await outbox.packages() == {package}
    stored = await outbox.package(package)
    assert stored is not None
    assert (stored.kommunenummer, stored.sha256) == (KOMMUNE, accepted.soknad.sha256)
    assert await outbox.package(DokumentlagerId.new()) is None


# ---- The state machine: the outbox against a list in memory.


class OutboxMachine(RuleBasedStateMachine):
    """Accepts, publishes and crashes in any order, and knows what must be there."""

    refs: ClassVar[list[str]] = [f"ref-{nr}" for nr in range(12)]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.taken: dict[str, DigisosId] = {}
        self.queue: list[Message] = []
        self.removed: list[Sent] = []

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        self.place = self.first_place()
        self.open()

    def open(self) -> None:
        self.database = open_database(self.place, MIGRATIONS)
        self.run(self.database.open())
        self.outbox = Outbox(self.database)

    def first_place(self) -> str:
        raise NotImplementedError

    def after_a_crash(self) -> str:
        """End whatever holds the database, without closing it; return where it is now."""
        raise NotImplementedError

    @rule(refs=st.lists(st.sampled_from(refs), min_size=1, max_size=6))
    def accept_together(self, refs: list[str]) -> None:
        """Some may be the same, and some were there before."""
        tries = [submission(ref) for ref in refs]

        async def all_at_once() -> list[Any]:
            return await asyncio.gather(*[self.outbox.accept(each, messages(each)) for each in tries])

        for ref, accepted, former in zip(refs, tries, self.run(all_at_once()), strict=True):
            if former is None:
                assert ref not in self.taken
                self.taken[ref] = accepted.soknad.digisos_id
                self.queue += messages(accepted)
        for ref, former in zip(refs, self.run(self.find(refs)), strict=True):
            assert former.digisos_id == self.taken[ref]

    @rule()
    def fail_to_accept(self) -> None:
        """What fails leaves no trace; what waits with it is not touched."""
        accepted = submission("never")

        def fail(_: Connection) -> None:
            raise LookupError

        with pytest.raises(LookupError):
            self.run(self.outbox.accept(accepted, messages(accepted), fail))

    @precondition(lambda self: self.queue)
    @rule(max_runs=st.integers(1, 4), data=st.data())
    def publish(self, max_runs: int, data: st.DataObject) -> None:
        """Take some, leave some of those busy, and remove the beginning of each run, as a relay does."""
        ids = list(dict.fromkeys(each.digisos_id for each in self.queue))
        busy = data.draw(st.sets(st.sampled_from(ids), max_size=len(ids) - 1)) if len(ids) > 1 else set[DigisosId]()
        found = self.run(self.outbox.waiting(Bounds(busy=busy, max_runs=max_runs))).runs
        free = [each for each in ids if each not in busy][:max_runs]
        assert [[one.message for one in run] for run in found] == [
            [one for one in self.queue if one.digisos_id == each] for each in free
        ]
        for run in found:
            self._leave(run[: data.draw(st.integers(0, len(run)))])

    def _leave(self, run: list[Queued]) -> None:
        done = [Sent(one, self._follows(one.message)) for one in run]
        replaced = self.run(self.outbox.replace(done))
        entered = [one.then for one in done if one.then is not None]
        assert ([one.message for one in replaced.new], replaced.gone) == (entered, 0)
        for one in done:
            self.queue.remove(one.queued.message)
        self.queue += entered
        self.removed += done

    @staticmethod
    def _follows(message: Message) -> Message | None:
        if message.type != SOKNAD:
            return None
        outgoing = Outgoing("fiks.transport.v1", message.outgoing.key, b"SENDT " + message.melding_id.encode(), ())
        return Message(
            message.digisos_id,
            message.melding_id,
            message.kommunenummer,
            message.nav_ekstern_ref_id,
            TRANSPORT_SENDT,
            outgoing,
            message.queued,
        )

    @precondition(lambda self: self.removed)
    @rule(data=st.data())
    def publish_again(self, data: st.DataObject) -> None:
        """A relay that did not hear that it had removed them."""
        again = data.draw(st.lists(st.sampled_from(self.removed), min_size=1, max_size=5, unique_by=id))
        replaced = self.run(self.outbox.replace(again))
        assert (replaced.new, replaced.gone) == ([], len(again))

    @rule()
    def crash(self) -> None:
        self.place = self.after_a_crash()
        self.open()

    @rule()
    def restart(self) -> None:
        self.run(self.database.close())
        self.open()

    @invariant()
    def everything_is_there_once(self) -> None:
        if not hasattr(self, "outbox"):
            return
        assert [each.message for each in self.run(self.everything())] == self.by_soknad()
        assert self.run(self.outbox.backlog()).messages == len(self.queue)
        assert self.run(self.find(["never"])) == [None]

    def by_soknad(self) -> list[Message]:
        ids = dict.fromkeys(each.digisos_id for each in self.queue)
        return [one for each in ids for one in self.queue if one.digisos_id == each]

    async def everything(self) -> list[Queued]:
        return await queued(self.outbox)

    async def find(self, refs: list[str]) -> list[Any]:
        return [await self.outbox.find(NavEksternRefId(ref)) for ref in refs]

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.run(self.database.close())
        self.runner.close()


class InAFile(OutboxMachine):
    """On SQLite."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.lives = 0

    def first_place(self) -> str:
        return str(self.folder / "0.sqlite")

    def after_a_crash(self) -> str:
        """What ``kill -9`` leaves is what lies on the disk now; the process that held it is closed without a part in it."""
        self.lives += 1
        former, new = Path(self.place), self.folder / f"{self.lives}.sqlite"
        for suffix in ("", "-wal"):
            if (lying := former.with_name(former.name + suffix)).exists():
                shutil.copy(lying, new.with_name(new.name + suffix))
        self.run(self.database.close())
        return str(new)

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.folder)


def test_no_order_of_events_loses_or_doubles_anything_in_a_file() -> None:
    run_state_machine_as_test(InAFile, settings=settings(max_examples=30, stateful_step_count=25, deadline=None))


def test_no_order_of_events_loses_or_doubles_anything_on_a_server(postgres_server: PostgresServer) -> None:
    class OnAServer(OutboxMachine):
        def __init__(self) -> None:
            super().__init__()
            self.name = postgres_server.new_database()

        def first_place(self) -> str:
            return postgres_server.url(self.name)

        def after_a_crash(self) -> str:
            """The server sees a dead instance as connections that are gone; the new instance has a pool of its own."""
            with postgres_server.admin() as admin:
                admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (self.name,))
            self.run(self.database.close())
            return self.place

        def teardown(self) -> None:
            super().teardown()
            postgres_server.drop(self.name)

    run_state_machine_as_test(OnAServer, settings=settings(max_examples=5, stateful_step_count=20, deadline=None))


def test_the_machine_sees_a_message_that_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof that it can fail: an outbox that forgets what should follow."""
    original: Callable[..., Any] = Outbox.replace

    async def forgetful(self: Outbox, sent: list[Sent], *args: Any) -> Any:
        return await original(self, [Sent(one.queued) for one in sent], *args)

    monkeypatch.setattr(Outbox, "replace", forgetful)
    quickly = settings(max_examples=30, stateful_step_count=25, phases=[Phase.generate], database=None, deadline=None)
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        run_state_machine_as_test(InAFile, settings=quickly)
