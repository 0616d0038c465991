from __future__ import annotations

import re
import struct
import zlib
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.example_files import MIN_JPEG_BYTES, MIN_PDF_BYTES, MIN_PNG_BYTES, make_jpeg, make_pdf, make_png

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAKERS = [(make_pdf, MIN_PDF_BYTES), (make_png, MIN_PNG_BYTES), (make_jpeg, MIN_JPEG_BYTES)]


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Walk a PNG as a viewer does, checking lengths and checksums."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at = 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(kind + body),)
        yield kind, body
        at += 12 + length
    assert at == len(data)


def jpeg_markers(data: bytes) -> Iterator[int]:
    """Walk a JPEG's segments up to the scan, and check its end."""
    assert data[:2] == b"\xff\xd8"
    at, marker = 2, 0
    while marker != 0xDA:
        prefix, marker, length = struct.unpack_from(">BBH", data, at)
        assert prefix == 0xFF
        yield marker
        at += 2 + length
    assert data[at:] == b"\x3f\xff\xd9"


@pytest.mark.parametrize(("make", "least"), MAKERS)
@given(extra=st.integers(0, 3000) | st.integers(65_000, 66_000) | st.integers(131_000, 132_000))
def test_a_file_has_exactly_the_size_that_was_asked_for(
    make: Callable[[Random, int], bytes], least: int, extra: int
) -> None:
    assert len(make(Random(1), least + extra)) == least + extra


@pytest.mark.parametrize(("make", "least"), MAKERS)
def test_a_seed_gives_the_same_file_and_another_seed_another(make: Callable[[Random, int], bytes], least: int) -> None:
    assert make(Random(1), least + 50) == make(Random(1), least + 50)
    assert make(Random(1), least + 50) != make(Random(2), least + 50)


@pytest.mark.parametrize(("make", "least"), MAKERS)
def test_a_size_that_cannot_be_is_refused(make: Callable[[Random, int], bytes], least: int) -> None:
    with pytest.raises(ValueError, match=str(least)):
        make(Random(1), least - 1)


@given(st.integers(MIN_PDF_BYTES, 20_000))
def test_a_pdf_has_every_object_where_its_table_says(size: int) -> None:
    data = make_pdf(Random(size), size)
    tail = re.search(rb"startxref\n([0-9]+)\n%%EOF\n\Z", data)

    assert data.startswith(b"%PDF-1.4\n")
    assert tail
    table = data[int(tail[1]) :]
    assert table.startswith(b"xref\n0 7\n0000000000 65535 f \n")
    offsets = [int(offset) for offset in re.findall(rb"([0-9]{10}) 00000 n \n", table)]
    assert [data[offset : offset + 8] for offset in offsets] == [b"%d 0 obj\n" % n for n in range(1, 7)]
    for length, start in ((int(m[1]), m.end()) for m in re.finditer(rb"/Length ([0-9]+) >>\nstream\n", data)):
        assert data[start + length :].startswith(b"\nendstream\nendobj\n")


@given(st.integers(MIN_PNG_BYTES, 20_000))
def test_a_png_holds_one_grey_pixel(size: int) -> None:
    chunks = dict(png_chunks(make_png(Random(size), size)))

    assert list(chunks) == [b"IHDR", b"paDd", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (1, 1, 8, 0, 0, 0, 0)
    assert zlib.decompress(chunks[b"IDAT"]) == b"\x00\x80"


@given(st.integers(MIN_JPEG_BYTES, 200_000))
def test_a_jpeg_has_its_segments_in_order(size: int) -> None:
    markers = list(jpeg_markers(make_jpeg(Random(size), size)))

    assert markers[0] == 0xE0
    assert [marker for marker in markers if marker != 0xFE] == [0xE0, 0xDB, 0xC0, 0xC4, 0xC4, 0xDA]
