"""From the katalog file to ``fiks.katalog.v1``: what changed, and nothing else."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from broker.katalog import Katalog, load_katalog
from broker.krasj import crash_point
from broker.log import get_logger
from broker.record import Outgoing, cloud_event_headers
from broker.routing import KATALOG
from schemas.codec import encode
from schemas.errors import ConfigurationError, TransportError
from schemas.names import Uuid

if TYPE_CHECKING:
    from pathlib import Path

    from broker.clock import Clock
    from broker.ports import Publisher
    from schemas.records import KatalogRecord

CHECK_EVERY_S: Final = 1.0


def changes(wanted: Katalog, present: Katalog) -> tuple[list[KatalogRecord], list[KatalogRecord]]:
    """Return the entries to publish and the entries to withdraw, so that ``present`` becomes ``wanted``."""
    new = [entry for entry in wanted.all() if present.get(entry.kommunenummer) != entry]
    gone = [entry for entry in present.all() if wanted.get(entry.kommunenummer) is None]
    return new, gone


class KatalogPublisher:
    """Publishes the katalog file when it changes.

    Args:
        path: The katalog file.
        present: What is on the topic, kept by a ``KatalogFollower``.
        publisher: Writes the topic.
        clock: What the time is.
    """

    def __init__(self, path: Path, present: Katalog, publisher: Publisher, clock: Clock) -> None:
        self._path = path
        self._present = present
        self._publisher = publisher
        self._clock = clock
        self.published = asyncio.Event()

    def problem(self) -> str | None:
        """Return why the katalog is not published yet, for ``/isready``."""
        return None if self.published.is_set() else "katalogen er ikke publisert"

    async def run(self, stop: asyncio.Event) -> None:
        """Publish now, and again whenever the file was written; a file that breaks a rule changes nothing and is told.

        Raises:
            ConfigurationError: The file breaks a rule at the start.
        """
        seen = self._modified()
        wanted = load_katalog(self._path)
        while not stop.is_set():
            try:
                await self.publish(wanted)
            except TransportError as error:
                get_logger().warning("katalog_not_published", exc_info=error)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), CHECK_EVERY_S)
            if self._modified() != seen:
                seen = self._modified()
                wanted = self._reload(wanted)

    async def publish(self, wanted: Katalog) -> None:
        """Bring the topic to ``wanted``.

        Raises:
            TransportError: Kafka did not take it; the next round tries again.
        """
        new, gone = changes(wanted, self._present)
        for entry in new:
            crash_point("broker.katalog.before-publish")
            await self._publisher.publish(self._outgoing(entry, encode(entry)))
            crash_point("broker.katalog.after-publish")
        for entry in gone:
            await self._publisher.publish(self._outgoing(entry, None))
        for entry in new:
            self._present.put(entry)
        for entry in gone:
            self._present.remove(entry.kommunenummer)
        self.published.set()
        if new or gone:
            get_logger().info("katalog_published", antall=len(new) + len(gone), topic=KATALOG)

    def _outgoing(self, entry: KatalogRecord, value: bytes | None) -> Outgoing:
        headers = cloud_event_headers(
            event_id=Uuid.new(),
            event_type="no.fiks.katalog.v1",
            source="/broker",
            subject=entry.kommunenummer,
            time=self._clock(),
        )
        return Outgoing(KATALOG, entry.kommunenummer.encode(), value, headers)

    def _modified(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0

    def _reload(self, wanted: Katalog) -> Katalog:
        try:
            return load_katalog(self._path)
        except ConfigurationError as error:
            get_logger().error("katalog_refused", fil=str(self._path), exc_info=error)
            return wanted
