from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from broker.delivery import Delivery
from broker.delivery_messages import (
    Assigned,
    Command,
    Commit,
    DeadLetter,
    DeadLettered,
    Deliver,
    Draining,
    Due,
    Event,
    FagsystemDown,
    FagsystemUp,
    Failed,
    Handled,
    KvitteringPublished,
    Limits,
    Pause,
    PublishKvittering,
    Received,
    Resume,
    Retry,
    Revoked,
    Ticket,
    Withdraw,
    WithdrawalSeen,
)
from broker.delivery_state import MAX_GONE
from broker.retry import TABLE
from schemas.errors import (
    BehindDeadLetterError,
    BrokerUnavailableError,
    DecodeError,
    ExpiredError,
    FagsystemFailureError,
    FagsystemUnavailableError,
    MeldingsformidlerError,
    PackageUnavailableError,
    UnsealError,
)

START = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Driver:
    """A delivery with one clock, which remembers what it was told to do."""

    def __init__(self, *, dead_keys: tuple[str, ...] = (), limits: Limits | None = None) -> None:
        self.delivery = Delivery(random=lambda: 0.5, limits=limits, dead_keys=dead_keys)
        self.now = START
        self.feed(Assigned(frozenset({0, 1})))

    def feed(self, event: Event) -> list[Command]:
        return self.delivery.handle(event, self.now)

    def receive(self, offset: int, key: str = "a", partition: int = 0, **more: object) -> list[Command]:
        return self.feed(Received(partition, offset, key, **more))

    def wait(self) -> list[Command]:
        assert self.delivery.next_due is not None
        self.now = max(self.now, self.delivery.next_due)
        return self.feed(Due())

    def complete(self, command: Command) -> list[Command]:
        assert isinstance(command, Deliver)
        (publish,) = [c for c in self.feed(Handled(command.ticket)) if isinstance(c, PublishKvittering)]
        return self.feed(KvitteringPublished(publish.ticket))


def tickets(commands: list[Command], kind: type[Command]) -> list[int]:
    return [c.ticket.offset for c in commands if isinstance(c, kind)]


def test_a_record_is_delivered_then_answered_then_committed() -> None:
    driver = Driver()
    (deliver,) = driver.receive(5)
    assert isinstance(deliver, Deliver)
    (publish,) = driver.feed(Handled(deliver.ticket))
    assert isinstance(publish, PublishKvittering)
    assert driver.feed(KvitteringPublished(deliver.ticket)) == [Commit(0, 6)]


def test_records_of_one_key_go_one_at_a_time() -> None:
    driver = Driver()
    (first,) = driver.receive(0, "a")
    assert driver.receive(1, "a") == []
    commit, second = driver.complete(first)
    assert commit == Commit(0, 1)
    assert second == Deliver(Ticket(0, 1, second.ticket.generation))


def test_other_keys_flow_past_a_waiting_one_but_the_commit_waits() -> None:
    driver = Driver()
    (stuck,) = driver.receive(0, "a")
    (other,) = driver.receive(1, "b")
    (retry,) = driver.feed(Failed(stuck.ticket, FagsystemFailureError("x")))
    assert isinstance(retry, Retry)
    assert driver.complete(other) == []
    (again,) = driver.wait()
    assert again == Deliver(stuck.ticket, 2)
    assert driver.complete(again) == [Commit(0, 2)]


def test_a_record_that_fails_by_itself_is_dead_lettered_with_every_attempt() -> None:
    driver = Driver()
    (command,) = driver.receive(0)
    for _ in range(TABLE[FagsystemFailureError].attempts - 1):
        driver.feed(Failed(command.ticket, FagsystemFailureError("x")))
        (command,) = driver.wait()
    (dead,) = driver.feed(Failed(command.ticket, FagsystemFailureError("x")))
    assert isinstance(dead, DeadLetter)
    assert [attempt.code for attempt in dead.attempts] == ["fagsystem.feil"] * TABLE[FagsystemFailureError].attempts
    assert [a.at for a in dead.attempts] == sorted({a.at for a in dead.attempts})


