from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto import Limits
from crypto.zipread import ASIC_COMMENT, ZipReader
from schemas.errors import UnsealError

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = {"a.txt": b"hello " * 100, "b/å.bin": bytes(range(256)) * 700, "tom": b""}


class Unseekable(io.RawIOBase):
    """Makes ``zipfile`` write data descriptors."""

    def __init__(self) -> None:
        super().__init__()
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # zipfile writes bytes
        self.data += data
        return len(data)


def make_zip(
    files: dict[str, bytes] = FILES,
    *,
    method: int = zipfile.ZIP_DEFLATED,
    comment: bytes = b"",
    change: Callable[[zipfile.ZipInfo], object] | None = None,
    stream: bool = False,
) -> bytes:
    out = Unseekable() if stream else io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:  # type: ignore[arg-type]  # a RawIOBase will do
        archive.comment = comment
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            if change is not None:
                change(info)
            archive.writestr(info, content, method)
    return bytes(out.data) if isinstance(out, Unseekable) else out.getvalue()


def read(data: bytes, limits: Limits | None = None) -> dict[str, bytes]:
    reader = ZipReader(io.BytesIO(data), len(data), limits or Limits())
    return {entry.name: reader.read_bytes(entry, 10**7) for entry in reader.entries}


def refuse(data: bytes) -> None:
    with pytest.raises(UnsealError):
        read(data)


def patch(data: bytes, at: int, form: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, at, value)
    return bytes(changed)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("comment", [b"", ASIC_COMMENT])
def test_ordinary_archives_are_read(method: int, stream: bool, comment: bytes) -> None:  # noqa: FBT001 - a parameter
    assert read(make_zip(method=method, stream=stream, comment=comment)) == FILES


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=400), max_size=5), st.booleans())
def test_any_contents_are_read(contents: list[bytes], stream: bool) -> None:  # noqa: FBT001 - a parameter
    files = {str(number): content for number, content in enumerate(contents)}

    assert read(make_zip(files, stream=stream)) == files


def test_a_descriptor_without_its_optional_signature_is_read() -> None:
    data = make_zip({"a": b"hello"}, stream=True)
    at = data.index(b"PK\x07\x08")
    shorter = data[:at] + data[at + 4 :]
    end = shorter.index(b"PK\x05\x06")

    assert read(patch(shorter, end + 16, "<L", data.index(b"PK\x01\x02") - 4)) == {"a": b"hello"}


def test_names_without_the_utf8_flag_are_cp437() -> None:
    data = make_zip({"xx": b"1"}).replace(b"xx", "å".encode("cp437") + b"x")

    assert read(data) == {"åx": b"1"}


def test_names_that_are_not_the_utf8_they_claim_are_refused() -> None:
    refuse(make_zip({"å": b"1"}).replace("å".encode(), b"\xff\xfe"))


def test_anything_before_the_first_entry_is_refused() -> None:
    data = make_zip()
    central, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    refuse(b"#!" + data)
    assert zipfile.ZipFile(io.BytesIO(b"#!" + data)).namelist()  # where a general reader does not mind
    assert central < end


def test_anything_between_entries_and_directory_is_refused() -> None:
    data = make_zip()
    central, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")

    refuse(patch(data[:central] + b"hidden" + data[central:], end + 6 + 16, "<L", central + 6))


def test_anything_between_two_entries_is_refused() -> None:
    data = make_zip({"a": b"1", "b": b"2"}, method=zipfile.ZIP_STORED)
    second = data.index(b"PK\x03\x04", 4)
    moved = data[:second] + b"hidden" + data[second:]
    moved = patch(moved, moved.index(b"PK\x05\x06") + 16, "<L", moved.index(b"PK\x01\x02"))
    second_central = moved.rindex(b"PK\x01\x02")

    refuse(patch(moved, second_central + 42, "<L", second + 6))


def test_entries_that_overlap_are_refused() -> None:
    data = make_zip({"a": b"1", "b": b"1"}, method=zipfile.ZIP_STORED)

    refuse(patch(data, data.rindex(b"PK\x01\x02") + 42, "<L", 0))


def test_anything_after_the_end_and_any_other_comment_are_refused() -> None:
    refuse(make_zip() + b"\x00")
    refuse(make_zip(comment=b"hello"))
    refuse(make_zip(comment=b"x" * len(ASIC_COMMENT)))
    refuse(make_zip(change=lambda info: setattr(info, "comment", b"hello")))
    assert read(make_zip(change=lambda info: setattr(info, "comment", ASIC_COMMENT))) == FILES


@pytest.mark.parametrize(
    ("offset", "form"),
    [
        (4, "<H"),
        (6, "<H"),
        (8, "<H"),
        (10, "<H"),
        (12, "<H"),
        (14, "<L"),
        (18, "<L"),
        (22, "<L"),
        (26, "<H"),
        (28, "<H"),
    ],
    ids=["version", "flags", "method", "time", "date", "crc", "packed", "size", "name length", "extra length"],
)
def test_a_local_header_that_says_something_else_is_refused(offset: int, form: str) -> None:
    data = make_zip()
    (value,) = struct.unpack_from(form, data, offset)

    refuse(patch(data, offset, form, value ^ 2))


