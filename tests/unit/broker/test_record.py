from __future__ import annotations

import hashlib
import json
import re
import struct
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.clock import system_clock, timestamp
from broker.record import (
    Attempt,
    Incoming,
    TopicPartition,
    cloud_event_headers,
    dead_letter_headers,
    header,
    kept_headers,
    next_traceparent,
    original,
)
from schemas.errors import DecodeError, UnsealError
from schemas.names import Kommunenummer

NOW = datetime(2026, 11, 23, 12, 0, 0, 123_456, tzinfo=UTC)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def make_incoming(headers: tuple[tuple[str, bytes], ...] = ()) -> Incoming:
    return Incoming("fiks.0301.soknad.v1", 1, 42, 1_700_000_000_000, b"key", b"value", headers)


def test_headers_are_a_cloud_event_in_binary_mode() -> None:
    headers = dict(
        cloud_event_headers(
            event_id="id-1",
            event_type="no.fiks.soknad.v1",
            source="/producers",
            subject=Kommunenummer("0301"),
            time=NOW,
            parent=PARENT,
        )
    )
    traceparent = headers.pop("traceparent").decode()
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": b"id-1",
        "ce_type": b"no.fiks.soknad.v1",
        "ce_source": b"/producers",
        "ce_subject": b"0301",
        "ce_time": b"2026-11-23T12:00:00.123Z",
        "content-type": b"application/avro",
    }
    assert traceparent.startswith(PARENT[:36])
    assert traceparent != PARENT


def test_a_trace_goes_on_with_a_new_span() -> None:
    assert next_traceparent(PARENT, random=lambda n: b"\x11" * n) == f"{PARENT[:36]}{'11' * 8}-01"
    assert next_traceparent(PARENT.replace("-01", "-00"), random=lambda n: b"\x11" * n).endswith("-00")


@pytest.mark.parametrize(
    "parent",
    [
        None,
        "",
        b"\xff",
        "01" + PARENT[2:],
        PARENT.upper(),
        PARENT + "-x",
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
    ],
)
def test_without_a_valid_parent_a_new_trace_begins(parent: bytes | str | None) -> None:
    assert next_traceparent(parent, random=lambda n: b"\x22" * n) == f"00-{'22' * 16}-{'22' * 8}-01"


@given(st.text() | st.binary())
def test_whatever_came_in_what_goes_out_is_a_traceparent(parent: str | bytes) -> None:
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", next_traceparent(parent))


def test_a_dead_letter_tells_its_story_to_tools_of_both_families() -> None:
    attempts = [Attempt("fagsystem.feil", NOW), Attempt("kontrakt.uleselig", NOW + timedelta(seconds=2))]
    headers = dict(
        dead_letter_headers(
            make_incoming((("ce_id", b"1"),)), error=DecodeError("secret"), group="fiks.acme.0301", attempts=attempts
        )
    )
    assert headers["ce_id"] == b"1"
    assert headers["kafka_dlt-original-topic"] == headers["__connect.errors.topic"] == b"fiks.0301.soknad.v1"
    assert headers["kafka_dlt-original-partition"] == struct.pack(">i", 1)
    assert headers["kafka_dlt-original-offset"] == struct.pack(">q", 42)
    assert headers["kafka_dlt-original-timestamp"] == struct.pack(">q", 1_700_000_000_000)
    assert (headers["__connect.errors.partition"], headers["__connect.errors.offset"]) == (b"1", b"42")
    assert headers["kafka_dlt-exception-fqcn"] == b"schemas.errors.DecodeError"
    assert headers["fiks_kode"] == b"kontrakt.uleselig"
    assert json.loads(headers["fiks_forsok"]) == [
        {"nr": 1, "kode": "fagsystem.feil", "tidspunkt": "2026-11-23T12:00:00.123Z"},
        {"nr": 2, "kode": "kontrakt.uleselig", "tidspunkt": "2026-11-23T12:00:02.123Z"},
    ]


def test_no_header_of_a_dead_letter_repeats_the_errors_text() -> None:
    error = DecodeError("what the record said")
    headers = dead_letter_headers(make_incoming(), error=error, group="g", attempts=[])
    assert not any(b"what the record said" in value for _, value in headers)


def test_what_dies_twice_carries_both_stories_and_tells_the_latest_first() -> None:
    once = dead_letter_headers(make_incoming(), error=DecodeError(), group="g", attempts=[])
    twice = dead_letter_headers(make_incoming(once), error=UnsealError(), group="g", attempts=[])
    assert [value for name, value in twice if name == "fiks_kode"] == [b"kontrakt.uleselig", b"krypto.apning"]
    assert header(twice, "fiks_kode") == b"krypto.apning"
    assert header(twice, "missing") is None


def test_a_record_knows_its_partition() -> None:
    assert make_incoming().topic_partition == TopicPartition("fiks.0301.soknad.v1", 1)


def test_a_moment_is_written_in_utc_with_milliseconds() -> None:
    moment = datetime(2026, 7, 1, 14, 0, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(moment) == "2026-07-01T12:00:00.000Z"
    assert system_clock().tzinfo is UTC
    with pytest.raises(ValueError, match="time zone"):
        timestamp(datetime(2026, 7, 1))  # noqa: DTZ001  # that it is naive is the point


def test_a_dead_letter_keeps_headers_as_they_are_up_to_their_limits() -> None:
    headers = (("a", b"x" * 4096), ("n" * 256, b""), ("a", b"\xff"))
    incoming = make_incoming(headers)
    assert kept_headers(headers) == headers
    assert [(one.navn, one.verdi) for one in original(incoming).headere] == list(headers)
    assert dead_letter_headers(incoming, error=DecodeError(), group="g", attempts=[])[:3] == headers


def test_a_header_that_is_too_large_leaves_its_name_and_its_digest() -> None:
    value = b"x" * 4097
    (named,) = kept_headers((("a", value),))
    assert named == ("a", f"sha256:{hashlib.sha256(value).hexdigest()};4097 byte".encode())
    ((name, _),) = kept_headers((("n" * 257, b"v"),))
    assert name == f"sha256:{hashlib.sha256(b'n' * 257).hexdigest()}"


def test_more_headers_than_a_dead_letter_holds_leave_one_that_says_how_many() -> None:
    headers = tuple((f"h{n}", b"x" * 4000) for n in range(100))
    *kept, (name, told) = kept_headers(headers)
    assert kept == list(headers[: len(kept)])
    assert name == "fiks_utelatte_headere"
    assert told.endswith(f";{100 - len(kept)} headere".encode())
    assert sum(len(one) for _, one in kept) <= 64 * 1024
