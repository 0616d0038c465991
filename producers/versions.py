"""The versions that a submission tells of: the sender's program's, in a header, and the form's, in ``soknad.json``.

They travel in clear, so that a recall finds what a faulty program has sent. Nothing that could be a person's number gets through.
"""

from __future__ import annotations

import re
from typing import Final

from schemas.errors import RefusedError

VERSION_HEADER: Final = "Formidler-Avsenderversjon"
MAX_CHARS: Final = 64

_PRINTABLE: Final = re.compile(rf"[!-~]{{1,{MAX_CHARS}}}|[!-~][ -~]{{0,{MAX_CHARS - 2}}}[!-~]", re.ASCII)
_ELEVEN_DIGITS: Final = re.compile(r"[0-9]{6} ?[0-9]{5}", re.ASCII)


def known_version(text: str) -> str | None:
    """Return ``text`` if it may stand in clear as a version, else None."""
    return text if _PRINTABLE.fullmatch(text) and not _ELEVEN_DIGITS.search(text) else None


def parse_version(text: str) -> str:
    """Return the version that a sender says it has.

    Raises:
        RefusedError: 400, it is none: 1 to 64 printable ASCII characters, without eleven digits in a row.
    """
    if (version := known_version(text)) is None:
        raise RefusedError(
            400,
            f"{VERSION_HEADER} skal være 1 til {MAX_CHARS} synlige ASCII-tegn, uten elleve siffer på rad",
            reason="versjon",
        )
    return version
