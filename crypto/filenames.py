"""Which names a file in a package may have: the same rules when we pack and when we read.

A receiver writes these names to disks of every kind, so a name is refused when any of them would take it for another
place, another file, or nothing at all. Slashes make folders and are allowed between parts.
"""

from __future__ import annotations

import re
import unicodedata

MAX_NAME_BYTES = 255
_FORBIDDEN = frozenset('\\:*?"<>|')
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def problem(name: str) -> str | None:
    """Return why ``name`` is not allowed for a payload file, in Norwegian and without the name, or None if it is."""
    reason = None
    if not 0 < len(name.encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES:
        reason = f"filnavnet er tomt eller lengre enn {MAX_NAME_BYTES} byte"
    elif any(letter in _FORBIDDEN or unicodedata.category(letter) in _INVISIBLE for letter in name):
        reason = "filnavnet har tegn som ikke er tillatt"
    elif any(not part or part != part.rstrip(" .") or part != part.lstrip(" ") for part in name.split("/")):
        reason = "filnavnet har en tom del, eller en del som er eller slutter på punktum eller mellomrom"
    elif any(_DEVICE.fullmatch(part) for part in name.split("/")):
        reason = "filnavnet er reservert av operativsystemet"
    elif is_reserved(name):
        reason = "filnavnet er reservert av pakkeformatet"
    return reason


def same(name: str) -> str:
    """Return what is equal for two names that some file system takes for one: other case, or other Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_reserved(name: str) -> bool:
    """Return whether the package format itself uses the name."""
    folded = same(name)
    return folded in {"mimetype", "meta-inf"} or folded.startswith("meta-inf/")
