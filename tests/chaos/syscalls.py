"""Whether everything was synced before 202 was written: read from a trace of the running process's own syscalls."""

from __future__ import annotations

import asyncio
import re
from asyncio.subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TRACED: Final = "trace=fsync,fdatasync,rename,recvfrom,sendto,write,pwrite64"
_WITHIN_S: Final = 20.0


class Tracer:
    """strace, attached to a process for as long as the context lasts.

    Args:
        pid: Whom.
        output: Where the trace goes.
    """

    def __init__(self, pid: int, output: Path) -> None:
        self._pid = pid
        self._output = output
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            "strace", "-f", "-y", "-s", "60", "-e", _TRACED, "-o", str(self._output), "-p", str(self._pid),
            stdout=DEVNULL, stderr=PIPE,
        )  # fmt: skip
        if self._process.stderr is None:
            raise RuntimeError("strace has no stderr")
        async with asyncio.timeout(_WITHIN_S):
            while b"attached" not in await self._process.stderr.readline():
                continue
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            await self._process.communicate()

    def problems(self, *, small: int, large: int) -> Iterator[str]:
        """Return what was not synced in time in the submissions of the trace.

        Args:
            small: Place of the submission whose package was in memory.
            large: Place of the one whose package went to the dokumentlager.
        """
        calls = self._output.read_text("utf-8", "replace").splitlines()
        begins = [nr for nr, call in enumerate(calls) if '"POST /digisos' in call]
        ends = [nr for nr, call in enumerate(calls) if "202 Accepted" in call]
        if len(begins) <= max(small, large) or len(begins) != len(ends):
            yield f"sporet viser {len(begins)} innsendinger og {len(ends)} svar"
            return
        for nr in (small, large):
            request = calls[begins[nr] : ends[nr] + 1]
            written = _first(request, r"pwrite64\(.*producers\.sqlite-wal")
            synced = _first(request[written or 0 :], r"f(data)?sync\(.*producers\.sqlite-wal")
            if written is None or synced is None:
                yield f"innsending {nr + 1}: 202 ble skrevet før databasen var synket"
        yield from _package_problems(calls[begins[large] : ends[large] + 1])


def _package_problems(request: list[str]) -> Iterator[str]:
    steps = (
        r"fsync\(.*dokumentlager/.*\.del",
        r"rename\(.*\.del.*\.cms",
        r"fsync\(\d+<[^>]*/dokumentlager>",
        r"pwrite64\(.*producers\.sqlite-wal",
    )
    places = [_first(request, step) for step in steps]
    known = [place for place in places if place is not None]
    if len(known) < len(steps) or known != sorted(known):
        yield f"stor pakke: fil synket, navngitt, mappe synket, rad skrevet kom i rekkefølgen {places}"


def _first(calls: list[str], pattern: str) -> int | None:
    """Return the first call that matches and has ended; one that another thread interrupted ends in a line of its own."""
    for nr, call in enumerate(calls):
        if not re.search(pattern, call):
            continue
        if "<unfinished ...>" not in call:
            return nr
        thread, name = call.split()[0], call.split()[1].partition("(")[0]
        resumed = (
            at for at in range(nr, len(calls)) if calls[at].startswith(thread) and f"<... {name} resumed>" in calls[at]
        )
        return next(resumed, None)
    return None
