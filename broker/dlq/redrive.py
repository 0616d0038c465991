"""Carrying out a planned redrive: letters back on their topics, wave by wave, each with its line in the revisjon.

Rules:

1. The run itself is in the revisjon before anything is sent.
2. A wave is on its topic before its acts are written. A crash in between leaves letters that look open and were sent: they are
   sent once more by the next run, and the connector answers a repeat as one. The other way round a letter could be lost.
3. When a letter does not go, nothing of its line goes after it in this run.
4. Told to stop, the run ends after the wave that is under way. The next run plans anew and finds what is left.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from broker.dlq.letters import sent_again
from broker.dlq.plan import Waves
from broker.dlq.state import GJENKJORT
from broker.krasj import crash_point
from schemas.codec import decode
from schemas.errors import ContractError, MeldingsformidlerError, MismatchError, TransportError
from schemas.names import Uuid
from schemas.records import DeadLetterRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.dlq.plan import Plan, Steg
    from broker.ports import Publisher
    from broker.record import Incoming, Outgoing
    from broker.revisjon import ActSigner, RevisjonWriter

STARTET: Final = "dlq.gjenkjoring.startet"
FERDIG: Final = "dlq.gjenkjoring.ferdig"
DEFAULT_RATE: Final = 50.0
MAX_WAVE: Final = 50


class Fetch(Protocol):
    """Reads one record where it lies."""

    async def fetch(self, topic: str, partition: int, offset: int) -> Incoming:
        """Return the record, or raise a ``TransportError``."""
        ...


@dataclass(frozen=True, slots=True)
class Oppdrag:
    """Why a run is made, for the revisjon.

    Attributes:
        begrunnelse: The operator's reason.
        utvalg: What was asked for, as JSON.
        forslag: The proposal that another operator approved, if it needed that.
        kjoring: The run's id.
    """

    begrunnelse: str
    utvalg: str
    forslag: Uuid | None = None
    kjoring: Uuid = field(default_factory=Uuid.new)


@dataclass
class Utfall:
    """What came of a run.

    Attributes:
        sendt: Letters that are on their topics again.
        feilet: Letters that did not go, each with the error's code.
        igjen: Letters that were not tried: behind one that failed, or after a stop.
        avbrutt: It was told to stop.
    """

    sendt: int = 0
    feilet: dict[Uuid, str] = field(default_factory=dict[Uuid, str])
    igjen: int = 0
    avbrutt: bool = False


class Redriver:
    """Sends letters again.

    Args:
        fetch: Reads letters with their packages.
        publisher: Writes the kommuner's søknad topics.
        writer: Writes the revisjon.
        signer: The operator.
        rate: Most letters a second; 0 for as fast as it goes.
    """

    def __init__(
        self,
        *,
        fetch: Fetch,
        publisher: Publisher,
        writer: RevisjonWriter,
        signer: ActSigner,
        rate: float = DEFAULT_RATE,
    ) -> None:
        self._fetch = fetch
        self._publisher = publisher
        self._writer = writer
        self._signer = signer
        self._rate = rate

    async def run(
        self, plan: Plan, oppdrag: Oppdrag, *, stop: asyncio.Event, progress: Callable[[Utfall], None] = lambda _: None
    ) -> Utfall:
        """Carry out the plan, until its end or ``stop``.

        Args:
            plan: What goes, and in which order.
            oppdrag: Why.
            stop: Set it to end after the present wave.
            progress: Told after each wave.

        Raises:
            AuditError: The reason may not stand in the revisjon; nothing was sent.
            TransportError: The revisjon could not be written. What was sent is sent again by the next run.
        """
        detaljer = _details(oppdrag) | {
            "antall": str(len(plan.steg)),
            "utvalg": oppdrag.utvalg,
            "digest": plan.digest(),
        }
        await self._act(STARTET, {oppdrag.kjoring: detaljer}, oppdrag)
        utfall = Utfall()
        waves = Waves(plan.steg, self._wave_size())
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while not stop.is_set() and (wave := waves.next()):
            await self._send(wave, waves, oppdrag, utfall)
            progress(utfall)
            if self._rate:
                await _pause(begun + utfall.sendt / self._rate - loop.time(), stop)
        utfall.avbrutt = stop.is_set() and waves.left > 0
        utfall.igjen += waves.left
        counts = {"sendt": utfall.sendt, "feilet": len(utfall.feilet), "igjen": utfall.igjen}
        await self._act(
            FERDIG, {oppdrag.kjoring: _details(oppdrag) | {name: str(n) for name, n in counts.items()}}, oppdrag
        )
        return utfall

    def _wave_size(self) -> int:
        return max(1, min(MAX_WAVE, int(self._rate))) if self._rate else MAX_WAVE

    async def _send(self, wave: list[Steg], waves: Waves, oppdrag: Oppdrag, utfall: Utfall) -> None:
        outgoing: list[tuple[Steg, Outgoing]] = []
        for step in wave:
            try:
                outgoing.append((step, await self._load(step)))
            except MeldingsformidlerError as error:
                self._failed(step, error, waves, utfall)
        outcomes = await self._publisher.publish_all([one for _, one in outgoing])
        crash_point("broker.gjenkjoring.after-publish")
        sent: dict[str, Mapping[str, str]] = {}
        for (step, _), outcome in zip(outgoing, outcomes, strict=True):
            if isinstance(outcome, TransportError):
                self._failed(step, outcome, waves, utfall)
            else:
                sent[step.letter.id] = _details(oppdrag) | _of(step)
        if sent:
            await self._act(GJENKJORT, sent, oppdrag)
            utfall.sendt += len(sent)

    async def _load(self, step: Steg) -> Outgoing:
        letter = step.letter
        record = decode(DeadLetterRecord, (await self._fetch.fetch(*_place(step))).value)
        if record.dead_letter_id != letter.id or record.gjenkjoringer != letter.gjenkjoringer:
            raise MismatchError("på brevets plass ligger et annet brev")
        if record.opprinnelig.verdi is None:
            raise ContractError("brevet har ikke innholdet med seg")
        return sent_again(record, letter.kommunenummer, forbi=step.forbi)

    def _failed(self, step: Steg, error: MeldingsformidlerError, waves: Waves, utfall: Utfall) -> None:
        utfall.feilet[step.letter.id] = error.code
        utfall.igjen += len(waves.stop(step))

    async def _act(self, handling: str, objekter: Mapping[str, Mapping[str, str]], oppdrag: Oppdrag) -> None:
        await self._writer.record_all(
            self._signer.aktor, handling, objekter, begrunnelse=oppdrag.begrunnelse, signer=self._signer
        )


async def _pause(seconds: float, stop: asyncio.Event) -> None:
    if seconds > 0:
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)


def _place(step: Steg) -> tuple[str, int, int]:
    position = step.letter.position
    return position.topic, position.partition, position.offset


def _details(oppdrag: Oppdrag) -> dict[str, str]:
    return {"kjoring": str(oppdrag.kjoring)} | ({"forslag": str(oppdrag.forslag)} if oppdrag.forslag else {})


def _of(step: Steg) -> dict[str, str]:
    letter = step.letter
    named = {"digisosId": letter.digisos_id, "meldingId": letter.melding_id}
    return {
        "kommunenummer": str(letter.kommunenummer),
        "runde": str(step.runde),
        **{name: str(value) for name, value in named.items() if value is not None},
    }
