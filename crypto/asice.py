"""ASiC-E: files in a zip with a signed manifest of their digests.

Written in the layout of KS' Java library, file by file to a sink that cannot seek: ``mimetype`` first and stored, payload
files, manifest, signature, OASIS manifest. Read in that layout and in the .NET library's.

1. A payload file that the manifest does not list, or lists twice, and any unknown file under ``META-INF``: refused.
2. Nothing is believed before the signature over the manifest is good and its signer trusted; files are unpacked after that.
3. The OASIS manifest is not signed, so nothing is read from it.

Source: ETSI EN 319 162-1 section 4.4; KS ``asic``, ``fiks-asice-dotnet``.
"""

from __future__ import annotations

import hashlib
import hmac
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote
from uuid import uuid4

from crypto import filenames
from crypto.manifest import Manifest, Reference, read_manifest, write_manifest, write_oasis_manifest
from crypto.signed import sign_detached, verify_detached
from crypto.zipread import ASIC_COMMENT, Entry, ZipReader
from schemas.errors import PackError, UnsealError
from schemas.names import Sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from types import TracebackType
    from typing import IO

    from cryptography import x509

    from crypto.keys import Signer
    from crypto.limits import Limits
    from crypto.trust import Trust

ASIC_MIMETYPE = b"application/vnd.etsi.asic-e+zip"
_MANIFEST_NAME = "META-INF/ASiCManifest.xml"
_OASIS_NAME = "META-INF/manifest.xml"
_PACKED_ALREADY = frozenset(
    {"application/pdf", "application/zip", "image/jpeg", "image/png", "image/heic", "image/webp"}
)
_DEFLATE_LEVEL = 6


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A verified file in a package.

    Args:
        name: Safe to use below a folder, see ``filenames``.
        mimetype: As the sender states it.
        size: Unpacked bytes.
        sha256: Digest of the unpacked bytes.
    """

    name: str
    mimetype: str
    size: int
    sha256: Sha256


class _Sink:
    """What ``zipfile`` sees of the sink: it can write and tell, and learns from the missing ``seek`` that it cannot seek."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._at = 0
        self.muted = False

    def write(self, data: bytes) -> int:
        if not self.muted:
            self._write(data)
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        """Do nothing: the sink keeps nothing back."""


class _Zip(zipfile.ZipFile):
    """A zip that does not end itself when it is forgotten: half a package must not get a directory and look whole."""

    def __del__(self) -> None:
        """Do nothing, where ``ZipFile`` would write to the sink."""


