"""What the shells need of a message broker, as contracts that a fake can keep too.

The only implementation that ships is ``broker.kafka``. All errors are of ``schemas.errors``; what is retriable says so itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol, TypeAlias

from broker.record import Incoming, TopicPartition

if TYPE_CHECKING:
    from broker.record import Outgoing, RecordPosition
    from schemas.errors import TransportError


class Publisher(Protocol):
    """Puts records on topics, durably.

    Who calls: one event loop, from any number of tasks at once. A record is acknowledged when every in-sync replica has it.
    Records of one key are written in the order in which their calls began, as long as none of them failed.

    A record may be written twice if an error was reported and the caller tries again: publishing is at least once, and readers
    know duplicates by their ids.
    """

    async def publish(self, outgoing: Outgoing) -> RecordPosition:
        """Return when the record is durable on its topic.

        Raises:
            BrokerUnavailableError: Not known to be written. Call again with the same record, later.
            RecordTooLargeError: Never written, and never will be. Do not repeat.
            AccessDeniedError: Our principal may not write there. Repeat only after an administrator has acted.
            TransportError: Any other refusal; ``retriable`` says whether to call again.
        """
        ...

    async def publish_all(self, batch: Iterable[Outgoing]) -> Sequence[RecordPosition | TransportError]:
        """Publish many at once, pipelined; return each one's outcome, in the order of ``batch``.

        Never raises for a record: an outcome that is an error is one that ``publish`` would have raised. A record behind a
        failed one of the same key may have been written, so a caller that needs order per key repeats both.
        """
        ...

    async def warm(self, topics: Iterable[str]) -> None:
        """Learn where the topics' partitions are, all at once: publishing does so one topic at a time, which is slow for 357.

        Calling it is never necessary. A topic that does not exist, or that we may not see, is left for ``publish`` to report.
        """
        ...


class RebalanceListener(Protocol):
    """Is told when partitions come and go.

    Called by the subscriber from its own task, never two calls at once. No records of the new assignment come before
    ``assigned`` has returned, and the group waits for ``revoked``: be quick (well under the session timeout), and never call
    ``commit`` for a partition after ``revoked`` has returned. An exception from either stops the subscriber and comes out of
    its iteration.
    """

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Partitions go to another member, or are lost already. Finish or forget what is open; commit what is done."""
        ...

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Partitions are ours from now on; these are *all* that we have."""
        ...


class Subscriber(Protocol):
    """Reads topics as a member of a consumer group, from the group's last commit, or from the beginning.

    Who calls: one task iterates; commits and pauses may come from others on the same loop. Nothing is committed unless
    ``commit`` is called, so whatever was read and not committed comes again, to us or to another member.
    """

    def __aiter__(self) -> AsyncIterator[Sequence[Incoming]]:
        """Iterate over batches, never empty; in one batch, and from batch to batch, a partition's records are in order.

        Raises:
            AccessDeniedError: Our principal may not read these topics or join this group.
            TransportError: Reading cannot go on. Outages are waited out and do not come out of here.
        """
        ...

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Record that everything *before* these offsets is done.

        Raises:
            PartitionLostError: A partition has gone to another member, which will read the records again. Forget them.
            BrokerUnavailableError: Call again, with these or higher offsets.
        """
        ...

    def pause(self, *partitions: TopicPartition) -> None:
        """Read no more of these until ``resume``. A partition that is not ours, or paused already, is passed over.

        A pause ends when the partition is revoked. Records of a batch already handed out are the caller's.
        """
        ...

    def resume(self, *partitions: TopicPartition) -> None:
        """Read these again. A partition that is not ours, or not paused, is passed over."""
        ...


class Tail(Protocol):
    """A reader of whole topics, from given offsets on; see ``broker.kafka.subscriber.KafkaTail``."""

    caught_up: asyncio.Event
    """Set when everything that lay on the topics at the start was handed out and dealt with."""
    first: Mapping[TopicPartition, int]
    """The first offset that each partition still had at the start."""
    total: int
    """How many records there were to read at the start, holes counted."""

    def __aiter__(self) -> AsyncIterator[Sequence[Incoming]]:
        """Iterate over batches, never empty, in order for each partition."""
        ...

    async def ends(self, topics: Collection[str]) -> dict[TopicPartition, int]:
        """Return where those of ``topics`` that are read here end now.

        Raises:
            TransportError: The broker does not say.
        """
        ...

    async def has_read(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Return whether everything before these offsets was handed out and dealt with."""
        ...


OpenTail: TypeAlias = Callable[[Iterable[str], Mapping[TopicPartition, int]], AbstractAsyncContextManager[Tail]]
"""Opens a reader of topics; where no offset is given, from the first record on."""
