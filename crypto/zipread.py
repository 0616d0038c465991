"""A zip reader that refuses as much as it can, where general readers accept as much as they can.

1. Every byte of the file belongs to an entry, the central directory or the end record: nothing before, between or after.
2. What a local header says agrees with the central directory, so that no other reader sees another file here.
3. Sizes are counted while unpacking; what an entry states about itself is a bound, never a promise.
4. Comments are empty or the ASiC mimetype, in the archive and in its entries.

No encryption, no zip64, no other methods than stored and deflated. Every refusal is an ``UnsealError``.

Source: APPNOTE.TXT 6.3.10; ETSI EN 319 162-1 Annex A for the comment.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, NamedTuple

from schemas.errors import UnsealError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crypto.limits import Limits

ASIC_COMMENT = b"mimetype=application/vnd.etsi.asic-e+zip"
CHUNK_BYTES = 128 * 1024

_STORED, _DEFLATED = 0, 8
_FLAG_DESCRIPTOR, _FLAG_UTF8 = 1 << 3, 1 << 11
_FLAGS_ALLOWED = _FLAG_DESCRIPTOR | _FLAG_UTF8 | 0b110  # bits 1 and 2 say how hard deflate tried
_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_DESCRIPTOR = struct.Struct("<3L")
_SIGNED_DESCRIPTOR = struct.Struct("<4s3L")
_END_SIGNATURE, _CENTRAL_SIGNATURE, _LOCAL_SIGNATURE = b"PK\5\6", b"PK\1\2", b"PK\3\4"
_DESCRIPTOR_SIGNATURE = b"PK\7\10"
_ZIP64 = 0xFFFFFFFF  # a 32-bit field that sends the reader elsewhere
_RESERVED_ENTRIES = 8  # mimetype and what stands under META-INF, beside the payload files


class _Stamp(NamedTuple):
    """What local header and central directory both say, in their common order."""

    version: int
    flags: int
    method: int
    time: int
    date: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in the archive.

    Args:
        name: As decoded; not yet judged.
        size: Unpacked bytes, as stated.
        packed_size: Bytes in the archive.
    """

    name: str
    size: int
    packed_size: int
    crc: int
    method: int
    data_at: int


@dataclass(frozen=True, slots=True)
class _Central:
    stamp: _Stamp
    crc: int
    packed_size: int
    size: int
    header_at: int
    raw_name: bytes

    @property
    def name(self) -> str:
        encoding = "utf-8" if self.stamp.flags & _FLAG_UTF8 else "cp437"
        try:
            return self.raw_name.decode(encoding)
        except UnicodeDecodeError:
            raise UnsealError from None


