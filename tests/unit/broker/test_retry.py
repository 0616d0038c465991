from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.retry import ALWAYS, LONGEST_ASKED, TABLE, Course, Rule, asked_delay, delay, rule_for
from schemas.errors import (
    AccessDeniedError,
    BrokerUnavailableError,
    CertificateError,
    ChannelUnavailableError,
    ConfigurationError,
    DecodeError,
    FagsystemFailureError,
    FagsystemUnavailableError,
    MeldingsformidlerError,
    PackageMissingError,
    PackageUnavailableError,
    PartitionLostError,
    StoreError,
    UnexpectedRecordError,
    UnsealError,
)


def _every_class(root: type[MeldingsformidlerError]) -> list[type[MeldingsformidlerError]]:
    return [root, *(each for child in root.__subclasses__() for each in _every_class(child))]


@pytest.mark.parametrize(
    ("error", "course"),
    [
        (UnsealError(), Course.GIVE_UP),
        (DecodeError("x"), Course.GIVE_UP),
        (CertificateError("x"), Course.GIVE_UP),
        (FagsystemFailureError("x"), Course.COUNT),
        (UnexpectedRecordError("x"), Course.COUNT),
        (PackageMissingError("x"), Course.COUNT),
        (AccessDeniedError("x"), Course.WAIT),
        (FagsystemUnavailableError("x"), Course.PAUSE),
        (StoreError("x"), Course.PAUSE),
    ],
)
def test_an_error_takes_the_row_of_its_class_or_nearest_base(error: MeldingsformidlerError, course: Course) -> None:
    assert rule_for(error).course is course


ROWS = {
    UnexpectedRecordError: (Course.COUNT, 3),
    FagsystemFailureError: (Course.COUNT, 8),
    PackageMissingError: (Course.COUNT, 5),
    PackageUnavailableError: (Course.WAIT, 1),
    BrokerUnavailableError: (Course.WAIT, 1),
    AccessDeniedError: (Course.WAIT, 1),
    ChannelUnavailableError: (Course.COUNT, 24),
    PartitionLostError: (Course.WAIT, 1),
    ConfigurationError: (Course.PAUSE, 1),
    FagsystemUnavailableError: (Course.PAUSE, 1),
    StoreError: (Course.PAUSE, 1),
}
"""Everything that is not given up at once, with its subclasses; all others are."""


@pytest.mark.parametrize("kind", _every_class(MeldingsformidlerError))
def test_every_class_of_error_has_its_course(kind: type[MeldingsformidlerError]) -> None:
    expected = next((ROWS[base] for base in kind.__mro__ if base in ROWS), (Course.GIVE_UP, 1))
    rule = rule_for(kind.__new__(kind))
    assert (rule.course, rule.attempts) == expected


@pytest.mark.parametrize("rule", [*TABLE.values(), ALWAYS])
def test_no_wait_is_longer_than_an_operator_would_wait(rule: Rule) -> None:
    assert timedelta(seconds=1) <= rule.first <= rule.ceiling <= LONGEST_ASKED
    assert rule.growth == 2


def test_a_soknad_that_fails_by_itself_is_given_up_within_minutes_and_not_within_seconds() -> None:
    rule = TABLE[FagsystemFailureError]
    least, most = [
        sum((delay(rule, nr, random) for nr in range(1, rule.attempts)), timedelta())
        for random in (lambda: 0.0, lambda: 0.999)
    ]
    assert (least, most) > (timedelta(minutes=1), timedelta(minutes=2))
    assert most < timedelta(minutes=5)


def test_jitter_spreads_those_who_fail_together_over_half_of_the_wait() -> None:
    rule = Rule(Course.WAIT, first=timedelta(seconds=10))
    waits = [delay(rule, 1, lambda nr=nr: nr / 357).total_seconds() for nr in range(357)]
    assert (min(waits), round(max(waits))) == (5, 10)
    assert len(set(waits)) == 357


def test_what_calls_itself_retriable_is_never_given_up_at_once() -> None:
    for kind in _every_class(MeldingsformidlerError):
        row = next(TABLE[base] for base in kind.__mro__ if base in TABLE)
        assert not (kind.retriable and row.course is Course.GIVE_UP), kind.__name__


def test_an_error_outside_a_table_is_given_up() -> None:
    assert rule_for(UnsealError(), {}).course is Course.GIVE_UP


@given(st.sampled_from([*TABLE.values(), ALWAYS]), st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_between_half_the_step_and_the_ceiling(rule: Rule, failures: int, random: float) -> None:
    wait = delay(rule, failures, lambda: random)
    assert rule.first / 2 <= wait <= rule.ceiling


def test_waits_double_until_the_ceiling() -> None:
    rule = Rule(Course.COUNT, first=timedelta(seconds=1), ceiling=timedelta(seconds=6))
    assert [delay(rule, n, lambda: 0.0).total_seconds() for n in (1, 2, 3, 4, 5)] == [0.5, 1, 2, 3, 3]


@pytest.mark.parametrize(
    ("asked", "given_"),
    [
        (None, timedelta()),
        (timedelta(seconds=30), timedelta(seconds=30)),
        (timedelta(days=30), LONGEST_ASKED),
        (timedelta(seconds=-5), timedelta()),
    ],
)
def test_the_fagsystem_may_ask_for_time_within_reason(asked: timedelta | None, given_: timedelta) -> None:
    assert asked_delay(FagsystemUnavailableError("x", retry_after=asked)) == given_


def test_only_the_fagsystem_can_ask_for_time() -> None:
    assert asked_delay(StoreError("x")) == timedelta()
