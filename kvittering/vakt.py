"""The watch: withdraws what has waited too long, and tells what is late. ``frister`` decides, ``fristlager`` has the rows.

Rules:

1. It looks once a second by the loop's time, and asks the clock what the time is: whoever moves the clock is noticed at once.
2. It acts on silence, so it makes sure that it is silence: everything that lies on the kommune's topics and the central one has
   been taken in first. While that cannot be known, nothing is withdrawn from the kommune; a metric says how many such there are.
3. What it decides goes out through the store's queue, like everything else that this process publishes.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from broker.log import get_logger
from kvittering import metrics
from kvittering.frister import Frister, frister_for
from kvittering.fristlager import (
    changed_kommuner,
    due_kommuner,
    kommunes_waiting,
    note_frister,
    overdue,
    recompute,
    undelivered,
    withdraw_due,
)
from schemas.errors import StoreError
from schemas.names import Kommunenummer

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from broker.clock import Clock
    from broker.katalog import Katalog
    from kvittering.fristlager import FristerOf
    from kvittering.store import StatusStore
    from schemas.names import DigisosId
    from schemas.records import TransportRecord

LOOK_S: Final = 1.0
READ_WITHIN_S: Final = 5.0
"""How long to wait for what is still being read; a kommune that is further behind is judged another time."""
FIGURES_EVERY: Final = 5
"""In how many looks the metrics are read anew."""
RECOMPUTED_TOGETHER: Final = 200
MAX_ROUNDS: Final = 50
"""Transactions of one look; what is left is taken in the next, a second later."""


class Reader(Protocol):
    """Knows whether the topics have been read; see ``follower.Follower.up_to_date``."""

    async def up_to_date(self, kommuner: Collection[Kommunenummer], within_s: float) -> frozenset[Kommunenummer]:
        """Return those of whom everything that lay on the topics when asked has been taken in."""
        ...


class Vakt:
    """Watches the deadlines.

    Args:
        store: Where the deadlines are.
        katalog: Each kommune's own deadlines.
        defaults: Those of the others.
        reader: Whether silence is silence.
        clock: What the time is.
        queued: Set when there is something to publish.
    """

    def __init__(
        self,
        *,
        store: StatusStore,
        katalog: Katalog,
        defaults: Frister,
        reader: Reader,
        clock: Clock,
        queued: asyncio.Event,
    ) -> None:
        self._store = store
        self._katalog = katalog
        self._defaults = defaults
        self._reader = reader
        self._clock = clock
        self._queued = queued

    async def run(self, katalog_ready: asyncio.Event) -> None:
        """Watch until cancelled.

        Args:
            katalog_ready: Nothing is judged before it is set: whoever has longer deadlines would be withdrawn from too early.
        """
        await katalog_ready.wait()
        looks = 0
        while True:
            try:
                await self.look()
                if looks % FIGURES_EVERY == 0:
                    await self.refresh_figures()
            except StoreError as error:
                get_logger().warning("deadlines_not_watched", vent_s=LOOK_S, exc_info=error)
            looks += 1
            await asyncio.sleep(LOOK_S)

    async def look(self) -> list[TransportRecord]:
        """Withdraw what is due now; return what was put in the queue.

        Raises:
            StoreError: The store cannot be read or written. What was queued stays queued.
        """
        await self._heed_katalog()
        now = self._clock()
        due = await self._store.read(lambda connection: due_kommuner(connection, now))
        silent = await self._reader.up_to_date(due, READ_WITHIN_S) if due else frozenset[Kommunenummer]()
        metrics.WATCH_BLIND.set(len(due - silent))
        withdrawn: list[TransportRecord] = []
        for _ in range(MAX_ROUNDS):
            if not silent & due:
                break
            withdrawn += await self._withdraw(silent & due, now)
            due = await self._store.read(lambda connection: due_kommuner(connection, now))
        return withdrawn

    async def refresh_figures(self) -> None:
        """Read the gauges from the store once.

        Raises:
            StoreError: The store cannot be read.
        """
        now = self._clock()
        found = await self._store.read(lambda connection: overdue(connection, now))
        metrics.OVERDUE.clear()
        for (kommunenummer, arsak), count in found.counts.items():
            metrics.OVERDUE.labels(kommunenummer, arsak).set(count)
        metrics.OLDEST_OVERDUE.set(0.0 if found.oldest is None else (now - found.oldest).total_seconds())

    async def _withdraw(self, kommuner: frozenset[Kommunenummer], now: datetime) -> list[TransportRecord]:
        queued = await self._store.write(
            lambda connection: withdraw_due(connection, kommuner, self._store.frister_of, now)
        )
        for event in queued:
            metrics.WITHDRAWALS.labels(event.type, event.kanal).inc()
            get_logger().warning(
                "message_withdrawn",
                digisos_id=event.digisos_id,
                melding_id=event.melding_id,
                kommunenummer=event.kommunenummer,
                type=event.type,
                kanal=event.kanal,
                kode=event.kode,
            )
        if queued:
            self._queued.set()
        return queued

    async def _heed_katalog(self) -> None:
        """Compute the rows again of kommuner whose deadlines are not those that the rows were computed with."""
        frister = {entry.kommunenummer: frister_for(entry, self._defaults) for entry in self._katalog.all()}
        changed = await self._store.read(lambda connection: changed_kommuner(connection, frister))
        if not changed:
            return
        for ids in _pages(await self._rows_of(changed)):
            await self._store.write(partial(recompute, ids=ids, frister_of=self._store.frister_of))
        noted = {knr: frister[knr] for knr in changed}
        await self._store.write(lambda connection: note_frister(connection, noted))
        get_logger().info("deadlines_computed", antall=len(changed))

    async def _rows_of(self, changed: dict[Kommunenummer, bool]) -> list[DigisosId]:
        if not all(changed.values()):
            return await self._store.read(undelivered)
        found: dict[DigisosId, None] = {}
        for kommunenummer in changed:
            ids = await self._store.read(partial(kommunes_waiting, kommunenummer=kommunenummer))
            found |= dict.fromkeys(ids)
        return list(found)


def frister_of(katalog: Katalog, defaults: Frister) -> FristerOf:
    """Return what tells each kommune's deadlines by the katalog as it is at the time."""

    def of(kommunenummer: Kommunenummer | None) -> Frister:
        return frister_for(katalog.get(kommunenummer) if kommunenummer else None, defaults)

    return of


def _pages(ids: list[DigisosId]) -> list[list[DigisosId]]:
    return [ids[start : start + RECOMPUTED_TOGETHER] for start in range(0, len(ids), RECOMPUTED_TOGETHER)]
