from __future__ import annotations

from datetime import UTC, datetime

import pytest
from asn1crypto import core
from hypothesis import given
from hypothesis import strategies as st

from crypto import der
from schemas.errors import UnsealError


@given(st.integers(0, 2**160))
def test_integers_are_those_of_asn1crypto(value: int) -> None:
    assert der.integer(value) == core.Integer(value).dump()


@pytest.mark.parametrize("dotted", ["1.2.840.113549.1.7.3", "2.16.840.1.101.3.4.1.42", "2.5.4.97", "1.3.14.3.2.26"])
def test_object_identifiers_are_those_of_asn1crypto(dotted: str) -> None:
    assert der.oid(dotted) == core.ObjectIdentifier(dotted).dump()


@pytest.mark.parametrize("count", [0, 1, 127, 128, 255, 256, 65535, 65536, 2**24, 2**32])
def test_lengths_are_minimal(count: int) -> None:
    octets = der.length(count)

    assert octets == bytes((count,)) if count < 128 else int.from_bytes(octets[1:], "big") == count
    assert octets[1:2] != b"\x00"


def test_a_set_of_is_sorted() -> None:
    assert der.set_of(der.integer(2), der.integer(1)) == der.tlv(der.SET, der.integer(1), der.integer(2))


@pytest.mark.parametrize(
    ("moment", "octets"),
    [
        (datetime(2026, 11, 2, 12, 0, 5, tzinfo=UTC), b"\x17\x0d261102120005Z"),
        (datetime(2049, 12, 31, tzinfo=UTC), b"\x17\x0d491231000000Z"),
        (datetime(2050, 1, 1, tzinfo=UTC), b"\x18\x0f20500101000000Z"),
    ],
)
def test_time_is_utc_time_until_2049(moment: datetime, octets: bytes) -> None:
    assert der.time(moment) == octets


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_what_is_written_is_read(values: list[bytes]) -> None:
    node = der.read(der.sequence(*(der.octet_string(value) for value in values)))

    assert [child.content for child in der.children(node)] == values


def test_indefinite_length_is_read_on_every_level() -> None:
    inner = b"\x24\x80" + der.octet_string(b"ab") + der.octet_string(b"c") + der.END_OF_CONTENTS
    node = der.read(b"\x30\x80" + inner + der.integer(5) + der.END_OF_CONTENTS)

    first, second = der.children(node)
    assert der.octets(first) == b"abc"
    assert second.raw == der.integer(5)
    assert first.raw == inner


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x01",
        b"\x30\x00\x00",
        b"\x30\x80",
        b"\x30\x80\x00",
        b"\x04\x80\x00\x00",
        b"\x30\x82\x01",
        b"\x30\x89" + bytes(9),
        b"\x1f\x01\x00",
        b"\x30\x80" * 40 + b"\x00\x00" * 40,
    ],
)
def test_what_is_malformed_is_refused(data: bytes) -> None:
    with pytest.raises(UnsealError):
        der.read(data)


def test_children_of_a_primitive_and_too_few_children_are_refused() -> None:
    with pytest.raises(UnsealError):
        der.children(der.read(der.integer(1)))
    with pytest.raises(UnsealError):
        der.children(der.read(der.sequence(der.integer(1))), at_least=2)


def test_octets_in_pieces_of_another_kind_are_refused() -> None:
    with pytest.raises(UnsealError):
        der.octets(der.read(b"\x24\x03" + der.integer(1)))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        node = der.read(data)
    except UnsealError:
        return
    assert node.raw == data
