"""Children: started, watched, restarted, stopped.

Rules:

1. A child that ends by itself is started again after a pause that doubles from 0.5 s to 30 s, and begins at 0.5 s again when it
   has lived for a minute.
2. A child that ends with the exit code for a wrong setting (78) is not started again: it would end the same way.
3. A child is asked to stop by SIGTERM, and killed when it has not ended after 15 s.
4. Its output goes to its log file, never to the terminal, and nothing of our environment reaches it but what it needs.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from broker.files import open_private
from broker.log import get_logger
from broker.runtime import EXIT_CONFIGURATION, INSTANCE_ENV, SUPERVISED_ENV
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
STEADY_AFTER_S: Final = 60.0
STOP_GRACE_S: Final = 15.0
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR")
_TAIL_BYTES: Final = 2000


def next_pause(previous_s: float, lived_s: float) -> float:
    """Return how long to wait before a child is started again (rule 1).

    Args:
        previous_s: The pause before its last start, 0 for the first.
        lived_s: How long it lived.
    """
    if previous_s == 0 or lived_s >= STEADY_AFTER_S:
        return FIRST_PAUSE_S
    return min(previous_s * 2, LONGEST_PAUSE_S)


class Child:
    """One child process.

    Args:
        name: Its name, for logs.
        module: Run as ``python -m <module>``.
        environment: Its settings.
        log: File that its output is appended to.

    Attributes:
        instance: Random for each life; the child repeats it on ``/isready``, so that no stranger on its port passes for it.
        restarts: How many times it has been started again.
    """

    def __init__(self, name: str, module: str, environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.restarts = 0
        self.instance = ""
        self._module = module
        self._environment = environment
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._starting = asyncio.Lock()  # a stop waits for a start that has begun, or it would miss the child

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def run(self) -> None:
        """Keep the child running until ``stop``.

        Raises:
            ConfigurationError: It said that a setting is wrong; the end of its log says which.
        """
        pause = 0.0
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._live_once()
            if self._stopping.is_set():
                return
            if code == EXIT_CONFIGURATION:
                raise ConfigurationError(f"{self.name} kan ikke starte: {self._last_words()}")
            pause = next_pause(pause, time.monotonic() - started)
            get_logger().warning("child_ended", navn=self.name, exit_code=code, vent_s=pause)
            self.restarts += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def stop(self) -> None:
        """Ask it to stop, and see to it that it does (rule 3)."""
        self._stopping.set()
        async with self._starting:
            process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_GRACE_S)
        except TimeoutError:
            get_logger().error("child_killed", navn=self.name, vent_s=STOP_GRACE_S)
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _live_once(self) -> int | None:
        """Start the child and return its exit code when it has ended, or None when it could not be started."""
        try:
            process = await self._spawn()
        except OSError as error:  # no room for its log, no memory, too many processes: all of them may pass
            get_logger().error("child_not_started", navn=self.name, exc_info=error)
            return None
        return await process.wait() if process else 0

    async def _spawn(self) -> asyncio.subprocess.Process | None:
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        async with self._starting:
            if self._stopping.is_set():
                return None
            self.instance = secrets.token_hex(8)
            with open_private(self._log) as output:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    self._module,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=passed_on
                    | dict(self._environment)
                    | {SUPERVISED_ENV: str(os.getpid()), INSTANCE_ENV: self.instance},
                    start_new_session=True,
                )
        get_logger().info("child_started", navn=self.name, pid=self._process.pid)
        return self._process

    def _last_words(self) -> str:
        with self._log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "uten forklaring"
