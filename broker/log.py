"""Logs: one JSON line per unit of work, with keys from an allow-list and nothing else.

Rules:

1. A key that is not in ``ALLOWED_KEYS`` never reaches the line; its *name* does, under ``utelatt``, so that a developer sees
   what to add or leave out. Personal data cannot slip in under a new key.
2. A string value is cut at ``MAX_VALUE_CHARS``, and eleven digits in a row are masked whatever key they stand under, also
   inside lists: ids and reasons are short, and nothing that we log looks like a fødselsnummer.
3. An exception is logged as its class and, for our own errors, its code. Never its text or its stack's values: a foreign
   library's message may quote its input.
4. Foreign libraries' own log records go the same way, as ``foreign_log`` with logger and level alone.
5. A line that cannot be written is lost, and counted in ``fiks_log_lines_lost_total``. The work that it tells of goes on: a full
   disk stops nobody, and when there is room again the log goes on too.
"""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

import orjson
import structlog

from broker.metrics import LOG_LINES_LOST
from schemas.errors import MeldingsformidlerError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from structlog.typing import FilteringBoundLogger

ALLOWED_KEYS: Final = frozenset(
    {
        # written by the chain itself
        "event", "level", "tidspunkt", "prosess", "utelatt",
        # ids and what routing needs
        "digisos_id", "melding_id", "kommunenummer", "enhetsnummer", "hendelse_id", "kvittering_id", "dead_letter_id",
        "dokumentlager_id", "nokkel_id", "trace_id", "error_id", "konnektor", "leverandor", "avsender",
        "type", "hastegrad", "kanal", "kilde",
        # Kafka
        "topic", "topics", "partition", "offset", "group", "bootstrap", "antall", "instanser",
        # outcomes
        "status", "kode", "resultat", "grad", "nr", "forsok", "trinn", "avvik", "feiltype", "tilstand",
        # numbers
        "storrelse", "varighet_ms", "alder_s", "vent_s", "filer", "http_status", "lengde",
        # processes and places that are ours
        "metode", "rute", "adresse", "port", "pid", "mappe", "fil", "versjon", "navn", "exit_code", "logger", "sted",
    }
)  # fmt: skip

MAX_VALUE_CHARS: Final = 300
_ELEVEN_DIGITS: Final = re.compile(
    r"(?<![0-9A-Fa-f])[0-9]{6} ?[0-9]{5}(?![0-9A-Fa-f])"
)  # not inside a digest or a UUID
_MASK: Final = "***********"


def get_logger() -> FilteringBoundLogger:
    """Return the logger; bind ids to it and log one event with everything at the end of a unit of work."""
    return cast("FilteringBoundLogger", structlog.get_logger())


def configure_logging(process: str, *, stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send every log line of this process to ``stream`` (stdout when None) as JSON.

    Args:
        process: Name of the process, on every line as ``prosess``.
        stream: Where lines go.
        level: Lowest level that is written.
    """

    def add_process(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["prosess"] = process
        return event

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="tidspunkt"),
            describe_exception,
            add_process,
            keep_allowed,
            mask_values,
            structlog.processors.JSONRenderer(serializer=_to_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", LineWriter(stream or sys.stdout))),
        cache_logger_on_first_use=True,
    )
    _take_over_foreign_logs()


def describe_exception(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace ``exc_info`` by the error's class, and its code when it is one of ours (rule 3)."""
    raised = event.pop("exc_info", None)
    error = sys.exc_info()[1] if raised is True else raised
    if isinstance(error, tuple):
        error = cast("tuple[object, ...]", error)[1]
    if isinstance(error, BaseException):
        event["feiltype"] = type(error).__name__
        if isinstance(error, MeldingsformidlerError):
            event.setdefault("kode", error.code)
    return event


def keep_allowed(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop what is not in the allow-list and name it under ``utelatt`` (rule 1)."""
    dropped = sorted(key for key in event if key not in ALLOWED_KEYS)
    for key in dropped:
        del event[key]
    if dropped:
        event["utelatt"] = dropped
    return event


def mask_values(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Cut long strings and mask whatever looks like a fødselsnummer (rule 2)."""
    for key, value in event.items():
        event[key] = _masked(value)
    return event


def _masked(value: object) -> object:
    match value:
        case str():
            return _ELEVEN_DIGITS.sub(_MASK, value)[:MAX_VALUE_CHARS]
        case dict():
            return {_masked(key): _masked(item) for key, item in cast("dict[object, object]", value).items()}
        case list() | tuple() | set() | frozenset():
            return [_masked(item) for item in cast("list[object]", value)]
        case _:
            return value


def _to_json(event: object, **_: object) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:  # a number of more than 64 bits, half a surrogate pair: strange, and no reason to stop
        return json.dumps(event, default=str)


class LineWriter:
    """Writes whole lines and never fails (rule 5).

    It goes past the stream's own buffer when there is one: what lay there after a failed write would fail again at the end of
    the process.

    Args:
        stream: Where lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        self._stream = stream
        self._raw = raw if isinstance(raw, io.FileIO) else None
        self._torn = False

    def write(self, line: str) -> None:
        """Write a line that ends in a line feed; the first after half a line begins with one."""
        text = f"\n{line}" if self._torn else line
        try:
            self._write(text)
        except (OSError, ValueError):  # ValueError: the stream has been closed
            LOG_LINES_LOST.inc()
        else:
            self._torn = False

    def flush(self) -> None:
        """Do nothing: ``write`` keeps nothing back."""

    def _write(self, text: str) -> None:
        if self._raw is None:
            self._stream.write(text)
            self._stream.flush()
            return
        left = memoryview(text.encode(errors="backslashreplace"))
        while left:
            left = left[self._raw.write(left) or 0 :]
            self._torn = bool(left)


class _ForeignHandler(logging.Handler):
    """Turns a foreign log record into one line without its text (rule 4)."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        get_logger().log(
            record.levelno, "foreign_log", logger=record.name, feiltype=type(error).__name__ if error else None
        )


def _take_over_foreign_logs() -> None:
    root = logging.getLogger()
    root.handlers = [_ForeignHandler()]
    root.setLevel(logging.WARNING)
