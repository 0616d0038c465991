"""The receiving processes of ``bench_latency``, each a real process of its own: ``python _children.py kvittering FOLDER``.

Kafka is in the environment, as for any process of ours. What the citizen could see is written to stdout as it becomes visible:
``<digisosId> <status> <CLOCK_MONOTONIC, ns>``, a clock that all processes of one machine share.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from broker.clock import system_clock
from broker.kafka.publisher import KafkaPublisher
from broker.kafka.settings import KafkaSettings
from broker.kafka.subscriber import KafkaTail, read_from_start
from broker.katalog import Katalog, KatalogFollower
from broker.log import configure_logging
from broker.routing import KATALOG
from crypto import KeyRing
from kvittering.follower import Follower
from kvittering.hub import Hub
from kvittering.outbox import OutboxPublisher
from kvittering.store import StatusStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from broker.record import Incoming, TopicPartition
    from kvittering.store import Applied


class _TellingFollower(Follower):
    """Tells when a new status was committed, which is when a citizen can see it."""

    async def handle(self, batch: Sequence[Incoming]) -> Sequence[Applied]:
        applied = await super().handle(batch)
        now = time.monotonic_ns()
        for one in applied:
            if one.after is not None and one.after.status is not None:
                _tell(one.after.state.digisos_id, one.after.status.value, str(now))
        return applied


async def follow_status(folder: Path) -> None:
    """Run what ``kvittering/__main__.py`` does without its HTTP, until killed."""
    kafka = KafkaSettings.from_environment(os.environ)
    katalog = Katalog()
    katalog_follower = KatalogFollower(katalog, lambda: read_from_start(kafka, [KATALOG]))

    def open_tail(topics: Iterable[str], offsets: Mapping[TopicPartition, int]) -> KafkaTail:
        return KafkaTail(kafka, topics, offsets=offsets)

    async with (
        StatusStore(folder / "kvittering.sqlite") as store,
        KafkaPublisher(kafka) as publisher,
        asyncio.TaskGroup() as tasks,
    ):
        follower = _TellingFollower(
            katalog=katalog,
            changed=katalog_follower.changed,
            open_tail=open_tail,
            store=store,
            keys=KeyRing(()),
            hub=Hub(),
            clock=system_clock,
        )
        tasks.create_task(katalog_follower.run())
        tasks.create_task(follower.run(katalog_follower.caught_up))
        tasks.create_task(OutboxPublisher(store, publisher, follower.stored).run())
        tasks.create_task(follower.watch_figures())


def _tell(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


ROLES = {"kvittering": follow_status}


def main(role: str, folder: str) -> None:
    with Path(os.devnull).open("w") as nowhere:
        configure_logging(role, stream=nowhere)
        asyncio.run(ROLES[role](Path(folder)))


if __name__ == "__main__":
    main(*sys.argv[1:])
