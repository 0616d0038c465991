from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from producers.envelopes import KEEP, MAX_FAILURES, MAX_PERSONS, WINDOW, Failures, SeenKeys, Sender
from schemas.names import Eier, NavEksternRefId

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
KARI, OLA = Eier("1" * 64), Eier("2" * 64)
SENDER = Sender(KARI, NavEksternRefId("ref-1"))


@pytest.mark.parametrize("other", [Sender(OLA, NavEksternRefId("ref-1")), Sender(KARI, NavEksternRefId("ref-2"))])
def test_a_key_belongs_to_the_person_and_reference_that_came_with_it_first(other: Sender) -> None:
    seen = SeenKeys()
    assert seen.claim(SENDER, [b"a"], NOW)
    assert seen.claim(SENDER, [b"a"], NOW)
    assert not seen.claim(other, [b"a"], NOW)
    assert not seen.claim(other, [b"b", b"a"], NOW)
    assert seen.claim(other, [b"b"], NOW)


def test_a_key_belongs_to_the_bytes_that_came_with_it_first() -> None:
    seen = SeenKeys()
    assert seen.claim(SENDER, [b"a"], NOW)
    assert seen.settle(SENDER, [b"a"], b"one", NOW)
    assert seen.settle(SENDER, [b"a"], b"one", NOW)
    assert not seen.settle(SENDER, [b"a"], b"two", NOW)


def test_an_envelope_with_more_keys_than_clients_write_is_refused() -> None:
    seen = SeenKeys()
    assert seen.claim(SENDER, [b"a", b"b", b"c", b"d"], NOW)
    assert not seen.claim(SENDER, [b"e", b"f", b"g", b"h", b"i"], NOW)


def test_keys_are_forgotten_after_a_day_and_when_there_are_too_many() -> None:
    seen, other = SeenKeys(max_keys=2), Sender(OLA, NavEksternRefId("x"))
    for key in (b"a", b"b", b"c"):
        assert seen.claim(SENDER, [key], NOW)
    assert not seen.claim(other, [b"c"], NOW + KEEP)
    assert seen.claim(other, [b"a"], NOW)
    assert seen.claim(other, [b"c"], NOW + KEEP + timedelta(seconds=1))


def test_failures_count_within_a_sliding_hour() -> None:
    failures = Failures()
    for minute in range(MAX_FAILURES):
        assert not failures.too_many(KARI, NOW)
        failures.note(KARI, NOW + timedelta(minutes=minute))
    assert failures.too_many(KARI, NOW + timedelta(minutes=59))
    assert not failures.too_many(OLA, NOW + timedelta(minutes=59))
    assert not failures.too_many(KARI, NOW + WINDOW)


def test_only_so_many_persons_are_remembered() -> None:
    failures = Failures()
    for _ in range(MAX_FAILURES):
        failures.note(KARI, NOW)
    for nr in range(MAX_PERSONS):
        failures.note(Eier(f"{nr:064x}"), NOW)
    assert not failures.too_many(KARI, NOW)
