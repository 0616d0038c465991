"""The same answer again: folding every topic from its first record into an empty store, and comparing.

The status is a pure fold over the topics (invariant 8), so a store can be thrown away. A rebuild reads all topics once, shares
the records between files by søknad (``buckets``), folds the files in worker processes (``folding``) and writes what they become
in large transactions (``bulk_store``); the last of them has the offsets, so that a rebuild that was interrupted is seen to be
none.

What a rebuilt store has yet to publish is what the running one has not: its queue, the statuses that differ from those that it
queued last, and the dead letters of records that it had not read. Without a running store it is everything; a portal then
reads each status once more, and a dead letter comes again with the id that it had.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from broker.catch_up import read_until_caught_up
from broker.record import TopicPartition
from kvittering.buckets import Buckets, bucket_count
from kvittering.bulk import Folded
from kvittering.folding import fold_buckets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from broker.ports import OpenTail
    from broker.record import Incoming
    from kvittering.bulk_store import BulkStore
    from kvittering.folding import Readers
    from kvittering.rows import Row

SMALL: Final = 20_000
"""Records that are folded sooner than a worker process is started."""
RECORDS_PER_WRITE: Final = 200_000
"""About how many records go into one transaction: the indexes' pages are written once for all of them."""
TELL_EVERY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild has come.

    Attributes:
        step: ``leser`` from Kafka, then ``folder``.
        done: Records so far in this step.
        total: Records of this step, as far as is known.
        per_s: Records each second since the step began.
    """

    step: Literal["leser", "folder"]
    done: int
    total: int
    per_s: float

    @property
    def left_s(self) -> float:
        """About how many seconds of this step are left."""
        return max(self.total - self.done, 0) / self.per_s if self.per_s else 0.0


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild came to.

    Attributes:
        records: How many were read.
        soknader: How many søknader they are about.
        outcomes: How many records came to what: ``MOTTATT``, ``GJENTATT``, ``UNDERKJENT``.
        offsets: How far each partition was read.
        cut: Topics whose first records are gone already, by retention.
        read_s: How long it took to read them.
        fold_s: How long it took to verify, fold and store them.
    """

    records: int = 0
    soknader: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    offsets: dict[TopicPartition, int] = field(default_factory=dict["TopicPartition", int])
    cut: frozenset[str] = frozenset()
    read_s: float = 0.0
    fold_s: float = 0.0


class Rebuild:
    """One rebuild.

    Args:
        store: An empty store.
        kept: The running store, read beside the process that writes it, or None.
        readers: What records are judged by.
        folder: An empty folder for what does not fit into memory, as large as the topics.
        workers: How many processes fold.
        report: Is told now and then how far it has come.
    """

    def __init__(
        self,
        store: BulkStore,
        *,
        kept: BulkStore | None,
        readers: Readers,
        folder: Path,
        workers: int,
        report: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._kept = kept
        self._readers = readers
        self._folder = folder
        self._workers = workers
        self._report = report
        self._result = Rebuilt()
        self._kept_offsets: Mapping[TopicPartition, int] = {}
        self._newer: set[tuple[object, object]] = set()
        """Topic and key of the statuses that the rebuild queued beside a running store."""

    async def run(self, open_tail: OpenTail, now: datetime) -> Rebuilt:
        """Take in all that lies on the topics now.

        Args:
            open_tail: Opens a reader of topics, from the first record on.
            now: Aware UTC, for dead letters.

        Raises:
            TransportError: Kafka cannot be read. Begin again with an empty store.
            StoreError: The store cannot be written, or a worker died. As above.
        """
        started = time.monotonic()
        if self._kept is not None:
            self._kept_offsets = await self._kept.offsets()
        paths = await self._read(open_tail)
        self._result.read_s = time.monotonic() - started
        await self._fold(paths, now)
        queue = [] if self._kept is None else await self._kept.queued()
        left = [row for row in queue if (row[0], row[1]) not in self._newer]
        await self._store.finish(self._result.offsets, left)
        self._result.fold_s = time.monotonic() - started - self._result.read_s
        return self._result

    async def _read(self, open_tail: OpenTail) -> list[Path]:
        """Share the records of all topics between files."""
        result, telling = self._result, _Telling(self._report, "leser")
        async with open_tail(self._readers.topics, {}) as tail:
            telling.total = tail.total
            result.offsets |= tail.first
            result.cut = frozenset(partition.topic for partition, first in tail.first.items() if first > 0)
            with Buckets(self._folder, bucket_count(tail.total), self._readers.topics) as buckets:

                async def take(batch: Sequence[Incoming]) -> None:
                    for record in batch:
                        buckets.add(record)
                        result.offsets[record.topic_partition] = record.offset + 1
                    result.records += len(batch)
                    telling.tell(result.records)

                await read_until_caught_up(tail, take)
                telling.tell(result.records, at_once=True)
                return buckets.paths

    async def _fold(self, paths: Sequence[Path], now: datetime) -> None:
        result, telling = self._result, _Telling(self._report, "folder", self._result.records)
        workers = self._workers if result.records > SMALL else 0
        waiting: list[Folded] = []
        done = 0
        async for folded in fold_buckets(paths, self._readers, workers=workers, now=now):
            result.outcomes += folded.outcomes
            result.soknader += len(folded.soknader)
            waiting.append(folded)
            done += len(folded.raw)
            if sum(len(one.raw) for one in waiting) >= RECORDS_PER_WRITE:
                await self._write(waiting)
                waiting = []
            telling.tell(done)
        await self._write(waiting)
        telling.tell(done, at_once=True)

    async def _write(self, several: Sequence[Folded]) -> None:
        queue: list[Row] = []
        for folded in several:
            queue += await self._news(folded)
        await self._store.write(several, queue)

    async def _news(self, folded: Folded) -> list[Row]:
        """Return what the running store has neither published nor queued."""
        offsets = self._kept_offsets
        letters = [
            letter.row
            for letter in folded.letters
            if letter.offset >= offsets.get(TopicPartition(letter.topic, letter.partition), 0)
        ]
        if self._kept is None:
            return [*letters, *(one.row for one in folded.statuses)]
        published = await self._kept.last_statuses(one.digisos_id for one in folded.statuses)
        news = [one for one in folded.statuses if published.get(one.digisos_id) != one.value]
        self._newer.update((one.row[0], one.row[1]) for one in news)
        return [*letters, *(one.row for one in news)]


class _Telling:
    """Tells how far one step has come, not too often."""

    def __init__(self, report: Callable[[Progress], None], step: Literal["leser", "folder"], total: int = 0) -> None:
        self._report = report
        self._step: Literal["leser", "folder"] = step
        self.total = total
        self._began = self._told = time.monotonic()

    def tell(self, done: int, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._told < TELL_EVERY_S:
            return
        self._told = now
        self._report(Progress(self._step, done, max(self.total, done), done / max(now - self._began, 1e-6)))
