"""The receiver's one private copy of a package, and plaintext read from anywhere in it without writing any down.

1. Only ciphertext is kept: in memory up to 1 MiB, then in a file of mode 0600 that has no name.
2. The digest and the size are those of the package as it came, byte for byte, even when it is not an envelope at all: a
   negative kvittering must name what was received.
3. A broken package does not stop ``write``; it is refused where it is opened, with the one error for every cause.

CBC makes random access possible: a block is decrypted with nothing but itself and the block before it.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Self

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from crypto.algorithms import BLOCK_BYTES
from crypto.ber import EnvelopeScanner
from crypto.cms import check_version, content_key, strip_padding
from crypto.limits import DEFAULT_LIMITS, MIB, Limits
from schemas.errors import StoreError, UnsealError
from schemas.names import Sha256

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from _typeshed import WriteableBuffer

    from crypto.ber import EnvelopeHeader
    from crypto.content_key import ContentKey
    from crypto.keys import KeyRing

READ_AHEAD_BYTES = 128 * 1024


class Spool:
    """Takes the bytes of a package as they come, and keeps its ciphertext until it is closed.

    Args:
        memory_bytes: How much ciphertext stays in memory before it goes to a file.
        directory: Where the file is made; the system's folder for temporary files if None.
        limits: ``max_package_bytes`` and ``max_header_bytes``; beyond them nothing more is kept.
    """

    def __init__(
        self, *, memory_bytes: int = MIB, directory: Path | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._limits = limits
        self._scanner = EnvelopeScanner(self._limits.max_header_bytes)
        folder = None if directory is None else str(directory)
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(memory_bytes, dir=folder)  # noqa: SIM115 - close() closes it
        self._digest = hashlib.sha256()
        self._size = 0
        self._kept = 0
        self._broken = False
        self._finished = False
        self._unlocked: tuple[KeyRing | ContentKey, ContentKey] | None = None

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take the next bytes of the package, in any chunks, and return how many.

        Raises:
            StoreError: The file cannot be written: a full disk, for example.
            RuntimeError: After ``finish``.
        """
        if self._finished:
            raise RuntimeError("write after finish")
        self._digest.update(data)
        self._size += len(data)
        if self._size > self._limits.max_package_bytes:
            self._broken = True
        if not self._broken:
            self._keep(data)
        return len(data)

    def finish(self) -> None:
        """Say that the package is complete."""
        if self._finished:
            return
        self._finished = True
        if self._broken:
            return
        try:
            self._scanner.finish()
            check_version(self._scanner)
        except UnsealError:
            self._broken = True

    @property
    def sha256(self) -> Sha256:
        """The digest of everything written, as it came."""
        return Sha256(self._digest.hexdigest())

    @property
    def size(self) -> int:
        """How many bytes were written."""
        return self._size

    def unlock(self, keys: KeyRing | ContentKey) -> None:
        """Do the private operation of ``plaintext`` now: alone in a thread it lets go of the interpreter, the rest does not.

        Nothing is raised for what is in the package: ``plaintext`` tells.

        Raises:
            RuntimeError: Before ``finish``, or after ``close``.
        """
        with suppress(UnsealError):
            self._unlocked = (keys, content_key(self._header(), keys))

    def plaintext(self, keys: KeyRing | ContentKey) -> CbcView:
        """Return a view of the plaintext; it is not authentic until a signature inside has been verified.

        Raises:
            UnsealError: Not an envelope, not whole, or not for these keys.
            RuntimeError: Before ``finish``, or after ``close``.
        """
        header = self._header()
        known = self._unlocked
        key = known[1] if known is not None and known[0] is keys else content_key(header, keys)
        return CbcView(self._file, self._kept, key)

    def _header(self) -> EnvelopeHeader:
        if not self._finished or self._file.closed:
            raise RuntimeError("the spool is not finished, or it is closed")
        header = self._scanner.header
        if self._broken or header is None or self._kept % BLOCK_BYTES or not self._kept:
            raise UnsealError
        return header

    def close(self) -> None:
        """Forget the ciphertext."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _keep(self, data: bytes | bytearray | memoryview) -> None:
        try:
            pieces = self._scanner.feed(data)
        except UnsealError:
            self._broken = True
            return
        try:
            for piece in pieces:
                self._kept += self._file.write(piece)
        except OSError as error:
            raise StoreError(f"pakken kan ikke mellomlagres ({error.strerror})") from error


class CbcView(io.RawIOBase):
    """AES-256-CBC ciphertext, read as plaintext from any position.

    Broken padding does not raise until ``check_padding``: whoever reads goes the same way as for any other damage, and refuses
    at the same place.

    Args:
        file: Seekable, holds ciphertext from position 0.
        size: Ciphertext bytes, whole blocks and at least one.
        key: What decrypts it.
    """

    def __init__(self, file: IO[bytes], size: int, key: ContentKey) -> None:
        super().__init__()
        self._file = file
        self._cipher = AES(key.key)
        self._iv = key.iv
        self._end = size
        self._at = 0
        rest = strip_padding(self._decrypt(size - BLOCK_BYTES, size))
        self._padding_ok = rest is not None
        self.size = size - BLOCK_BYTES + len(rest) if rest is not None else size

    def check_padding(self) -> None:
        """Raise ``UnsealError`` if the padding at the end is broken."""
        if not self._padding_ok:
            raise UnsealError

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the plaintext."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move in the plaintext, as every file does."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError("negative position")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill ``buffer`` with plaintext from the position on; return how much, 0 at the end."""
        target = memoryview(buffer).cast("B")
        stop = min(self._at + len(target), self.size)
        if stop <= self._at:
            return 0
        first = self._at - self._at % BLOCK_BYTES
        last = min(-(-stop // BLOCK_BYTES) * BLOCK_BYTES, self._end)
        plain = memoryview(self._decrypt(first, last))
        count = stop - self._at
        target[:count] = plain[self._at - first : stop - first]
        self._at = stop
        return count

    def _decrypt(self, first: int, last: int) -> bytes:
        """Return the plaintext of whole blocks from ``first`` to ``last``."""
        start = max(first - BLOCK_BYTES, 0)
        try:
            self._file.seek(start)
            ciphertext = self._file.read(last - start)
        except OSError as error:
            raise StoreError(f"den mellomlagrede pakken kan ikke leses ({error.strerror})") from error
        if len(ciphertext) != last - start:
            raise StoreError("den mellomlagrede pakken er blitt kortere")
        iv = self._iv if first == 0 else ciphertext[:BLOCK_BYTES]
        decryptor = Cipher(self._cipher, CBC(iv)).decryptor()
        return decryptor.update(ciphertext if first == 0 else memoryview(ciphertext)[BLOCK_BYTES:])
