"""The status store as a rebuild sees it: written many søknader at a time, read page by page.

The tables and their rows are the same as the live path's (``store``, ``rows``); only how many go into a transaction differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from broker.record import TopicPartition
from broker.sql import Connection, open_database
from kvittering import fristlager
from kvittering.rows import KEEP_RAW, MOVE_ON, QUEUE, SAVE, Row
from kvittering.store import MIGRATIONS
from kvittering.taking_in import read_offsets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from kvittering.bulk import Folded

PAGE: Final = 1_000
_COLUMNS: Final = ("eier", "kommunenummer", "status", "akseptert_ms", "levert", "venter")


@dataclass(frozen=True, slots=True)
class Kept:
    """A søknad as it stands in the store.

    Attributes:
        digisos_id: Which one.
        tilstand: ``facts.SoknadState`` as JSON.
        kolonner: What is searched for, by column; it follows from ``tilstand``.
    """

    digisos_id: str
    tilstand: str
    kolonner: Mapping[str, object]


class BulkStore:
    """A status store. Use as an asynchronous context manager.

    Args:
        place: A SQLite file, or ``postgresql://…``.
        read_only: Only read, beside the process that writes.
    """

    def __init__(self, place: str | Path, *, read_only: bool = False) -> None:
        self._database = open_database(place, MIGRATIONS, read_only=read_only)

    async def __aenter__(self) -> Self:
        await self._database.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._database.close()

    async def is_empty(self) -> bool:
        """Return whether nothing was ever read into it."""

        def query(connection: Connection) -> bool:
            tables = ("SELECT 1 FROM posisjon LIMIT 1", "SELECT 1 FROM soknad LIMIT 1", "SELECT 1 FROM utboks LIMIT 1")
            return all(connection.execute(sql).fetchone() is None for sql in tables)

        return await self._database.read(query)

    async def write(self, several: Sequence[Folded], queue: Sequence[Row]) -> None:
        """Write folded søknader and what must go out, in one transaction.

        Raises:
            StoreError: Nothing of it is kept.
        """

        def call(connection: Connection) -> None:
            for folded in several:
                connection.executemany(KEEP_RAW, folded.raw)
                connection.executemany(SAVE, folded.soknader)
                connection.executemany(fristlager.WRITE, folded.frister)
            connection.executemany(QUEUE, queue)

        await self._database.write(call)

    async def finish(self, offsets: Mapping[TopicPartition, int], queue: Sequence[Row] = ()) -> None:
        """Write down how far was read, last of all: a store without offsets is not complete."""

        def call(connection: Connection) -> None:
            connection.executemany(QUEUE, queue)
            connection.executemany(MOVE_ON, [(*partition, offset) for partition, offset in offsets.items()])

        await self._database.write(call)

    async def offsets(self) -> dict[TopicPartition, int]:
        """Return where to read on, for each partition that was ever read."""
        return await self._database.read(read_offsets)

    async def queued(self) -> list[Row]:
        """Return what must still be published, oldest first, and neither set aside nor out; rows of ``rows.QUEUE``."""

        def query(connection: Connection) -> list[Row]:
            sql = "SELECT topic, nokkel, verdi, headere FROM utboks WHERE satt_til_side IS NULL ORDER BY nr"
            return [tuple(row) for row in connection.execute(sql)]

        return await self._database.read(query)

    async def last_statuses(self, ids: Iterable[str]) -> dict[str, bytes]:
        """Return the status record that was queued last, for those søknader that have one."""
        wanted = tuple(ids)

        def query(connection: Connection) -> dict[str, bytes]:
            found: dict[str, bytes] = {}
            for digisos_id in wanted:
                sql = "SELECT sist_status FROM soknad WHERE digisos_id = ?"
                row = connection.execute(sql, (digisos_id,)).fetchone()
                if row is not None and row[0] is not None:
                    found[digisos_id] = bytes(row[0])
            return found

        return await self._database.read(query)

    async def places(self, digisos_id: str) -> list[tuple[TopicPartition, int]]:
        """Return where each record about a søknad lay: its partition and offset."""

        def query(connection: Connection) -> list[tuple[TopicPartition, int]]:
            sql = "SELECT topic, partisjon, posisjon FROM innkommet WHERE digisos_id = ?"
            rows = connection.execute(sql, (digisos_id,))
            return [(TopicPartition(str(row[0]), int(row[1])), int(row[2])) for row in rows]

        return await self._database.read(query)

    async def soknader(self) -> AsyncIterator[Kept]:
        """Return every søknad by id, a page in memory at a time."""
        after = ""
        while page := await self._page(after):
            for kept in page:
                yield kept
            after = page[-1].digisos_id

    async def _page(self, after: str) -> list[Kept]:
        def query(connection: Connection) -> list[Kept]:
            sql = (
                "SELECT digisos_id, tilstand, eier, kommunenummer, status, akseptert_ms, levert, venter"
                " FROM soknad WHERE digisos_id > ? ORDER BY digisos_id LIMIT ?"
            )
            return [
                Kept(str(row[0]), str(row[1]), {name: row[name] for name in _COLUMNS})
                for row in connection.execute(sql, (after, PAGE))
            ]

        return await self._database.read(query)
