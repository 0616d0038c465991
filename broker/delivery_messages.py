"""What goes into the delivery state machine (``broker.delivery``) and what comes out of it, as values.

Events are past participles: something has happened. Commands are imperatives: a shell carries them out, in order, and reports
each ``Deliver``, ``Withdraw``, ``PublishKvittering`` and ``DeadLetter`` back with the ticket that it carried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from broker.record import Attempt
    from schemas.errors import MeldingsformidlerError


@dataclass(frozen=True, slots=True)
class Ticket:
    """One record in one assignment of its partition. Results bring it back."""

    partition: int
    offset: int
    generation: int


# Events: what has happened.


@dataclass(frozen=True, slots=True)
class Assigned:
    """These partitions are ours from now on, beside those that we have.

    Attributes:
        partitions: Their numbers.
        dead_keys: The keys with a dead letter that nobody has redriven, as the local store knows them now: another process may
            have had the partitions in the meantime. None when nothing has changed.
    """

    partitions: frozenset[int]
    dead_keys: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Revoked:
    """These partitions are no longer ours."""

    partitions: frozenset[int]


@dataclass(frozen=True, slots=True)
class Received:
    """A record was read.

    Attributes:
        partition: Its partition.
        offset: Its offset.
        key: Its key as text: the digisosId, or whatever a foreign writer put there.
        size: Bytes that it holds in memory until it is done.
        urgent: Nødhjelp.
        redriven: An operator has sent it again, so it goes although its key is dead.
        error: It cannot be read, so there is nothing to deliver.
        melding: The melding that it carries, or withdraws; None when it cannot be read.
        expires: From this moment on, aware UTC, its hand-over is not begun.
        withdraws: It carries nothing, and withdraws ``melding``.
    """

    partition: int
    offset: int
    key: str
    size: int = 0
    urgent: bool = False
    redriven: bool = False
    error: MeldingsformidlerError | None = None
    melding: str | None = None
    expires: datetime | None = None
    withdraws: bool = False


@dataclass(frozen=True, slots=True)
class WithdrawalSeen:
    """Further on in the topic than what was received stands a withdrawal of this melding, under this key."""

    partition: int
    key: str
    melding: str


@dataclass(frozen=True, slots=True)
class Handled:
    """There is an answer, and it is durable in the local store.

    Attributes:
        ticket: Of which record.
        repeated: The answer is from before and the fagsystem was not asked.
        revives: It was the last undelivered one of a dead key: what comes next on the key goes as usual.
        blocks: The søknad itself was withdrawn: what follows on the key must not reach the fagsystem.
    """

    ticket: Ticket
    repeated: bool = False
    revives: bool = False
    blocks: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The command for this record could not be carried out."""

    ticket: Ticket
    error: MeldingsformidlerError


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """The dead letter is durable on its topic, and the negative kvittering in the local store.

    Attributes:
        ticket: Of which record.
        answerable: There is a negative kvittering to publish.
        blocks: What follows on the key must wait; false when the melding had been delivered before.
    """

    ticket: Ticket
    answerable: bool
    blocks: bool = True


@dataclass(frozen=True, slots=True)
class KvitteringPublished:
    """The kvittering is durable on its topic."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Due:
    """Time has passed: ``next_due`` is reached."""


@dataclass(frozen=True, slots=True)
class Draining:
    """Start no more deliveries until partitions are assigned; let those that are out end."""


Event = (
    Draining
    | Assigned
    | Revoked
    | Received
    | WithdrawalSeen
    | Handled
    | Failed
    | DeadLettered
    | KvitteringPublished
    | Due
)


# Commands: what to do now, in order.


@dataclass(frozen=True, slots=True)
class Deliver:
    """Open the record and hand it to the fagsystem. Answer with ``Handled`` or ``Failed``."""

    ticket: Ticket
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Answer that the melding was withdrawn, or what was answered before. Answer with ``Handled`` or ``Failed``.

    Commanded for the withdrawn record and for the withdrawal itself: whichever comes first answers, the other one repeats.
    """

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class PublishKvittering:
    """Publish the stored kvittering. Answer with ``KvitteringPublished`` or ``Failed``."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Publish the dead letter, then store the negative kvittering. Answer with ``DeadLettered``, ``Handled`` or ``Failed``.

    ``Handled`` means that the local store has an answer for this very record already; it is published instead.
    """

    ticket: Ticket
    error: MeldingsformidlerError
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Retry:
    """Nothing to do but tell: the record is tried again at this time."""

    ticket: Ticket
    at: datetime
    error: MeldingsformidlerError
    attempts: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Read no more of these partitions."""

    partitions: frozenset[int]


@dataclass(frozen=True, slots=True)
class Resume:
    """Read these partitions again."""

    partitions: frozenset[int]


@dataclass(frozen=True, slots=True)
class FagsystemDown:
    """Nothing to do but tell: deliveries have stopped, and a probe is sent at this time."""

    probe_at: datetime
    error: MeldingsformidlerError


@dataclass(frozen=True, slots=True)
class FagsystemUp:
    """Nothing to do but tell: the fagsystem answers again."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything before ``offset`` in the partition is done."""

    partition: int
    offset: int


Command = (
    Deliver | Withdraw | PublishKvittering | DeadLetter | Retry | Pause | Resume | FagsystemDown | FagsystemUp | Commit
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be open at once, for one kommune.

    Attributes:
        running: Deliveries at the fagsystem at the same time.
        open_per_partition: Records read and not done.
        window: Records read and not yet passed by a commit, done ones too: so many may come again after a crash.
        open_bytes: Bytes of records that are not done.
    """

    running: int = 32
    open_per_partition: int = 1000
    window: int = 20_000
    open_bytes: int = 8 * 1024 * 1024
