"""The delivery of one kommune's søknader, decided: events in, commands out, no IO, no clock, no randomness of its own.

A shell (``consumers.session``) reads Kafka, talks to the fagsystem and carries out the commands. Rules:

1. An offset is committed when its record *and every one before it in the partition* is done, and never before.
2. A record is done when its kvittering is durable on its topic; a dead-lettered one when its dead letter is durable, and
   after that its negative kvittering, if anybody knows which søknad to answer for.
3. Records of one key go one at a time, in offset order: what follows a failed one waits behind it.
4. Records of other keys flow past a waiting one, up to the limits.
5. What belongs to a dead-lettered søknad is not delivered: it follows into the dead letter topic, in order. Redriven records go
   all the same, and when the last of them is delivered the key lives again. Dead keys are given at the start, since they outlive
   a restart.
6. An unavailable fagsystem counts no attempts: the kommune's partitions pause, one record at a time probes, and the first answer
   resumes. An answer is ``Handled`` or ``FagsystemFailureError``; an error from before the fagsystem was asked proves nothing.
7. A record that fails by itself is dead-lettered when ``broker.retry`` says that its attempts are used up.
8. After a hand-over nothing is given up: a failed publish is repeated until it succeeds.
9. What is open is bounded: a full partition pauses, and resumes when half of it is done. What is done behind one that is not
   costs next to nothing, and has a wider bound: a few that are tried again for minutes hold up no thousands.
10. ``Revoked`` empties a partition. Results that come later carry an old generation and are ignored.
11. Nødhjelp goes first among the records that may go, never before its own key's earlier ones.
12. A hand-over that has not begun when its record expires never begins: dead letter, whoever is down. One under way may end.
13. A withdrawal takes its melding out of the line wherever it waits. What is at the fagsystem by then is answered first, and the
    withdrawal repeats that. A withdrawn melding blocks its key only if it was the søknad itself.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

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
from broker.delivery_state import Breaker, Entry, Partition, State, Step, Waiting
from broker.record import Attempt
from broker.retry import ALWAYS, Course, Random, Rule, asked_delay, delay, rule_for
from schemas.errors import BehindDeadLetterError, ExpiredError, FagsystemFailureError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from schemas.errors import MeldingsformidlerError


class Delivery:
    """The state of one kommune's deliveries in this process.

    Feed every event to ``handle``, in the order in which things happened, and carry out the commands in theirs.
    """

    def __init__(self, *, random: Random, limits: Limits | None = None, dead_keys: Iterable[str] = ()) -> None:
        """Start with no partitions.

        Args:
            random: Returns a number in [0, 1); spreads the retries.
            limits: How much may be open.
            dead_keys: Keys with a dead letter that nobody has redriven.
        """
        self._random = random
        self._limits = limits or Limits()
        self._dead = set(dead_keys)
        self._withdrawn: set[str] = set()
        self._partitions: dict[int, Partition] = {}
        self._queues: dict[tuple[int, str], deque[Entry]] = {}
        self._waiting = Waiting()
        self._running = 0
        self._bytes = 0
        self._open = 0
        self._breaker: Breaker | None = None
        self._sequence = 0
        self._generation = 0
        self._draining = False

    @property
    def next_due(self) -> datetime | None:
        """When ``Due`` should be fed; None when nothing waits for time."""
        moments = [self._waiting.next_moment]
        if self._breaker is not None and self._breaker.probe is None and self._can_start():
            moments.append(self._breaker.until)
        return min((each for each in moments if each is not None), default=None)

    @property
    def is_down(self) -> bool:
        """Whether the fagsystem is unavailable."""
        return self._breaker is not None

    @property
    def open_records(self) -> int:
        """How many records are read and not done."""
        return self._open

    def handle(self, event: Event, now: datetime) -> list[Command]:
        """Return the commands that ``event`` calls for, in order.

        Args:
            event: What happened.
            now: When, as aware UTC.
        """
        match event:
            case Draining():
                self._draining = True
                commands = []
            case Assigned(partitions, dead_keys):
                commands = self._assign(partitions, dead_keys)
            case Revoked(partitions):
                commands = self._revoke(partitions)
            case Received():
                commands = self._receive(event)
            case WithdrawalSeen(partition, key, melding):
                commands = self._withdraw((partition, key), melding)
            case Due():
                commands = self._wake(now)
            case Handled() | Failed() | DeadLettered() | KvitteringPublished():
                commands = self._result(event, now)
        commands += self._expire(now)
        commands += self._start(now)
        commands += self._flow()
        return commands

    def _assign(self, partitions: frozenset[int], dead_keys: frozenset[str] | None) -> list[Command]:
        self._draining = False
        if dead_keys is not None:
            self._dead = set(dead_keys)
        for partition in sorted(partitions - self._partitions.keys()):
            self._generation += 1
            self._partitions[partition] = Partition(self._generation)
        return []

    def _revoke(self, partitions: frozenset[int]) -> list[Command]:
        for partition in partitions & self._partitions.keys():
            del self._partitions[partition]
        gone = [key for key in self._queues if key[0] not in self._partitions]
        for key in gone:
            for entry in self._queues.pop(key):
                self._bytes -= entry.received.size
                self._open -= 1
                self._leave(entry)
                entry.state = State.DONE
        self._waiting.tidy()
        self._withdrawn.clear()  # whoever has the partitions now reads the withdrawals itself
        return []

    def _receive(self, event: Received) -> list[Command]:
        partition = self._partitions.get(event.partition)
        if partition is None or event.offset < partition.next_offset:
            return []  # read before the partition was lost, or read twice
        self._sequence += 1
        entry = Entry(Ticket(event.partition, event.offset, partition.generation), event, self._sequence)
        partition.entries[event.offset] = entry
        partition.open += 1
        partition.next_offset = event.offset + 1
        self._bytes += event.size
        self._open += 1
        queue = self._queues.setdefault(entry.key, deque())
        queue.append(entry)
        commands = self._withdraw(entry.key, event.melding) if event.withdraws and event.melding is not None else []
        return [*commands, *(self._promote(entry) if queue[0] is entry and entry.may_change else [])]

    def _withdraw(self, key: tuple[int, str], melding: str) -> list[Command]:
        """Take a melding out of the line: now if it is the first of its key, else when it becomes the first."""
        self._withdrawn.add(melding)
        first = next(iter(self._queues.get(key, ())), None)
        if first is None or first.received.melding != melding or not first.may_change:
            return []
        commands = self._promote(first)
        self._waiting.tidy()
        return commands

    def _is_withdrawn(self, entry: Entry) -> bool:
        return entry.received.withdraws or entry.received.melding in self._withdrawn

    def _promote(self, entry: Entry) -> list[Command]:
        """Let the first of its key go."""
        if entry.received.error is None and self._is_withdrawn(entry):
            return self._run(entry, Step.WITHDRAW)
        if entry.received.key in self._dead and not entry.received.redriven:
            return self._give_up(entry, BehindDeadLetterError())
        if entry.received.error is not None:
            return self._give_up(entry, entry.received.error)
        self._waiting.ready(entry)
        return []

    def _result(self, event: Handled | Failed | DeadLettered | KvitteringPublished, now: datetime) -> list[Command]:
        entry = self._entry(event.ticket)
        if entry is None:
            return []
        match event:
            case Handled():
                return self._handled(entry, event)
            case DeadLettered(answerable=answerable, blocks=blocks):
                if blocks:
                    self._dead.add(entry.received.key)
                return self._run(entry, Step.PUBLISH) if answerable else self._finish(entry)
            case KvitteringPublished():
                return self._finish(entry)
            case Failed(error=error):
                return self._fail(entry, error, now)

    def _handled(self, entry: Entry, event: Handled) -> list[Command]:
        asked = entry.step is Step.DELIVER and not event.repeated
        self._leave(entry)
        if event.revives:
            self._dead.discard(entry.received.key)
        if event.blocks:
            self._dead.add(entry.received.key)
        return [*(self._close_breaker() if asked else []), *self._run(entry, Step.PUBLISH)]

    def _entry(self, ticket: Ticket) -> Entry | None:
        partition = self._partitions.get(ticket.partition)
        if partition is None or partition.generation != ticket.generation:
            return None
        entry = partition.entries.get(ticket.offset)
        return entry if entry is not None and entry.state is State.RUNNING else None

    def _fail(self, entry: Entry, error: MeldingsformidlerError, now: datetime) -> list[Command]:
        if entry.step is not Step.DELIVER:
            return self._again(entry, error, now, ALWAYS)
        was_probe = self._breaker is not None and self._breaker.probe is entry
        self._leave(entry)
        closed = self._close_breaker() if isinstance(error, FagsystemFailureError) else []
        rule = rule_for(error)
        match rule.course:
            case Course.GIVE_UP:
                return [*closed, *self._give_up(entry, error, now)]
            case Course.PAUSE:
                return self._open_breaker(entry, error, now, was_probe=was_probe)
            case _ if self._is_withdrawn(entry):
                return [*closed, *self._run(entry, Step.WITHDRAW)]
            case Course.WAIT:
                return self._again(entry, error, now, rule)
            case Course.COUNT:
                return [*closed, *self._count(entry, error, now, rule)]

    def _again(self, entry: Entry, error: MeldingsformidlerError, now: datetime, rule: Rule) -> list[Command]:
        entry.failures += 1
        return self._sleep(entry, error, now + delay(rule, entry.failures, self._random))

    def _count(self, entry: Entry, error: MeldingsformidlerError, now: datetime, rule: Rule) -> list[Command]:
        if len(entry.attempts) + 1 >= rule.attempts:
            return self._give_up(entry, error, now)
        entry.attempts.append(Attempt(error.code, now))
        return self._sleep(entry, error, now + delay(rule, len(entry.attempts), self._random))

    def _give_up(self, entry: Entry, error: MeldingsformidlerError, now: datetime | None = None) -> list[Command]:
        if now is not None:
            entry.attempts.append(Attempt(error.code, now))
        entry.error = error
        entry.failures = 0
        return self._run(entry, Step.DEAD_LETTER)

    def _sleep(self, entry: Entry, error: MeldingsformidlerError, at: datetime) -> list[Command]:
        self._waiting.postpone(entry, at)
        return [Retry(entry.ticket, at, error, len(entry.attempts))]

    def _wake(self, now: datetime) -> list[Command]:
        commands: list[Command] = []
        for entry in self._waiting.wake(now):
            commands += self._promote(entry) if entry.step is Step.DELIVER else self._run(entry, entry.step)
        return commands

    def _expire(self, now: datetime) -> list[Command]:
        commands = [one for entry in self._waiting.expire(now) for one in self._give_up(entry, ExpiredError())]
        if commands:
            self._waiting.tidy()
        return commands

    def _finish(self, entry: Entry) -> list[Command]:
        entry.state = State.DONE
        partition = self._partitions[entry.ticket.partition]
        partition.entries[entry.ticket.offset] = None  # its place alone is kept until a commit passes it
        partition.open -= 1
        self._waiting.gone(entry)
        if entry.received.withdraws and entry.received.melding is not None:
            self._withdrawn.discard(entry.received.melding)
        self._bytes -= entry.received.size
        self._open -= 1
        commands = self._commit(entry.ticket.partition)
        queue = self._queues[entry.key]
        queue.popleft()
        if queue:
            return [*commands, *self._promote(queue[0])]
        del self._queues[entry.key]
        return commands

    def _commit(self, number: int) -> list[Command]:
        partition = self._partitions[number]
        done: list[int] = []
        for offset, entry in partition.entries.items():
            if entry is not None:
                break
            done.append(offset)
        for offset in done:
            del partition.entries[offset]
        return [Commit(number, next(iter(partition.entries), partition.next_offset))] if done else []

    def _run(self, entry: Entry, step: Step) -> list[Command]:
        entry.step = step
        entry.state = State.RUNNING
        match step:
            case Step.DELIVER:
                self._running += 1
                return [Deliver(entry.ticket, len(entry.attempts) + 1)]
            case Step.WITHDRAW:
                return [Withdraw(entry.ticket)]
            case Step.DEAD_LETTER:
                if entry.error is None:
                    raise RuntimeError("a dead letter without a reason")
                return [DeadLetter(entry.ticket, entry.error, tuple(entry.attempts))]
            case Step.PUBLISH:
                return [PublishKvittering(entry.ticket)]

    def _leave(self, entry: Entry) -> None:
        """Note that ``entry`` is no longer at the fagsystem."""
        if entry.step is Step.DELIVER and entry.state is State.RUNNING:
            self._running -= 1
            entry.state = State.WAITING
            if self._breaker is not None and self._breaker.probe is entry:
                self._breaker.probe = None

    def _start(self, now: datetime) -> list[Command]:
        commands: list[Command] = []
        while self._can_start() and self._may_start(now):
            entry = self._waiting.pop_ready()
            if self._breaker is not None:
                self._breaker.probe = entry
            commands += self._run(entry, Step.DELIVER)
        return commands

    def _can_start(self) -> bool:
        return self._waiting.anybody_ready and not self._draining and self._running < self._limits.running

    def _may_start(self, now: datetime) -> bool:
        return self._breaker is None or (self._breaker.probe is None and now >= self._breaker.until)

    def _open_breaker(
        self, entry: Entry, error: MeldingsformidlerError, now: datetime, *, was_probe: bool
    ) -> list[Command]:
        again = self._promote(entry)  # to the line, unless it was withdrawn in the meantime
        if self._breaker is not None and not was_probe:
            return again  # one of several that were out when it went down
        failures = 1 if self._breaker is None else self._breaker.failures + 1
        wait = max(delay(rule_for(error), failures, self._random), asked_delay(error))
        self._breaker = Breaker(now + wait, failures)
        return [*again, FagsystemDown(now + wait, error)]

    def _close_breaker(self) -> list[Command]:
        if self._breaker is None:
            return []
        self._breaker = None
        return [FagsystemUp()]

    def _flow(self) -> list[Command]:
        """Pause what is full or stopped; resume what is neither."""
        stopped = self._breaker is not None and (self._waiting.anybody_ready or self._breaker.probe is not None)
        pause: set[int] = set()
        resume: set[int] = set()
        for number, partition in self._partitions.items():
            partition.full = self._is_full(partition)
            wanted = stopped or partition.full
            if wanted != partition.paused:
                (pause if wanted else resume).add(number)
                partition.paused = wanted
        commands: list[Command] = []
        if pause:
            commands.append(Pause(frozenset(pause)))
        if resume:
            commands.append(Resume(frozenset(resume)))
        return commands

    def _is_full(self, partition: Partition) -> bool:
        share = 2 if partition.full else 1  # a full one stays full until half of it is done
        return (
            partition.open * share >= self._limits.open_per_partition
            or len(partition.entries) * share >= self._limits.window
            or self._bytes * share >= self._limits.open_bytes
        )
