"""One kommune for as long as you like: sendings, withdrawals, outages, poison, crashes, rebalances and an operator, in any order.

The delivery core is real, and so are the rules about keys (``consumers.issued``). Kafka, the local store, the dead letter topic
and the fagsystem are models: lists that survive a crash. What must hold is said of what the fagsystem stored, and when.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from broker.delivery import Delivery
from broker.delivery_messages import (
    Assigned,
    Commit,
    DeadLetter,
    DeadLettered,
    Deliver,
    Draining,
    Due,
    Failed,
    Handled,
    KvitteringPublished,
    Limits,
    Pause,
    PublishKvittering,
    Received,
    Resume,
    Revoked,
    Withdraw,
)
from consumers.issued import Issued, is_behind, is_dead
from schemas.errors import (
    BehindDeadLetterError,
    ExpiredError,
    FagsystemFailureError,
    FagsystemUnavailableError,
    MeldingsformidlerError,
    UnsealError,
    WithdrawnError,
)
from schemas.kvittering import AVVIST, GRAD_INGEN, GRAD_LAGRET, MOTTATT
from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256, Uuid

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
NUMBER = Kommunenummer("4601")
DIGEST = Sha256.of(b"x")
KEYS = tuple(DigisosId(f"0000000{n}-0000-4000-8000-00000000000a") for n in range(3))
OUTCOMES = (None, None, None, FagsystemUnavailableError("x"), FagsystemFailureError("x"), UnsealError())


@dataclass(frozen=True)
class Message:
    key: DigisosId
    melding: MeldingId
    expires: datetime | None = None
    withdraws: bool = False
    redriven: bool = False


@dataclass
class Out:
    """A command that somebody carries out, and for which life of the partition."""

    command: Any
    message: Message
    life: int


class Kommune(RuleBasedStateMachine):
    """See the module."""

    @initialize()
    def begin(self) -> None:
        self.now = START
        self.count = 0
        self.wrong: str | None = None
        self.log: list[Message] = []
        self.sent: dict[DigisosId, list[MeldingId]] = defaultdict(list)
        self.committed = 0
        self.chains: dict[DigisosId, list[Issued]] = defaultdict(list)
        self.letters: list[Message] = []
        self.fagsystem: list[MeldingId] = []
        self.uncertain: set[MeldingId] = set()
        self.poisoned: set[MeldingId] = set()
        self.life = 0
        self.start()

    def start(self) -> None:
        """A process begins: what it knows is the store's."""
        self.life += 1
        self.out: list[Out] = []
        self.paused = False
        self.position = self.committed
        self.core = Delivery(random=lambda: 0.5, limits=Limits(running=2, open_per_partition=6))
        self.feed(Assigned(frozenset({0}), self.dead_keys()))

    def dead_keys(self) -> frozenset[str]:
        return frozenset(key for key, chain in self.chains.items() if is_dead(chain))

    def feed(self, event: Any) -> None:
        for command in self.core.handle(event, self.now):
            match command:
                case Deliver(ticket) | Withdraw(ticket) | DeadLetter(ticket) | PublishKvittering(ticket):
                    self.out.append(Out(command, self.log[ticket.offset], self.life))
                case Commit(_, offset):
                    assert offset > self.committed
                    self.committed = offset
                case Pause():
                    self.paused = True
                case Resume():
                    self.paused = False
                case _:
                    pass

    # What the world does.

    @rule(key=st.sampled_from(KEYS), lives=st.sampled_from([None, None, None, 30, 300]), poison=st.integers(0, 2))
    def send(self, key: DigisosId, lives: int | None, poison: int) -> None:
        self.count += 1
        melding = MeldingId(f"{self.count:08}-0000-4000-8000-000000000000")
        if poison == 0:
            self.poisoned.add(melding)
        expires = None if lives is None else self.now + timedelta(seconds=lives)
        self.sent[key].append(melding)
        self.log.append(Message(key, melding, expires))

    @rule(data=st.data())
    @precondition(lambda self: any(self.sent.values()))
    def recall(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from([key for key, sent in self.sent.items() if sent]))
        self.log.append(Message(key, data.draw(st.sampled_from(self.sent[key])), withdraws=True))

    @rule(data=st.data())
    @precondition(lambda self: bool(self.poisoned))
    def cure(self, data: st.DataObject) -> None:
        """What was wrong with a melding is mended: it can be opened from now on."""
        self.poisoned.remove(data.draw(st.sampled_from(sorted(self.poisoned))))

    @rule()
    def quiet_time(self) -> None:
        self.come_to_rest()

    @rule(data=st.data())
    @precondition(lambda self: bool(self.letters))
    def redrive_some(self, data: st.DataObject) -> None:
        """An operator picks any of the dead letters, one or all of a key's: the tool keeps their order."""
        key = data.draw(st.sampled_from([letter.key for letter in self.letters]))
        chosen = [letter for letter in self.letters if letter.key == key]
        chosen = chosen[data.draw(st.integers(0, len(chosen) - 1)) :]
        self.redrive(chosen)

    def redrive(self, chosen: list[Message]) -> None:
        for letter in chosen:
            self.letters.remove(letter)
            self.log.append(replace(letter, redriven=True))

    @rule(count=st.integers(1, 4))
    def read(self, count: int) -> None:
        for _ in range(count):
            if self.paused or self.position >= len(self.log):
                return
            offset, self.position = self.position, self.position + 1
            one = self.log[offset]
            received = Received(
                0,
                offset,
                one.key,
                redriven=one.redriven,
                melding=one.melding,
                expires=one.expires,
                withdraws=one.withdraws,
            )
            self.feed(received)

    @rule(seconds=st.integers(1, 120))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        self.feed(Due())

    @rule(data=st.data())
    @precondition(lambda self: bool(self.out))
    def crash(self, data: st.DataObject) -> None:
        """Anything may have been done halfway: what was at the fagsystem may be stored there, and nobody knows."""
        for out in self.out:
            if isinstance(out.command, Deliver) and self.may_begin(out.message) and data.draw(st.booleans()):
                self.hand_over(out.message)
        self.start()

    @rule()
    def rebalance(self) -> None:
        """The partition goes away and comes back; what was under way goes on, and belongs to a former life."""
        self.feed(Draining())
        self.feed(Revoked(frozenset({0})))
        self.life += 1
        self.paused = False
        self.position = self.committed
        self.feed(Assigned(frozenset({0}), self.dead_keys()))

    # What the shell does.

    @rule(data=st.data(), error=st.sampled_from(OUTCOMES))
    @precondition(lambda self: bool(self.out))
    def carry_out(self, data: st.DataObject, error: MeldingsformidlerError | None) -> None:
        self.settle(self.out.pop(data.draw(st.integers(0, len(self.out) - 1))), error)

    def settle(self, out: Out, error: MeldingsformidlerError | None) -> None:
        ticket = out.command.ticket
        if out.life != self.life:
            if isinstance(out.command, Deliver) and error is None and self.may_begin(out.message):
                self.hand_over(out.message)  # the fagsystem has it, and the process that asked may not say so
            return
        match out.command:
            case Deliver():
                self.feed(self.deliver(out, error))
            case Withdraw():
                self.feed(self.withdraw(out))
            case DeadLetter():
                self.feed(self.bury(out))
            case _:
                self.feed(KvitteringPublished(ticket))

    def may_begin(self, one: Message) -> bool:
        """Whether a process that is asked for this hand-over would begin it."""
        behind = one.redriven and is_behind(self.chains[one.key], one.melding)
        late = one.expires is not None and self.now >= one.expires
        answered = any(not each.is_dead_letter for each in self.known(one))
        return not behind and not late and not answered and one.melding not in self.poisoned

    def deliver(self, out: Out, error: MeldingsformidlerError | None) -> Any:
        ticket, one = out.command.ticket, out.message
        known = self.known(one)
        if known and not (all(each.is_dead_letter for each in known) and one.redriven):
            return Handled(ticket, repeated=True, revives=one.redriven and not is_dead(self.chains[one.key]))
        if one.redriven and is_behind(self.chains[one.key], one.melding):
            return Failed(ticket, BehindDeadLetterError())
        error = UnsealError() if one.melding in self.poisoned else error
        if error is None and one.expires is not None and self.now >= one.expires:
            error = ExpiredError()
        if error is not None:
            return Failed(ticket, error)
        self.hand_over(one)
        self.uncertain.discard(one.melding)
        self.issue(one, MOTTATT, GRAD_LAGRET)
        return Handled(ticket, revives=one.redriven and not is_dead(self.chains[one.key]))

    def withdraw(self, out: Out) -> Any:
        one = out.message
        if all(each.is_dead_letter for each in self.known(one)):
            self.issue(one, AVVIST, GRAD_INGEN, WithdrawnError.code)
        dead = is_dead(self.chains[one.key])
        return Handled(out.command.ticket, repeated=True, revives=not dead, blocks=dead)

    def bury(self, out: Out) -> Any:
        ticket, one = out.command.ticket, out.message
        known = self.known(one)
        if known and not (all(each.is_dead_letter for each in known) and one.redriven):
            return Handled(ticket, repeated=True)
        self.letters.append(replace(one, redriven=False))
        self.issue(one, AVVIST, GRAD_INGEN, out.command.error.code)
        return DeadLettered(ticket, answerable=True)

    def known(self, one: Message) -> list[Issued]:
        return [each for each in self.chains[one.key] if each.melding_id == one.melding]

    def issue(self, one: Message, status: str, grad: str, kode: str | None = None) -> None:
        chain = self.chains[one.key]
        chain.append(
            Issued(Uuid.new(), NUMBER, one.key, len(chain) + 1, one.melding, DIGEST, status, grad, "jws", kode)
        )

    def hand_over(self, one: Message) -> None:
        """The fagsystem stores a melding; the same one again is the same one."""
        if one.melding in self.fagsystem:
            return
        self.uncertain.add(one.melding)
        chain = self.chains[one.key]
        withdrawn = {each.melding_id for each in chain if each.is_withdrawn}
        before = self.sent[one.key][: self.sent[one.key].index(one.melding)]
        if one.melding in withdrawn:
            self.wrong = "handed over after its withdrawal was answered"
        if any(each not in self.fagsystem and each not in withdrawn for each in before):
            self.wrong = "overtook its søknad, or an earlier ettersendelse"
        assert self.wrong is None
        self.fagsystem.append(one.melding)

    # What an operator finds when all is quiet.

    def teardown(self) -> None:
        if not hasattr(self, "core") or self.wrong is not None:
            return
        self.poisoned.clear()
        for _ in range(50):
            self.come_to_rest()
            hopeful = [one for one in self.letters if one.expires is None or one.expires > self.now]
            if not hopeful or not self.helps():
                break
            self.redrive(list(self.letters))
        self.come_to_rest()
        assert self.committed == len(self.log)
        self.judge()

    def helps(self) -> bool:
        """Whether another round could deliver something: the first undelivered of some key can still be handed over."""
        for key in KEYS:
            letters = [one for one in self.letters if one.key == key]
            if letters and not is_behind(self.chains[key], letters[0].melding):
                first = letters[0]
                if first.expires is None or first.expires > self.now:
                    return True
        return False

    def come_to_rest(self) -> None:
        for _ in range(10_000):
            if not self.out and self.position >= len(self.log) and not self.core.open_records:
                return
            if self.out:
                self.settle(self.out.pop(0), None)
            elif self.position < len(self.log) and not self.paused:
                self.read(1)
            else:
                assert self.core.next_due is not None, "stuck"
                self.now = max(self.now, self.core.next_due)
                self.feed(Due())
        raise AssertionError("it never came to rest")

    def judge(self) -> None:
        assert len(set(self.fagsystem)) == len(self.fagsystem)
        letters = {one.melding for one in self.letters}
        for key, sent in self.sent.items():
            chain = self.chains[key]
            settled = {each.melding_id for each in chain if not each.is_dead_letter}
            for melding in sent:
                assert any(each.melding_id == melding for each in chain), "nobody answered"
                assert melding in settled or melding in letters, "lost"
            for each in chain:
                if each.is_from_fagsystem:
                    assert each.melding_id in self.fagsystem
                elif each.is_withdrawn:
                    assert each.melding_id not in self.fagsystem or each.melding_id in self.uncertain


TestKommune = Kommune.TestCase
TestKommune.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
