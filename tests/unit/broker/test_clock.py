from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from broker.clock import system_clock, timestamp


def test_the_machines_time_is_aware_and_in_utc() -> None:
    assert system_clock().utcoffset() == timedelta(0)


def test_a_timestamp_is_utc_with_milliseconds_and_z() -> None:
    moment = datetime(2026, 11, 23, 13, 0, 0, 7999, timezone(timedelta(hours=1)))
    assert timestamp(moment) == "2026-11-23T12:00:00.007Z"
    assert timestamp(datetime(2026, 11, 23, tzinfo=UTC)) == "2026-11-23T00:00:00.000Z"


def test_a_moment_without_a_zone_is_wrong_use() -> None:
    with pytest.raises(ValueError, match="time zone"):
        timestamp(datetime(2026, 11, 23))  # noqa: DTZ001  # the very thing that is refused
