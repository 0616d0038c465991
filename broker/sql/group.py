"""Group commit: one writer thread takes whatever waits and makes one transaction of it.

An fsync costs the same for one write and for five hundred. What differs between databases is in the subclasses.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self, TypeVar, cast

from broker.sql.ports import Connection

T = TypeVar("T")

MAX_GROUP: Final = 500
"""Most writes in one commit."""


class Waiting:
    """One write that waits: what to do, and who wants to know."""

    __slots__ = ("call", "done")

    def __init__(self, call: Callable[[Connection], object]) -> None:
        self.call = call
        self.done: Future[object] = Future()


class GroupDatabase(ABC):
    """A database with one writer thread and one reader.

    Args:
        kind: Begins the threads' names.
        read_only: Whether ``write`` is refused.
    """

    def __init__(self, kind: str, *, read_only: bool) -> None:
        self._kind = kind
        self._read_only = read_only
        self._open = False
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._readers = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{kind}-reader")
        self.commits = 0

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the database; see ``Database.open``."""
        if self._open:
            raise RuntimeError("the database is open already")
        await asyncio.to_thread(self._prepare)
        self._open = True
        if not self._read_only:
            self._writer = threading.Thread(target=self._write_loop, name=f"{self._kind}-writer", daemon=True)
            self._writer.start()

    async def close(self) -> None:
        """Finish every write that was asked for, then close. May be called twice."""
        if not self._open:
            return
        self._open = False
        if self._writer is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._writer.join)
            self._writer = None
        await asyncio.get_running_loop().run_in_executor(self._readers, self._close_reader)
        self._readers.shutdown(wait=False)
        await asyncio.to_thread(self._release)

    async def write(self, call: Callable[[Connection], T]) -> T:
        """Run ``call`` in a transaction; see ``Database.write``."""
        if not self._open or self._writer is None:  # what came behind the end of the queue, nobody would ever answer
            raise RuntimeError("the database is not open for writing")
        write = Waiting(call)
        self._queue.put(write)
        # Shielded: a caller that is cancelled gives up waiting, and the write is made all the same.
        return cast("T", await asyncio.shield(asyncio.wrap_future(write.done)))

    async def read(self, call: Callable[[Connection], T]) -> T:
        """Run ``call`` on a connection that only reads; see ``Database.read``."""
        if not self._open:
            raise RuntimeError("the database is not open")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, call)

    async def scrub(self) -> bool:
        """Take what was deleted out of the files; see ``Database.scrub``."""
        if not self._open:
            raise RuntimeError("the database is not open")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._scrub)

    def _scrub(self) -> bool:
        """Scrub, in the reader's thread; False where that cannot be done."""
        return False

    def _write_loop(self) -> None:
        """Take whatever waits, commit it together, until told to stop."""
        try:
            last = False
            while not last:
                group, last = self._next_group()
                # From here on nobody can cancel: a result that nobody may set would end this thread.
                group = [write for write in group if write.done.set_running_or_notify_cancel()]
                if group:
                    self._commit(group)
        finally:
            self._close_writer()

    def _next_group(self) -> tuple[list[Waiting], bool]:
        """Wait for one write and take all that wait with it; say whether they are the last."""
        group: list[Waiting] = []
        item = self._queue.get()
        while item is not None:
            group.append(item)
            if len(group) == MAX_GROUP:
                return group, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    @abstractmethod
    def _prepare(self) -> None:
        """Connect for writing and migrate; with ``read_only``, see that it can be read. Leaves nothing open when it fails."""

    @abstractmethod
    def _commit(self, group: list[Waiting]) -> None:
        """Run the group as one transaction and give each its result or its error. Never raises."""

    @abstractmethod
    def _read(self, call: Callable[[Connection], T]) -> T:
        """Run one read, in the reader's thread."""

    @abstractmethod
    def _close_reader(self) -> None:
        """Close the reader's connection, in its thread."""

    @abstractmethod
    def _close_writer(self) -> None:
        """Close the writer's connection, in its thread."""

    def _release(self) -> None:  # noqa: B027 - most have nothing more to give back
        """Give back whatever else is held, when all is closed."""
