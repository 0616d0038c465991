"""A multipart/form-data body as a stream of events: bytes in, parts out, nothing kept (sans-IO).

The frameworks' own form parsers spool files to disk, in clear. This one hands each piece on as it comes, so what it needs is
the piece and a few headers. The state machine underneath is ``python_multipart``'s push parser.

Rules:

1. Parts are told by their position, from 1. Names differ from client to client, and a name may be a file name, so a name is
   handed on but never put in an error.
2. Any way of cutting the same body gives the same events, but for how ``PartData`` is cut.
3. A body that ends before its last boundary is refused by ``close``: a connection that broke is no submission.
4. Headers are bounded in number and size, parts in number. The size of a part is the receiver's business.

Source: RFC 7578, RFC 2046 section 5.1; fiks-io-send-klient for the ``charset`` parameter beside ``boundary``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from schemas.errors import RefusedError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_HEADERS: Final = 16
MAX_HEADER_BYTES: Final = 4096
MAX_BOUNDARY_BYTES: Final = 70  # RFC 2046

BAD_REQUEST: Final = 400
UNSUPPORTED_MEDIA_TYPE: Final = 415


@dataclass(frozen=True, slots=True)
class PartBegin:
    """A part begins.

    Attributes:
        nr: Its position, from 1.
        name: The ``name`` of its Content-Disposition, empty when it has none. Never for an error or a log.
    """

    nr: int
    name: str


@dataclass(frozen=True, slots=True)
class PartData:
    """A piece of the part that began last; never empty."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part that began last is complete."""


@dataclass(frozen=True, slots=True)
class End:
    """The body is complete; whatever follows is ignored, as RFC 2046 says."""


Event: TypeAlias = PartBegin | PartData | PartEnd | End


def boundary_of(content_type: str | None) -> bytes:
    """Return the boundary that a Content-Type header names, whatever other parameters stand beside it.

    Raises:
        RefusedError: 415 for another type, 400 for a boundary that is missing or too long.
    """
    kind, parameters = parse_options_header(content_type)
    if kind.lower() != b"multipart/form-data":
        raise RefusedError(
            UNSUPPORTED_MEDIA_TYPE, "Content-Type skal være multipart/form-data med boundary", reason="content-type"
        )
    boundary = parameters.get(b"boundary", b"")
    if not 0 < len(boundary) <= MAX_BOUNDARY_BYTES:
        raise RefusedError(
            BAD_REQUEST, f"Content-Type skal ha en boundary på 1 til {MAX_BOUNDARY_BYTES} tegn", reason="multipart"
        )
    return boundary


class MultipartReader:
    """Turns the bytes of one body into events.

    Args:
        content_type: The request's Content-Type header.
        max_parts: How many parts there may be.

    Raises:
        RefusedError: As ``boundary_of``.
    """

    def __init__(self, content_type: str | None, *, max_parts: int) -> None:
        self._max_parts = max_parts
        self._events: list[Event] = []
        self._parts = 0
        self._ended = False
        self._field = bytearray()
        self._value = bytearray()
        self._disposition = b""
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._on_part_begin,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_end": self._on_end,
        }
        self._parser = MultipartParser(
            boundary_of(content_type), callbacks, max_header_count=MAX_HEADERS, max_header_size=MAX_HEADER_BYTES
        )

    def feed(self, data: bytes) -> list[Event]:
        """Return what ``data`` completes, in order.

        Raises:
            RefusedError: 400, the body is not multipart; 413, too many parts. The reader is of no use after it.
        """
        try:
            self._parser.write(data)
        except FormParserError:  # its text may quote the body
            raise self._malformed() from None
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Say that no more bytes come.

        Raises:
            RefusedError: 400, the body ended before its last boundary.
        """
        if not self._ended:
            raise self._malformed("slutter før den siste boundary")

    def _malformed(self, what: str = "er ikke gyldig multipart") -> RefusedError:
        return RefusedError(BAD_REQUEST, f"multipart-del nr {max(self._parts, 1)} {what}", reason="multipart")

    def _on_part_begin(self) -> None:
        self._parts += 1
        self._disposition = b""
        if self._parts > self._max_parts:
            raise RefusedError(413, f"flere enn {self._max_parts} multipart-deler", reason="antall")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if bytes(self._field).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        name = parameters.get(b"name", b"").decode("utf-8", "replace")
        self._events.append(PartBegin(self._parts, name))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if end > start:
            self._events.append(PartData(data[start:end]))

    def _on_part_end(self) -> None:
        self._events.append(PartEnd())

    def _on_end(self) -> None:
        self._ended = True
        self._events.append(End())
