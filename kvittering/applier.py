"""Takes records in: verifies them, stores them, tells the listeners, counts and logs.

Rules:

1. A batch that the store could not take is tried again as it is; nothing is skipped.
2. Listeners are told after the commit, never before: what a citizen has been shown survives a crash.
3. One batch at a time, whichever topics it is from.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from broker.krasj import crash_point
from broker.log import get_logger
from broker.routing import parse_topic
from broker.runtime import place_of
from kvittering import metrics
from kvittering.hub import View
from kvittering.konnektorer import konnektor_of
from kvittering.lifecycle import svar_input
from kvittering.reading import read_record
from kvittering.views import citizen_view, encode_view, version_of
from schemas.errors import StoreError, UnexpectedRecordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.clock import Clock
    from broker.katalog import Katalog
    from broker.record import Incoming
    from crypto.keys import KeyRing
    from kvittering.hub import Hub
    from kvittering.projection import Projection
    from kvittering.reading import ReadRecord
    from kvittering.store import StatusStore
    from kvittering.taking_in import Applied
    from schemas.names import Kommunenummer

RETRY_S: Final = 1.0
ANNEN: Final = "ANNEN"
"""What a status that we do not know is counted as: others must not choose how many metrics we keep."""
FIGURES_EVERY_S: Final = 5.0


class Applier:
    """Takes records into the store.

    Args:
        katalog: Who signs for which kommune.
        store: Where everything goes.
        keys: The innsyn keys.
        hub: Who is watching.
        clock: What the time is.
    """

    def __init__(self, *, katalog: Katalog, store: StatusStore, keys: KeyRing, hub: Hub, clock: Clock) -> None:
        self._katalog = katalog
        self._store = store
        self._keys = keys
        self._hub = hub
        self._clock = clock
        self._problem: str | None = None
        self._one_batch = asyncio.Lock()
        self.stored = asyncio.Event()
        """Set after each commit; whoever waits for it clears it."""

    def problem(self) -> str | None:
        """Return why records are not stored, for ``/isready``."""
        return self._problem

    async def handle(self, batch: Sequence[Incoming]) -> Sequence[Applied]:
        """Verify a batch, store it, tell the listeners, and log each record.

        Args:
            batch: Each partition in order.
        """
        async with self._one_batch:
            konnektorer = {knr: konnektor_of(self._katalog, knr) for knr in _kommuner(batch)}
            read = await asyncio.to_thread(
                lambda: [read_record(record, konnektorer=konnektorer, keys=self._keys) for record in batch]
            )
            crash_point("kvittering.apply.before-store")
            applied = await self._store_until_kept(read)
        crash_point("kvittering.apply.after-commit")
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
                self._problem = f"lageret: {error}"
                get_logger().error("batch_not_stored", antall=len(read), vent_s=RETRY_S, exc_info=error)
                await asyncio.sleep(RETRY_S)
            else:
                self._problem = None
                return applied

    def _tell(self, applied: Applied) -> None:
        after = applied.after
        if after is None or after.status is None or not self._hub.is_watched(after.state.digisos_id):
            return
        self._hub.publish(after.state.digisos_id, view_of(after))


async def watch_figures(store: StatusStore, clock: Clock) -> None:
    """Keep the gauges that are read from the store, until cancelled."""
    while True:
        with contextlib.suppress(StoreError):  # whoever writes tells about it
            await refresh_figures(store, clock)
        await asyncio.sleep(FIGURES_EVERY_S)


async def refresh_figures(store: StatusStore, clock: Clock) -> None:
    """Read the gauges from the store once."""
    figures = await store.figures()
    metrics.WAITING.set(figures.waiting)
    metrics.OUTBOX_MESSAGES.set(figures.unpublished)
    metrics.SET_ASIDE.set(figures.set_aside)
    oldest = figures.oldest_unacknowledged_ms
    age_s = 0.0 if oldest is None else clock().timestamp() - oldest / 1000
    metrics.OLDEST.set(max(age_s, 0.0))


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
    if applied.before is not None and after is not None:
        _report_change(applied.before, after)
    if isinstance(read.error, UnexpectedRecordError) and read.error.__cause__ is not None:
        cause = read.error.__cause__
        get_logger().critical("record_unexpected", feiltype=type(cause).__name__, sted=place_of(cause))
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


def _report_change(before: Projection, after: Projection) -> None:
    """Count what a record made true, be it about itself or about those that had waited for it."""
    counted = {ledd.digest for ledd in before.verdicts.holds}
    for ledd in after.verdicts.holds:
        if ledd.digest not in counted:
            metrics.RECEIPTS.labels(ledd.claims.status if svar_input(ledd.claims.status) else ANNEN).inc()
    if after.status is not None and before.status is not after.status:
        metrics.STATUS_CHANGES.labels(after.status.value).inc()
    if before.mottatt is None and after.mottatt is not None and after.soknad is not None:
        metrics.RECEIPT_LATENCY.observe(max((after.mottatt - after.soknad.akseptert).total_seconds(), 0.0))


def _kommuner(batch: Iterable[Incoming]) -> set[Kommunenummer]:
    found = (parse_topic(record.topic).kommunenummer for record in batch)
    return {knr for knr in found if knr is not None}
