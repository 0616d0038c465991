"""Carries out what the delivery core commands for one record: deliver it, publish its kvittering, or dead-letter it.

Rules:

1. Whatever was answered before is answered again with the *original* kvitteringer (``consumers.dedup``), and the fagsystem is not
   asked. The same melding with the same digest is not even opened; with another digest (sealed again, or tampered with) it must
   open and verify first.
2. The answer is in the local store when ``deliver`` returns, and on its topic when ``publish`` returns.
3. A dead letter is durable on its topic before its negative kvittering is issued.
4. A dead letter blocks its key, unless the melding had been delivered before: then nothing is missing that others must wait for.
5. A redriven record is tried again although a dead letter has answered for it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from broker.delivery_messages import DeadLettered, Handled
from broker.record import (
    GJENKJORINGER_HEADER,
    TRACEPARENT,
    Outgoing,
    dead_letter_headers,
    header,
    next_traceparent,
    soknad_of,
)
from broker.routing import dead_letter_topic
from consumers.connector import Avvist, Levert, Mottatt
from consumers.dead_letters import dead_letter
from consumers.kvitteringer import Answer
from consumers.opening import check_record
from schemas.codec import decode, encode
from schemas.errors import ContractError, MeldingsformidlerError
from schemas.kvittering import AVVIST, GRAD_INGEN, GRAD_LAGRET, GRAD_VALIDERT, LEVERT, MOTTATT
from schemas.names import Sha256
from schemas.records import SoknadRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.clock import Clock
    from broker.delivery_messages import DeadLetter, Deliver, PublishKvittering
    from broker.ports import Publisher
    from broker.record import Incoming
    from consumers.connector import FagsystemConnector, Svar
    from consumers.dedup import DedupStore, Issued
    from consumers.kvitteringer import Kvitteringer
    from consumers.opening import Opener
    from schemas.names import DigisosId, Kommunenummer, MeldingId

MAX_KEY_CHARS: Final = 200


@dataclass
class Job:
    """A record on its way, with what is known about it.

    Attributes:
        incoming: As it was read.
        record: Decoded, if it could be.
        error: Why it cannot be delivered at all, if so.
        redrives: How many times an operator has sent it again.
        traceparent: Of our part of the work.
        again: Kvitteringer to repeat, oldest first.
        resultat: What came of the latest command, for the log.
    """

    incoming: Incoming
    record: SoknadRecord | None
    error: MeldingsformidlerError | None
    redrives: int
    traceparent: str
    again: tuple[Issued, ...] = ()
    resultat: str = field(default="")

    @classmethod
    def of(cls, incoming: Incoming, kommunenummer: Kommunenummer) -> Job:
        """Read a record as far as it can be read; never raises for what is in it."""
        record, error = None, None
        try:
            record = decode(SoknadRecord, incoming.value)
            check_record(record, incoming.key, kommunenummer)
        except ContractError as found:
            error = found
        redrives = 0
        with suppress(ValueError):
            redrives = int(header(incoming.headers, GJENKJORINGER_HEADER) or b"0")
        return cls(incoming, record, error, redrives, next_traceparent(header(incoming.headers, TRACEPARENT)))

    @property
    def key(self) -> str:
        """The record's key as text."""
        return self.incoming.key.decode("utf-8", "backslashreplace")[:MAX_KEY_CHARS]

    @property
    def digisos_id(self) -> DigisosId | None:
        """The søknad to answer for: the key's, since that is what keeps the order; else the record's; else nobody knows."""
        return soknad_of(self.incoming.key) or (self.record.digisos_id if self.record else None)

    @property
    def melding_id(self) -> MeldingId | None:
        """The melding to answer for, if it is known."""
        return self.record.melding_id if self.record else None

    @property
    def sha256(self) -> Sha256:
        """What was received: the package's digest as the record states it, or the value's when it cannot be read."""
        return self.record.sha256 if self.record else Sha256.of(self.incoming.value)


