"""Packages: files signed by their sender and sealed for one receiver. The only functions that other folders call for søknader.

Sealing streams: files come in chunks, and sealed bytes go to a sink, in constant memory.

Opening takes two passes over a private spool of the ciphertext. The first decrypts and checks everything: padding, archive,
manifest, signature, trust, every digest. Only then is there an ``OpenedPackage`` to read from, and reading computes each digest
again. Plaintext is in memory only, and a failure of any kind is the same ``UnsealError``.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from crypto.asice import AsiceReader, AsiceWriter
from crypto.certificates import judge_recipient, judge_signer, nokkel_id
from crypto.cms import CmsEncryptor, seal
from crypto.limits import DEFAULT_LIMITS, Limits
from crypto.spool import READ_AHEAD_BYTES
from schemas.errors import InvalidDocumentError, MismatchError, UnsealError
from schemas.forsendelse import FILENAME, Forsendelse
from schemas.names import NokkelId, Sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime
    from types import TracebackType

    from cryptography import x509

    from crypto.asice import FileWriter, PackageFile
    from crypto.content_key import ContentKey
    from crypto.keys import KeyRing, Signer
    from crypto.spool import Spool
    from crypto.trust import Trust

_MAX_FORSENDELSE_BYTES = 16 * 1024
_ALWAYS_SIGNED = frozenset({"digisos_id", "melding_id", "kommunenummer", "type", "opprettet"})


@dataclass(frozen=True, slots=True)
class PackageSummary:
    """What a record says about a sealed package.

    Args:
        sha256: Digest of the sealed bytes.
        size: Sealed bytes.
        nokkel_id: The certificate that it was sealed for.
    """

    sha256: Sha256
    size: int
    nokkel_id: NokkelId


class PackageWriter:
    """Packs, signs and seals files as they come, in constant memory.

    Args:
        sink: Takes the sealed bytes in order.
        recipient: The receiver's certificate, which is judged first.
        signer: Who signs; judged too, since no receiver would take what it may not sign.
        now: Aware UTC.

    Attributes:
        content_key: Opens the package, for a sender that keeps a copy of it.

    Raises:
        CertificateError: The recipient's certificate may not be sealed for, or the signer's may not sign.
    """

    def __init__(
        self, sink: Callable[[bytes], object], *, recipient: x509.Certificate, signer: Signer, now: datetime
    ) -> None:
        judge_recipient(recipient, now)
        judge_signer(signer.certificate, now)
        self._sink = sink
        self._nokkel_id = nokkel_id(recipient)
        self._encryptor = CmsEncryptor(recipient)
        self.content_key = self._encryptor.content_key
        self._digest = hashlib.sha256()
        self._size = 0
        self._packer = AsiceWriter(self._seal, signer=signer, now=now)

    def add(self, name: str, mimetype: str) -> FileWriter:
        """Begin a file; see ``AsiceWriter.add``.

        Raises:
            PackError: The name is not allowed, or is there already.
            RuntimeError: A file is open, one has failed, or the package is finished.
        """
        return self._packer.add(name, mimetype)

    def finish(self) -> PackageSummary:
        """Sign, and end the package.

        Raises:
            PackError: There is no file.
            RuntimeError: A file is open or has failed, or ``finish`` was called before.
        """
        self._packer.finish()
        self._pass_on(self._encryptor.finalize())
        return PackageSummary(Sha256(self._digest.hexdigest()), self._size, self._nokkel_id)

    def abort(self) -> None:
        """Give the package up: the sink gets nothing more. May be called at any time, also after ``finish``."""
        self._packer.abort()

    def _seal(self, plaintext: bytes) -> None:
        self._pass_on(self._encryptor.update(plaintext))

    def _pass_on(self, sealed: bytes) -> None:
        if sealed:
            self._digest.update(sealed)
            self._size += len(sealed)
            self._sink(sealed)


def seal_package(
    files: Iterable[tuple[str, str, bytes]], *, recipient: x509.Certificate, signer: Signer, now: datetime
) -> tuple[bytes, PackageSummary]:
    """Pack, sign and seal files that are in memory.

    Args:
        files: Name, mimetype and content of each, in order.
        recipient: The receiver's certificate, which is judged first.
        signer: Who signs; judged too, since no receiver would take what it may not sign.
        now: Aware UTC.

    Returns:
        The sealed package, DER, and what a record says about it.

    Raises:
        CertificateError: The recipient's certificate may not be sealed for, or the signer's may not sign.
        PackError: A name is not allowed or there twice, or there is no file.
    """
    judge_recipient(recipient, now)
    judge_signer(signer.certificate, now)
    archive = io.BytesIO()
    packer = AsiceWriter(archive.write, signer=signer, now=now)
    for name, mimetype, content in files:
        with packer.add(name, mimetype) as entry:
            entry.write(content)
    packer.finish()
    sealed = seal(archive.getbuffer(), recipient)
    return sealed, PackageSummary(Sha256.of(sealed), len(sealed), nokkel_id(recipient))


class OpenedPackage:
    """A package that has been verified; made by ``open_package``. Close it, or use it as a context manager.

    It reads from the spool, so the spool must stay open as long.

    Args:
        stream: The plaintext archive.
        reader: What has verified it.
        forsendelse: The parsed ``forsendelse.json``, if there is one.
    """

    def __init__(self, stream: io.BufferedIOBase, reader: AsiceReader, forsendelse: Forsendelse | None) -> None:
        self._stream = stream
        self._reader = reader
        self.forsendelse = forsendelse

    @property
    def files(self) -> tuple[PackageFile, ...]:
        """Every payload file, in the manifest's order, ``forsendelse.json`` among them."""
        return self._reader.files

    @property
    def signer(self) -> x509.Certificate:
        """The trusted signer's certificate."""
        return self._reader.signer

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was let through by a setting: ``sha1-signatur``, or nothing."""
        return self._reader.warnings

    def read(self, name: str) -> Iterator[bytes]:
        """Release a file in chunks of at most 128 KiB, and compute its digest again.

        Raises:
            UnsealError: At the end, if the bytes are not those that were verified.
            KeyError: No such file.
        """
        return self._reader.read(name)

    def read_bytes(self, name: str, limit: int) -> bytes:
        """Release a whole file of at most ``limit`` bytes.

        Raises:
            UnsealError: The bytes are not those that were verified.
            KeyError: No such file.
            ValueError: The file is larger than ``limit``.
        """
        if self._reader.file(name).size > limit:
            raise ValueError(f"the file is larger than {limit} bytes")
        return b"".join(self.read(name))

    def close(self) -> None:
        """Forget the plaintext that is in memory."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_package(
    spool: Spool,
    *,
    keys: KeyRing | ContentKey,
    trust: Trust,
    now: datetime,
    limits: Limits = DEFAULT_LIMITS,
    require_forsendelse: bool = True,
) -> OpenedPackage:
    """Open and verify a package: everything, before a byte can be read.

    Args:
        spool: Finished; stays the caller's to close.
        keys: The receiver's keys; or the package's own, for the sender that made it.
        trust: Whose signature counts.
        now: Aware UTC time that the signer is judged against.
        limits: See ``Limits``.
        require_forsendelse: False for foreign senders, whose packages have no ``forsendelse.json``.

    Raises:
        UnsealError: Not for these keys, altered, not signed by somebody trusted, or beyond a limit. One text for all.
        StoreError: The spool cannot be read.
    """
    view = spool.plaintext(keys)
    small = view.size <= READ_AHEAD_BYTES
    stream = io.BytesIO(view.readall()) if small else io.BufferedReader(view, READ_AHEAD_BYTES)
    try:
        reader = AsiceReader(stream, view.size, trust=trust, now=now, limits=limits)
        forsendelse = _forsendelse(reader, required=require_forsendelse)
        view.check_padding()  # last, so that it fails where everything else may fail
    except BaseException:
        stream.close()
        raise
    return OpenedPackage(stream, reader, forsendelse)


