"""``python -m consumers``: one connector process, set up by the file that ``FORMIDLER_KONNEKTOR_OPPSETT`` names."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from broker.kafka.settings import KafkaSettings
from broker.process_clock import process_clock
from broker.runtime import run_process
from consumers.app import run
from consumers.settings import CONFIG_ENV, ConnectorSettings
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    import asyncio


async def main(stop: asyncio.Event) -> None:
    """Run the process until ``stop`` is set."""
    path = os.environ.get(CONFIG_ENV)
    if not path:
        raise ConfigurationError(f"{CONFIG_ENV} skal være stien til konnektorens oppsett (YAML)")
    clock = process_clock(os.environ)
    await run(ConnectorSettings.load(Path(path)), KafkaSettings.from_environment(os.environ), stop, clock=clock)


if __name__ == "__main__":
    sys.exit(run_process("konnektor", main))
