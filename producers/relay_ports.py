"""What may keep the relay from publishing a message, as contracts; by default nothing does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from producers.outbox import Message


class TopicGate(Protocol):
    """Which topics take nothing because they are not the ones we know."""

    version: int
    """Another number whenever a topic has opened or closed."""

    def closed(self, topic: str) -> bool:
        """Return whether nothing may be published there."""
        ...


class PackageCheck(Protocol):
    """Sees that a message's package in the dokumentlager is whole before the message tells a receiver of it."""

    async def check(self, message: Message) -> None:
        """Return when the package is what the message says, or it refers to none.

        Raises:
            PackageMissingError: There is no such package.
            PackageDamagedError: Its bytes are not the ones that were stored.
            StoreError: It cannot be read.
        """
        ...


class OpenTopics:
    """Every topic takes messages."""

    version = 0

    def closed(self, topic: str) -> bool:
        """Return False."""
        _ = topic
        return False


class NoPackageCheck:
    """Every package is taken to be whole."""

    async def check(self, message: Message) -> None:
        """Return at once."""
        _ = message


@dataclass(frozen=True)
class Collaborators:
    """What else has a say in what is published.

    Attributes:
        topics: Closes topics.
        packages: Checks packages.
        gate: Says why nothing at all is published; None when it is. Whoever opens it wakes the outbox (``Outbox.added``).
    """

    topics: TopicGate = field(default_factory=OpenTopics)
    packages: PackageCheck = field(default_factory=NoPackageCheck)
    gate: Callable[[], str | None] = lambda: None


@dataclass(frozen=True, slots=True)
class Closed:
    """Topics that are held, and those that the gate closes.

    Attributes:
        held: By name.
        gate: Closes more.
    """

    held: Container[str]
    gate: TopicGate

    def __contains__(self, topic: object) -> bool:
        return topic in self.held or self.gate.closed(str(topic))
