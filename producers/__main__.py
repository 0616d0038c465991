"""The ``producers`` process's composition root: ``python -m producers``."""

from __future__ import annotations

import asyncio
import os
import sys

import httpx

from broker.kafka.settings import KafkaSettings
from broker.process_clock import process_clock
from broker.runtime import run_process
from broker.settings import load_settings
from broker.sql import open_database
from producers.assembly import Assembly, Ground
from producers.database import MIGRATIONS
from producers.settings import ProducersSettings


async def main(stop: asyncio.Event) -> None:
    """Take søknader in and publish them, until ``stop``."""
    settings = load_settings(ProducersSettings)
    kafka = KafkaSettings.from_environment(os.environ)
    clock = process_clock(os.environ)
    async with open_database(settings.database, MIGRATIONS) as database, httpx.AsyncClient() as http:
        process = Assembly(Ground(settings, kafka, clock, database, http))
        await process.prepare()
        await process.run(stop)


if __name__ == "__main__":
    sys.exit(run_process("producers", main))
