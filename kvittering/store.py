"""The status store: what was read, what it means, and how far we have read, in one transaction.

Rules:

1. A batch is one transaction: its raw records, the søknader they change, the records that must go out and the next offsets.
   So each record takes effect once, whatever crashes, and the offsets are the store's, never a consumer group's.
2. ``innkommet`` only grows. A place (topic, partition, offset) that is there already, or that lies before the partition's next
   offset, is a replay and takes no effect.
3. What must be published is written down here first and taken away when Kafka has it. A newer status takes the place of an
   older one that has not gone out. What Kafka never takes is set aside: kept, and in nobody's way.
4. Nothing in here is clear text from a søknad: packages lie as they came, sealed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Final, Self, TypeVar

from broker.record import Outgoing, TopicPartition
from broker.sql import Connection, open_database
from kvittering import emner, fristlager
from kvittering.facts import SoknadState
from kvittering.fristlager import FristerOf, default_frister
from kvittering.lifecycle import AT_FAGSYSTEM
from kvittering.rows import headers_of
from kvittering.taking_in import Applied, apply_batch, read_offsets
from schemas.names import DigisosId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from kvittering.reading import ReadRecord
    from schemas.names import Eier

T = TypeVar("T")

MIGRATIONS: Final = (
    files("kvittering").joinpath("store.sql").read_text("utf-8"),
    # Code of the error that says that Kafka never takes this record; null for those that are on their way.
    "ALTER TABLE utboks ADD COLUMN satt_til_side TEXT;",
    # It was made with NOT levert, which PostgreSQL does not say about a number.
    """
    DROP INDEX soknad_ubekreftet;
    CREATE INDEX soknad_ubekreftet ON soknad (akseptert_ms) WHERE levert = 0;
    """,
    fristlager.MIGRATION,
    emner.MIGRATION,
)
_DELIVERED: Final = tuple(sorted(status.value for status in AT_FAGSYSTEM))


@dataclass(frozen=True, slots=True)
class Pending:
    """A record that must go out, and its number in the queue."""

    nr: int
    outgoing: Outgoing


class StatusStore:
    """Keeps every søknad's state in one database. Use as an asynchronous context manager.

    Args:
        place: A SQLite file (made with mode 0600), or ``postgresql://…``.
        read_only: Only read, beside the process that writes.
        frister_of: Each kommune's deadlines.
    """

    def __init__(self, place: str | Path, *, read_only: bool = False, frister_of: FristerOf = default_frister) -> None:
        self._database = open_database(place, MIGRATIONS, read_only=read_only)
        self.frister_of = frister_of

    async def __aenter__(self) -> Self:
        await self._database.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._database.close()

    async def apply(self, batch: Sequence[ReadRecord], now: datetime) -> list[Applied]:
        """Take in a batch; return what came of each record when all of it is durable.

        Args:
            batch: As read, each partition in order.
            now: Aware UTC, for dead letters.

        Raises:
            StoreError: Nothing of the batch is kept; read it again.
        """
        return await self._database.write(lambda connection: apply_batch(connection, batch, now, self.frister_of))

    async def write(self, call: Callable[[Connection], T]) -> T:
        """Run ``call`` in a transaction of its own, for what belongs to the store and has a module of its own.

        Raises:
            StoreError: Nothing of it is kept.
        """
        return await self._database.write(call)

    async def read(self, call: Callable[[Connection], T]) -> T:
        """Run ``call`` on a connection that only reads; see ``write``.

        Raises:
            StoreError: The database cannot be read.
        """
        return await self._database.read(call)

    async def offsets(self) -> dict[TopicPartition, int]:
        """Return where to read on, for each partition that was ever read."""
        return await self._database.read(read_offsets)

    async def state(self, digisos_id: DigisosId, eier: Eier | None = None) -> SoknadState | None:
        """Return what is known about a søknad; None when it is unknown, or not ``eier``'s when that is given."""

        def query(connection: Connection) -> SoknadState | None:
            where = "digisos_id = ?" + ("" if eier is None else " AND eier = ?")
            arguments = (digisos_id,) if eier is None else (digisos_id, eier)
            row = connection.execute(
                f"SELECT tilstand FROM soknad WHERE {where}",  # noqa: S608 - both forms are constants
                arguments,
            ).fetchone()
            return None if row is None else SoknadState.from_json(row[0])

        return await self._database.read(query)

    async def owned_by(self, eier: Eier) -> list[SoknadState]:
        """Return an owner's søknader, newest first."""

        def query(connection: Connection) -> list[SoknadState]:
            rows = connection.execute(
                "SELECT tilstand FROM soknad WHERE eier = ? ORDER BY akseptert_ms DESC, digisos_id", (eier,)
            )
            return [SoknadState.from_json(row[0]) for row in rows]

        return await self._database.read(query)

    async def all_states(self) -> list[SoknadState]:
        """Return every søknad's state, by id: for comparing with a rebuild."""

        def query(connection: Connection) -> list[SoknadState]:
            rows = connection.execute("SELECT tilstand FROM soknad ORDER BY digisos_id")
            return [SoknadState.from_json(row[0]) for row in rows]

        return await self._database.read(query)

    async def delivered(self, ids: Iterable[DigisosId]) -> dict[DigisosId, bool]:
        """Return whether the fagsystem has each søknad; one that is unknown is not delivered."""
        wanted = tuple(ids)

        def query(connection: Connection) -> dict[DigisosId, bool]:
            found = {
                digisos_id: row[0] in _DELIVERED
                for digisos_id in wanted
                if (
                    row := connection.execute(
                        "SELECT status FROM soknad WHERE digisos_id = ?", (digisos_id,)
                    ).fetchone()
                )
            }
            return {digisos_id: found.get(digisos_id, False) for digisos_id in wanted}

        return await self._database.read(query)

    async def pending(self, limit: int) -> list[Pending]:
        """Return the oldest records that must go out."""

        def query(connection: Connection) -> list[Pending]:
            rows = connection.execute("SELECT * FROM utboks WHERE satt_til_side IS NULL ORDER BY nr LIMIT ?", (limit,))
            return [
                Pending(
                    row["nr"], Outgoing(row["topic"], row["nokkel"], row["verdi"] or None, headers_of(row["headere"]))
                )
                for row in rows
            ]

        return await self._database.read(query)

    async def published(self, numbers: Iterable[int]) -> None:
        """Take away what Kafka has acknowledged."""
        rows = [(nr,) for nr in numbers]
        await self._database.write(lambda connection: connection.executemany("DELETE FROM utboks WHERE nr = ?", rows))

    async def set_aside(self, numbers: Iterable[int], code: str) -> None:
        """Keep what Kafka never takes, and try it no more."""
        rows = [(code, nr) for nr in numbers]
        await self._database.write(
            lambda connection: connection.executemany("UPDATE utboks SET satt_til_side = ? WHERE nr = ?", rows)
        )

    async def newest(self) -> datetime | None:
        """Return when the søknad was accepted that was accepted last; None when there is none."""
        found = await self._database.read(
            lambda connection: connection.execute("SELECT MAX(akseptert_ms) FROM soknad").fetchone()[0]
        )
        return None if found is None else datetime.fromtimestamp(found / 1000, UTC)

    async def figures(self) -> Figures:
        """Return the numbers that are watched."""

        def query(connection: Connection) -> Figures:
            # What still waits, and not what no fagsystem has: a letter is an end too, and would be the oldest for ever.
            oldest = connection.execute("SELECT MIN(akseptert_ms) FROM frist")
            waiting = connection.execute("SELECT COALESCE(SUM(venter), 0) FROM soknad WHERE venter > 0")
            queued, aside = connection.execute("SELECT COUNT(*), COUNT(satt_til_side) FROM utboks").fetchone()
            return Figures(oldest.fetchone()[0], int(waiting.fetchone()[0]), int(queued - aside), int(aside))

        return await self._database.read(query)


@dataclass(frozen=True, slots=True)
class Figures:
    """Numbers that are watched.

    Attributes:
        oldest_unacknowledged_ms: When the oldest message that still waits was accepted, since 1970 UTC.
        waiting: How many facts wait for a søknad or an earlier link.
        unpublished: How many records wait in the queue to be published.
        set_aside: How many records lie in the queue that Kafka never takes.
    """

    oldest_unacknowledged_ms: int | None
    waiting: int
    unpublished: int
    set_aside: int
