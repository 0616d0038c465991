"""How a process of ours begins and ends: signals become one stop event, and nobody outlives the supervisor."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from broker.log import configure_logging, get_logger
from schemas.errors import ConfigurationError, MeldingsformidlerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

T = TypeVar("T")

SUPERVISED_ENV: Final = "FORMIDLER_OVERVAKET_AV"
"""The supervisor's pid, in the environment of its children."""

INSTANCE_ENV: Final = "FORMIDLER_INSTANS"
"""Which child of the supervisor's this is: random, and repeated in a header of ``/isready``, as no stranger could."""
INSTANCE_HEADER: Final = "Formidler-Instans"

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
    except Exception as error:  # noqa: BLE001 - the last line before the interpreter would print values from a stack
        return _report(name, error)
    return 0


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Return the errors in ``error``, which task groups may have wrapped, or itself."""
    if isinstance(error, BaseExceptionGroup):
        for nested in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from leaves(nested)
    else:
        yield error


def first_of_ours(error: BaseException) -> MeldingsformidlerError | None:
    """Return the first error of our own in ``error``, or None."""
    return next((leaf for leaf in leaves(error) if isinstance(leaf, MeldingsformidlerError)), None)


def run_command(main: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine of a command, and raise an error of ours as it is, not as the group that task groups made of it.

    Raises:
        MeldingsformidlerError: The first of ours, whatever it was wrapped in.
    """
    try:
        return asyncio.run(main)
    except BaseExceptionGroup as group:
        first = first_of_ours(group)
        if first is None:
            raise
        raise first from None


def _report(name: str, error: Exception) -> int:
    """Log how a process ended: our own errors with their text, any other with its class and place alone."""
    ours = first_of_ours(error)
    if ours is None:
        for leaf in leaves(error):
            get_logger().critical("process_crashed", navn=name, feiltype=type(leaf).__name__, sted=place_of(leaf))
        return EXIT_FAILED
    get_logger().error("process_failed", navn=name, exc_info=ours)
    with suppress(OSError):  # a full disk: the exit code tells as much
        sys.stderr.write(f"{name}: {ours}\n")
        sys.stderr.flush()
    return EXIT_CONFIGURATION if isinstance(ours, ConfigurationError) else EXIT_FAILED


def place_of(error: BaseException) -> str:
    """Return where ``error`` was raised, innermost first: files and lines, none of the stack's values."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-6:]))


async def _run_until_stopped(name: str, main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    get_logger().info("process_started", navn=name, pid=os.getpid())
    await main(stop)
    get_logger().info("process_stopped", navn=name)


async def first_of(*events: asyncio.Event) -> None:
    """Return when one of ``events`` is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


def die_with_supervisor() -> None:
    """Ask Linux for a SIGTERM when the supervisor is gone, so that a ``kill -9`` of it leaves no orphans."""
    supervisor = os.environ.get(SUPERVISED_ENV)
    if supervisor is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(supervisor):  # it died before we asked
        os.kill(os.getpid(), signal.SIGTERM)
