from __future__ import annotations

from datetime import UTC, datetime, timedelta

from broker.delivery_messages import Received, Ticket
from broker.delivery_state import Entry, State, Waiting

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def entry(offset: int, minutes: int) -> Entry:
    received = Received(0, offset, "a", size=1, expires=NOON + timedelta(minutes=minutes))
    return Entry(Ticket(0, offset, 1), received, offset)


def test_the_next_moment_is_that_of_the_first_who_expires() -> None:
    waiting = Waiting()
    for one in (entry(0, 9), entry(1, 3)):
        waiting.ready(one)
    assert waiting.next_moment == NOON + timedelta(minutes=3)


def test_the_deadline_of_one_that_is_done_is_nobodys() -> None:
    waiting, first, second = Waiting(), entry(0, 3), entry(1, 9)
    waiting.ready(first)
    waiting.ready(second)
    first.state = State.DONE
    assert waiting.next_moment == NOON + timedelta(minutes=9)
    second.state = State.DONE
    assert waiting.next_moment is None
