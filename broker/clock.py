"""What time it is, as a value that is passed in.

The core takes ``now`` as an argument; a shell takes a ``Clock``, so that a test moves time instead of waiting for it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the present moment as an aware UTC ``datetime``."""


def system_clock() -> datetime:
    """Return the machine's time, aware, in UTC."""
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """Return ``moment`` as ISO 8601 in UTC with milliseconds and ``Z``: ``2026-11-23T12:00:00.000Z``.

    Raises:
        ValueError: ``moment`` is naive, so nobody knows when it was.
    """
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_milliseconds(moment: datetime) -> datetime:
    """Return ``moment`` cut to whole milliseconds, which is all that a record can say of it."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
