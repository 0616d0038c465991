"""The files of a rebuild: where the new store lies meanwhile, and how it takes the place of the running one.

Rules:

1. A store takes another's place only while nobody has either open: the lock of ``broker.sql`` says so.
2. The former file is kept beside the new one, under a name with the time. Removing it is a person's decision.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.sql import is_shared
from broker.sql.lock import FileLock
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import datetime

_BESIDE: Final = ("", "-wal", "-shm", ".lock")
"""What SQLite and the lock put beside a database, by the end of the name."""


def beside(running: str) -> Path:
    """Return where a rebuilt store lies until it takes the place of the running one."""
    path = Path(running)
    return path.with_name(f"{path.stem}-ny{path.suffix}")


def exists(place: str) -> bool:
    """Return whether there is a store at ``place``; a server's is asked when it is opened."""
    return is_shared(place) or Path(place).is_file()


def remove(path: Path) -> None:
    """Remove a store that nobody has open, and what lies beside it."""
    for end in _BESIDE:
        path.with_name(path.name + end).unlink(missing_ok=True)


def check_swappable(running: str, new: str) -> None:
    """Refuse to exchange what is not two files beside each other.

    Raises:
        ConfigurationError: Says what to do instead.
    """
    if is_shared(running) or is_shared(new):
        raise ConfigurationError(
            "--bytt gjelder filer; pek FORMIDLER_KVITTERING_DATABASE mot den nye databasen i stedet"
        )
    if Path(running).absolute().parent != Path(new).absolute().parent:
        raise ConfigurationError("--bytt krever at det nye lageret ligger i samme mappe som det som kjører")


def swap(running: Path, new: Path, now: datetime) -> Path | None:
    """Put ``new`` in the place of ``running``; return where the former store lies now, None if there was none.

    At every moment there is a store to start with. The log of the former one goes before the new one comes, or SQLite would
    read it into that; a crash just then leaves a store that is a little older, and reads on from where it was.

    Args:
        running: The running store's file; it may be missing.
        new: The rebuilt one, closed in good order.
        now: Becomes part of the former store's name.

    Raises:
        ConfigurationError: A process has the running store open.
    """
    lock = FileLock(running)
    lock.acquire()
    try:
        former = None
        if running.exists():
            former = running.with_name(f"{running.name}.gammel-{now:%Y%m%dT%H%M%S}")
            for end in _BESIDE[:-1]:  # the lock is ours, and stays
                held = running.with_name(running.name + end)
                if held.exists():
                    os.link(held, former.with_name(former.name + end))
            for end in _BESIDE[1:-1]:
                running.with_name(running.name + end).unlink(missing_ok=True)
        new.replace(running)
        new.with_name(f"{new.name}.lock").unlink(missing_ok=True)
        _sync(running.parent)
        return former
    finally:
        lock.release()


def _sync(folder: Path) -> None:
    """Make the new names durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
