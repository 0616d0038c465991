"""Starting the Java process, and seeing it end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.embedded import launch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OWN_PREFIX: Final = "FORMIDLER_"


class JavaProcess:
    """A child in a process group of its own, so that a Ctrl-C in the terminal is ours to handle and not its.

    The thread that starts it waits for it: Linux ties "end when the parent ends" to the thread that started the child.

    Args:
        command: Program and arguments.
        log: Descriptor for its output.
        inherited: Descriptor that it keeps open until it ends.
        environment: Its environment; our own settings are left out, since some are secret.
        die_with_parent: Whether it ends when we do; otherwise it gets a session of its own.
    """

    def __init__(
        self, command: Sequence[str], *, log: int, inherited: int, environment: Mapping[str, str], die_with_parent: bool
    ) -> None:
        self._command = tuple(command)
        self._log = log
        self._inherited = inherited
        self._environment = {name: value for name, value in environment.items() if not name.startswith(_OWN_PREFIX)}
        self._die_with_parent = die_with_parent
        self._ended = threading.Event()
        started: Future[int] = Future()
        threading.Thread(target=self._run, args=(started,), name="embedded-kafka", daemon=True).start()
        self.pid = started.result()

    def running(self) -> bool:
        """Return whether it has not ended."""
        return not self._ended.is_set()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it has ended."""
        if self.running():
            os.killpg(self.pid, number)

    def wait(self, timeout_s: float) -> bool:
        """Return whether it ended within ``timeout_s``."""
        return self._ended.wait(timeout_s)

    def _run(self, started: Future[int]) -> None:
        command = self._command
        if self._die_with_parent:
            command = (sys.executable, "-I", "-S", str(Path(launch.__file__)), str(os.getpid()), *command)
        try:
            process = subprocess.Popen(  # noqa: S603  # Java, found by us, with our arguments
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                pass_fds=(self._inherited,),
                env=self._environment,
                cwd="/",
                process_group=0 if self._die_with_parent else None,
                start_new_session=not self._die_with_parent,
            )
        except OSError as error:
            started.set_exception(error)
            return
        started.set_result(process.pid)
        process.wait()
        self._ended.set()
