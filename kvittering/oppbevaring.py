"""Forgetting: a søknad that nothing has happened to for as long as a citizen may look is gone from the store.

A tombstone takes its status from ``fiks.status.v1`` too.

Rules:

1. The newest thing that is known about a søknad decides, by its own time: a case that a kommune still works on stays.
2. The row, everything that it was read from, and the tombstone are one transaction.
3. What was refused without being about any søknad goes when Kafka's time stamp of it is over age.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from broker.log import get_logger
from broker.record import Outgoing
from broker.rounds import rounds
from broker.routing import STATUS
from kvittering.facts import SoknadState
from kvittering.fristlager import forget_frister
from kvittering.rows import QUEUE, queue_row

if TYPE_CHECKING:
    import asyncio

    from broker.clock import Clock
    from broker.sql import Connection
    from kvittering.store import StatusStore

AT_A_TIME: Final = 500
"""How many søknader one transaction looks at: others wait for the database too."""
EVERY: Final = timedelta(hours=1)

_OLD: Final = (
    "SELECT digisos_id, tilstand, sist_status FROM soknad"
    " WHERE (akseptert_ms IS NULL OR akseptert_ms < ?) AND digisos_id > ? ORDER BY digisos_id LIMIT ?"
)


def newest(state: SoknadState) -> datetime | None:
    """Return when the latest thing that is known about a søknad happened; None when nothing is."""
    moments = [record.tidspunkt for record in state.transport]
    moments += [ledd.claims.tidspunkt for ledd in state.kvitteringer]
    moments += [hendelse.tidspunkt for hendelse in state.hendelser]
    return max(moments, default=None)


def forget_some(connection: Connection, before: datetime, after: str) -> tuple[int, str | None]:
    """Forget what is over age among the next søknader, within a transaction.

    Args:
        connection: Of the status store.
        before: What nothing has happened to since then is over age; aware UTC.
        after: Id of the last søknad that was looked at; empty at first.

    Returns:
        How many were forgotten, and the id to go on after; None when all have been looked at.
    """
    rows = connection.execute(_OLD, (_milliseconds(before), after, AT_A_TIME)).fetchall()
    old = [row for row in rows if _is_over_age(row["tilstand"], before)]
    for row in old:
        _forget(connection, str(row["digisos_id"]), shown=row["sist_status"] is not None)
    return len(old), str(rows[-1]["digisos_id"]) if len(rows) == AT_A_TIME else None


def forget_nobodys(connection: Connection, before: datetime) -> int:
    """Forget records that were about no søknad and are over age (rule 3); return how many."""
    return connection.execute(
        "DELETE FROM innkommet WHERE digisos_id IS NULL AND tidsstempel_ms < ?", (_milliseconds(before),)
    ).rowcount


async def forget(store: StatusStore, before: datetime) -> int:
    """Forget everything that is over age; return how many søknader.

    Raises:
        StoreError: The database cannot be written; what was forgotten so far stays so.
    """
    forgotten, after = 0, ""
    while True:
        count, last = await store.write(partial(forget_some, before=before, after=after))
        forgotten += count
        if last is None:
            break
        after = last
    await store.write(lambda connection: forget_nobodys(connection, before))
    return forgotten


async def keep_retention(store: StatusStore, kept: timedelta, clock: Clock, forgotten: asyncio.Event) -> None:
    """Forget now and once an hour by ``clock``, until cancelled.

    Args:
        store: What to forget from.
        kept: For how long a søknad is kept after the latest thing that happened to it.
        clock: What the time is.
        forgotten: Set when there are tombstones to publish.
    """

    async def work(now: datetime) -> None:
        count = await forget(store, now - kept)
        if count:
            get_logger().info("soknader_forgotten", antall=count)
            forgotten.set()

    await rounds("oppbevaring", work, every=EVERY, clock=clock)


def _is_over_age(tilstand: str, before: datetime) -> bool:
    last = newest(SoknadState.from_json(tilstand))
    return last is None or last < before


def _forget(connection: Connection, digisos_id: str, *, shown: bool) -> None:
    key = digisos_id.encode("ascii")
    connection.execute("DELETE FROM soknad WHERE digisos_id = ?", (digisos_id,))
    connection.execute("DELETE FROM innkommet WHERE digisos_id = ?", (digisos_id,))
    forget_frister(connection, digisos_id)
    connection.execute("DELETE FROM utboks WHERE topic = ? AND nokkel = ?", (STATUS, key))
    if shown:
        connection.execute(QUEUE, queue_row(Outgoing(STATUS, key, None)))


def _milliseconds(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp() * 1000)