def _forsendelse(reader: AsiceReader, *, required: bool) -> Forsendelse | None:
    sizes = {file.name: file.size for file in reader.files}
    if FILENAME not in sizes:
        if required:
            raise UnsealError
        return None
    if sizes[FILENAME] > _MAX_FORSENDELSE_BYTES:
        raise UnsealError
    try:
        return Forsendelse.from_json(b"".join(reader.read(FILENAME)))
    except InvalidDocumentError:
        raise UnsealError from None


def check_forsendelse(found: Forsendelse | None, expected: Forsendelse) -> None:
    """Compare what the sender signed with what the record says in clear, so that a moved package is refused.

    Identity is always compared. ``nav_ekstern_ref_id``, ``hastegrad`` and ``enhetsnummer``, which older senders do not sign, are
    compared when they were signed. Who signed the first two knows of the third, so leaving it out means that there is none.

    Args:
        found: ``OpenedPackage.forsendelse``.
        expected: Built from the record.

    Raises:
        MismatchError: They differ, or there is none. The text has the names of the fields, never their values.
    """
    if found is None:
        raise MismatchError(f"pakken har ingen {FILENAME}")
    stated, wanted = found.model_dump(), expected.model_dump()
    complete = found.nav_ekstern_ref_id is not None and found.hastegrad is not None
    differing = [
        name
        for name in Forsendelse.model_fields
        if stated[name] != wanted[name] and (complete or name in _ALWAYS_SIGNED or stated[name] is not None)
    ]
    if differing:
        raise MismatchError(f"pakken og meldingen er uenige om {', '.join(differing)}")