class AsiceWriter:
    """Packs and signs files as they come, in constant memory. One file at a time, then ``finish``.

    Args:
        sink: Takes the archive's bytes in order.
        signer: Who signs the manifest.
        now: Aware UTC; becomes the signature's signingTime.
    """

    def __init__(self, sink: Callable[[bytes], object], *, signer: Signer, now: datetime) -> None:
        self._signer = signer
        self._now = now
        self._references: list[Reference] = []
        self._names: set[str] = set()
        self._open: FileWriter | None = None
        self._failed = False
        self._out = _Sink(sink)
        first = _write_mimetype(self._out)
        self._zip = _Zip(self._out, "w", zipfile.ZIP_DEFLATED)  # type: ignore[call-overload]  # ``zipfile`` needs less than a whole IO
        self._zip.infolist().append(first)  # so that the central directory has it too
        self._zip.comment = ASIC_COMMENT

    def add(self, name: str, mimetype: str) -> FileWriter:
        """Begin a file. Use what is returned as a context manager, and write to it.

        Args:
            name: As in ``filenames``; no other file may have a name that some file system takes for the same.
            mimetype: Goes into the manifest, and decides whether deflate is worth its time.

        Raises:
            PackError: The name is not allowed, or is there already.
            RuntimeError: A file is open, one has failed, or the package is finished.
        """
        if self._open is not None or self._failed or not self._zip.fp:
            raise RuntimeError("a file is still open, one has failed, or the package is finished")
        reason = filenames.problem(name)
        if reason is not None:
            raise PackError(reason)
        if filenames.same(name) in self._names:
            raise PackError("to filer i pakken har samme navn")
        self._names.add(filenames.same(name))
        self._zip.compresslevel = 0 if mimetype in _PACKED_ALREADY else _DEFLATE_LEVEL
        self._open = FileWriter(self._zip.open(name, "w"), self._added, name, mimetype)
        return self._open

    def finish(self) -> None:
        """Write manifest and signature, and end the archive.

        Raises:
            PackError: There is no file.
            RuntimeError: A file is open or has failed, or ``finish`` was called before.
        """
        if self._open is not None or self._failed or not self._zip.fp:
            raise RuntimeError("a file is still open, one has failed, or the package is finished")
        if not self._references:
            raise PackError("pakken har ingen filer")
        signature_name = f"META-INF/signature-{uuid4()}.p7s"
        manifest = write_manifest(Manifest(signature_name, tuple(self._references)))
        listed = [(reference.uri, reference.mimetype) for reference in self._references]
        self._zip.compresslevel = _DEFLATE_LEVEL
        for name, content in (
            (_MANIFEST_NAME, manifest),
            (signature_name, sign_detached(manifest, self._signer, self._now)),
            (_OASIS_NAME, write_oasis_manifest(listed)),
        ):
            with self._zip.open(name, "w") as entry:
                entry.write(content)
        self._zip.close()

    def abort(self) -> None:
        """Give the package up: the sink gets nothing more, not even when ``zipfile`` tidies up after itself."""
        self._out.muted = True
        self._failed = True
        if self._open is not None:
            self._open.close()
            self._open = None

    def _added(self, reference: Reference | None) -> None:
        self._open = None
        if reference is None:
            self._failed = self._out.muted = True
        else:
            self._references.append(reference)


def _write_mimetype(out: _Sink) -> zipfile.ZipInfo:
    """Write the first entry with its size and checksum in front: Java refuses a stored entry that has them behind."""
    info = zipfile.ZipInfo("mimetype")
    info.comment = ASIC_COMMENT
    info.file_size = info.compress_size = len(ASIC_MIMETYPE)
    info.CRC = zlib.crc32(ASIC_MIMETYPE)
    info.external_attr = 0o600 << 16
    info.header_offset = out.tell()
    out.write(info.FileHeader(zip64=False))
    out.write(ASIC_MIMETYPE)
    return info


