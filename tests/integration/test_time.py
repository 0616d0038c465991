"""Time in a whole set-up, moved as a user moves it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from patience import until

from broker.cli.kafka_access import administrator_access
from broker.kafka.admin import KafkaAdmin
from broker.process_clock import ProcessClock
from broker.routing import soknad_topic
from broker.supervisor.bootstrap import bootstrap, choose_connectors
from broker.supervisor.up import Running, running
from producers.demo.plan import plan_day
from producers.demo.portal import Portal
from producers.status_client import StatusClient
from schemas.errors import RefusedError
from schemas.names import Kommunenummer

pytestmark = pytest.mark.kafka

KNR = Kommunenummer("4641")
KOMMUNER = (KNR, Kommunenummer("1811"), Kommunenummer("5612"))
WITHIN_S = 60.0


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Running]:
    layout = bootstrap(tmp_path / "data", choose_connectors(KOMMUNER), datetime.now(UTC))
    async with running(layout, external=None, report=lambda _: None) as up:
        yield up


def formidler(up: Running, *arguments: str) -> Any:
    command = [sys.executable, "-m", "broker.cli", *arguments, "--data", str(up.layout.folder), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    return json.loads(result.stdout)


async def send(up: Running, http: httpx.AsyncClient, seed: int) -> Callable[[], Awaitable[str]]:
    """Send a søknad of today, as the set-up counts days; return what asks for its status."""
    day = plan_day(seed, 6, KOMMUNER, ProcessClock(up.layout.clock)())
    soknad = next(one for one in day.soknader if one.kommunenummer == KNR)
    portal = Portal.of(up.layout, http)
    sent = await portal.send(soknad, await portal.public_key(soknad.person))

    async def status() -> str:
        client = StatusClient(portal.status_url, http, await portal.token(soknad.person))
        try:
            return str((await client.get(sent.digisos_id))["status"])
        except RefusedError:
            return "UKJENT"

    return status


async def test_a_soknad_is_kept_as_long_as_it_should_and_gone_when_time_was_moved_beyond_that(up: Running) -> None:
    async with httpx.AsyncClient(timeout=30) as http:
        status = await send(up, http, 1)
        await until(lambda: at_fagsystem(status))
        nothing = {"emner": {}, "antall": 0}
        assert await asyncio.to_thread(formidler, up, "oppbevaring", "plan") == nothing
        await asyncio.to_thread(formidler, up, "tid", "frem", "89d")
        assert await asyncio.to_thread(formidler, up, "oppbevaring", "plan") == nothing
        await asyncio.to_thread(formidler, up, "tid", "frem", "2d")
        async with KafkaAdmin(administrator_access(up.layout.folder)) as admin:
            await until(lambda: is_empty(admin, soknad_topic(KNR)))
        # The status outlives the ciphertext; tokens are issued and accepted in the moved time; the next søknad goes its way.
        await until(lambda: at_fagsystem(status))
        assert ProcessClock(up.layout.clock)() - datetime.now(UTC) > timedelta(days=90)
        second = await send(up, http, 2)
        await until(lambda: at_fagsystem(second))


async def at_fagsystem(status: Callable[[], Awaitable[str]]) -> bool:
    return await status() not in {"UKJENT", "AKSEPTERT", "SENDT"}


async def is_empty(admin: KafkaAdmin, topic: str) -> bool:
    starts, ends = await admin.start_offsets([topic]), await admin.end_offsets([topic])
    return starts == ends
