"""A vendor's connector, as a stranger writes it from the contract. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

from pydantic import BaseModel, Field

from consumers.connector import (
    Avvist,
    ConnectorContext,
    ConnectorEvent,
    ConnectorSpec,
    FagsystemConnector,
    Leveranse,
    Levert,
    Mottatt,
    Svar,
    SvarMottatt,
)
from schemas.errors import FagsystemUnavailableError
from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256


class Settings(BaseModel):
    """What the vendor's connector needs to know."""

    adresse: str = Field(description="Where the fagsystem listens.")


class VendorConnector:
    """Hands søknader to a fagsystem that is a dictionary."""

    def __init__(self, settings: Settings, context: ConnectorContext) -> None:
        self._settings = settings
        self._context = context
        self._stored: dict[MeldingId, bytes] = {}

    async def start(self) -> None:
        """Nothing to make ready."""

    async def deliver(self, leveranse: Leveranse) -> Svar:
        """Store the first file."""
        assert_type(leveranse.digisos_id, DigisosId)
        assert_type(leveranse.kommunenummer, Kommunenummer)
        if not leveranse.files:
            return Avvist("ingen-filer")
        assert_type(leveranse.files[0].sha256, Sha256)
        content = b"".join([piece async for piece in leveranse.read(leveranse.files[0].name)])
        if not self._settings.adresse:
            raise FagsystemUnavailableError("fagsystemet svarer ikke")
        self._stored[leveranse.melding_id] = content
        return Mottatt() if content else Levert()

    async def events(self) -> AsyncIterator[ConnectorEvent]:
        """Tell of everything again and again."""
        for melding_id in self._stored:
            yield SvarMottatt(settle=_forget, melding_id=melding_id)

    async def close(self) -> None:
        """Let go of nothing."""


async def _forget(error: Exception | None) -> None:
    _ = error


SPEC = ConnectorSpec("vendor", "A dictionary.", Settings, VendorConnector)
assert_type(SPEC, ConnectorSpec[Settings])


def as_the_runner_sees_it(settings: Settings, context: ConnectorContext) -> FagsystemConnector:
    """The class keeps the protocol."""
    return SPEC.create(settings, context)


def what_came_of_it(svar: Svar) -> str:
    """Every answer is handled, or the checkers say so."""
    match svar:
        case Mottatt():
            return "MOTTATT"
        case Levert():
            return "LEVERT"
        case Avvist(kode=kode):
            return kode
