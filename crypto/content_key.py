"""The key of one package's content.

Whoever has it can open the package, or give it a new recipient. Whoever forgets it cannot, and neither can anybody else but the
recipients that the package already has.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Self

from crypto.algorithms import BLOCK_BYTES, KEY_BYTES


@dataclass(frozen=True, slots=True)
class ContentKey:
    """What decrypts a package's content: an AES-256 key and the IV that the envelope names. Its ``repr`` shows neither."""

    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """Return a fresh one, for one package."""
        return cls(os.urandom(KEY_BYTES), os.urandom(BLOCK_BYTES))
