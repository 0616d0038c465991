"""Buckets to rows in processes of their own: verifying and folding take nearly all of a rebuild's time.

A worker is given the katalog's entries and where the innsyn keys lie; what goes to and fro besides are a file's name and rows. It
starts from nothing (``spawn``): a fork of a process with threads may stand still for ever.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.katalog import Katalog
from crypto.keys import KeyRing
from kvittering.buckets import read_bucket
from kvittering.bulk import fold_all
from kvittering.chain import Konnektor
from kvittering.konnektorer import konnektor_of
from schemas.errors import StoreError
from schemas.names import Kommunenummer
from schemas.records import KatalogRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from kvittering.bulk import Folded


@dataclass(frozen=True)
class Readers:
    """What records are judged by, in a form that another process can be given.

    Attributes:
        entries: The katalog.
        innsyn_keys: Files or folders of the innsyn keys.
        topics: Every topic that is read, in the order in which the buckets number them.
    """

    entries: tuple[KatalogRecord, ...]
    innsyn_keys: tuple[Path, ...]
    topics: tuple[str, ...]

    def konnektorer(self) -> dict[Kommunenummer, Konnektor]:
        """Return who may sign, by kommune."""
        katalog = Katalog(self.entries)
        return {entry.kommunenummer: konnektor_of(katalog, entry.kommunenummer) for entry in self.entries}


class _Worker:
    """What one worker keeps from bucket to bucket."""

    def __init__(self, readers: Readers) -> None:
        self.topics = readers.topics
        self.konnektorer: Mapping[Kommunenummer, Konnektor] = readers.konnektorer()
        self.keys = KeyRing.load(*readers.innsyn_keys) if readers.innsyn_keys else KeyRing([])

    def fold(self, path: Path, now: datetime) -> Folded:
        folded = fold_all(read_bucket(path, self.topics), konnektorer=self.konnektorer, keys=self.keys, now=now)
        path.unlink()  # what is folded takes no more room
        return folded


_worker: _Worker | None = None


def _begin(readers: Readers) -> None:
    global _worker  # noqa: PLW0603  # one for each process, made once: certificates and keys are not sent with each bucket
    _worker = _Worker(readers)


def _fold(path: Path, now: datetime) -> Folded:
    if _worker is None:
        raise RuntimeError("the worker was not begun")
    return _worker.fold(path, now)


@contextmanager
def _executor(readers: Readers, workers: int) -> Generator[Executor]:
    if workers == 0:
        with ThreadPoolExecutor(1, initializer=_begin, initargs=(readers,)) as thread:
            yield thread
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(readers,)) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


async def fold_buckets(
    paths: Sequence[Path], readers: Readers, *, workers: int, now: datetime
) -> AsyncIterator[Folded]:
    """Fold buckets side by side; return each as it is done, in any order.

    A few are folded ahead of whoever takes them, and no more, so that rows do not pile up in memory.

    Args:
        paths: Those of ``buckets.Buckets``; a file that is folded is removed.
        readers: What records are judged by.
        workers: How many processes; 0 for none but this one, which is quicker for a few thousand records.
        now: Aware UTC, for dead letters.

    Raises:
        StoreError: A worker died: there was not enough memory, or somebody ended it.
    """
    with _executor(readers, workers) as executor:
        loop = asyncio.get_running_loop()
        left = iter(paths)
        under_way: set[asyncio.Future[Folded]] = set()
        try:
            while True:
                while len(under_way) < max(workers, 1) + 1 and (path := next(left, None)) is not None:
                    under_way.add(loop.run_in_executor(executor, _fold, path, now))
                if not under_way:
                    return
                done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    under_way.discard(one)
                    yield one.result()
        except BrokenProcessPool:
            raise StoreError("en arbeidsprosess ble borte; er det nok minne?") from None
        finally:
            for one in under_way:
                one.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