def test_a_dead_letter_is_answered_before_its_offset_passes() -> None:
    driver = Driver()
    (command,) = driver.receive(0)
    (dead,) = driver.feed(Failed(command.ticket, UnsealError()))
    assert isinstance(dead, DeadLetter)
    assert driver.feed(DeadLettered(dead.ticket, answerable=True)) == [PublishKvittering(dead.ticket)]
    assert driver.feed(KvitteringPublished(dead.ticket)) == [Commit(0, 1)]


def test_a_dead_letter_that_nobody_can_answer_for_is_done_when_it_is_durable() -> None:
    driver = Driver()
    (dead,) = driver.receive(0, error=DecodeError("x"))
    assert isinstance(dead, DeadLetter)
    assert driver.feed(DeadLettered(dead.ticket, answerable=False)) == [Commit(0, 1)]


def test_what_follows_a_dead_letter_is_parked_behind_it() -> None:
    driver = Driver()
    (command,) = driver.receive(0)
    driver.receive(1)
    driver.feed(Failed(command.ticket, UnsealError()))
    driver.feed(DeadLettered(command.ticket, answerable=True))
    _, parked = driver.feed(KvitteringPublished(command.ticket))
    assert isinstance(parked, DeadLetter)
    assert isinstance(parked.error, BehindDeadLetterError)
    assert parked.attempts == ()


def test_dead_keys_from_before_a_restart_still_park() -> None:
    driver = Driver(dead_keys=("a",))
    assert tickets(driver.receive(0, "a"), DeadLetter) == [0]


def test_a_dead_key_lives_again_when_the_last_of_it_is_redriven() -> None:
    driver = Driver(dead_keys=("a",))
    (first,) = driver.receive(0, "a", redriven=True)
    assert isinstance(first, Deliver)
    driver.complete(first)
    assert tickets(driver.receive(1, "a"), DeadLetter) == [1]
    driver.feed(DeadLettered(Ticket(0, 1, first.ticket.generation), answerable=False))
    (last,) = driver.receive(2, "a", redriven=True)
    assert isinstance(last, Deliver)
    driver.feed(Handled(last.ticket, revives=True))
    driver.feed(KvitteringPublished(last.ticket))
    assert tickets(driver.receive(3, "a"), Deliver) == [3]


def test_a_drained_delivery_starts_nothing_and_lets_the_rest_end() -> None:
    driver = Driver(limits=Limits(running=1))
    (running,) = driver.receive(0, "a")
    driver.receive(1, "b")
    driver.feed(Draining())
    assert driver.complete(running) == [Commit(0, 1)]
    assert driver.delivery.next_due is None
    driver.feed(Revoked(frozenset({0, 1})))
    driver.feed(Assigned(frozenset({0, 1})))
    assert tickets(driver.receive(1, "b"), Deliver) == [1]


def test_a_dead_letter_of_something_delivered_before_blocks_nothing() -> None:
    driver = Driver()
    (command,) = driver.receive(0)
    driver.feed(Failed(command.ticket, UnsealError()))
    driver.feed(DeadLettered(command.ticket, answerable=True, blocks=False))
    driver.feed(KvitteringPublished(command.ticket))
    assert tickets(driver.receive(1), Deliver) == [1]


def test_an_unavailable_fagsystem_pauses_the_kommune_and_counts_nothing() -> None:
    driver = Driver(limits=Limits(running=2))
    first = driver.receive(0, "a")[0]
    second = driver.receive(0, "b", partition=1)[0]
    driver.receive(1, "c")
    down, pause = driver.feed(Failed(first.ticket, FagsystemUnavailableError("x")))
    assert isinstance(down, FagsystemDown)
    assert pause == Pause(frozenset({0, 1}))
    assert driver.feed(Failed(second.ticket, FagsystemUnavailableError("x"))) == []
    for _ in range(20):
        (probe,) = driver.wait()
        assert probe == Deliver(first.ticket, 1)
        (down,) = driver.feed(Failed(first.ticket, FagsystemUnavailableError("x")))
        assert isinstance(down, FagsystemDown)
    (probe,) = driver.wait()
    commands = driver.feed(Handled(probe.ticket))
    assert isinstance(commands[0], FagsystemUp)
    assert tickets(commands, Deliver) == [0, 1]
    assert commands[-1] == Resume(frozenset({0, 1}))


