"""One process to a file: an operating system's lock on a file beside it, gone with the process that held it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from schemas.errors import ConfigurationError


class FileLock:
    """Held from ``acquire`` to ``release``, or until the process ends, however it ends.

    The file stays: who removed it could remove one that another has just locked. It says which process has it.

    Args:
        guarded: The file that only one process may write.
    """

    def __init__(self, guarded: Path) -> None:
        self._guarded = guarded
        self._path = guarded.with_name(f"{guarded.name}.lock")
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, at once or not at all.

        Raises:
            ConfigurationError: Another has it; says who, and what to do.
            OSError: The lock file cannot be made.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "ukjent"
            os.close(descriptor)
            raise ConfigurationError(
                f"{self._guarded.name} er åpen i en annen prosess (pid {holder}). To prosesser kan ikke skrive i samme fil: stopp"
                " den andre, eller gi denne en egen database. Flere instanser av én prosess må dele en PostgreSQL"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back. May be called twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            os.close(descriptor)
