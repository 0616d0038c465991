"""The shell around the fold: reads the topics, verifies, stores, tells the listeners, and publishes what must go out.

Rules:

1. The topics are those of the katalog: a kommune that is new there is followed from then on. One that is taken out is still
   followed, since its kvitteringer may be late.
2. Where to read is the store's to say (``StatusStore.offsets``), so nothing is committed to Kafka.
3. A batch that the store could not take is tried again as it is; nothing is skipped.
4. Listeners are told after the commit, never before: what a citizen has been shown survives a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from broker.log import get_logger
from broker.routing import TRANSPORT, hendelse_topic, kvittering_topic, parse_topic
from kvittering import metrics
from kvittering.facts import Ledd
from kvittering.hub import View
from kvittering.reading import read_record
from kvittering.views import citizen_view, encode_view, version_of
from schemas.errors import StoreError, TransportError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import Protocol

    from broker.clock import Clock
    from broker.katalog import Katalog
    from broker.record import Incoming, TopicPartition
    from crypto.keys import KeyRing
    from kvittering.hub import Hub
    from kvittering.projection import Projection
    from kvittering.reading import ReadRecord
    from kvittering.store import Applied, StatusStore
    from schemas.names import Kommunenummer

    class Tail(Protocol):
        """A reader of whole topics; see ``broker.kafka.subscriber.KafkaTail``."""

        caught_up: asyncio.Event

        def __aiter__(self) -> AsyncIterator[Sequence[Incoming]]:
            """Iterate over batches."""
            ...

    OpenTail = Callable[[Iterable[str], Mapping[TopicPartition, int]], AbstractAsyncContextManager[Tail]]

RETRY_S: Final = 1.0
FIGURES_EVERY_S: Final = 5.0


class Follower:
    """Keeps the store up to date with the topics.

    Args:
        katalog: Which kommuner there are, and who signs for them.
        changed: Set when the katalog has changed.
        open_tail: Opens a reader of these topics from these offsets on.
        store: Where everything goes.
        keys: The innsyn keys.
        hub: Who is watching.
        clock: What the time is.
    """

    def __init__(
        self,
        *,
        katalog: Katalog,
        changed: asyncio.Event,
        open_tail: OpenTail,
        store: StatusStore,
        keys: KeyRing,
        hub: Hub,
        clock: Clock,
    ) -> None:
        self._katalog = katalog
        self._changed = changed
        self._open_tail = open_tail
        self._store = store
        self._keys = keys
        self._hub = hub
        self._clock = clock
        self._problems: dict[frozenset[str], str] = {frozenset(): "venter på katalogen"}
        self._store_problem: str | None = None
        self._one_batch = asyncio.Lock()
        self.stored = asyncio.Event()
        """Set after each commit; whoever waits for it clears it."""

    def problem(self) -> str | None:
        """Return why the status is not up to date, for ``/isready``."""
        return self._store_problem or next(iter(self._problems.values()), None)

    async def run(self, katalog_ready: asyncio.Event) -> None:
        """Follow every kommune's topics, and those that come, until cancelled.

        Args:
            katalog_ready: Nothing is read before it is set: a kvittering from a kommune that we do not know would look forged.
        """
        await katalog_ready.wait()
        self._problems.clear()
        followed: frozenset[str] = frozenset()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._changed.clear()
                new = topics_of(self._katalog) - followed
                if new:
                    followed |= new
                    self._problems[new] = "emnene er ikke lest ferdig"
                    tasks.create_task(self._follow(new))
                await self._changed.wait()

    async def _follow(self, topics: frozenset[str]) -> None:
        while True:
            try:
                await self._read(topics)
            except TransportError as error:
                self._problems[topics] = f"Kafka: {error.code}"
                get_logger().warning("topics_unavailable", antall=len(topics), vent_s=RETRY_S, exc_info=error)
            await asyncio.sleep(RETRY_S)

    async def _read(self, topics: frozenset[str]) -> None:
        offsets = await self._store.offsets()
        async with self._open_tail(topics, offsets) as tail:
            # Not a task group: it would wrap the reader's error in a group, and the caller needs to see it.
            waiting = asyncio.create_task(self._note_when(tail.caught_up, topics))
            try:
                async for batch in tail:
                    await self.handle(batch)
            finally:
                waiting.cancel()

    async def _note_when(self, caught_up: asyncio.Event, topics: frozenset[str]) -> None:
        await caught_up.wait()
        self._problems.pop(topics, None)
        get_logger().info("topics_caught_up", antall=len(topics))

    async def handle(self, batch: Sequence[Incoming]) -> Sequence[Applied]:
        """Verify a batch, store it, tell the listeners, and log each record.

        Args:
            batch: Each partition in order.
        """
        async with self._one_batch:
            signers = {knr: self._katalog.signers(knr) for knr in _kommuner(batch)}
            read = await asyncio.to_thread(
                lambda: [read_record(record, signers=signers, keys=self._keys) for record in batch]
            )
            applied = await self._store_until_kept(read)
        for one in applied:
            self._tell(one)
            report(one)
        self.stored.set()
        return applied

    async def _store_until_kept(self, read: Sequence[ReadRecord]) -> Sequence[Applied]:
        while True:
            try:
                applied = await self._store.apply(read, self._clock())
            except StoreError as error:
                self._store_problem = f"lageret: {error}"
                get_logger().error("batch_not_stored", antall=len(read), vent_s=RETRY_S, exc_info=error)
                await asyncio.sleep(RETRY_S)
            else:
                self._store_problem = None
                return applied

    def _tell(self, applied: Applied) -> None:
        after = applied.after
        if after is None or after.status is None or not self._hub.is_watched(after.state.digisos_id):
            return
        self._hub.publish(after.state.digisos_id, view_of(after))

    async def watch_figures(self) -> None:
        """Keep the gauges that are read from the store, until cancelled."""
        while True:
            with contextlib.suppress(StoreError):  # whoever writes tells about it
                await self.refresh_figures()
            await asyncio.sleep(FIGURES_EVERY_S)

    async def refresh_figures(self) -> None:
        """Read the gauges from the store once."""
        figures = await self._store.figures()
        metrics.WAITING.set(figures.waiting)
        oldest = figures.oldest_unacknowledged_ms
        age_s = 0.0 if oldest is None else self._clock().timestamp() - oldest / 1000
        metrics.OLDEST.set(max(age_s, 0.0))


def topics_of(katalog: Katalog) -> frozenset[str]:
    """Return every topic that is followed."""
    kommuner = [entry.kommunenummer for entry in katalog.all()]
    return frozenset(
        [TRANSPORT, *(kvittering_topic(knr) for knr in kommuner), *(hendelse_topic(knr) for knr in kommuner)]
    )


def view_of(projection: Projection) -> View:
    """Return what the citizen is shown, and its version."""
    body = encode_view(citizen_view(projection))
    return View(version_of(body), body)


def report(applied: Applied) -> None:
    """Count one record, and log its canonical line."""
    read, after = applied.read, applied.after
    kind = parse_topic(read.record.topic).kind
    metrics.APPLIED.labels(kind, applied.resultat).inc()
    for code in applied.refused:
        metrics.DEAD_LETTERS.labels(code).inc()
    if isinstance(read.fact, Ledd) and applied.resultat == "recorded":
        metrics.RECEIPTS.labels(read.fact.claims.status).inc()
    _report_change(applied)
    log = get_logger().warning if applied.refused else get_logger().info
    log(
        "record_applied",
        topic=read.record.topic,
        partition=read.record.partition,
        offset=read.record.offset,
        digisos_id=read.digisos_id,
        melding_id=read.melding_id,
        resultat=applied.resultat,
        kode=applied.kode,
        status=after.status if after else None,
        antall=len(applied.refused),
    )


def _report_change(applied: Applied) -> None:
    before, after = applied.before, applied.after
    if before is None or after is None or after.status is None or before.status is after.status:
        return
    metrics.STATUS_CHANGES.labels(after.status.value).inc()
    if before.mottatt is None and after.mottatt is not None and after.soknad is not None:
        metrics.RECEIPT_LATENCY.observe(max((after.mottatt - after.soknad.akseptert).total_seconds(), 0.0))


def _kommuner(batch: Iterable[Incoming]) -> set[Kommunenummer]:
    found = (parse_topic(record.topic).kommunenummer for record in batch)
    return {knr for knr in found if knr is not None}
