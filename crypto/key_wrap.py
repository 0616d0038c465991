"""How a sender keeps the key of a package's content: wrapped by a key of its own (KEK).

The sender's copy of what was sent is the package itself and its wrapped key, and destroying the latter destroys the copy.

Wrapping is AES-256-GCM with a fresh 96-bit nonce and a name (``melding_id``) as associated data: a wrapped key that is moved to
another melding does not unwrap. Random nonces are good for 2**32 keys under one KEK (NIST SP 800-38D section 8.3).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crypto.algorithms import BLOCK_BYTES, KEY_BYTES
from crypto.content_key import ContentKey
from crypto.keys import load_secret
from schemas.errors import KeyFileError, UnsealError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KEK_BYTES: Final = 32
NONCE_BYTES: Final = 12
_ID_CHARS: Final = 16
_ID_LABEL: Final = b"meldingsformidler kopinokkel"


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A content key that only the KEK's owner can unwrap.

    Attributes:
        kek_id: Which KEK; 16 hex digits.
        data: Nonce, ciphertext and tag, 76 bytes.
    """

    kek_id: str
    data: bytes = field(repr=False)


class KeyWrapper:
    """Wraps content keys with the first of its KEKs, and unwraps with any: that is how a KEK is changed.

    Args:
        keks: 32 random bytes each, at least one.

    Raises:
        ValueError: There is none, or one has another length.
    """

    def __init__(self, keks: Sequence[bytes]) -> None:
        if not keks or any(len(kek) != KEK_BYTES for kek in keks):
            raise ValueError(f"a KEK is {KEK_BYTES} bytes, and there must be one")
        self._keks = {kek_id(kek): AESGCM(kek) for kek in keks}
        self._newest = kek_id(keks[0])

    @classmethod
    def load(cls, *paths: Path) -> Self:
        """Read KEKs from files of hexadecimal digits that nobody else may read; the first one wraps.

        Raises:
            KeyFileError: A file is missing, readable by others, or holds something else; or there is none.
        """
        keks = [load_secret(path, KEK_BYTES) for path in paths]
        for path, kek in zip(paths, keks, strict=True):
            if len(kek) != KEK_BYTES:
                raise KeyFileError(f"{path}: har {len(kek)} byte, og skal ha {KEK_BYTES}")
        if not keks:
            raise KeyFileError("ingen nøkkelfil for avsenderkopier er oppgitt")
        return cls(keks)

    def wrap(self, content_key: ContentKey, name: str) -> WrappedKey:
        """Wrap a content key under a name that must be given again to unwrap it."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._keks[self._newest].encrypt(nonce, content_key.key + content_key.iv, name.encode())
        return WrappedKey(self._newest, nonce + sealed)

    def unwrap(self, wrapped: WrappedKey, name: str) -> ContentKey:
        """Return the content key.

        Raises:
            KeyFileError: Its KEK is not among ours.
            UnsealError: It was altered, or belongs to another name.
        """
        kek = self._keks.get(wrapped.kek_id)
        if kek is None:
            raise KeyFileError(f"kopien er låst med nøkkel {wrapped.kek_id}, og den er ikke blant de oppgitte")
        try:
            plain = kek.decrypt(wrapped.data[:NONCE_BYTES], wrapped.data[NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError):
            raise UnsealError from None
        if len(plain) != KEY_BYTES + BLOCK_BYTES:
            raise UnsealError
        return ContentKey(plain[:KEY_BYTES], plain[KEY_BYTES:])


def kek_id(kek: bytes) -> str:
    """Return what a KEK is called: the first 16 hex digits of a digest of it."""
    return hashlib.sha256(_ID_LABEL + kek).hexdigest()[:_ID_CHARS]
