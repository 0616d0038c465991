"""What may keep the relay from publishing a message, as contracts; by default nothing does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from producers.outbox import Message, Queued


class TopicGate(Protocol):
    """Which topics take nothing because they are not the ones we know."""

    @property
    def version(self) -> int:
        """Another number whenever a topic has opened or closed; never a smaller one."""
        ...

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


class SealCheck(Protocol):
    """Sees that a message's package is sealed for somebody who may be sealed for, right before it is published."""

    async def current(self, queued: Queued) -> bool:
        """Return whether it is; if not, the message has been replaced, or its topic is closed now.

        Raises:
            CryptoError: It cannot be sealed again.
            CopyGoneError: There is nothing left to seal it again from.
            PackageMissingError: What it is sealed again from is not in the dokumentlager.
            StoreError: It cannot be read or written.
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


class NoSealCheck:
    """Every package is taken to be sealed for the right one."""

    async def current(self, queued: Queued) -> bool:
        """Return True."""
        _ = queued
        return True


class BothGates:
    """Two gates, one behind the other."""

    def __init__(self, first: TopicGate, second: TopicGate) -> None:
        self._first = first
        self._second = second

    @property
    def version(self) -> int:
        """Another number whenever one of them has another."""
        return self._first.version + self._second.version

    def closed(self, topic: str) -> bool:
        """Return whether one of them is closed."""
        return self._first.closed(topic) or self._second.closed(topic)


@dataclass(frozen=True)
class Collaborators:
    """What else has a say in what is published.

    Attributes:
        topics: Closes topics.
        packages: Checks packages.
        sealing: Checks for whom packages are sealed.
        gate: Says why nothing at all is published; None when it is. Whoever opens it wakes the outbox (``Outbox.added``).
    """

    topics: TopicGate = field(default_factory=OpenTopics)
    packages: PackageCheck = field(default_factory=NoPackageCheck)
    sealing: SealCheck = field(default_factory=NoSealCheck)
    gate: Callable[[], str | None] = lambda: None


@dataclass(frozen=True, slots=True)
class Closed:
    """Topics that are held, and those that the gate closes.

    Attributes:
        held: By name.
        gate: Closes more.
    """

    held: Container[object]
    gate: TopicGate

    def __contains__(self, topic: object) -> bool:
        return topic in self.held or self.gate.closed(str(topic))
