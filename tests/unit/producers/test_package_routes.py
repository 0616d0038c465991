from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.package_routes import UnsatisfiableError, parse_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 10)),
        ("bytes=3-", (3, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-400", (0, 10)),
        ("Bytes=1-2", (1, 3)),
        ("bytes=0-1,3-4", None),
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("items=0-1", None),
        ("bytes=99999999999999999999-", None),
        ("bytes=٣-", None),
    ],
)
def test_a_range_of_ten_bytes(header: str | None, expected: tuple[int, int] | None) -> None:
    assert parse_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=-0"])
def test_a_range_outside_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(UnsatisfiableError):
        parse_range(header, 10)


@given(st.text(max_size=30) | st.from_regex(r"bytes=[0-9]{0,5}-[0-9]{0,5}", fullmatch=True), st.integers(0, 99999))
def test_whatever_the_header_a_range_lies_within_and_holds_something(header: str, size: int) -> None:
    try:
        found = parse_range(header, size)
    except UnsatisfiableError:
        return
    if found is not None:
        assert 0 <= found[0] < found[1] <= size
