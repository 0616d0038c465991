from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from patience import until
from pydantic import BaseModel

from broker.ports import RebalanceListener
from consumers.connectors.memory import SPEC, MemoryConnector, MemorySettings
from consumers.dedup import DedupStore
from consumers.runner import Kommune, KommuneRunner, Shared, run_kommuner
from schemas.errors import AccessDeniedError, BrokerUnavailableError, ConfigurationError, TransportError
from schemas.names import Kommunenummer

NUMBER = Kommunenummer("4601")


class Flaky:
    """A subscription that fails to start as often as it is told to, and then reads nothing, for ever."""

    def __init__(self) -> None:
        self.errors: list[TransportError] = []
        self.starts = 0
        self.stops = 0

    def __call__(self, listener: RebalanceListener) -> Flaky:
        _ = listener
        return self

    async def start(self) -> None:
        self.starts += 1
        if self.errors:
            raise self.errors.pop(0)

    async def stop(self) -> None:
        self.stops += 1

    async def __aiter__(self) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield ()


@asynccontextmanager
async def no_tail(*_: object) -> AsyncIterator[Any]:
    raise BrokerUnavailableError("nede")
    yield None


@pytest.fixture
def subscription() -> Flaky:
    return Flaky()


@pytest.fixture
def runner(
    *,
    keys: Any,
    store: DedupStore,
    publisher: Any,
    clock: Any,
    lager: Any,
    fagsystem: MemoryConnector,
    subscription: Flaky,
    monkeypatch: pytest.MonkeyPatch,
) -> KommuneRunner:
    shared = Shared(
        leverandor="acme",
        issuer=keys.issuer,
        innsyn=keys.innsyn,
        trust=keys.trust,
        kafka=None,
        publisher=publisher,
        dokumentlager=lager,
        store=store,
        pool=None,
        clock=clock,
        random=lambda: 0.0,
    )
    settings: BaseModel = MemorySettings()
    runner = KommuneRunner(Kommune(NUMBER, keys.ring, SPEC, settings), shared, connector=fagsystem)
    monkeypatch.setattr(runner, "_subscriber", subscription)
    monkeypatch.setattr("consumers.runner.delay", lambda *_: timedelta())
    return runner


async def test_a_subscription_that_breaks_begins_again(runner: KommuneRunner, subscription: Flaky) -> None:
    subscription.errors = [BrokerUnavailableError("x"), AccessDeniedError("x"), BrokerUnavailableError("x")]
    assert runner.problem() is not None
    stop = asyncio.Event()
    running = asyncio.create_task(run_kommuner([runner], stop))
    await until(lambda: runner.problem() is None)
    assert subscription.starts == 4
    stop.set()
    await running
    assert subscription.stops == subscription.starts
    assert runner.problem() is not None


async def test_a_connector_that_can_never_work_ends_the_process(
    runner: KommuneRunner, fagsystem: MemoryConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never() -> None:
        raise ConfigurationError("mappe: kan ikke skrives")

    monkeypatch.setattr(fagsystem, "start", never)
    with pytest.raises(ExceptionGroup) as raised:
        await run_kommuner([runner], asyncio.Event())
    assert raised.group_contains(ConfigurationError)


async def test_a_connector_is_closed_also_when_closing_fails(
    runner: KommuneRunner, fagsystem: MemoryConnector, subscription: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []

    async def rude() -> None:
        closed.append(True)
        raise OSError("gone")

    monkeypatch.setattr(fagsystem, "close", rude)
    stop = asyncio.Event()
    running = asyncio.create_task(run_kommuner([runner], stop))
    await until(lambda: subscription.starts == 1)
    stop.set()
    await running
    assert closed == [True]
