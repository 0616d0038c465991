"""Where a sealed package is written: memory while it is small, the dokumentlager when it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.records import MAX_INLINE_PACKAGE_BYTES

if TYPE_CHECKING:
    from producers.dokumentlager import Dokumentlager, PackageSink
    from schemas.names import DokumentlagerId


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a whole package is: in ``pakke`` or under ``dokumentlager_id``, never both."""

    pakke: bytes | None
    dokumentlager_id: DokumentlagerId | None


class Spill:
    """Takes one package's bytes. At most ``inline_bytes`` of it are ever in memory.

    Args:
        dokumentlager: Takes what is larger.
        inline_bytes: The largest package that stays in memory and travels in the record.
    """

    def __init__(self, dokumentlager: Dokumentlager, inline_bytes: int = MAX_INLINE_PACKAGE_BYTES) -> None:
        self._dokumentlager = dokumentlager
        self._inline_bytes = inline_bytes
        self._memory = bytearray()
        self._sink: PackageSink | None = None

    @property
    def in_memory(self) -> bool:
        """Whether nothing has gone to the dokumentlager yet."""
        return self._sink is None

    def write(self, data: bytes) -> None:
        """Append to the package.

        Raises:
            StoreError: The dokumentlager cannot take it.
        """
        if self._sink is None and len(self._memory) + len(data) <= self._inline_bytes:
            self._memory += data
            return
        if self._sink is None:
            self._sink = self._dokumentlager.create()
            self._sink.write(bytes(self._memory))
            self._memory = bytearray()
        self._sink.write(data)

    def store(self) -> Stored:
        """Return where the package is; one in the dokumentlager is durable there from now on.

        Raises:
            StoreError: The dokumentlager cannot take it.
        """
        if self._sink is None:
            return Stored(bytes(self._memory), None)
        return Stored(None, self._sink.commit())

    def abort(self) -> None:
        """Forget the package, unless ``store`` has returned. May be called twice."""
        self._memory = bytearray()
        if self._sink is not None:
            self._sink.abort()