class Deliverer:
    """Works for one kommune.

    Args:
        kommunenummer: The kommune.
        group: The consumer group, named in dead letters.
        opener: Opens its packages.
        connector: Its fagsystem, guarded.
        store: The local store.
        kvitteringer: Issues its kvitteringer.
        publisher: Takes dead letters.
        clock: What the time is.
    """

    def __init__(
        self,
        kommunenummer: Kommunenummer,
        *,
        group: str,
        opener: Opener,
        connector: FagsystemConnector,
        store: DedupStore,
        kvitteringer: Kvitteringer,
        publisher: Publisher,
        clock: Clock,
    ) -> None:
        self._kommunenummer = kommunenummer
        self._group = group
        self._opener = opener
        self._connector = connector
        self._store = store
        self._kvitteringer = kvitteringer
        self._publisher = publisher
        self._clock = clock
        self.on_answer: Callable[[MeldingId], None] = lambda _: None
        """Called when a melding has got its first answer."""

    async def deliver(self, job: Job, command: Deliver) -> Handled:
        """Open, hand over and store the answer.

        Raises:
            MeldingsformidlerError: It could not be done; ``broker.retry`` says what that means.
        """
        record = job.record
        if record is None:
            raise RuntimeError("a record that cannot be read was to be delivered")
        known = await self._store.of_melding(record.melding_id)
        if any(one.sha256 == record.sha256 and not _tried_again(one, job) for one in known):
            return self._repeat(job, command, known)
        with await self._opener.open(record, self._clock()) as opened:
            if any(not one.is_dead_letter for one in known):
                return self._repeat(job, command, known)
            svar = await self._connector.deliver(opened.leveranse())
        await self._kvitteringer.issue(_answer(svar, record))
        job.resultat = type(svar).__name__.upper()
        self.on_answer(record.melding_id)
        revives = bool(job.redrives) and not await self._store.judge_key(self._kommunenummer, record.digisos_id)
        return Handled(command.ticket, revives=revives)

    async def publish(self, job: Job, command: PublishKvittering) -> None:
        """Publish what is stored for the record.

        Raises:
            TransportError: Not known to be published.
        """
        _ = command
        if (digisos_id := job.digisos_id) is not None:
            await self._kvitteringer.publish(digisos_id, again=job.again, parent=job.traceparent.encode())

    async def dead_letter(self, job: Job, command: DeadLetter) -> DeadLettered | Handled:
        """Publish the dead letter, and store the negative kvittering.

        Raises:
            TransportError: The dead letter is not known to be published.
            StoreError: The kvittering is not stored.
        """
        known = await self._known(job)
        if any(one.sha256 == job.sha256 and not _tried_again(one, job) for one in known):
            return self._repeat(job, command, known)
        await self._publisher.publish(self._dead_letter(job, command))
        job.resultat = "DOD"
        blocks = all(one.is_dead_letter for one in known)
        digisos_id = job.digisos_id
        if digisos_id is None:
            if blocks:
                await self._store.add_dead_key(self._kommunenummer, job.key)
            return DeadLettered(command.ticket, answerable=False, blocks=blocks)
        answer = Answer(digisos_id, job.melding_id, job.sha256, AVVIST, GRAD_INGEN, command.error.code)
        await self._kvitteringer.issue(answer, dead_key=job.key if blocks else None)
        return DeadLettered(command.ticket, answerable=True, blocks=blocks)

    async def _known(self, job: Job) -> tuple[Issued, ...]:
        if job.melding_id is not None:
            return await self._store.of_melding(job.melding_id)
        if job.digisos_id is not None:
            return await self._store.of_unreadable(job.digisos_id, job.sha256)
        return ()

    def _repeat(self, job: Job, command: Deliver | DeadLetter, known: tuple[Issued, ...]) -> Handled:
        job.again = known
        job.resultat = "GJENTATT"
        return Handled(command.ticket, repeated=True)

    def _dead_letter(self, job: Job, command: DeadLetter) -> Outgoing:
        headers = dead_letter_headers(job.incoming, error=command.error, group=self._group, attempts=command.attempts)
        letter = dead_letter(
            job.incoming,
            record=job.record,
            digisos_id=job.digisos_id,
            kommunenummer=self._kommunenummer,
            error=command.error,
            attempts=command.attempts,
            redrives=job.redrives,
            now=self._clock(),
        )
        return Outgoing(dead_letter_topic(self._kommunenummer), job.incoming.key, encode(letter), headers)


def _tried_again(issued: Issued, job: Job) -> bool:
    """Whether the kvittering is a dead letter's, and the record comes back to be tried once more (rule 5)."""
    return issued.is_dead_letter and job.redrives > 0


def _answer(svar: Svar, record: SoknadRecord) -> Answer:
    match svar:
        case Mottatt():
            status, grad, kode = MOTTATT, GRAD_LAGRET, None
        case Levert():
            status, grad, kode = LEVERT, GRAD_VALIDERT, None
        case Avvist(kode=kode):
            status, grad = AVVIST, GRAD_VALIDERT
    return Answer(record.digisos_id, record.melding_id, record.sha256, status, grad, kode)