def test_a_probe_that_finds_no_room_waits_for_an_answer_and_not_for_time() -> None:
    driver = Driver(limits=Limits(running=1))
    (first,) = driver.receive(0, "a")
    driver.feed(Failed(first.ticket, FagsystemUnavailableError("x")))
    (probe,) = driver.wait()
    driver.receive(1, "b")
    assert driver.delivery.next_due is None
    driver.feed(Failed(probe.ticket, FagsystemUnavailableError("x")))
    assert driver.delivery.next_due is not None


def test_the_fagsystem_decides_how_long_it_is_left_alone() -> None:
    driver = Driver()
    (command,) = driver.receive(0)
    error = FagsystemUnavailableError("x", retry_after=timedelta(minutes=3))
    down = driver.feed(Failed(command.ticket, error))[0]
    assert down == FagsystemDown(START + timedelta(minutes=3), error)


def test_a_probe_that_never_reached_the_fagsystem_lets_another_one_try() -> None:
    driver = Driver(limits=Limits(running=1))
    (command,) = driver.receive(0, "a")
    driver.receive(1, "b")
    driver.feed(Failed(command.ticket, FagsystemUnavailableError("x")))
    driver.wait()
    commands = driver.feed(Failed(command.ticket, PackageUnavailableError("x")))
    assert tickets(commands, Deliver) == [1]
    assert driver.delivery.is_down


def test_a_fagsystem_that_fails_on_one_probe_is_up() -> None:
    driver = Driver()
    (command,) = driver.receive(0, "a")
    driver.feed(Failed(command.ticket, FagsystemUnavailableError("x")))
    driver.wait()
    commands = driver.feed(Failed(command.ticket, FagsystemFailureError("x")))
    assert isinstance(commands[0], FagsystemUp)
    assert not driver.delivery.is_down


def test_an_answer_from_before_proves_nothing_about_the_fagsystem() -> None:
    driver = Driver()
    (command,) = driver.receive(0, "a")
    driver.feed(Failed(command.ticket, FagsystemUnavailableError("x")))
    driver.wait()
    driver.feed(Handled(command.ticket, repeated=True))
    assert driver.delivery.is_down


def test_publishing_is_repeated_until_it_succeeds() -> None:
    driver = Driver()
    (command,) = driver.receive(0)
    driver.feed(Handled(command.ticket))
    for _ in range(50):
        (retry,) = driver.feed(Failed(command.ticket, BrokerUnavailableError("x")))
        assert isinstance(retry, Retry)
        assert driver.wait() == [PublishKvittering(command.ticket)]
    assert driver.feed(KvitteringPublished(command.ticket)) == [Commit(0, 1)]


def test_a_full_partition_pauses_and_resumes_when_half_is_done() -> None:
    driver = Driver(limits=Limits(running=10, open_per_partition=4))
    commands = [driver.receive(n, f"k{n}") for n in range(4)]
    assert commands[3][1] == Pause(frozenset({0}))
    assert not any(isinstance(c, Pause) for c in driver.receive(0, "z", partition=1))
    assert driver.complete(commands[0][0]) == [Commit(0, 1)]
    assert driver.complete(commands[1][0]) == [Commit(0, 2)]
    assert driver.complete(commands[2][0]) == [Commit(0, 3), Resume(frozenset({0}))]


def test_one_that_is_tried_again_for_long_holds_up_no_more_than_its_window() -> None:
    driver = Driver(limits=Limits(open_per_partition=4, window=20))
    (stuck,) = driver.receive(0, "stuck")
    driver.feed(Failed(stuck.ticket, FagsystemFailureError("x")))
    for offset in range(1, 19):
        (deliver,) = driver.receive(offset, f"k{offset}")
        assert driver.complete(deliver) == []
    deliver, pause = driver.receive(19, "last")
    assert pause == Pause(frozenset({0}))
    driver.complete(deliver)
    (again,) = driver.wait()
    assert driver.complete(again) == [Commit(0, 20), Resume(frozenset({0}))]


def test_bytes_are_bounded_over_all_partitions() -> None:
    driver = Driver(limits=Limits(open_bytes=100))
    first = driver.receive(0, "a", size=100)
    assert first[1] == Pause(frozenset({0, 1}))
    assert driver.complete(first[0])[-1] == Resume(frozenset({0, 1}))


