"""The channels that a message may take when Kafka has not brought it: what one must do, and what its closing receipt means.

A channel is asked by one task at a time. What it is given is opened for it alone, and closed when ``send`` returns.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from schemas.records import KANAL_PRINT, TRANSPORT_UTSKREVET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from crypto.asice import PackageFile
    from producers.kopi_rows import Kopi
    from schemas.names import MeldingId
    from schemas.records import KatalogRecord

CLOSES: Final[Mapping[str, str]] = MappingProxyType({KANAL_PRINT: TRANSPORT_UTSKREVET})
"""Channel → the event that its closing receipt is. A channel that is not here closes with a kvittering MOTTATT of the receiver's.

UTSKREVET: printed and handed over, which the citizen sees as sent on paper. The sender's copy is destroyed for it."""


class OpenedFiles(Protocol):
    """A message's files in clear."""

    @property
    def files(self) -> Sequence[PackageFile]:
        """Every file, in the package's order."""
        ...

    def read(self, name: str) -> Iterator[bytes]:
        """Release a file in pieces."""
        ...


class Kanal(Protocol):
    """A channel."""

    navn: str
    """As the katalog names it."""

    async def send(self, kopi: Kopi, opened: OpenedFiles, entry: KatalogRecord, now: datetime) -> None:
        """Take a message; when this returns, the channel has it durably. A message that it has already is taken as sent.

        Raises:
            ChannelUnavailableError: Not now. Call again.
            ChannelError: Never.
            UnsealError: The files are not what they were when they were opened.
        """
        ...

    async def closed(self, waiting: Collection[MeldingId]) -> frozenset[MeldingId]:
        """Return those of ``waiting`` that the channel is done with.

        Raises:
            ChannelUnavailableError: Nobody can say now.
        """
        ...

    async def withdraw(self, melding_id: MeldingId) -> bool:
        """Take a message back; return False when it is too late, or was never there.

        Raises:
            ChannelUnavailableError: Not now. Call again.
        """
        ...


class Next(NamedTuple):
    """What comes after a channel.

    Attributes:
        skipped: Channels that the katalog names and nobody has built, in order.
        kanal: The channel to try; None when there is none left.
    """

    skipped: tuple[str, ...]
    kanal: str | None


def next_channel(channels: Sequence[str], after: str, available: Collection[str]) -> Next:
    """Return what comes after ``after`` in a kommune's order; from the beginning when the katalog does not name it any more."""
    left = channels[channels.index(after) + 1 :] if after in channels else [one for one in channels if one != after]
    skipped: list[str] = []
    for kanal in left:
        if kanal in available:
            return Next(tuple(skipped), kanal)
        skipped.append(kanal)
    return Next(tuple(skipped), None)