class ZipReader:
    """The entries of an archive, in the order of its bytes.

    Args:
        file: Seekable.
        size: Bytes in the file.
        limits: Bounds for the directory and the number of files; bounds for contents are arguments of ``read``.

    Raises:
        UnsealError: The archive breaks a rule.
    """

    def __init__(self, file: IO[bytes], size: int, limits: Limits) -> None:
        self._file = file
        end_at, count, directory_size, directory_at = self._end_record(size)
        if directory_size > limits.max_directory_bytes or count > limits.max_files + _RESERVED_ENTRIES:
            raise UnsealError
        if directory_at + directory_size != end_at:
            raise UnsealError
        central = _parse_directory(self._bytes(directory_at, directory_size))
        if len(central) != count:
            raise UnsealError
        self.entries = tuple(self._locate(central, directory_at))

    def read(self, entry: Entry, limit: int) -> Iterator[bytes]:
        """Unpack an entry in chunks.

        Args:
            entry: One of ``entries``.
            limit: The most bytes that may come out.

        Raises:
            UnsealError: More than ``limit``, or not what the entry states; before the chunk that goes too far.
        """
        if entry.size > limit:
            raise UnsealError
        crc = count = 0
        for chunk in self._stored(entry) if entry.method == _STORED else self._inflated(entry):
            count += len(chunk)
            if count > entry.size:
                raise UnsealError
            crc = zlib.crc32(chunk, crc)
            yield chunk
        if count != entry.size or crc != entry.crc:
            raise UnsealError

    def read_bytes(self, entry: Entry, limit: int) -> bytes:
        """Unpack a whole entry of at most ``limit`` bytes.

        Raises:
            UnsealError: As ``read``.
        """
        return b"".join(self.read(entry, limit))

    def _bytes(self, at: int, count: int) -> bytes:
        self._file.seek(at)
        data = self._file.read(count)
        if len(data) != count:
            raise UnsealError
        return data

    def _stored(self, entry: Entry) -> Iterator[bytes]:
        at, end = entry.data_at, entry.data_at + entry.packed_size
        while at < end:
            chunk = self._bytes(at, min(CHUNK_BYTES, end - at))
            at += len(chunk)
            yield chunk

    def _inflated(self, entry: Entry) -> Iterator[bytes]:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            for packed in self._stored(entry):
                data = packed
                while data and not inflater.eof:
                    yield inflater.decompress(data, CHUNK_BYTES)
                    data = inflater.unconsumed_tail
                if inflater.eof and (data or inflater.unused_data):
                    raise UnsealError
            while not inflater.eof:
                rest = inflater.decompress(b"", CHUNK_BYTES)
                if not rest:
                    raise UnsealError
                yield rest
        except zlib.error:
            raise UnsealError from None

    def _end_record(self, size: int) -> tuple[int, int, int, int]:
        for comment in (ASIC_COMMENT, b""):
            at = size - _END.size - len(comment)
            if at < 0:
                continue
            record = self._bytes(at, _END.size + len(comment))
            signature, disk, start_disk, here, total, directory_size, directory_at, length = _END.unpack_from(record)
            if signature == _END_SIGNATURE and length == len(comment) and record[_END.size :] == comment:
                if disk or start_disk or here != total:
                    raise UnsealError
                return at, total, directory_size, directory_at
        raise UnsealError

    def _locate(self, central: list[_Central], directory_at: int) -> Iterator[Entry]:
        """Walk the local headers and see that entries follow each other without a gap."""
        at = 0
        for record in sorted(central, key=lambda record: record.header_at):
            if record.header_at != at:
                raise UnsealError
            data_at = self._local_header(record, at)
            yield Entry(record.name, record.size, record.packed_size, record.crc, record.stamp.method, data_at)
            at = data_at + record.packed_size
            if record.stamp.flags & _FLAG_DESCRIPTOR:
                at += self._descriptor(record, at)
        if at != directory_at:
            raise UnsealError

    def _local_header(self, record: _Central, at: int) -> int:
        """Check the header at ``at`` and return where its data begin."""
        fields: list[int]
        signature, *fields = _LOCAL.unpack(self._bytes(at, _LOCAL.size))
        crc, packed_size, size, name_length, extra_length = fields[5:]
        stated = (crc, packed_size, size)
        expected = (record.crc, record.packed_size, record.size)
        with_descriptor = bool(record.stamp.flags & _FLAG_DESCRIPTOR)
        if signature != _LOCAL_SIGNATURE or _Stamp(*fields[:5]) != record.stamp:
            raise UnsealError
        if stated != expected and not (with_descriptor and stated == (0, 0, 0)):
            raise UnsealError
        rest = self._bytes(at + _LOCAL.size, name_length + extra_length)
        if rest[:name_length] != record.raw_name:
            raise UnsealError
        _check_extra(rest[name_length:])
        return at + _LOCAL.size + name_length + extra_length

    def _descriptor(self, record: _Central, at: int) -> int:
        """Check the data descriptor at ``at``, whose signature is optional, and return its size."""
        values = (record.crc, record.packed_size, record.size)
        signed = _SIGNED_DESCRIPTOR.pack(_DESCRIPTOR_SIGNATURE, *values)
        if self._bytes(at, len(signed)) == signed:
            return len(signed)
        if self._bytes(at, _DESCRIPTOR.size) == _DESCRIPTOR.pack(*values):
            return _DESCRIPTOR.size
        raise UnsealError


def _parse_directory(data: bytes) -> list[_Central]:
    records: list[_Central] = []
    at = 0
    while at < len(data):
        if len(data) - at < _CENTRAL.size:
            raise UnsealError
        signature, _made_by, *fields = _CENTRAL.unpack_from(data, at)
        crc, packed_size, size, name_length, extra_length, comment_length, disk, _internal, _external, header_at = (
            fields[5:]
        )
        at += _CENTRAL.size
        raw_name = data[at : at + name_length]
        extra = data[at + name_length : at + name_length + extra_length]
        at += name_length + extra_length
        comment = data[at : at + comment_length]
        at += comment_length
        record = _Central(_Stamp(*fields[:5]), crc, packed_size, size, header_at, raw_name)
        if signature != _CENTRAL_SIGNATURE or disk or comment not in (b"", ASIC_COMMENT) or at > len(data):
            raise UnsealError
        _check_record(record)
        _check_extra(extra)
        records.append(record)
    return records


def _check_record(record: _Central) -> None:
    """Refuse encryption, unknown methods, zip64 and a stored size that is two sizes."""
    stamp = record.stamp
    if stamp.flags & ~_FLAGS_ALLOWED or stamp.method not in (_STORED, _DEFLATED):
        raise UnsealError
    if stamp.method == _STORED and record.packed_size != record.size:
        raise UnsealError
    if _ZIP64 in (record.packed_size, record.size, record.header_at):
        raise UnsealError


def _check_extra(extra: bytes) -> None:
    """See that extra fields fill their room; what they say is not used."""
    at = 0
    while at < len(extra):
        if len(extra) - at < 4:  # noqa: PLR2004 - id and length, two bytes each
            raise UnsealError
        at += 4 + int.from_bytes(extra[at + 2 : at + 4], "little")
    if at != len(extra):
        raise UnsealError