def test_nodhjelp_goes_first_among_those_that_wait() -> None:
    driver = Driver(limits=Limits(running=1))
    (running,) = driver.receive(0, "a")
    driver.receive(1, "b")
    driver.receive(2, "c", urgent=True)
    assert tickets(driver.feed(Handled(running.ticket)), Deliver) == [2]


def test_results_from_before_a_rebalance_are_ignored() -> None:
    driver = Driver()
    (old,) = driver.receive(0)
    driver.feed(Revoked(frozenset({0})))
    driver.feed(Assigned(frozenset({0})))
    (new,) = driver.receive(0)
    assert driver.feed(Handled(old.ticket)) == []
    assert driver.complete(new) == [Commit(0, 1)]
    assert driver.delivery.open_records == 0


def test_records_of_a_partition_that_is_not_ours_and_records_read_twice_are_passed_over() -> None:
    driver = Driver()
    assert driver.receive(0, partition=7) == []
    driver.receive(3)
    assert driver.receive(3) == []


SOON = START + timedelta(minutes=1)


def test_a_record_that_is_expired_when_it_is_read_is_not_handed_over() -> None:
    driver = Driver()
    (dead,) = driver.receive(0, expires=START)
    assert isinstance(dead, DeadLetter)
    assert isinstance(dead.error, ExpiredError)
    assert dead.attempts == ()
    driver.feed(DeadLettered(dead.ticket, answerable=True))
    assert driver.feed(KvitteringPublished(dead.ticket)) == [Commit(0, 1)]


def test_a_hand_over_that_began_in_time_may_end_after_it() -> None:
    driver = Driver()
    (deliver,) = driver.receive(0, expires=SOON)
    driver.now = SOON + timedelta(minutes=1)
    assert driver.feed(Due()) == []
    assert driver.complete(deliver) == [Commit(0, 1)]


def test_one_that_waits_to_be_tried_again_expires_with_its_attempts() -> None:
    driver = Driver()
    (deliver,) = driver.receive(0, expires=START + timedelta(seconds=0.5))
    driver.feed(Failed(deliver.ticket, FagsystemFailureError("x")))
    (dead,) = driver.wait()
    assert isinstance(dead, DeadLetter)
    assert isinstance(dead.error, ExpiredError)
    assert [one.code for one in dead.attempts] == ["fagsystem.feil"]
    driver.now += timedelta(hours=1)
    assert driver.feed(Due()) == [], "it sleeps no more"


def test_what_expires_while_the_fagsystem_is_down_asks_nobody_and_lets_others_be_read() -> None:
    driver = Driver(limits=Limits(running=1))
    (first,) = driver.receive(0, "a", expires=SOON)
    driver.receive(1, "b", expires=SOON)
    error = FagsystemUnavailableError("x", retry_after=timedelta(minutes=10))
    driver.feed(Failed(first.ticket, error))
    assert driver.delivery.next_due == SOON
    commands = driver.wait()
    assert tickets(commands, DeadLetter) == [0, 1]
    assert tickets(commands, Deliver) == []
    assert commands[-1] == Resume(frozenset({0, 1}))
    assert driver.delivery.is_down


def test_one_that_waits_for_its_key_expires_when_its_turn_comes() -> None:
    driver = Driver()
    (first,) = driver.receive(0)
    driver.receive(1, expires=SOON)
    driver.now = SOON
    commands = driver.complete(first)
    assert tickets(commands, DeadLetter) == [1]


def test_what_is_redriven_too_late_expires_again() -> None:
    driver = Driver(dead_keys=("a",))
    (dead,) = driver.receive(0, redriven=True, expires=START)
    assert isinstance(dead, DeadLetter)
    assert isinstance(dead.error, ExpiredError)


def test_a_deadline_of_tomorrow_holds_no_memory_today() -> None:
    driver = Driver()
    for offset in range(3 * MAX_GONE):
        (deliver,) = driver.receive(offset, f"k{offset}", expires=START + timedelta(days=1))
        driver.complete(deliver)
    assert driver.delivery.open_records == 0
    assert len(driver.delivery._waiting._expiring) <= MAX_GONE + 1


def withdrawal(driver: Driver, offset: int, melding: str, key: str = "a") -> list[Command]:
    return driver.receive(offset, key, melding=melding, withdraws=True)


