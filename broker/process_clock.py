"""The clock of one process: the machine's time, which never goes back while the process lives.

Rules:

1. The machine's clock decides as long as it goes forwards. A step back of up to ``TOLERANCE`` is held: the same moment is
   returned until the machine has caught up.
2. After a longer step back time goes on by the monotonic clock from the last moment that was returned, and ``problem`` says
   so: who is overdue and which certificate is valid must not depend on an operator's typing error. When the machine has
   caught up, it decides again.
3. An offset file (``FORMIDLER_KLOKKE``) moves the time of every process that names it, forwards only: deadlines, retention,
   and the validity of certificates and tokens follow. Kafka's own time stamps do not: they stay the machine's. Without the
   variable there is no virtual time, which is how production runs.
4. A process that is started with an earlier time than its own store has seen refuses to start (``check_time``).
"""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from broker.clock import system_clock, timestamp
from broker.files import write_private
from broker.log import get_logger
from schemas.errors import ConfigurationError
from schemas.model import WireModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from broker.clock import Clock

CLOCK_ENV: Final = "FORMIDLER_KLOKKE"
"""Path of the offset file."""
TOLERANCE: Final = timedelta(seconds=5)
"""A step back that is time keeping at work, not a mistake."""
STORED_AHEAD: Final = timedelta(minutes=5)
"""How far the newest thing in a store may lie ahead of a process that starts."""
_LOOK_EVERY_S: Final = 0.05


class Forskyvning(WireModel):
    """The offset file: how far the set-up's time is ahead of the machine's."""

    sekunder: float = 0.0


def read_offset(path: Path) -> timedelta:
    """Return the offset in ``path``; none when there is no such file.

    Raises:
        ConfigurationError: The file is not what ``write_offset`` writes.
    """
    try:
        return timedelta(seconds=Forskyvning.model_validate_json(path.read_bytes()).sekunder)
    except FileNotFoundError:
        return timedelta()
    except (OSError, ValidationError, OverflowError) as error:
        raise ConfigurationError(f"{path}: klokkens forskyvning kan ikke leses ({type(error).__name__})") from None


def write_offset(path: Path, offset: timedelta) -> None:
    """Write the offset down, whole or not at all; processes see it within some hundredths of a second."""
    write_private(path, Forskyvning(sekunder=offset.total_seconds()).model_dump_json(by_alias=True).encode())


class ProcessClock:
    """A ``Clock``: call it for the present moment, aware, in UTC. For any thread.

    Args:
        offset_file: The emulator's offset; None where there is no virtual time.
        machine: The machine's own time.
        monotonic: Seconds that never go back.
    """

    def __init__(
        self,
        offset_file: Path | None = None,
        *,
        machine: Clock = system_clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._offset_file = offset_file
        self._machine = machine
        self._monotonic = monotonic
        self._offset = read_offset(offset_file) if offset_file else timedelta()
        self._seen: tuple[int, int] | None = None
        self._look_at = 0.0
        self._last = machine()
        self._behind: tuple[datetime, float] | None = None

    def __call__(self) -> datetime:
        """Return the present moment."""
        self._follow_offset()
        return self._steady() + self._offset

    def problem(self) -> str | None:
        """Return what is wrong with the machine's clock, for ``/isready``; None while it goes forwards."""
        self._steady()
        if self._behind is None:
            return None
        back = self._last - self._machine()
        return f"maskinens klokke er stilt {round(back.total_seconds())} s tilbake; tiden går videre uten den, rett klokken"

    def _steady(self) -> datetime:
        now = self._machine()
        if now >= self._last:
            self._behind = None
            self._last = now
            return now
        behind = self._behind  # another thread may see the machine catch up meanwhile
        if behind is None and self._last - now <= TOLERANCE:
            return self._last
        if behind is None:
            behind = self._behind = self._last, self._monotonic()
            get_logger().critical("clock_went_back", alder_s=round((self._last - now).total_seconds()))
        since, began = behind
        self._last = max(self._last, since + timedelta(seconds=self._monotonic() - began))
        return self._last

    def _follow_offset(self) -> None:
        if self._offset_file is None or self._monotonic() < self._look_at:
            return
        self._look_at = self._monotonic() + _LOOK_EVERY_S
        try:
            found = self._offset_file.stat()
        except OSError:
            return  # being replaced, or not there yet: what was read stays
        if (found.st_mtime_ns, found.st_ino) == self._seen:
            return
        try:
            offset = read_offset(self._offset_file)
        except ConfigurationError as error:
            get_logger().error("clock_offset_unreadable", exc_info=error)
            return
        self._seen = found.st_mtime_ns, found.st_ino
        if offset > self._offset:
            self._offset = offset
            get_logger().warning("clock_moved", alder_s=round(offset.total_seconds()))


def process_clock(environment: Mapping[str, str]) -> ProcessClock:
    """Return the clock of this process.

    Args:
        environment: May name the offset file, under ``FORMIDLER_KLOKKE``.

    Raises:
        ConfigurationError: The offset file cannot be read.
    """
    place = environment.get(CLOCK_ENV)
    return ProcessClock(Path(place) if place else None)


def check_time(newest: datetime | None, now: datetime) -> None:
    """Refuse to start with a time that lies before what is stored already.

    Args:
        newest: When the newest thing in the store happened, by the clock of its time; None when it is empty.
        now: The time of the process that starts.

    Raises:
        ConfigurationError: The clock was set back. Nothing is guessed: deadlines, certificates and the order of
            what is shown would all be wrong.
    """
    if newest is not None and newest - now > STORED_AHEAD:
        raise ConfigurationError(
            f"klokken er {timestamp(now)}, men lageret har noe fra {timestamp(newest)}: rett maskinens klokke (i et lokalt"
            " oppsett: legg tilbake klokke.json), og start igjen"
        )