class FileWriter:
    """One file on its way into a package; a context manager, which ends the file when it exits."""

    def __init__(self, entry: IO[bytes], ended: Callable[[Reference | None], None], name: str, mimetype: str) -> None:
        self._entry = entry
        self._ended = ended
        self._name = name
        self._mimetype = mimetype
        self._digest = hashlib.sha256()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take the next bytes of the file, and return how many."""
        self._digest.update(data)
        return self._entry.write(data)

    def close(self) -> None:
        """Free what the file holds without ending it well; ``AsiceWriter.abort`` calls this."""
        self._entry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._ended(None)  # first, so that closing writes nothing more
            self._entry.close()
            return
        self._entry.close()
        self._ended(Reference(self._name, self._mimetype, "sha256", self._digest.digest()))


@dataclass(frozen=True, slots=True)
class _Listed:
    """A payload entry with what the manifest says about it."""

    entry: Entry
    reference: Reference
    file: PackageFile


class AsiceReader:
    """A verified archive. Building one checks everything; nothing in it is usable before that.

    Args:
        file: The archive, seekable.
        size: Its bytes.
        trust: Whose signature counts.
        now: Aware UTC time that the signer is judged against.
        limits: See ``Limits``.

    Raises:
        UnsealError: Whatever is wrong.
    """

    def __init__(self, file: IO[bytes], size: int, *, trust: Trust, now: datetime, limits: Limits) -> None:
        self._zip = ZipReader(file, size, limits)
        manifest_bytes, signature_entries, payload = self._sort(limits)
        manifest = read_manifest(manifest_bytes)
        if [entry.name for entry in signature_entries] != [manifest.signature_uri]:
            raise UnsealError
        signature = self._zip.read_bytes(signature_entries[0], limits.max_manifest_bytes)
        verified = verify_detached(signature, manifest_bytes, trust, now)
        self.signer: x509.Certificate = verified.signer
        self.warnings = verified.warnings
        self._listed: dict[str, _Listed] = {}
        left = limits.max_total_bytes
        for entry, reference in _match(payload, manifest):
            listed = self._verify(entry, reference, min(limits.max_file_bytes, left))
            left -= listed.file.size
            self._listed[entry.name] = listed
        self.files = tuple(listed.file for listed in self._listed.values())

    def file(self, name: str) -> PackageFile:
        """Return what is known about a file.

        Raises:
            KeyError: No such file.
        """
        return self._listed[name].file

    def read(self, name: str) -> Iterator[bytes]:
        """Unpack a file again in chunks, and compute its digest again.

        Raises:
            UnsealError: At the end, if the bytes are not those that were verified.
            KeyError: No such file.
        """
        listed = self._listed[name]
        digest = hashlib.sha256()
        for chunk in self._zip.read(listed.entry, listed.entry.size):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != listed.file.sha256:
            raise UnsealError

    def _sort(self, limits: Limits) -> tuple[bytes, list[Entry], list[Entry]]:
        """Return the manifest's bytes, the signature entries and the payload entries; refuse every other entry."""
        manifests: list[Entry] = []
        signatures: list[Entry] = []
        payload: list[Entry] = []
        seen: set[str] = set()
        for number, entry in enumerate(self._zip.entries):
            folded = filenames.same(entry.name)
            if folded in seen:
                raise UnsealError
            seen.add(folded)
            if folded == "meta-inf/asicmanifest.xml":
                manifests.append(entry)
            elif folded.startswith("meta-inf/signature") and folded.endswith(".p7s"):
                signatures.append(entry)
            elif folded == "meta-inf/manifest.xml":
                self._zip.read_bytes(entry, limits.max_manifest_bytes)
            elif entry.name == "mimetype":
                if number or self._zip.read_bytes(entry, len(ASIC_MIMETYPE)) != ASIC_MIMETYPE:
                    raise UnsealError
            elif filenames.problem(entry.name) is None:
                payload.append(entry)
            else:
                raise UnsealError
        if len(manifests) != 1 or len(payload) > limits.max_files:
            raise UnsealError
        return self._zip.read_bytes(manifests[0], limits.max_manifest_bytes), signatures, payload

    def _verify(self, entry: Entry, reference: Reference, limit: int) -> _Listed:
        sha256 = hashlib.sha256()
        stated = sha256 if reference.algorithm == "sha256" else hashlib.new(reference.algorithm)
        size = 0
        for chunk in self._zip.read(entry, limit):
            size += len(chunk)
            sha256.update(chunk)
            if stated is not sha256:
                stated.update(chunk)
        if not hmac.compare_digest(stated.digest(), reference.digest):
            raise UnsealError
        return _Listed(entry, reference, PackageFile(entry.name, reference.mimetype, size, Sha256(sha256.hexdigest())))


def _match(payload: list[Entry], manifest: Manifest) -> Iterator[tuple[Entry, Reference]]:
    """Pair every payload entry with its one reference, by its name as written or as an encoded URI."""
    waiting = {entry.name: entry for entry in payload}
    for reference in manifest.references:
        entry = waiting.pop(reference.uri, None) or waiting.pop(unquote(reference.uri), None)
        if entry is None:
            raise UnsealError
        yield entry, reference
    if waiting:
        raise UnsealError
