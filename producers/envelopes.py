"""What is remembered of envelopes that clients sealed for us, so that nobody can ask about somebody else's.

CBC has no tag. Whoever holds another person's envelope can change it, send it as his own and see whether it is taken: each try
tells a little of what is in it. ``producers.intake`` says what an answer may depend on; here is what bounds the number of tries.

Rules:

1. A wrapped content key belongs to the person and reference that came with it first, and to the bytes that came with it. The
   same bytes may come again, as retries do. A key with other bytes, from another person or for another reference, is refused. It
   is the key that counts and not the IV, which an attacker changes at will.
2. A person whose envelopes could not be opened so many times within an hour must wait.
3. All of it is in memory, bounded, and gone after a restart: it makes tries few and slow, not impossible.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock
from typing import TYPE_CHECKING, Final

from producers import metrics

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from schemas.names import Eier, NavEksternRefId

KEEP: Final = timedelta(hours=24)
MAX_KEYS: Final = 20_000
MAX_KEYS_OF_ONE: Final = 4
"""Wrapped keys in one envelope that are for us; .NET's clients write two."""

WINDOW: Final = timedelta(hours=1)
MAX_FAILURES: Final = 10
MAX_PERSONS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Sender:
    """Who came with an envelope, and for which submission."""

    eier: Eier
    nav_ekstern_ref_id: NavEksternRefId


@dataclass(slots=True)
class _Seen:
    sender: Sender
    at: datetime
    sha256: bytes | None = None


class SeenKeys:
    """The wrapped keys that came lately. May be called from any thread.

    Args:
        max_keys: How many are remembered; the oldest are forgotten first.
    """

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()
        self._lock = Lock()

    def claim(self, sender: Sender, wrapped: Iterable[bytes], now: datetime) -> bool:
        """Take an envelope's keys for ``sender``, before the envelope is opened; return False when they are not his."""
        digests = {hashlib.sha256(key).digest() for key in wrapped}
        with self._lock:
            former = [seen for digest in digests if (seen := self._find(digest, now)) is not None]
            if len(digests) > MAX_KEYS_OF_ONE or any(seen.sender != sender for seen in former):
                metrics.CLIENT_KEYS_REPEATED.inc()
                return False
            for digest in digests:
                self._seen.setdefault(digest, _Seen(sender, now))
            while len(self._seen) > self._max_keys:
                self._seen.popitem(last=False)
            return True

    def settle(self, sender: Sender, wrapped: Iterable[bytes], sha256: bytes, now: datetime) -> bool:
        """Tie keys that were claimed to the envelope's bytes; return False when they came with others before.

        Args:
            sender: As ``claim``.
            wrapped: As ``claim``.
            sha256: Digest of the whole envelope as it came.
            now: Aware UTC.
        """
        digests = {hashlib.sha256(key).digest() for key in wrapped}
        with self._lock:
            entries = [self._seen.setdefault(digest, _Seen(sender, now)) for digest in digests]
            if any(seen.sender != sender or seen.sha256 not in {None, sha256} for seen in entries):
                metrics.CLIENT_KEYS_REPEATED.inc()
                return False
            for seen in entries:
                seen.sha256 = sha256
            return True

    def _find(self, digest: bytes, now: datetime) -> _Seen | None:
        seen = self._seen.get(digest)
        if seen is not None and now - seen.at > KEEP:
            del self._seen[digest]
            return None
        return seen


class Failures:
    """How often each person's envelopes could not be opened lately. For one thread."""

    def __init__(self) -> None:
        self._times: OrderedDict[Eier, deque[datetime]] = OrderedDict()

    def note(self, eier: Eier, now: datetime) -> None:
        """Take note of one more."""
        self._times.setdefault(eier, deque(maxlen=MAX_FAILURES)).append(now)
        self._times.move_to_end(eier)
        while len(self._times) > MAX_PERSONS:
            self._times.popitem(last=False)

    def too_many(self, eier: Eier, now: datetime) -> bool:
        """Return whether this person must wait."""
        times = self._times.get(eier)
        return times is not None and len(times) == MAX_FAILURES and now - times[0] < WINDOW
