"""A fagsystem in memory: the smallest connector, for tests and as an example to read.

It keeps every rule of ``consumers.connector`` but durability: what it has, it has until the process ends.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from consumers.connector import (
    Avvist,
    ConnectorContext,
    ConnectorEvent,
    ConnectorSpec,
    Leveranse,
    Levert,
    Mottatt,
    Oppdatering,
    Svar,
    SvarAvvist,
    SvarMottatt,
    Vedlagt,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from consumers.connector import Settle
    from schemas.errors import MeldingsformidlerError
    from schemas.names import DigisosId, MeldingId


class MemorySettings(BaseModel):
    """Settings of the memory connector."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    svar: Literal["MOTTATT", "LEVERT"] = Field(default="MOTTATT", description="Hva deliver svarer.")


class MemoryConnector:
    """Keeps what it gets in ``soknader``, by melding_id.

    Attributes:
        soknader: The files of each melding, by name.
        order: The meldinger in the order in which they came first.
        deliveries: How many times ``deliver`` was called.
        refused: Errors of the events that the runner refused.
        failures: Raised by the next calls of ``deliver``, one each, oldest first.
        rejections: Reason codes, by melding_id.
        down: Raised by every ``deliver`` while it is set.
    """

    def __init__(self, settings: MemorySettings, context: ConnectorContext) -> None:
        self._settings = settings
        self._context = context
        self.soknader: dict[MeldingId, dict[str, bytes]] = {}
        self.order: list[MeldingId] = []
        self.deliveries = 0
        self.refused: list[MeldingsformidlerError] = []
        self.failures: list[Exception] = []
        self.rejections: dict[MeldingId, str] = {}
        self.down: MeldingsformidlerError | None = None
        self._events: list[Callable[[Settle], ConnectorEvent]] = []
        self._taken: set[int] = set()
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Nothing to let go of."""

    async def deliver(self, leveranse: Leveranse) -> Svar:
        """Keep the files."""
        self.deliveries += 1
        if self.down is not None:
            raise self.down
        if self.failures:
            raise self.failures.pop(0)
        if (kode := self.rejections.get(leveranse.melding_id)) is not None:
            return Avvist(kode)
        files = {f.name: b"".join([piece async for piece in leveranse.read(f.name)]) for f in leveranse.files}
        if leveranse.melding_id not in self.soknader:
            self.order.append(leveranse.melding_id)
        self.soknader[leveranse.melding_id] = files
        return Mottatt() if self._settings.svar == "MOTTATT" else Levert()

    async def events(self) -> AsyncIterator[ConnectorEvent]:
        """Give what was told and is not settled yet, from the start at each call."""
        self._taken.clear()
        while True:
            self._changed.clear()
            for make in list(self._events):
                if id(make) not in self._taken:
                    self._taken.add(id(make))
                    yield make(self._settle(make))
            await self._changed.wait()

    def tell_mottatt(self, melding_id: MeldingId) -> None:
        """Let the fagsystem answer later that it has stored the søknad."""
        self._tell(lambda settle: SvarMottatt(settle, melding_id))

    def tell_avvist(self, melding_id: MeldingId, kode: str) -> None:
        """Let the fagsystem answer later that it says no."""
        self._tell(lambda settle: SvarAvvist(settle, melding_id, kode))

    def tell_oppdatering(self, digisos_id: DigisosId, digisos_soker: bytes, *files: Vedlagt) -> None:
        """Let the fagsystem update the case."""
        self._tell(lambda settle: Oppdatering(settle, digisos_id, digisos_soker, files))

    @property
    def unsettled(self) -> int:
        """How many events nobody has acknowledged or refused."""
        return len(self._events)

    def _tell(self, make: Callable[[Settle], ConnectorEvent]) -> None:
        self._events.append(make)
        self._changed.set()

    def _settle(self, make: Callable[[Settle], ConnectorEvent]) -> Settle:
        async def settle(error: MeldingsformidlerError | None) -> None:
            self._events.remove(make)
            if error is not None:
                self.refused.append(error)

        return settle


SPEC = ConnectorSpec(
    name="memory",
    description="Tar imot i minnet, for tester; alt er borte når prosessen slutter.",
    settings=MemorySettings,
    create=MemoryConnector,
)