def test_a_local_header_with_another_name_is_refused() -> None:
    data = make_zip({"a.txt": b"1"})

    refuse(data.replace(b"a.txt", b"b.txt", 1))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_are_refused(method: int) -> None:
    refuse(make_zip(method=method))


@pytest.mark.parametrize("flag", [0x0001, 0x0020, 0x0040, 0x2000], ids=["encrypted", "patch", "strong", "masked"])
def test_encryption_and_odd_flags_are_refused(flag: int) -> None:
    data = make_zip({"a": b"1"})
    (flags,) = struct.unpack_from("<H", data, 6)
    central = data.index(b"PK\x01\x02")

    refuse(patch(patch(data, 6, "<H", flags | flag), central + 8, "<H", flags | flag))


@pytest.mark.parametrize("form", ["size", "crc", "packed"])
def test_what_an_entry_states_wrongly_in_both_places_is_refused(form: str) -> None:
    data = make_zip({"a": b"12345678"}, method=zipfile.ZIP_DEFLATED)
    offset = {"crc": 14, "packed": 18, "size": 22}[form]
    central = data.index(b"PK\x01\x02")
    (value,) = struct.unpack_from("<L", data, offset)
    for wrong in (value - 1, value + 1):
        refuse(patch(patch(data, offset, "<L", wrong), central + offset + 2, "<L", wrong))


def test_hidden_bytes_after_a_deflated_stream_are_refused() -> None:
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(b"hello") + packer.flush() + b"hidden"
    header = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0x21, zlib.crc32(b"hello"), len(packed), 5, 1, 0) + b"a"
    fields = (20, 20, 0, 8, 0, 0x21, zlib.crc32(b"hello"), len(packed), 5, 1, 0, 0, 0, 0, 0, 0)
    central = struct.pack("<4s6H3L5H2L", b"PK\1\2", *fields) + b"a"
    at = len(header) + len(packed)
    data = header + packed + central + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central), at, 0)

    assert zipfile.ZipFile(io.BytesIO(data)).read("a") == b"hello"  # where a general reader does not mind
    refuse(data)


def test_a_stream_that_never_ends_and_one_that_is_garbage_are_refused() -> None:
    data = bytearray(make_zip({"a": os.urandom(1000)}))
    data[31:36] = b"\xff" * 5

    refuse(bytes(data))


def test_a_bomb_that_states_a_small_size_gives_no_more_than_it_states() -> None:
    data = make_zip({"a": bytes(5_000_000)})
    central = data.index(b"PK\x01\x02")
    bomb = patch(patch(data, 22, "<L", 10), central + 24, "<L", 10)
    reader = ZipReader(io.BytesIO(bomb), len(bomb), Limits())
    out: list[bytes] = []

    with pytest.raises(UnsealError):
        out.extend(reader.read(reader.entries[0], 10_000_000))
    assert sum(map(len, out)) <= 10


@pytest.mark.parametrize("limits", [Limits(max_directory_bytes=100), Limits(max_files=-6)])
def test_directories_beyond_a_limit_are_refused(limits: Limits) -> None:
    with pytest.raises(UnsealError):
        read(make_zip(), limits)


def test_reading_is_bounded_before_anything_comes_out() -> None:
    data = make_zip({"a": bytes(1000)})
    reader = ZipReader(io.BytesIO(data), len(data), Limits())

    with pytest.raises(UnsealError):
        next(reader.read(reader.entries[0], 999))


def test_a_directory_that_lies_about_its_count_or_its_disks_is_refused() -> None:
    data = make_zip()
    end = data.index(b"PK\x05\x06")

    refuse(patch(patch(data, end + 8, "<H", 2), end + 10, "<H", 2))
    refuse(patch(data, end + 10, "<H", 2))
    refuse(patch(data, end + 4, "<H", 1))
    refuse(patch(data, data.index(b"PK\x01\x02") + 34, "<H", 1))


def test_zip64_and_broken_extra_fields_are_refused() -> None:
    data = make_zip({"a": b"1"}, change=lambda info: setattr(info, "extra", b"\x01\x02\x04\x00abcd"))
    assert read(data) == {"a": b"1"}
    refuse(data.replace(b"\x01\x02\x04\x00abcd", b"\x01\x02\x05\x00abcd"))
    central = data.index(b"PK\x01\x02")
    refuse(patch(data, central + 24, "<L", 0xFFFFFFFF))


@settings(max_examples=200, deadline=None)
@given(st.data(), st.binary(min_size=1, max_size=20))
def test_any_bytes_are_read_or_refused(data: st.DataObject, noise: bytes) -> None:
    archive = make_zip({"a": b"hello" * 9, "b": b"x"})
    at = data.draw(st.integers(0, len(archive)))
    try:
        read(archive[:at] + noise + archive[at + len(noise) :])
    except UnsealError:
        return
