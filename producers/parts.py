"""The parts of a submission as they come in: JSON that is gathered, and files that only pass through.

A file's plaintext is looked at and handed on within the call that brought it; none of it is kept.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Protocol

from crypto.cms import CmsDecryptor
from producers.checks import HEAD_BYTES, check_type, declared_type
from schemas.errors import RefusedError, UnsealError

if TYPE_CHECKING:
    from collections.abc import Callable

    from crypto.keys import KeyRing
    from producers.checks import FilMetadata

ENVELOPE_START: Final = b"\x30"
"""SEQUENCE, with which every CMS envelope starts, and no PDF, PNG or JPEG."""


class Part(Protocol):
    """The part that is coming in."""

    def write(self, data: bytes) -> bool:
        """Take a piece of it, never empty; return whether ``unwrap`` must be called before anything else.

        Raises:
            RefusedError: It breaks a rule.
        """
        ...

    def unwrap(self) -> None:
        """Open the envelope that the piece before this showed: a private RSA operation.

        Raises:
            RefusedError: It cannot be opened, or what is in it breaks a rule.
        """
        ...

    def end(self) -> None:
        """Take note that it is complete.

        Raises:
            RefusedError: It breaks a rule.
        """
        ...


class JsonPart:
    """A part that is small enough to be gathered.

    Args:
        label: What it is called in an error.
        limit: The most bytes that it may have.
        take: Gets all of it.
    """

    def __init__(self, label: str, limit: int, take: Callable[[bytes], None]) -> None:
        self._label = label
        self._limit = limit
        self._take = take
        self._data = bytearray()

    def write(self, data: bytes) -> bool:
        """Gather; see ``Part``."""
        if len(self._data) + len(data) > self._limit:
            raise RefusedError(413, f"{self._label} er større enn {self._limit} byte", reason="storrelse")
        self._data += data
        return False

    def unwrap(self) -> None:
        """Do nothing: JSON comes in clear."""

    def end(self) -> None:
        """Hand over; see ``Part``."""
        self._take(bytes(self._data))


class FilePart:
    """A file, CMS-encrypted for us or in clear: decrypted, checked and handed on.

    Args:
        nr: Its position among the files, from 1.
        metadata: What was said of it.
        keys: Open the envelope.
        clear_files: Whether it may come in clear.
        check_size: Gets how much plaintext has come; raises when that is too much.
        out: Takes the plaintext.
        done: Gets the size in bytes and the SHA-512 in hex when all is right.
    """

    def __init__(
        self,
        nr: int,
        metadata: FilMetadata,
        *,
        keys: KeyRing,
        clear_files: bool,
        check_size: Callable[[int], None],
        out: Callable[[bytes], object],
        done: Callable[[int, str], None],
    ) -> None:
        self._nr = nr
        self._type = declared_type(metadata.mimetype, nr)
        self._stated = metadata.storrelse
        self._keys = keys
        self._clear_files = clear_files
        self._check_size = check_size
        self._out = out
        self._done = done
        self._started = False
        self._decryptor: CmsDecryptor | None = None
        self._unwrapped = False
        self._head = b""
        self._size = 0
        self._sha512 = hashlib.sha512()

    def write(self, data: bytes) -> bool:
        """Decrypt, check and hand on; see ``Part``."""
        if not self._started:
            self._start(data)
        if self._decryptor is None:
            self._plain(data)
            return False
        try:
            if not self._unwrapped:
                return self._decryptor.hold(data)
            plain = self._decryptor.update(data)
        except UnsealError:
            raise self._unreadable() from None
        if plain:
            self._plain(plain)
        return False

    def unwrap(self) -> None:
        """Open the envelope and hand on what was held; see ``Part``."""
        if self._decryptor is None:
            return
        try:
            self._decryptor.unwrap()
            self._unwrapped = True
            plain = self._decryptor.update(b"")
        except UnsealError:
            raise self._unreadable() from None
        if plain:
            self._plain(plain)

    def end(self) -> None:
        """Check what only the whole file shows; see ``Part``."""
        if not self._started:
            self._start(b"")
        if self._decryptor is not None:
            try:
                rest = self._decryptor.finalize()
            except UnsealError:
                raise self._unreadable() from None
            if rest:
                self._plain(rest)
        if self._size != self._stated:
            raise self._other_size()
        if self._size < HEAD_BYTES:
            check_type(self._head, self._type, self._nr)
        self._done(self._size, self._sha512.hexdigest())

    def _start(self, data: bytes) -> None:
        self._started = True
        if data.startswith(ENVELOPE_START):
            self._decryptor = CmsDecryptor(self._keys)
        elif not self._clear_files:
            raise RefusedError(
                400,
                f"fil nr {self._nr} er ikke kryptert; krypter den for sertifikatet fra dokumentlager-public-key",
                reason="klartekst",
            )

    def _plain(self, data: bytes) -> None:
        before = self._size
        self._size += len(data)
        self._check_size(self._size)
        if before < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - before]
            if self._size >= HEAD_BYTES:
                check_type(self._head, self._type, self._nr)
        self._sha512.update(data)
        self._out(data)

    def _other_size(self) -> RefusedError:
        if self._decryptor is not None:
            return self._unreadable()
        return RefusedError(
            400, f"fil nr {self._nr}: storrelse i metadata er ikke filens størrelse", reason="storrelse-avvik"
        )

    def _unreadable(self) -> RefusedError:
        # One text for a broken envelope and for a wrong size: CBC has no tag, and two texts would be a padding oracle.
        return RefusedError(
            400,
            f"fil nr {self._nr} kan ikke dekrypteres med nøkkelen fra dokumentlager-public-key, "
            "eller storrelse i metadata er ikke størrelsen i klartekst",
            reason="kryptering",
        )
