"""Push-mode scanner for CMS EnvelopedData: bytes go in as they come, the header and then only ciphertext come out.

1. Any chunking of the same bytes gives the same header and the same ciphertext.
2. Lengths may be definite or indefinite on every level, and the content one OCTET STRING or pieces of it, nested a little.
3. Everything before the content is bounded by ``max_header_bytes``; content is passed on, never kept.
4. Every octet is accounted for: lengths that disagree, a missing end, and anything after the end are an ``UnsealError``.

AuthEnvelopedData (AES-GCM) and every other content type are refused by their OID. Deciding about keys is left to ``cms``.

Source: RFC 5652 section 6.1, ITU-T X.690 section 8.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from crypto import der
from schemas.errors import UnsealError

if TYPE_CHECKING:
    from collections.abc import Generator

    T = TypeVar("T")
    Steps: TypeAlias = Generator[None, None, T]

OID_DATA = der.oid("1.2.840.113549.1.7.1")
OID_ENVELOPED_DATA = der.oid("1.2.840.113549.1.7.3")

_VERSIONS = {der.integer(version): version for version in (0, 2, 3, 4)}
_CONTEXT_0 = 0xA0
_CONTEXT_0_PRIMITIVE = 0x80
_CONTEXT_1 = 0xA1
_CONSTRUCTED_OCTETS = 0x24
_CONSTRUCTED = 0x20
_MAX_OCTETS_DEPTH = 4
_MAX_LENGTH_OCTETS = 8
_END_TAG = 0x00


class EnvelopeHeader(NamedTuple):
    """What stands before the content.

    Args:
        version: CMSVersion of the EnvelopedData.
        has_originator: Whether an OriginatorInfo stands there; its content is not used.
        recipients: One TLV for each RecipientInfo.
        algorithm: The content encryption AlgorithmIdentifier, one TLV.
    """

    version: int
    has_originator: bool
    recipients: tuple[der.Node, ...]
    algorithm: der.Node


class EnvelopeScanner:
    """Takes the bytes of a ContentInfo and gives back the content's octets.

    Args:
        max_header_bytes: Upper bound for everything before the content, and for everything after it.
    """

    def __init__(self, max_header_bytes: int) -> None:
        self.header: EnvelopeHeader | None = None
        self.has_unprotected_attributes = False
        self._max_header_bytes = max_header_bytes
        self._chunk = memoryview(b"")
        self._at = 0
        self._offset = 0
        self._kept = 0
        self._out: list[memoryview] = []
        self._steps = self._content_info()
        self._done = False
        self._broken = False
        next(self._steps)

    def feed(self, data: bytes | bytearray | memoryview) -> list[memoryview]:
        """Return the content octets in ``data``, as views into it.

        Raises:
            UnsealError: The bytes are not an EnvelopedData. Every later call raises it too.
        """
        if self._broken or (self._done and len(data)):
            self._broken = True
            raise UnsealError
        self._chunk, self._at, self._out = memoryview(data), 0, []
        try:
            next(self._steps)
        except StopIteration:
            self._done = True
            if self._at != len(self._chunk):
                self._broken = True
                raise UnsealError from None
        except UnsealError:
            self._broken = True
            raise
        return self._out

    def finish(self) -> None:
        """Check that the structure has come to its end.

        Raises:
            UnsealError: It was truncated, or already broken.
        """
        if self._broken or not self._done:
            raise UnsealError

    # --- steps: each waits by ``yield`` until the next chunk is there

    def _ready(self, count: int) -> bytes | None:
        """Take octets that are all here, which is the usual case, without the cost of a step."""
        end = self._at + count
        if end > len(self._chunk) or self._kept + count > self._max_header_bytes:
            return None
        taken = bytes(self._chunk[self._at : end])
        self._at = end
        self._offset += count
        self._kept += count
        return taken

    def _take(self, count: int) -> Steps[bytes]:
        """Take octets as they come."""
        self._kept += count
        if self._kept > self._max_header_bytes:
            raise UnsealError
        kept = bytearray()
        while len(kept) < count:
            if self._at == len(self._chunk):
                yield
                continue
            piece = self._chunk[self._at : self._at + count - len(kept)]
            kept += piece
            self._at += len(piece)
        self._offset += count
        return bytes(kept)

    def _whole_element(self) -> bytes | None:
        """Take a whole TLV in one step: possible when its length is definite and short, and all of it is here."""
        chunk, at = self._chunk, self._at
        if len(chunk) - at < 4:  # noqa: PLR2004 - as far as a length of two octets reaches
            return None
        first = chunk[at + 1]
        if first < 0x80:  # noqa: PLR2004 - short form
            count = 2 + first
        elif first == 0x81:  # noqa: PLR2004 - one length octet
            count = 3 + chunk[at + 2]
        elif first == 0x82:  # noqa: PLR2004 - two length octets
            count = 4 + (chunk[at + 2] << 8 | chunk[at + 3])
        else:
            return None
        end = at + count
        if end > len(chunk):
            return None
        self._kept += count
        if self._kept > self._max_header_bytes or chunk[at] & 0x1F == 0x1F:  # noqa: PLR2004 - no high tag numbers
            raise UnsealError
        self._at = end
        self._offset += count
        return bytes(chunk[at:end])

    def _head(self, tag_octet: int | None = None) -> Steps[tuple[int, int | None, bytes]]:
        """Read tag and length: the tag, the offset where its content ends (None: indefinite), and the octets read."""
        taken = self._ready(2) or (yield from self._take(2))
        tag, first = taken
        if (tag_octet is not None and tag != tag_octet) or tag & 0x1F == 0x1F:  # noqa: PLR2004 - no high tag numbers
            raise UnsealError
        if first < 0x80:  # noqa: PLR2004 - short form
            return tag, self._offset + first, taken
        if first == 0x80:  # noqa: PLR2004 - indefinite form
            if not tag & _CONSTRUCTED:
                raise UnsealError
            return tag, None, taken
        size = first & 0x7F
        if size > _MAX_LENGTH_OCTETS:
            raise UnsealError
        more = self._ready(size) or (yield from self._take(size))
        return tag, self._offset + int.from_bytes(more, "big"), taken + more

    def _element(self, tag_octet: int | None = None, depth: int = der.MAX_DEPTH) -> Steps[bytes]:
        """Read one whole TLV."""
        element = self._whole_element()
        if element is None:
            _, end, head = yield from self._head()
            element = head + (yield from self._rest(end, depth))
        if tag_octet is not None and element[0] != tag_octet:
            raise UnsealError
        return element

    def _rest(self, end: int | None, depth: int) -> Steps[bytes]:
        """Read what follows a head until its end; for indefinite length with the end mark."""
        if end is not None:
            return (yield from self._take(end - self._offset))
        if depth == 0:
            raise UnsealError
        parts = bytearray()
        while True:
            inner = yield from self._element(None, depth - 1)
            parts += inner
            if inner == der.END_OF_CONTENTS:
                return bytes(parts)
            if inner[0] == _END_TAG:
                raise UnsealError

    def _close(self, end: int | None) -> Steps[None]:
        """Check that a structure ends here."""
        if end is None:
            mark = self._ready(2) or (yield from self._take(2))
            if mark != der.END_OF_CONTENTS:
                raise UnsealError
        elif end != self._offset:
            raise UnsealError

    def _content_info(self) -> Steps[None]:
        yield
        _, outer, _ = yield from self._head(der.SEQUENCE)
        if (yield from self._element(der.OBJECT_IDENTIFIER)) != OID_ENVELOPED_DATA:
            raise UnsealError
        _, explicit, _ = yield from self._head(_CONTEXT_0)
        _, enveloped, _ = yield from self._head(der.SEQUENCE)
        yield from self._enveloped_data(enveloped)
        yield from self._close(enveloped)
        yield from self._close(explicit)
        yield from self._close(outer)

    def _enveloped_data(self, end: int | None) -> Steps[None]:
        version = _VERSIONS.get((yield from self._element(der.INTEGER)))
        if version is None:
            raise UnsealError
        element = yield from self._element()
        has_originator = element[0] == _CONTEXT_0
        if has_originator:
            element = yield from self._element()
        if element[0] != der.SET:
            raise UnsealError
        recipients = tuple(der.children(der.read(element)))
        _, info, _ = yield from self._head(der.SEQUENCE)
        if (yield from self._element(der.OBJECT_IDENTIFIER)) != OID_DATA:
            raise UnsealError
        algorithm = der.read((yield from self._element(der.SEQUENCE)))
        self.header = EnvelopeHeader(version, has_originator, recipients, algorithm)
        yield from self._content()
        yield from self._close(info)
        yield from self._unprotected(end)

    def _content(self) -> Steps[None]:
        tag, end, _ = yield from self._head()
        self._kept = 0
        if tag == _CONTEXT_0_PRIMITIVE and end is not None:
            yield from self._pass(end - self._offset)
        elif tag == _CONTEXT_0:
            yield from self._pieces(end, _MAX_OCTETS_DEPTH)
        else:
            raise UnsealError

    def _pieces(self, end: int | None, depth: int) -> Steps[None]:
        """Pass on the pieces of a constructed OCTET STRING."""
        if depth == 0:
            raise UnsealError
        while end is None or self._offset < end:
            self._kept = 0  # the bound is for what we keep, and a piece's head is forgotten at once
            tag, piece_end, head = yield from self._head()
            if tag == der.OCTET_STRING and piece_end is not None:
                yield from self._pass(piece_end - self._offset)
            elif tag == _CONSTRUCTED_OCTETS:
                yield from self._pieces(piece_end, depth - 1)
            elif end is None and head == der.END_OF_CONTENTS:
                return
            else:
                raise UnsealError
        if self._offset != end:
            raise UnsealError

    def _pass(self, count: int) -> Steps[None]:
        self._offset += count
        while count:
            piece = self._chunk[self._at : self._at + count]
            if not piece:
                yield
                continue
            self._out.append(piece)
            self._at += len(piece)
            count -= len(piece)

    def _unprotected(self, end: int | None) -> Steps[None]:
        """Skip unprotected attributes, if any: nothing in them is authenticated, so nothing in them is used."""
        if end is not None and self._offset == end:
            return
        if end is None and not (yield from self._peek_is(_CONTEXT_1)):
            return
        yield from self._element(_CONTEXT_1)
        self.has_unprotected_attributes = True

    def _peek_is(self, tag: int) -> Steps[bool]:
        while self._at == len(self._chunk):
            yield
        return self._chunk[self._at] == tag
