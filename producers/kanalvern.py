"""Everything about the other channels, put together for the composition root: what is read, what is sent, and where to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from broker.kafka.subscriber import KafkaTail
from broker.log import get_logger
from producers.eskalering import Eskalerer
from producers.eskalering_follower import Withdrawals
from producers.utskrift import Utskrift
from schemas.errors import ChannelUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from broker.clock import Clock
    from broker.kafka.settings import KafkaSettings
    from broker.katalog import Katalog, KatalogFollower
    from broker.record import TopicPartition
    from producers.avsenderkopi import Avsenderkopier
    from producers.kanaler import Kanal
    from producers.outbox import Outbox


class Kanalvern:
    """The other channels of one process.

    Args:
        kopier: What is sent.
        outbox: Where what happened goes.
        katalog: Each kommune's channels.
        following: Keeps the katalog.
        kafka: Where withdrawals are read, and as whom.
        clock: What the time is.
        utskrift: Folder of the print channel; None where nobody prints.
    """

    def __init__(
        self,
        kopier: Avsenderkopier,
        outbox: Outbox,
        *,
        katalog: Katalog,
        following: KatalogFollower,
        kafka: KafkaSettings,
        clock: Clock,
        utskrift: Path | None,
    ) -> None:
        def tail(topics: Iterable[str], offsets: Mapping[TopicPartition, int]) -> KafkaTail:
            return KafkaTail(kafka, topics, offsets=offsets, client_id="producers-eskalering")

        self._katalog_ready = following.caught_up
        self._withdrawals = Withdrawals(kopier.database, tail, clock)
        self._eskalerer = Eskalerer(
            kopier=kopier, katalog=katalog, kanaler=_channels(utskrift), clock=clock, added=outbox.added
        )
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to read withdrawals, and to send."""
        self._tasks = [
            tasks.create_task(self._withdrawals.run()),
            tasks.create_task(self._eskalerer.run(self._katalog_ready)),
        ]

    async def stop(self) -> None:
        """End; what was under way is done again after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _channels(utskrift: Path | None) -> list[Kanal]:
    if utskrift is None:
        return []
    channel = Utskrift(utskrift)
    try:
        channel.prepare()
    except (
        ChannelUnavailableError
    ) as error:  # søknader are taken in all the same; the channel says so when it is needed
        get_logger().critical("print_folder_unusable", mappe=str(utskrift), exc_info=error)
    return [channel]
