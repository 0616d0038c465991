from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.process_clock import (
    CLOCK_ENV,
    STORED_AHEAD,
    TOLERANCE,
    ProcessClock,
    check_time,
    process_clock,
    read_offset,
    write_offset,
)
from schemas.errors import ConfigurationError

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Machine:
    """A machine whose clock somebody may set, and whose monotonic clock nobody can."""

    def __init__(self) -> None:
        self.wall = NOON
        self.steady = 100.0

    def clock(self, offset_file: Path | None = None) -> ProcessClock:
        return ProcessClock(offset_file, machine=lambda: self.wall, monotonic=lambda: self.steady)

    def live(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.steady += seconds

    def set_back(self, back: timedelta) -> None:
        self.wall -= back


def test_it_is_the_machines_time() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.live(7)
    assert clock() == NOON + timedelta(seconds=7)
    assert clock.problem() is None


def test_it_follows_the_machine_forwards() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall += timedelta(days=2)
    assert clock() == NOON + timedelta(days=2)


def test_a_small_step_back_is_held_and_is_no_problem() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.live(60)
    before = clock()
    machine.set_back(TOLERANCE)
    assert clock() == before
    assert clock.problem() is None


def test_after_a_long_step_back_time_goes_on_by_the_monotonic_clock_and_it_is_told() -> None:
    machine = Machine()
    clock = machine.clock()
    before = clock()
    machine.set_back(timedelta(hours=1))
    assert clock() == before
    machine.live(30)
    assert clock() == before + timedelta(seconds=30)
    assert clock.problem() == "maskinens klokke er stilt 3600 s tilbake; tiden går videre uten den, rett klokken"


def test_when_the_machine_has_caught_up_it_decides_again() -> None:
    machine = Machine()
    clock = machine.clock()
    clock()
    machine.set_back(timedelta(hours=1))
    clock()
    machine.wall += timedelta(hours=2)
    assert clock() == machine.wall
    assert clock.problem() is None


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(-10_000, 10_000)), max_size=30))
def test_it_never_goes_back(steps: list[tuple[float, int]]) -> None:
    machine = Machine()
    clock = machine.clock()
    last = clock()
    for lived, jump in steps:
        machine.live(lived)
        machine.wall += timedelta(seconds=jump)
        now = clock()
        assert now >= last
        last = now


def test_the_offset_file_moves_it(tmp_path: Path) -> None:
    machine = Machine()
    file = tmp_path / "klokke.json"
    clock = machine.clock(file)
    assert clock() == NOON
    write_offset(file, timedelta(days=20))
    machine.live(1)
    assert clock() == NOON + timedelta(days=20, seconds=1)


def test_an_offset_that_shrinks_is_not_followed(tmp_path: Path) -> None:
    machine = Machine()
    file = tmp_path / "klokke.json"
    write_offset(file, timedelta(days=20))
    clock = machine.clock(file)
    write_offset(file, timedelta(days=10))
    machine.live(1)
    assert clock() == NOON + timedelta(days=20, seconds=1)


def test_an_offset_that_becomes_unreadable_leaves_the_time_as_it_is(tmp_path: Path) -> None:
    machine = Machine()
    file = tmp_path / "klokke.json"
    write_offset(file, timedelta(days=20))
    clock = machine.clock(file)
    file.write_text("tull", "utf-8")
    machine.live(1)
    assert clock() == NOON + timedelta(days=20, seconds=1)


def test_a_process_does_not_start_with_an_unreadable_offset(tmp_path: Path) -> None:
    file = tmp_path / "klokke.json"
    file.write_text("tull", "utf-8")
    with pytest.raises(ConfigurationError, match="forskyvning"):
        process_clock({CLOCK_ENV: str(file)})


def test_without_the_variable_there_is_no_virtual_time() -> None:
    assert abs(process_clock({})() - datetime.now(UTC)) < timedelta(seconds=5)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_offset(tmp_path / "k.json", timedelta(days=1, seconds=3))
    assert read_offset(tmp_path / "k.json") == timedelta(days=1, seconds=3)
    assert read_offset(tmp_path / "ingen.json") == timedelta()


def test_a_start_before_the_newest_that_is_stored_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="rett maskinens klokke"):
        check_time(NOON + STORED_AHEAD + timedelta(seconds=1), NOON)


@pytest.mark.parametrize("newest", [None, NOON, NOON + STORED_AHEAD, NOON - timedelta(days=9)])
def test_a_start_with_a_likely_time_is_let_through(newest: datetime | None) -> None:
    check_time(newest, NOON)
