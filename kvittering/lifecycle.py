"""The life of a søknad, as the citizen sees it: one table.

Rules:

1. Everything that affects the citizen's status lives in this file. The rest of ``kvittering`` decides what is true; this
   file decides what it means.
2. SENDT comes from the sender, or is implied by any kvittering: what was answered has been sent. MOTTATT comes only from
   the fagsystem, by a kvittering MOTTATT or by a digisos-soker.json, which nobody writes about a søknad they do not have.
3. AVVIST, a dead letter and a channel's failure are not the end. A redrive, a new sealing or the next channel may still
   deliver, so they never move the citizen's status; their code is shown beside it.
4. From MOTTATT on, the latest digisos-soker.json decides, in either direction: a kommune may reopen a case.
5. What is late, what repeats and what a newer sender invents changes nothing. It is recorded and shown by others.
6. SENDT_PA_PAPIR comes from the print channel's closing receipt alone: a letter is on its way, and nobody has said that it came.
   What the fagsystem says outranks it; what a channel says after the message was withdrawn from it is no input at all
   (``kanaler``).
7. The three sources write to three topics, which race. For any order in which they arrive, the end is the same, as long as
   each source's own order is kept. The table has this property because the fagsystem's inputs never look back at
   transport, and only the case can move from MOTTATT on; a hypothesis test holds it.

The same table serves one message at a time (a søknad or an ettersendelse): there, no case inputs occur.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias


class Soknadsstatus(StrEnum):
    """What the citizen is shown."""

    AKSEPTERT = "AKSEPTERT"
    SENDT = "SENDT"
    SENDT_PA_PAPIR = "SENDT_PA_PAPIR"
    MOTTATT = "MOTTATT"
    UNDER_BEHANDLING = "UNDER_BEHANDLING"
    FERDIGBEHANDLET = "FERDIGBEHANDLET"
    BEHANDLES_IKKE = "BEHANDLES_IKKE"


class Transport(Enum):
    """What the sender's side reports about the way there."""

    AKSEPTERT = "AKSEPTERT"
    SENDT = "SENDT"
    BEKREFTET = "BEKREFTET"
    TTL_TIDSAVBRUDD = "TTL_TIDSAVBRUDD"
    MAX_RETRIESAVBRUDD = "MAX_RETRIESAVBRUDD"
    IKKE_SENDT = "IKKE_SENDT"
    SVARUT_FEIL = "SVARUT_FEIL"
    STOPPET = "STOPPET"
    OMFORSEGLET = "OMFORSEGLET"
    TILBAKEKALT = "TILBAKEKALT"
    UTSKREVET = "UTSKREVET"


class Svar(Enum):
    """What a kvittering answers."""

    LEVERT = "LEVERT"
    MOTTATT = "MOTTATT"
    AVVIST = "AVVIST"


class Sak(Enum):
    """What the latest digisos-soker.json says about the søknad."""

    MOTTATT = "MOTTATT"
    UNDER_BEHANDLING = "UNDER_BEHANDLING"
    FERDIGBEHANDLET = "FERDIGBEHANDLET"
    BEHANDLES_IKKE = "BEHANDLES_IKKE"


# Enum and not StrEnum: a kvittering's MOTTATT and the case's MOTTATT are different inputs, and must not be equal.
Input: TypeAlias = Transport | Svar | Sak

FAILURES: Final = frozenset(
    {
        Transport.TTL_TIDSAVBRUDD,
        Transport.MAX_RETRIESAVBRUDD,
        Transport.IKKE_SENDT,
        Transport.SVARUT_FEIL,
        Transport.STOPPET,
        Transport.TILBAKEKALT,
        Svar.AVVIST,
    }
)
"""Inputs that say that an attempt failed (rule 3); operators see their code until something says otherwise."""

OVERCOMES: Final[frozenset[Input]] = frozenset({Svar.LEVERT, Transport.BEKREFTET, Transport.UTSKREVET})
"""Inputs that say otherwise: after one of them a former failure's code is not shown any more."""

AT_FAGSYSTEM: Final = frozenset(
    {
        Soknadsstatus.MOTTATT,
        Soknadsstatus.UNDER_BEHANDLING,
        Soknadsstatus.FERDIGBEHANDLET,
        Soknadsstatus.BEHANDLES_IKKE,
    }
)
"""Statuses in which the fagsystem has the søknad; Fiks calls it ``levertFagsystem``."""

_CASE: Final[Mapping[Input, Soknadsstatus]] = {
    Sak.MOTTATT: Soknadsstatus.MOTTATT,
    Sak.UNDER_BEHANDLING: Soknadsstatus.UNDER_BEHANDLING,
    Sak.FERDIGBEHANDLET: Soknadsstatus.FERDIGBEHANDLET,
    Sak.BEHANDLES_IKKE: Soknadsstatus.BEHANDLES_IKKE,
}

_ON_ITS_WAY: Final[Mapping[Input, Soknadsstatus]] = {
    Transport.SENDT: Soknadsstatus.SENDT,
    Transport.BEKREFTET: Soknadsstatus.SENDT,
    Svar.LEVERT: Soknadsstatus.SENDT,
    Svar.AVVIST: Soknadsstatus.SENDT,
    Transport.UTSKREVET: Soknadsstatus.SENDT_PA_PAPIR,
    Svar.MOTTATT: Soknadsstatus.MOTTATT,
    **_CASE,
}

TRANSITIONS: Final[Mapping[Soknadsstatus | None, Mapping[Input, Soknadsstatus]]] = MappingProxyType(
    {
        None: {Transport.AKSEPTERT: Soknadsstatus.AKSEPTERT, **_ON_ITS_WAY},
        Soknadsstatus.AKSEPTERT: _ON_ITS_WAY,
        Soknadsstatus.SENDT: {
            Transport.UTSKREVET: Soknadsstatus.SENDT_PA_PAPIR,
            Svar.MOTTATT: Soknadsstatus.MOTTATT,
            **_CASE,
        },
        Soknadsstatus.SENDT_PA_PAPIR: {Svar.MOTTATT: Soknadsstatus.MOTTATT, **_CASE},
        Soknadsstatus.MOTTATT: _CASE,
        Soknadsstatus.UNDER_BEHANDLING: _CASE,
        Soknadsstatus.FERDIGBEHANDLET: _CASE,
        Soknadsstatus.BEHANDLES_IKKE: _CASE,
    }
)
"""Present status → input → next status; ``None`` is a søknad that nobody has told us of. What a row does not name changes
nothing (rule 5)."""


def follow(status: Soknadsstatus | None, event: Input | None) -> Soknadsstatus | None:
    """Return the status after ``event``; an event that we do not know (``None``) changes nothing."""
    return status if event is None else TRANSITIONS[status].get(event, status)


def transport_input(code: str) -> Transport | None:
    """Return the input for a transport record's ``type``; None for a code that we do not know."""
    return _TRANSPORT.get(code)


def svar_input(code: str) -> Svar | None:
    """Return the input for a kvittering's ``status``; None for a code that we do not know."""
    return _SVAR.get(code)


def sak_input(code: str | None) -> Sak | None:
    """Return the input for a soknadsStatus; None for none, and for a code that we do not know."""
    return _SAK.get(code or "")


_TRANSPORT: Final = {one.value: one for one in Transport}
_SVAR: Final = {one.value: one for one in Svar}
_SAK: Final = {one.value: one for one in Sak}
