"""Small real files for the demo, the simulator and the tests: PDF, PNG and JPEG of a chosen size.

Each opens in an ordinary viewer, is of exactly the size that was asked for, and holds no data of any person. The filling
is random bytes, so that neither compression nor a repeated pattern makes a large file easier to carry than a real one.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

MIN_PDF_BYTES: Final = 700
MIN_PNG_BYTES: Final = 90
MIN_JPEG_BYTES: Final = 200

_MAX_COMMENT_BYTES: Final = 0xFFFF - 2
"""What a JPEG comment segment holds: its length field counts itself."""


def make_pdf(rng: Random, size_bytes: int = 4096) -> bytes:
    """Return a PDF 1.4 of one page with a line of text; the filling is a stream that no page uses.

    Raises:
        ValueError: ``size_bytes`` is below ``MIN_PDF_BYTES``.
    """
    _check_size(size_bytes, MIN_PDF_BYTES)
    filling = rng.randbytes(size_bytes - len(_pdf(b"", 0)))
    # The offsets in the file grow with the filling, by a digit now and then, so this is a few bytes too many.
    over = len(_pdf(filling, 0)) - size_bytes
    filling = filling[: len(filling) - over]
    return _pdf(filling, size_bytes - len(_pdf(filling, 0)))


def make_png(rng: Random, size_bytes: int = 4096) -> bytes:
    """Return a PNG of one grey pixel; the filling is an ancillary, private chunk.

    Raises:
        ValueError: ``size_bytes`` is below ``MIN_PNG_BYTES``.
    """
    _check_size(size_bytes, MIN_PNG_BYTES)
    start = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    end = _chunk(b"IDAT", zlib.compress(b"\x00\x80")) + _chunk(b"IEND", b"")
    return start + _chunk(b"paDd", rng.randbytes(size_bytes - len(start) - len(end) - 12)) + end


def make_jpeg(rng: Random, size_bytes: int = 4096) -> bytes:
    """Return a baseline JPEG of one grey pixel; the filling is comment segments.

    Raises:
        ValueError: ``size_bytes`` is below ``MIN_JPEG_BYTES``.
    """
    _check_size(size_bytes, MIN_JPEG_BYTES)
    start = b"\xff\xd8" + _segment(0xE0, b"JFIF\x00\x01\x01\x00" + struct.pack(">HHBB", 1, 1, 0, 0))
    one_code = bytes([1] + [0] * 15) + b"\x00"  # a Huffman table whose only code is the bit 0, for the symbol 0
    end = (
        _segment(0xDB, b"\x00" + bytes([1] * 64))
        + _segment(0xC0, struct.pack(">BHHB", 8, 1, 1, 1) + b"\x01\x11\x00")
        + _segment(0xC4, b"\x00" + one_code)
        + _segment(0xC4, b"\x10" + one_code)
        + _segment(0xDA, b"\x01\x01\x00\x00\x3f\x00")
        + b"\x3f\xff\xd9"  # difference 0, end of block, ones to the byte's end; then the end of the image
    )
    return start + _comments(rng, size_bytes - len(start) - len(end)) + end


def _check_size(size_bytes: int, least: int) -> None:
    if size_bytes < least:
        raise ValueError(f"size_bytes must be at least {least}")


def _pdf(filling: bytes, spaces: int) -> bytes:
    text = b"BT /F1 18 Tf 72 770 Td (Eksempelfil for Meldingsformidler) Tj ET"
    bodies = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 5 0 R /Resources << /Font << /F1 4 0 R >> >> >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        _stream(text),
        _stream(filling),
    )
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets: list[int] = []
    for number, body in enumerate(bodies, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    xref = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(bodies) + 1)
    for offset in offsets:
        out += b"%010d 00000 n \n" % offset
    out += b"trailer\n<< /Size %d /Root 1 0 R >>%s\n" % (len(bodies) + 1, b" " * spaces)
    out += b"startxref\n%d\n%%%%EOF\n" % xref
    return bytes(out)


def _stream(data: bytes) -> bytes:
    return b"<< /Length %d >>\nstream\n" % len(data) + data + b"\nendstream"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _comments(rng: Random, size: int) -> bytes:
    """Return comment segments of ``size`` bytes in all; each costs four bytes beside what it holds."""
    parts: list[bytes] = []
    while size > 0:
        held = min(size - 4, _MAX_COMMENT_BYTES)
        if 0 < size - 4 - held < 4:  # noqa: PLR2004 - too little would be left for a segment of its own
            held -= 4
        parts.append(_segment(0xFE, rng.randbytes(held)))
        size -= held + 4
    return b"".join(parts)
