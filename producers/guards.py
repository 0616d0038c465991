"""What keeps an instance from doing harm: leases among instances, topics that are the right ones, a register that is not old."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from broker.kafka.identities import KafkaIdentities
from broker.kafka.subscriber import KafkaTail
from broker.sql import is_shared
from producers.gjenoppretting import Register
from producers.leases import POSTGRES_NOW, SoleLeases, SqlLeases
from producers.relay import Relay
from producers.relay_ports import BothGates, Collaborators
from producers.topic_watch import TopicWatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.clock import Clock
    from broker.kafka.settings import KafkaSettings
    from broker.katalog import Katalog
    from broker.ports import Publisher
    from broker.record import TopicPartition
    from broker.sql import Database
    from broker.web import Health
    from producers.forsegling import Forsegler
    from producers.outbox import Outbox
    from producers.packages import Packages


class Guards:
    """The guards of one process, over its database.

    Args:
        place: Where the database is: what several processes can open has leases.
        database: Opened.
        outbox: Is woken when something opens.
        katalog: Says which topics there are.
        kafka: Where, and as whom.
    """

    def __init__(self, place: str, database: Database, outbox: Outbox, katalog: Katalog, kafka: KafkaSettings) -> None:
        def tail(topics: Iterable[str], offsets: Mapping[TopicPartition, int]) -> KafkaTail:
            return KafkaTail(kafka, topics, offsets=offsets, client_id="producers-register")

        opened = outbox.added.set
        self.leases = SqlLeases(database, POSTGRES_NOW, outbox.added) if is_shared(place) else SoleLeases()
        self._identities = KafkaIdentities(kafka)
        self.topics = TopicWatch(database, self._identities, katalog, opened)
        self.register = Register(database, tail, opened)
        self._tasks: list[asyncio.Task[None]] = []

    def relay(
        self, outbox: Outbox, publisher: Publisher, clock: Clock, *, forsegler: Forsegler, packages: Packages
    ) -> Relay:
        """Return the relay, under these guards.

        Args:
            outbox: Where messages come from.
            publisher: Where they go.
            clock: What the time is.
            forsegler: Keeps back what is sealed for nobody.
            packages: Keeps back what is not whole.
        """
        collaborators = Collaborators(
            topics=BothGates(forsegler, self.topics),
            packages=packages,
            sealing=forsegler,
            gate=self.register.problem,
        )
        return Relay(outbox, publisher, clock, leases=self.leases, collaborators=collaborators)

    def add_checks(self, health: Health, relay: Relay) -> None:
        """Tell in ``/isready`` what is kept back, and why."""
        health.add_check("kafka", relay.problem)
        health.add_notice("meldinger", relay.notice)
        health.add_check("register", self.register.problem)
        health.add_notice("emner", self.topics.problem)  # the others' søknader leave
        health.add_check("leie", self.leases.problem)

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin."""
        self._tasks = [tasks.create_task(self.topics.run()), tasks.create_task(self.register.run())]
        if isinstance(self.leases, SqlLeases):
            self._tasks.append(tasks.create_task(self.leases.run()))

    async def stop(self) -> None:
        """End, when the relay has; other instances may have our buckets at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if isinstance(self.leases, SqlLeases):
            await self.leases.release()
        self._identities.close()
