"""Keeps the contract's promise about errors for connectors that break it, so that no connector has to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from schemas.errors import FagsystemFailureError, FagsystemUnavailableError, MeldingsformidlerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import timedelta

    from consumers.connector import ConnectorEvent, FagsystemConnector, Leveranse, Settle, Svar


class GuardedConnector:
    """A connector out of which only errors of ours come.

    A foreign exception counts as ``FagsystemFailureError`` and its text is dropped, since it may quote a søknad. Errors of our
    own pass as they are: those that the files' own streams raise mean what they always mean. A ``deliver`` that never ends is
    ended, and counts as an unavailable fagsystem.

    Args:
        connector: The vendor's.
        timeout: How long one ``deliver`` may take.
    """

    def __init__(self, connector: FagsystemConnector, *, timeout: timedelta) -> None:
        self._connector = connector
        self._timeout = timeout

    async def start(self) -> None:
        """Make ready; a ``ConfigurationError`` passes, and so does what is a mistake in the connector itself."""
        await self._connector.start()

    async def close(self) -> None:
        """Let go of everything; an exception here helps nobody any more, and is turned into our own."""
        try:
            await self._connector.close()
        except Exception as error:  # noqa: BLE001 - a vendor's code may raise anything
            raise _failure("close", error) from None

    async def deliver(self, leveranse: Leveranse) -> Svar:
        """Hand over; see ``FagsystemConnector.deliver``."""
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                return await self._connector.deliver(leveranse)
        except MeldingsformidlerError:
            raise
        except TimeoutError:
            raise FagsystemUnavailableError("fagsystemet svarte ikke i tide") from None
        except Exception as error:  # noqa: BLE001 - a vendor's code may raise anything
            raise _failure("deliver", error) from None

    async def events(self) -> AsyncIterator[ConnectorEvent]:
        """Iterate over events; see ``FagsystemConnector.events``."""
        try:
            async for event in self._connector.events():
                yield replace(event, settle=_guarded(event.settle))
        except MeldingsformidlerError:
            raise
        except Exception as error:  # noqa: BLE001 - a vendor's code may raise anything
            raise _failure("events", error) from None


def _guarded(settle: Settle) -> Settle:
    async def settled(error: MeldingsformidlerError | None) -> None:
        try:
            await settle(error)
        except MeldingsformidlerError:
            raise
        except Exception as foreign:  # noqa: BLE001 - a vendor's code may raise anything
            raise _failure("settle", foreign) from None

    return settled


def _failure(where: str, error: Exception) -> FagsystemFailureError:
    return FagsystemFailureError(f"konnektoren feilet i {where}: {type(error).__name__}")
