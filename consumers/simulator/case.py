"""What the simulated fagsystem decides, without IO: its operator's switches, and how a case goes on by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from broker.clock import timestamp

AVVIST_KODE: Final = "demo.avvist"
STATUSES: Final = ("MOTTATT", "UNDER_BEHANDLING", "FERDIGBEHANDLET")


class Regel(BaseModel):
    """One søknad to reject: ``ref`` is its navEksternRefId, meldingId or digisosId."""

    model_config = ConfigDict(extra="forbid")

    ref: str
    kode: str = AVVIST_KODE


class Styring(BaseModel):
    """The operator's switches; ``PUT /styring`` and ``PUT /styring/{kommunenummer}`` set those that are given.

    Attributes:
        tilstand: ``oppe``; ``nede`` answers 503; ``treg`` waits before it answers.
        treghet_s: How long ``treg`` waits.
        svar: ``straks`` answers MOTTATT while the connector waits, ``senere`` through an event.
        avvis: Søknader to reject.
        avvis_neste: Reject this many more, whichever come.
        feil_neste: Answer ``feil_status`` this many more times, and store nothing.
        feil_status: The HTTP status of an error.
        tull: Whether an error, and every answer about hendelser, is bytes that are no JSON.
        svar_tapt_neste: Store this many more, and answer 504 all the same, as a gateway does that lost the answer.
        oppdater: Whether cases go on by themselves.
    """

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)

    tilstand: Literal["oppe", "nede", "treg"] = "oppe"
    treghet_s: float = Field(default=1.0, ge=0, le=600)
    svar: Literal["straks", "senere"] = "straks"
    avvis: tuple[Regel, ...] = ()
    avvis_neste: int = Field(default=0, ge=0)
    feil_neste: int = Field(default=0, ge=0)
    feil_status: int = Field(default=500, ge=400, le=599)
    tull: bool = False
    svar_tapt_neste: int = Field(default=0, ge=0)
    oppdater: bool = True

    def changed(self, change: Mapping[str, Any]) -> Styring:
        """Return the switches with those of ``change`` set; pydantic's ``ValidationError`` if one is wrong."""
        return Styring.model_validate(self.model_dump(by_alias=True) | dict(change))

    def rejection(self, leveranse: Mapping[str, Any]) -> str | None:
        """Return the code that this søknad is rejected with, None if it is not; uses up one of ``avvis_neste``."""
        refs = {leveranse.get("navEksternRefId"), leveranse.get("meldingId"), leveranse.get("digisosId")}
        for rule in self.avvis:
            if rule.ref in refs:
                return rule.kode
        if self.avvis_neste:
            self.avvis_neste -= 1
            return AVVIST_KODE
        return None


class Switches:
    """The switches of every kommune; what is set for all is where each starts."""

    def __init__(self) -> None:
        self._all = Styring()
        self._each: dict[str, Styring] = {}

    def of(self, kommunenummer: str) -> Styring:
        """Return the kommune's switches."""
        return self._each.setdefault(kommunenummer, self._all.model_copy(deep=True))

    def change_all(self, change: Mapping[str, Any]) -> Styring:
        """Change everybody's."""
        self._all = self._all.changed(change)
        self._each = {number: styring.changed(change) for number, styring in self._each.items()}
        return self._all

    def change(self, kommunenummer: str, change: Mapping[str, Any]) -> Styring:
        """Change one kommune's."""
        self._each[kommunenummer] = self.of(kommunenummer).changed(change)
        return self._each[kommunenummer]


@dataclass(frozen=True)
class CasePlan:
    """How a case goes on.

    Attributes:
        delays: After storing: when MOTTATT, UNDER_BEHANDLING and FERDIGBEHANDLET are told.
    """

    delays: tuple[timedelta, timedelta, timedelta] = (timedelta(), timedelta(seconds=1), timedelta(seconds=2))

    def due(self, stored: datetime, now: datetime) -> int:
        """Return how many updates of a case there should be by now."""
        return sum(1 for wait in self.delays if stored + wait <= now)

    def document(self, stored: datetime, number: int, enhetsnummer: str | None) -> bytes:
        """Return the ``digisos-soker.json`` of update ``number``, from 1; the same arguments give the same bytes."""
        hendelser: list[dict[str, Any]] = [
            {"type": "soknadsStatus", "hendelsestidspunkt": timestamp(stored + wait), "status": status}
            for wait, status in zip(self.delays[:number], STATUSES, strict=False)
        ]
        if enhetsnummer:
            told = {"type": "tildeltNavKontor", "hendelsestidspunkt": timestamp(stored), "navKontor": enhetsnummer}
            hendelser.insert(1, told)
        document = {
            "version": "1.3.0",
            "avsender": {"systemnavn": "Simulert fagsystem", "systemversjon": "1.0.0"},
            "hendelser": hendelser,
        }
        return json.dumps(document, ensure_ascii=False, indent=1).encode()
