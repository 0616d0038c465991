from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from broker.durations import Duration, format_duration, parse_duration
from schemas.errors import InvalidNameError


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("20d", timedelta(days=20)),
        ("36h", timedelta(hours=36)),
        ("36t", timedelta(hours=36)),
        ("1d12h", timedelta(days=1, hours=12)),
        ("90m", timedelta(minutes=90)),
        ("15s", timedelta(seconds=15)),
        ("P20D", timedelta(days=20)),
        ("PT36H", timedelta(hours=36)),
        ("P1DT30M", timedelta(days=1, minutes=30)),
        (" 2D ", timedelta(days=2)),
    ],
)
def test_durations_as_people_write_them(text: str, meant: timedelta) -> None:
    assert parse_duration(text) == meant


@pytest.mark.parametrize("text", ["", "20", "d", "P", "PT", "1w", "-3d", "3d4x", "1,5h", "9" * 30 + "d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidNameError):
        parse_duration(text)


@given(st.timedeltas(timedelta(), timedelta(days=36_000)))
def test_what_is_formatted_is_read_again(duration: timedelta) -> None:
    whole = timedelta(seconds=round(duration.total_seconds()))
    assert parse_duration(format_duration(duration)) == whole


def test_a_setting_may_be_text_or_seconds() -> None:
    setting = TypeAdapter(Duration)
    assert setting.validate_python("2d") == timedelta(days=2)
    assert setting.validate_python(90) == timedelta(seconds=90)
