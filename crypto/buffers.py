"""Spare buffers for ciphertext: to touch fresh pages costs as much as to encrypt them.

Taking from a list and giving back are each one step, so threads never share a buffer; plaintext never goes into one.
"""

from __future__ import annotations

from typing import Final

MAX_SPARE: Final = 4
MAX_SPARE_BYTES: Final = 2 * 1024 * 1024

_SPARE: Final[list[bytearray]] = []


def borrow(size: int) -> bytearray:
    """Return a buffer of at least ``size`` bytes, with anything in it."""
    try:
        buffer = _SPARE.pop()
    except IndexError:
        buffer = bytearray()
    return buffer if len(buffer) >= size else bytearray(size)


def give_back(buffer: bytearray) -> None:
    """Take a buffer back that nobody uses any more."""
    if len(buffer) <= MAX_SPARE_BYTES and len(_SPARE) < MAX_SPARE:
        _SPARE.append(buffer)