def settle(driver: Driver, command: Command, **what: bool) -> list[Command]:
    assert isinstance(command, Withdraw)
    (publish,) = [c for c in driver.feed(Handled(command.ticket, **what)) if isinstance(c, PublishKvittering)]
    return driver.feed(KvitteringPublished(publish.ticket))


def test_a_melding_that_waits_for_a_place_is_withdrawn_without_a_hand_over() -> None:
    driver = Driver(limits=Limits(running=1))
    (running,) = driver.receive(0, "b")
    driver.receive(1, melding="m")
    (withdraw,) = withdrawal(driver, 2, "m")
    assert withdraw == Withdraw(Ticket(0, 1, withdraw.ticket.generation))
    (itself,) = settle(driver, withdraw)
    assert itself == Withdraw(Ticket(0, 2, withdraw.ticket.generation))
    assert settle(driver, itself) == []
    assert driver.complete(running) == [Commit(0, 3)]


def test_a_melding_that_sleeps_or_waits_for_its_key_is_withdrawn_in_its_turn() -> None:
    driver = Driver()
    (first,) = driver.receive(0, melding="m")
    driver.receive(1, melding="n")
    driver.feed(Failed(first.ticket, FagsystemFailureError("x")))
    assert withdrawal(driver, 2, "n") == []
    assert tickets(withdrawal(driver, 3, "m"), Withdraw) == [0]
    commands = settle(driver, Withdraw(first.ticket))
    assert tickets(commands, Withdraw) == [1]
    assert driver.delivery.next_due is None, "it sleeps no more"


def test_what_is_at_the_fagsystem_is_answered_first_and_the_withdrawal_repeats_it() -> None:
    driver = Driver()
    (deliver,) = driver.receive(0, melding="m")
    assert withdrawal(driver, 1, "m") == []
    commit, withdraw = driver.complete(deliver)
    assert commit == Commit(0, 1)
    assert settle(driver, withdraw, repeated=True) == [Commit(0, 2)]


def test_what_fails_at_the_fagsystem_meanwhile_is_not_tried_again() -> None:
    driver = Driver()
    (deliver,) = driver.receive(0, melding="m")
    withdrawal(driver, 1, "m")
    assert driver.feed(Failed(deliver.ticket, FagsystemFailureError("x"))) == [Withdraw(deliver.ticket)]


def test_a_withdrawal_does_not_wait_for_a_fagsystem_that_is_down() -> None:
    driver = Driver(limits=Limits(running=1))
    (deliver,) = driver.receive(0, melding="m")
    driver.receive(1, "b")
    driver.feed(Failed(deliver.ticket, FagsystemUnavailableError("x")))
    assert driver.feed(WithdrawalSeen(0, "a", "m")) == [Withdraw(deliver.ticket)]
    assert settle(driver, Withdraw(deliver.ticket)) == [Commit(0, 1)]
    assert driver.delivery.is_down, "nobody asked the fagsystem"


def test_a_withdrawal_seen_before_its_melding_is_read_counts() -> None:
    driver = Driver()
    assert driver.feed(WithdrawalSeen(0, "a", "m")) == []
    assert tickets(driver.receive(0, melding="m"), Withdraw) == [0]


def test_a_withdrawal_reaches_a_melding_behind_a_dead_letter() -> None:
    driver = Driver(dead_keys=("a",))
    assert tickets(withdrawal(driver, 0, "m"), Withdraw) == [0]


def test_a_key_lives_on_after_a_withdrawal_unless_it_was_the_soknad_itself() -> None:
    driver = Driver()
    (itself,) = withdrawal(driver, 0, "m")
    settle(driver, itself)
    assert tickets(driver.receive(1), Deliver) == [1]
    (itself,) = withdrawal(driver, 2, "s", "b")
    settle(driver, itself, blocks=True)
    assert tickets(driver.receive(3, "b"), DeadLetter) == [3]


def test_a_withdrawal_of_the_last_undelivered_one_revives_the_key() -> None:
    driver = Driver(dead_keys=("a",))
    (itself,) = withdrawal(driver, 0, "m")
    settle(driver, itself, revives=True)
    assert tickets(driver.receive(1), Deliver) == [1]


