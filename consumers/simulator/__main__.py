"""``python -m consumers.simulator``: the simulated fagsystem, over HTTP and over folders."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from broker.clock import system_clock
from broker.log import get_logger
from broker.process_clock import process_clock
from broker.runtime import run_process
from broker.settings import load_settings
from broker.web import Health, serve
from consumers.simulator.case import CasePlan, Switches
from consumers.simulator.folders import FolderFagsystem
from consumers.simulator.http_app import HttpFagsystem, make_app
from consumers.simulator.settings import FagsystemSettings

if TYPE_CHECKING:
    from broker.clock import Clock


async def run(settings: FagsystemSettings, stop: asyncio.Event, *, clock: Clock = system_clock) -> None:
    """Run the fagsystem until ``stop`` is set."""
    switches = Switches()
    first, second, third = (timedelta(seconds=each) for each in settings.forsinkelser_s)
    plan = CasePlan((first, second, third))
    over_http = HttpFagsystem(settings.mappe, switches=switches, plan=plan, clock=clock)
    over_folders = FolderFagsystem(settings.filedrop, switches=switches, plan=plan, clock=clock)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(make_app(over_http, Health()), settings.host, settings.port, stop))
        tasks.create_task(_tick(over_http, over_folders, settings.intervall_s, stop))


async def _tick(
    over_http: HttpFagsystem, over_folders: FolderFagsystem, interval_s: float, stop: asyncio.Event
) -> None:
    while not stop.is_set():
        over_http.tick()
        try:
            await asyncio.to_thread(over_folders.tick)
        except OSError as error:  # the connector moves files at the same time; the next round sees what is there
            get_logger().info("folder_changed_meanwhile", exc_info=error)
        try:
            await asyncio.wait_for(stop.wait(), interval_s)
        except TimeoutError:
            continue


async def main(stop: asyncio.Event) -> None:
    """Run the process until ``stop`` is set."""
    await run(load_settings(FagsystemSettings), stop, clock=process_clock(os.environ))


if __name__ == "__main__":
    sys.exit(run_process("fagsystem", main))
