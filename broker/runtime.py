"""How a process of ours begins and ends: signals become one stop event, and nobody outlives the supervisor."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING, Final, cast

from broker.log import configure_logging, get_logger
from schemas.errors import ConfigurationError, MeldingsformidlerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SUPERVISED_ENV: Final = "FORMIDLER_OVERVAKET_AV"
"""The supervisor's pid, in the environment of its children."""

EXIT_FAILED: Final = 1
EXIT_CONFIGURATION: Final = 78  # EX_CONFIG: the supervisor does not restart what cannot start

_PR_SET_PDEATHSIG: Final = 1


def run_process(name: str, main: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run ``main`` until it returns or SIGTERM or SIGINT asks it to stop.

    Args:
        name: Name of the process, for its logs.
        main: The composition root. It gets an event that is set when it should stop, and stops in order by itself.

    Returns:
        The exit code: 0 for a clean end, 78 for a wrong setting, 1 for anything else.
    """
    configure_logging(name)
    die_with_supervisor()
    try:
        asyncio.run(_run_until_stopped(name, main))
    except MeldingsformidlerError as error:
        return _report(name, error)
    except BaseExceptionGroup as group:
        first = first_of_ours(group)
        if first is None:
            raise
        return _report(name, first)
    return 0


def first_of_ours(group: BaseExceptionGroup[BaseException]) -> MeldingsformidlerError | None:
    """Return the first error of our own in ``group``, which task groups wrap around whatever ended them."""
    for error in group.exceptions:
        if isinstance(error, MeldingsformidlerError):
            return error
        nested = cast("BaseExceptionGroup[BaseException]", error) if isinstance(error, BaseExceptionGroup) else None
        if nested is not None and (found := first_of_ours(nested)) is not None:
            return found
    return None


def _report(name: str, error: MeldingsformidlerError) -> int:
    get_logger().error("process_failed", navn=name, exc_info=error)
    sys.stderr.write(f"{name}: {error}\n")
    return EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else EXIT_FAILED


async def _run_until_stopped(name: str, main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    get_logger().info("process_started", navn=name, pid=os.getpid())
    await main(stop)
    get_logger().info("process_stopped", navn=name)


def die_with_supervisor() -> None:
    """Ask Linux for a SIGTERM when the supervisor is gone, so that a ``kill -9`` of it leaves no orphans."""
    supervisor = os.environ.get(SUPERVISED_ENV)
    if supervisor is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(supervisor):  # it died before we asked
        os.kill(os.getpid(), signal.SIGTERM)