def test_keys_that_died_or_came_alive_elsewhere_are_known_when_partitions_come() -> None:
    driver = Driver(dead_keys=("a",))
    driver.feed(Revoked(frozenset({0, 1})))
    driver.feed(Assigned(frozenset({0, 1}), frozenset({"b"})))
    assert tickets(driver.receive(0, "a"), Deliver) == [0]
    assert tickets(driver.receive(1, "b"), DeadLetter) == [1]


FOREVER = datetime.max.replace(tzinfo=UTC)
PARTITIONS = (0, 1)
KEYS = ("a", "b", "c", "d")


class AnyDay(RuleBasedStateMachine):
    """Everything that may happen, in any order; the rules of ``broker.delivery`` hold all the time."""

    out = Bundle("out")

    @initialize()
    def begin(self) -> None:
        self.now = START
        limits = Limits(running=3, open_per_partition=6, open_bytes=10)
        self.delivery = Delivery(random=lambda: 0.5, limits=limits, dead_keys=("d",))
        self.generation = dict.fromkeys(PARTITIONS, 0)
        self.next = dict.fromkeys(PARTITIONS, 0)
        self.committed = dict.fromkeys(PARTITIONS, 0)
        self.done: dict[int, set[int]] = defaultdict(set)
        self.keys: dict[tuple[int, int], str] = {}
        self.expires: dict[tuple[int, int], datetime] = {}
        self.delivering: dict[Ticket, str] = {}
        self.counted: dict[Ticket, int] = defaultdict(int)
        self.paused: set[int] = set()
        self.step: dict[Ticket, type[Command]] = {}
        self.feed(Assigned(frozenset(PARTITIONS)))

    def feed(self, event: Event) -> list[Command]:
        commands = self.delivery.handle(event, self.now)
        for command in commands:
            self.obey(command)
        return [c for c in commands if isinstance(c, Deliver | Withdraw | DeadLetter | PublishKvittering)]

    def obey(self, command: Command) -> None:
        match command:
            case Deliver(ticket) | Withdraw(ticket) | DeadLetter(ticket) | PublishKvittering(ticket):
                key = self.keys[ticket.partition, ticket.offset]
                assert ticket not in self.step
                self.step[ticket] = type(command)
                earlier = {o for (p, o), k in self.keys.items() if p == ticket.partition and k == key}
                assert all(
                    o >= ticket.offset or o in self.done[ticket.partition] or o < self.committed[ticket.partition]
                    for o in earlier
                ), "overtook its own key"
                if isinstance(command, Deliver):
                    assert self.expires.get((ticket.partition, ticket.offset), FOREVER) > self.now, "begun too late"
                    assert command.attempt == self.counted[ticket] + 1, "an outage was counted"
                    assert key not in self.delivering.values(), "two of one key"
                    self.delivering[ticket] = key
                    assert len(self.delivering) <= 3
            case Commit(partition, offset):
                assert offset > self.committed[partition]
                assert all(o in self.done[partition] for o in range(self.committed[partition], offset))
                self.committed[partition] = offset
            case Pause(partitions):
                assert not partitions & self.paused
                self.paused |= partitions
            case Resume(partitions):
                assert partitions <= self.paused
                self.paused -= partitions
            case Retry(at=at) | FagsystemDown(probe_at=at):
                assert at > self.now
            case FagsystemUp():
                pass

    @rule(
        target=out,
        partition=st.sampled_from(PARTITIONS),
        key=st.sampled_from(KEYS),
        urgent=st.booleans(),
        bad=st.booleans(),
        lives=st.sampled_from([None, None, 0, 90, 600]),
    )
    def receive(self, partition: int, key: str, urgent: bool, bad: bool, lives: int | None) -> object:  # noqa: FBT001 - hypothesis names them
        if partition in self.paused:
            return multiple()
        offset = self.next[partition]
        self.next[partition] += 1
        self.keys[partition, offset] = f"{partition}{key}" if key != "d" else key
        error = DecodeError("x") if bad and urgent else None
        expires = None if lives is None else self.now + timedelta(seconds=lives)
        self.expires[partition, offset] = expires or FOREVER
        received = Received(
            partition,
            offset,
            self.keys[partition, offset],
            1,
            urgent,
            error=error,
            melding=f"m{offset}",
            expires=expires,
        )
        return multiple(*self.feed(received))

    @rule(target=out, partition=st.sampled_from(PARTITIONS), back=st.integers(1, 4), data=st.booleans())
    def withdraw(self, partition: int, back: int, data: bool) -> object:  # noqa: FBT001 - hypothesis names them
        offset = self.next[partition]
        target = offset - back
        if (partition, target) not in self.keys:
            return multiple()
        key, melding = self.keys[partition, target], f"m{target}"
        if data or partition in self.paused:
            return multiple(*self.feed(WithdrawalSeen(partition, key, melding)))
        self.next[partition] += 1
        self.keys[partition, offset] = key
        return multiple(*self.feed(Received(partition, offset, key, 1, melding=melding, withdraws=True)))

    @rule(
        target=out,
        command=consumes(out),
        error=st.sampled_from(
            [
                None,
                None,
                FagsystemUnavailableError("x"),
                FagsystemFailureError("x"),
                UnsealError(),
                PackageUnavailableError("x"),
                BrokerUnavailableError("x"),
            ]
        ),
        answerable=st.booleans(),
        blocks=st.booleans(),
    )
    def answer(self, command: Command, error: MeldingsformidlerError | None, answerable: bool, blocks: bool) -> object:  # noqa: FBT001 - hypothesis names them
        assert isinstance(command, Deliver | Withdraw | DeadLetter | PublishKvittering)
        ticket = command.ticket
        current = self.step.pop(ticket, None) is not None
        self.delivering.pop(ticket, None)
        if error is not None:
            if current and isinstance(command, Deliver) and isinstance(error, FagsystemFailureError):
                self.counted[ticket] += 1
            return multiple(*self.feed(Failed(ticket, error)))
        match command:
            case Deliver():
                return multiple(*self.feed(Handled(ticket)))
            case Withdraw():
                return multiple(*self.feed(Handled(ticket, repeated=True, revives=answerable, blocks=blocks)))
            case DeadLetter():
                if current and not answerable:
                    self.done[ticket.partition].add(ticket.offset)
                return multiple(*self.feed(DeadLettered(ticket, answerable, blocks)))
            case PublishKvittering():
                if current:
                    self.done[ticket.partition].add(ticket.offset)
                return multiple(*self.feed(KvitteringPublished(ticket)))

    @rule(target=out, seconds=st.integers(1, 400))
    def time_passes(self, seconds: int) -> object:
        self.now += timedelta(seconds=seconds)
        commands = self.feed(Due())
        assert self.delivery.next_due is None or self.delivery.next_due > self.now, "a timer would spin"
        return multiple(*commands)

    @rule(target=out, partition=st.sampled_from(PARTITIONS))
    def rebalance(self, partition: int) -> object:
        gone = frozenset({partition})
        self.paused -= gone  # Kafka ends a pause when the partition goes
        for ticket in [t for t in self.step if t.partition == partition]:
            del self.step[ticket]
            self.delivering.pop(ticket, None)
        commands = self.feed(Revoked(gone))
        self.next[partition] = self.committed[partition]
        self.done[partition] = set()
        for place in [p for p in self.keys if p[0] == partition and p[1] >= self.committed[partition]]:
            del self.keys[place]
        return multiple(*commands, *self.feed(Assigned(gone)))

    @invariant()
    def nothing_is_stuck(self) -> None:
        if hasattr(self, "delivery") and self.delivery.open_records:
            assert self.step or self.delivery.next_due is not None

    def teardown(self) -> None:
        if not hasattr(self, "delivery"):
            return
        for _ in range(100_000):
            if not self.delivery.open_records:
                break
            waiting = [(ticket, kind) for ticket, kind in self.step.items()]
            for ticket, kind in waiting:
                del self.step[ticket]
                self.delivering.pop(ticket, None)
                if kind in {Deliver, Withdraw}:
                    self.feed(Handled(ticket))
                elif kind is DeadLetter:
                    self.feed(DeadLettered(ticket, answerable=True))
                else:
                    self.done[ticket.partition].add(ticket.offset)
                    self.feed(KvitteringPublished(ticket))
            if not waiting:
                assert self.delivery.next_due is not None
                self.now = max(self.now, self.delivery.next_due)
                self.feed(Due())
        assert self.committed == self.next
        assert not self.paused
        assert not self.delivery.is_down or self.delivery.next_due is None


TestAnyDay = AnyDay.TestCase
TestAnyDay.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
