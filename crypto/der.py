"""Small DER writer, and a BER reader for structures that are already in memory.

* The writer returns finished TLVs, which callers join into templates: a general ASN.1 library costs a hundred times as much.
* The reader takes definite and indefinite lengths, one-byte tags, and at most ``MAX_DEPTH`` levels. What it cannot read
  is an ``UnsealError``: it reads only what came in an envelope or a signature.

Source: ITU-T X.690.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from schemas.errors import UnsealError

if TYPE_CHECKING:
    from datetime import datetime

MAX_DEPTH = 16

INTEGER = 0x02
OCTET_STRING = 0x04
OBJECT_IDENTIFIER = 0x06
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18
SEQUENCE = 0x30
SET = 0x31
NULL_TLV = b"\x05\x00"
END_OF_CONTENTS = b"\x00\x00"
INDEFINITE = b"\x80"

_LONG_FORM = 0x80
_CONSTRUCTED = 0x20
_HIGH_TAG = 0x1F
_MAX_LENGTH_OCTETS = 8


def length(count: int) -> bytes:
    """Return DER length octets for ``count`` content octets."""
    if count < _LONG_FORM:
        return bytes((count,))
    octets = count.to_bytes((count.bit_length() + 7) // 8, "big")
    return bytes((_LONG_FORM | len(octets),)) + octets


def tlv(tag: int, *parts: bytes) -> bytes:
    """Return one TLV whose content is ``parts`` joined."""
    content = b"".join(parts)
    return bytes((tag,)) + length(len(content)) + content


def sequence(*parts: bytes) -> bytes:
    """Return a SEQUENCE of finished TLVs."""
    return tlv(SEQUENCE, *parts)


def set_of(*parts: bytes) -> bytes:
    """Return a SET OF finished TLVs, sorted as DER demands."""
    return tlv(SET, *sorted(parts))


def context(number: int, *parts: bytes) -> bytes:
    """Return a constructed context tag: an EXPLICIT tag, or an IMPLICIT one on something constructed."""
    return tlv(0xA0 | number, *parts)


def octet_string(value: bytes) -> bytes:
    """Return an OCTET STRING."""
    return tlv(OCTET_STRING, value)


def integer(value: int) -> bytes:
    """Return an INTEGER."""
    return tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


@cache
def oid(dotted: str) -> bytes:
    """Return an OBJECT IDENTIFIER, for example of ``1.2.840.113549.1.7.1``."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    content = bytearray()
    for arc in (first * 40 + second, *rest):
        octets = [arc & 0x7F]
        remaining = arc >> 7
        while remaining:
            octets.append(_LONG_FORM | (remaining & 0x7F))
            remaining >>= 7
        content += bytes(reversed(octets))
    return tlv(OBJECT_IDENTIFIER, bytes(content))


def time(moment: datetime) -> bytes:
    """Return ``moment`` (aware UTC) as UTCTime until 2049 and GeneralizedTime after, as RFC 5652 section 11.3 says."""
    if 1950 <= moment.year < 2050:  # noqa: PLR2004 - the years that UTCTime can name
        return tlv(UTC_TIME, moment.strftime("%y%m%d%H%M%SZ").encode("ascii"))
    return tlv(GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode("ascii"))


class Node(NamedTuple):
    """One TLV: its tag octet, its content octets (for indefinite length without the end mark), and all its octets."""

    tag: int
    content: bytes
    raw: bytes


def read(data: bytes) -> Node:
    """Return the one TLV that ``data`` is.

    Raises:
        UnsealError: Malformed, truncated, nested too deeply, or something follows.
    """
    node, end = _read_at(data, 0, MAX_DEPTH)
    if end != len(data):
        raise UnsealError
    return node


def children(node: Node, at_least: int = 0) -> list[Node]:
    """Return the TLVs inside a constructed node, in order.

    Raises:
        UnsealError: The node is primitive, its content is not a row of TLVs, or there are fewer than ``at_least``.
    """
    if not node.tag & _CONSTRUCTED:
        raise UnsealError
    nodes: list[Node] = []
    at, data = 0, node.content
    size = len(data)
    while at < size:
        end = at + 2 + data[at + 1] if at + 1 < size else size + 1
        if end <= size and data[at + 1] < _LONG_FORM and data[at] & _HIGH_TAG != _HIGH_TAG:
            nodes.append(
                Node(data[at], data[at + 2 : end], data[at:end])
            )  # by far the usual form, hence without a call
            at = end
        else:
            child, at = _read_at(data, at, MAX_DEPTH)
            nodes.append(child)
    if len(nodes) < at_least:
        raise UnsealError
    return nodes


def octets(node: Node) -> bytes:
    """Return the value of an OCTET STRING, or of one with a context tag, whether primitive or in pieces.

    Raises:
        UnsealError: The pieces are not octet strings.
    """
    if not node.tag & _CONSTRUCTED:
        return node.content
    pieces = children(node)
    if any(piece.tag != OCTET_STRING for piece in pieces):
        raise UnsealError
    return b"".join(piece.content for piece in pieces)


def _read_at(data: bytes, at: int, depth: int) -> tuple[Node, int]:
    start = at
    if depth == 0 or at + 2 > len(data):
        raise UnsealError
    tag, first = data[at], data[at + 1]
    if tag & _HIGH_TAG == _HIGH_TAG:
        raise UnsealError
    at += 2
    if first == _LONG_FORM:
        end = _end_of_indefinite(data, tag, at, depth)
        return Node(tag, data[at:end], data[start : end + 2]), end + 2
    count = first
    if first > _LONG_FORM:
        size = first & 0x7F
        if size > _MAX_LENGTH_OCTETS or at + size > len(data):
            raise UnsealError
        count = int.from_bytes(data[at : at + size], "big")
        at += size
    end = at + count
    if end > len(data):
        raise UnsealError
    return Node(tag, data[at:end], data[start:end]), end


def _end_of_indefinite(data: bytes, tag: int, at: int, depth: int) -> int:
    if not tag & _CONSTRUCTED:
        raise UnsealError
    while data[at : at + 2] != END_OF_CONTENTS:
        _, at = _read_at(data, at, depth - 1)
    return at
