"""The ``kvittering`` process as it is, which also tells what the citizen can see: ``python _watched_kvittering.py``.

Set up by the environment, as ``python -m kvittering`` is. Whenever a status is committed, and so visible, a line goes to stdout:
``<digisosId> <status> <CLOCK_MONOTONIC, ns>``, by a clock that all processes of one machine share.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from broker.log import configure_logging
from kvittering.__main__ import main
from kvittering.applier import Applier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.record import Incoming
    from kvittering.store import Applied

_handle = Applier.handle


async def _handle_and_tell(applier: Applier, batch: Sequence[Incoming]) -> Sequence[Applied]:
    applied = await _handle(applier, batch)
    now = time.monotonic_ns()
    shown = [one.after for one in applied if one.after is not None]
    lines = [f"{after.state.digisos_id} {after.status.value} {now}\n" for after in shown if after.status is not None]
    sys.stdout.write("".join(lines))
    sys.stdout.flush()
    return applied


def run() -> None:
    Applier.handle = _handle_and_tell  # type: ignore[assignment, method-assign]  # the process has no such outlet
    with Path(os.devnull).open("w") as nowhere:
        configure_logging("kvittering", stream=nowhere)
        asyncio.run(main(asyncio.Event()))


if __name__ == "__main__":
    run()
