from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from consumers.connector import ConnectorEvent, Mottatt
from consumers.guard import GuardedConnector
from schemas.errors import ConfigurationError, FagsystemFailureError, FagsystemUnavailableError, UnsealError

SECRET = "noen bor i en gate"


class Rude:
    """A connector that raises what it is given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[str] = []

    async def start(self) -> None:
        self.calls.append("start")
        if self.error:
            raise self.error

    async def close(self) -> None:
        if self.error:
            raise self.error

    async def deliver(self, leveranse: Any) -> Any:
        if self.error:
            raise self.error
        return leveranse

    async def events(self) -> AsyncIterator[ConnectorEvent]:
        if self.error:
            raise self.error
        yield ConnectorEvent(lambda _: asyncio.sleep(0))


def guarded(error: Exception | None = None, seconds: float = 5) -> GuardedConnector:
    return GuardedConnector(Rude(error), timeout=timedelta(seconds=seconds))


async def everything(connector: GuardedConnector, call: str) -> None:
    if call == "events":
        _ = [event async for event in connector.events()]
    elif call == "deliver":
        await connector.deliver(Mottatt())
    else:
        await connector.close()


@pytest.mark.parametrize("call", ["deliver", "events", "close"])
async def test_a_foreign_error_becomes_a_failure_without_its_text(call: str) -> None:
    with pytest.raises(FagsystemFailureError) as raised:
        await everything(guarded(RuntimeError(SECRET)), call)
    assert SECRET not in str(raised.value)
    assert "RuntimeError" in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("error", [FagsystemUnavailableError("nede"), UnsealError()])
@pytest.mark.parametrize("call", ["deliver", "events"])
async def test_our_own_errors_pass_as_they_are(error: Exception, call: str) -> None:
    with pytest.raises(type(error)) as raised:
        await everything(guarded(error), call)
    assert raised.value is error


async def test_what_never_ends_is_ended_and_counts_as_unavailable() -> None:
    class Endless(Rude):
        async def deliver(self, leveranse: Any) -> Any:
            _ = leveranse
            await asyncio.Event().wait()

    with pytest.raises(FagsystemUnavailableError):
        await GuardedConnector(Endless(), timeout=timedelta(milliseconds=10)).deliver(Mottatt())


async def test_a_wrong_setting_passes_at_the_start() -> None:
    with pytest.raises(ConfigurationError):
        await guarded(ConfigurationError("mappe")).start()


async def test_a_polite_connector_is_not_changed() -> None:
    connector = guarded()
    svar = Mottatt()
    assert await connector.deliver(svar) is svar
    assert len([event async for event in connector.events()]) == 1


async def test_a_foreign_error_of_an_acknowledgement_becomes_a_failure() -> None:
    class Sour(Rude):
        async def events(self) -> AsyncIterator[ConnectorEvent]:
            async def settle(error: Any) -> None:
                raise error or OSError(SECRET)

            yield ConnectorEvent(settle)

    connector = GuardedConnector(Sour(), timeout=timedelta(seconds=5))
    (event,) = [each async for each in connector.events()]
    with pytest.raises(FagsystemFailureError) as raised:
        await event.ack()
    assert SECRET not in str(raised.value)
    with pytest.raises(UnsealError):
        await event.refuse(UnsealError())
