"""Which channel a message is on, and what comes too late from a channel that it has been taken back from. Pure.

Rules:

1. A channel is withdrawn from a message by TTL_TIDSAVBRUDD or MAX_RETRIESAVBRUDD on it. What it answers about a later moment is
   late: shown, and without effect, since the next channel has the message now.
2. A later SENDT on the channel opens it again, and so does BEKREFTET: the sender found that the channel had answered before the
   next one began.
3. A person who stops or recalls a message (STOPPET, TILBAKEKALT) withdraws it from every channel, for good.
4. Moments are compared, not places on topics: which topic was read first must not matter. The same moment is in time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from schemas.records import (
    TRANSPORT_BEKREFTET,
    TRANSPORT_MAX_RETRIESAVBRUDD,
    TRANSPORT_SENDT,
    TRANSPORT_STOPPET,
    TRANSPORT_TILBAKEKALT,
    TRANSPORT_TTL_TIDSAVBRUDD,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from schemas.names import MeldingId
    from schemas.records import TransportRecord

WITHDRAWS: Final = frozenset({TRANSPORT_TTL_TIDSAVBRUDD, TRANSPORT_MAX_RETRIESAVBRUDD})
OPENS: Final = frozenset({TRANSPORT_SENDT, TRANSPORT_BEKREFTET})
ENDS: Final = frozenset({TRANSPORT_STOPPET, TRANSPORT_TILBAKEKALT})


@dataclass(frozen=True, slots=True)
class Withdrawals:
    """What one søknad's transport events say about its messages' channels. Made by ``withdrawals_of``.

    Attributes:
        ended: When a person ended a message, by message.
        withdrawn: When each channel was withdrawn last, by message and channel.
        opened: When each channel was opened last, by message and channel.
    """

    ended: dict[MeldingId, datetime] = field(default_factory=dict["MeldingId", "datetime"])
    withdrawn: dict[tuple[MeldingId, str], datetime] = field(default_factory=dict["tuple[MeldingId, str]", "datetime"])
    opened: dict[tuple[MeldingId, str], datetime] = field(default_factory=dict["tuple[MeldingId, str]", "datetime"])

    def is_late(self, melding_id: MeldingId, kanal: str, tidspunkt: datetime) -> bool:
        """Return whether what ``kanal`` says about this moment comes too late to count."""
        return self.is_ended(melding_id, tidspunkt) or self._is_withdrawn((melding_id, kanal), tidspunkt)

    def is_ended(self, melding_id: MeldingId, tidspunkt: datetime) -> bool:
        """Return whether a person had ended the message before this moment (rule 3)."""
        ended = self.ended.get(melding_id)
        return ended is not None and ended < tidspunkt

    def _is_withdrawn(self, place: tuple[MeldingId, str], tidspunkt: datetime) -> bool:
        withdrawn = self.withdrawn.get(place)
        if withdrawn is None or withdrawn >= tidspunkt:
            return False
        opened = self.opened.get(place)
        return opened is None or opened <= withdrawn


def withdrawals_of(transport: Iterable[TransportRecord]) -> Withdrawals:
    """Return what these events of one søknad say."""
    found = Withdrawals()
    for record in transport:
        place = record.melding_id, record.kanal
        if record.type in WITHDRAWS:
            found.withdrawn[place] = max(record.tidspunkt, found.withdrawn.get(place, record.tidspunkt))
        elif record.type in OPENS:
            found.opened[place] = max(record.tidspunkt, found.opened.get(place, record.tidspunkt))
        elif record.type in ENDS:
            melding_id = record.melding_id
            found.ended[melding_id] = min(record.tidspunkt, found.ended.get(melding_id, record.tidspunkt))
    return found
