"""The parts of a submission as they come in: JSON that is gathered, and files that only pass through.

A file's plaintext is looked at and handed on within the call that brought it; none of it is kept.

What is wrong inside of an encrypted file is not raised here but noted in its ``Delivered``, and the work goes on as if nothing
was wrong: neither an answer that comes early nor a file that costs less may tell what is in it (``producers.intake``, rule 4).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Protocol

from crypto.cms import CmsDecryptor
from producers.checks import ENCRYPTION, HEAD_BYTES, Delivered, check_type, declared_type
from schemas.errors import RefusedError, UnsealError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from crypto.keys import KeyRing
    from producers.checks import FilMetadata
    from producers.envelopes import SeenKeys, Sender

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
        done: Gets the file when all of it has come.
        seen: Whose the wrapped keys of envelopes are.
        sender: Who sends this one.
        now: Aware UTC.
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
        done: Callable[[Delivered], None],
        seen: SeenKeys,
        sender: Sender,
        now: datetime,
    ) -> None:
        self._nr = nr
        self._type = declared_type(metadata.mimetype, nr)
        self._stated = metadata.storrelse
        self._keys = keys
        self._clear_files = clear_files
        self._check_size = check_size
        self._out = out
        self._done = done
        self._seen = seen
        self._sender = sender
        self._now = now
        self._started = False
        self._decryptor: CmsDecryptor | None = None
        self._unwrapped = False
        self._head = b""
        self._size = 0
        self._sha512 = hashlib.sha512()
        self._sealed_sha256 = hashlib.sha256()
        self._wrapped: frozenset[bytes] = frozenset()
        self._as_stated = True

    def write(self, data: bytes) -> bool:
        """Decrypt, check and hand on; see ``Part``."""
        if not self._started:
            self._start(data)
        if self._decryptor is None:
            self._plain(data)
            return False
        self._sealed_sha256.update(data)
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
            self._wrapped = self._decryptor.wrapped_keys()
            if not self._seen.claim(self._sender, self._wrapped, self._now):
                raise self._unreadable()
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
            self._end_envelope(self._decryptor)
        if self._size != self._stated:
            self._wrong(
                RefusedError(
                    400, f"fil nr {self._nr}: storrelse i metadata er ikke filens størrelse", reason="storrelse-avvik"
                )
            )
        if self._size < HEAD_BYTES:
            self._check_type()
        encrypted = self._decryptor is not None
        self._done(Delivered(self._nr, self._sha512.hexdigest(), encrypted=encrypted, as_stated=self._as_stated))

    def _end_envelope(self, decryptor: CmsDecryptor) -> None:
        if not self._unwrapped:
            raise self._unreadable()
        if not self._seen.settle(self._sender, self._wrapped, self._sealed_sha256.digest(), self._now):
            raise self._unreadable()
        try:
            rest = decryptor.finalize()
        except UnsealError:
            self._as_stated = False
            return
        try:
            if rest:
                self._plain(rest)
        except RefusedError:  # too large by what the padding says
            self._as_stated = False

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
                self._check_type()
        self._sha512.update(data)
        self._out(data)

    def _check_type(self) -> None:
        try:
            check_type(self._head, self._type, self._nr)
        except RefusedError as error:
            self._wrong(error)

    def _wrong(self, error: RefusedError) -> None:
        """Raise what is wrong with the content of a file in clear; only note it of an encrypted one."""
        if self._decryptor is None:
            raise error
        self._as_stated = False

    def _unreadable(self) -> RefusedError:
        # Of the envelope's structure and recipients, which anybody can see, and of keys that are not this sender's.
        return RefusedError(
            400,
            f"fil nr {self._nr} kan ikke dekrypteres med nøkkelen fra dokumentlager-public-key; krypter den på nytt",
            reason=ENCRYPTION,
        )
