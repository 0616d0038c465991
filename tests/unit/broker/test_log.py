from __future__ import annotations

import errno
import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from broker.log import ALLOWED_KEYS, MAX_VALUE_CHARS, LineWriter, configure_logging, get_logger
from broker.metrics import LOG_LINES_LOST
from schemas.errors import BrokerUnavailableError, UnsealError

pytestmark = pytest.mark.klartekst("shows to the log what must not come out of it")

PERSON = "13097248022"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    out = io.StringIO()
    configure_logging("prove", stream=out)
    yield out
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_unit_of_work_is_one_line_of_json(stream: io.StringIO) -> None:
    get_logger().bind(digisos_id="d").info("soknad_published", topic="t", offset=3)
    (line,) = lines(stream)
    assert line["event"] == "soknad_published"
    assert line["level"] == "info"
    assert line["prosess"] == "prove"
    assert (line["digisos_id"], line["topic"], line["offset"]) == ("d", "t", 3)
    assert line["tidspunkt"].endswith("Z")


def test_a_key_that_is_not_allowed_is_named_and_its_value_is_gone(stream: io.StringIO) -> None:
    get_logger().info("x", fornavn="Kari", etternavn="Nordmann", status="SENDT")
    (line,) = lines(stream)
    assert line["utelatt"] == ["etternavn", "fornavn"]
    assert line["status"] == "SENDT"
    assert "Kari" not in stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        PERSON,
        f"pid={PERSON}",
        f"{PERSON[:6]} {PERSON[6:]}",
        f"soknad-{PERSON}.pdf",
        f"fnr{PERSON}",
        f"{PERSON}_1",
        f"({PERSON})",
    ],
)
def test_eleven_digits_are_masked_wherever_they_stand(stream: io.StringIO, text: str) -> None:
    get_logger().info("x", fil=text)
    assert PERSON not in stream.getvalue()
    assert PERSON[6:] not in stream.getvalue()


def test_eleven_digits_in_the_events_name_are_masked(stream: io.StringIO) -> None:
    get_logger().info(f"x {PERSON}")
    assert PERSON not in stream.getvalue()


def test_eleven_digits_inside_a_list_or_an_object_are_masked(stream: io.StringIO) -> None:
    get_logger().info("x", topics=[PERSON, {"a": (PERSON,)}], avvik={PERSON: "b"})
    assert PERSON not in stream.getvalue()


@pytest.mark.parametrize(
    "text", ["12345678-1234-1234-1234-123456789012", "a" * 20 + "12345678901" + "f" * 33, "0301", "fiks.0301.soknad.v1"]
)
def test_ids_and_digests_are_left_alone(stream: io.StringIO, text: str) -> None:
    get_logger().info("x", digisos_id=text)
    assert lines(stream)[0]["digisos_id"] == text


def test_a_long_value_is_cut(stream: io.StringIO) -> None:
    get_logger().info("x", avvik="a" * 10_000)
    assert len(lines(stream)[0]["avvik"]) == MAX_VALUE_CHARS


def test_an_exception_is_its_class_and_never_its_text(stream: io.StringIO) -> None:
    def fail() -> None:
        raise ValueError("Kari Nordmann")

    try:
        fail()
    except ValueError:
        get_logger().exception("x")
    (line,) = lines(stream)
    assert line["feiltype"] == "ValueError"
    assert "Kari" not in stream.getvalue()


def test_an_error_of_ours_shows_its_code(stream: io.StringIO) -> None:
    get_logger().warning("x", exc_info=BrokerUnavailableError("n"))
    get_logger().warning("x", exc_info=UnsealError(), kode="given")
    assert [(line["feiltype"], line["kode"]) for line in lines(stream)] == [
        ("BrokerUnavailableError", BrokerUnavailableError.code),
        ("UnsealError", "given"),
    ]


def test_a_foreign_log_record_is_logger_and_level_alone(stream: io.StringIO) -> None:
    logging.getLogger("aiokafka.consumer").error("lost %s", "Kari Nordmann")
    (line,) = lines(stream)
    assert (line["event"], line["logger"], line["level"]) == ("foreign_log", "aiokafka.consumer", "error")
    assert "Kari" not in stream.getvalue()


def test_a_foreign_exception_is_its_class(stream: io.StringIO) -> None:
    try:
        raise KeyError("Kari")  # noqa: TRY301  # the shortest way to a traceback
    except KeyError:
        logging.getLogger("x").exception("failed for Kari")
    assert lines(stream)[0]["feiltype"] == "KeyError"
    assert "Kari" not in stream.getvalue()


def test_what_is_below_the_level_is_not_written(stream: io.StringIO) -> None:
    get_logger().debug("x")
    logging.getLogger("aiokafka").info("y")
    assert lines(stream) == []


def test_configuring_again_moves_the_log(stream: io.StringIO) -> None:
    get_logger().info("first")
    second = io.StringIO()
    configure_logging("annen", stream=second)
    get_logger().info("second")
    assert [line["event"] for line in lines(stream)] == ["first"]
    assert [(line["event"], line["prosess"]) for line in lines(second)] == [("second", "annen")]


def test_a_value_that_is_not_json_does_not_stop_the_work(stream: io.StringIO) -> None:
    get_logger().info("x", fil=object)
    assert lines(stream)[0]["event"] == "x"


@pytest.mark.parametrize(
    "key", ["fodselsnummer", "person", "soknad", "tekst", "melding", "message", "exception", "stack"]
)
def test_no_key_that_could_hold_a_person_is_allowed(key: str) -> None:
    assert key not in ALLOWED_KEYS


@pytest.mark.parametrize("value", [10**30, "\udc80"])
def test_a_value_that_the_serializer_refuses_is_written_all_the_same(stream: io.StringIO, value: object) -> None:
    get_logger().info("x", fil=value)
    assert lines(stream)[0]["fil"] == value


class FullDisk(io.StringIO):
    """A stream that fails as a full disk does, until there is room."""

    full = True

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(text)


def lost() -> float:
    return next(sample.value for metric in LOG_LINES_LOST.collect() for sample in metric.samples)


@pytest.mark.usefixtures("stream")  # puts logging back
def test_a_full_disk_stops_nobody_and_what_is_lost_is_counted() -> None:
    disk, before = FullDisk(), lost()
    configure_logging("prove", stream=disk)
    get_logger().info("first")
    logging.getLogger("aiokafka").error("lost")
    disk.full = False
    get_logger().info("second")
    assert [line["event"] for line in lines(disk)] == ["second"]
    assert lost() == before + 2


@pytest.mark.usefixtures("stream")
def test_a_real_full_device_stops_nobody_not_even_when_it_is_closed() -> None:
    before = lost()
    with Path("/dev/full").open("a", encoding="utf-8") as device:
        configure_logging("prove", stream=device)
        get_logger().info("first")
    get_logger().info("second")
    assert lost() == before + 2


def test_a_line_after_half_a_line_stands_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "logg"
    room = [4, None, 1000]

    class Narrow(io.FileIO):
        def write(self, data: Any) -> int:
            left = room.pop(0)
            if left is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data[:left])

    with Narrow(path, "a") as raw, io.TextIOWrapper(io.BufferedWriter(raw), "utf-8") as text:
        writer = LineWriter(text)
        writer.write("first line\n")
        writer.write("second line\n")
    assert path.read_text("utf-8").splitlines() == ["firs", "second line"]
