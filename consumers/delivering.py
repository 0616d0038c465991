"""Carries out what the delivery core commands for one record: deliver it, publish its kvittering, or dead-letter it.

Rules:

1. Whatever was answered before is answered again with the *original* kvitteringer (``consumers.dedup``), and the fagsystem is not
   asked. The same melding with the same digest is not even opened; with another digest (sealed again, or tampered with) it must
   open and verify first.
2. The answer is in the local store when ``deliver`` returns, and on its topic when ``publish`` returns.
3. A dead letter is durable on its topic before its negative kvittering is issued.
4. A dead letter blocks its key, unless the melding had been delivered before: then nothing is missing that others must wait for.
5. A redriven record is tried again although a dead letter has answered for it.
6. One melding is worked on by one at a time, also across sessions: a slow delivery may outlive its partition's assignment, and
   whoever reads the record again waits for it and finds it answered.
7. Whatever a record makes fail becomes an error of ours: a dead letter, with the place in the log, and never a dead process.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from broker.delivery_messages import DeadLettered, Handled
from broker.krasj import crash_point
from broker.log import get_logger
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
from broker.runtime import place_of
from consumers import metrics
from consumers.connector import Avvist, Levert, Mottatt
from consumers.dead_letters import dead_letter, stripped
from consumers.kvitteringer import Answer
from consumers.opening import check_record
from schemas.codec import decode, encode
from schemas.errors import ContractError, MeldingsformidlerError, RecordTooLargeError, UnexpectedRecordError
from schemas.kvittering import AVVIST, GRAD_INGEN, GRAD_LAGRET, GRAD_VALIDERT, LEVERT, MOTTATT
from schemas.names import Sha256
from schemas.records import SoknadRecord

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

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
MAX_REDRIVES: Final = 1000
"""A header that says more was not written by an operator's tool."""

_REDRIVES = re.compile(rb"[0-9]{1,4}")


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
        except Exception as found:  # noqa: BLE001 - a record must never stop the others (rule 7)
            error = unexpected(found, incoming)
        redrives = _redrives(header(incoming.headers, GJENKJORINGER_HEADER))
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


def unexpected(error: Exception, incoming: Incoming) -> UnexpectedRecordError:
    """Tell loudly what a record made fail, by class and place alone, and return what it becomes (rule 7)."""
    get_logger().critical(
        "record_failed_unexpectedly",
        topic=incoming.topic,
        partition=incoming.partition,
        offset=incoming.offset,
        feiltype=type(error).__name__,
        sted=place_of(error),
    )
    return UnexpectedRecordError(f"uventet feil under behandling av meldingen ({type(error).__name__})")


def _redrives(text: bytes | None) -> int:
    if text is None or not _REDRIVES.fullmatch(text):
        return 0
    count = int(text)
    return count if count <= MAX_REDRIVES else 0


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
        self._at_work: dict[MeldingId, _Turn] = {}
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
        async with self._alone(record.melding_id):
            return await self._deliver(job, record, command)

    async def _deliver(self, job: Job, record: SoknadRecord, command: Deliver) -> Handled:
        known = await self._store.of_melding(record.melding_id)
        if any(one.sha256 == record.sha256 and not _tried_again(one, job) for one in known):
            return self._repeat(job, command, known)
        crash_point("consumers.deliver.before-open")
        with await self._opener.open(record, self._clock()) as opened:
            self._warn(record, opened.warnings)
            if any(not one.is_dead_letter for one in known):
                return self._repeat(job, command, known)
            crash_point("consumers.deliver.before-hand-over")
            svar = await self._connector.deliver(opened.leveranse())
            crash_point("consumers.deliver.after-hand-over")
        await self._kvitteringer.issue(_answer(svar, record), unless=lambda each: not each.is_dead_letter)
        crash_point("consumers.deliver.after-issue")
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
        async with self._alone(job.melding_id):
            return await self._bury(job, command)

    async def _bury(self, job: Job, command: DeadLetter) -> DeadLettered | Handled:
        known = await self._known(job)
        if any(one.sha256 == job.sha256 and not _tried_again(one, job) for one in known):
            return self._repeat(job, command, known)
        crash_point("consumers.dead-letter.before-publish")
        await self._publish_dead_letter(job, command)
        crash_point("consumers.dead-letter.after-publish")
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

    async def _publish_dead_letter(self, job: Job, command: DeadLetter) -> None:
        """Publish the record as a dead letter; without its value if that does not fit, or cannot be written."""
        try:
            await self._publisher.publish(self._dead_letter(job, job.incoming, command))
        except RecordTooLargeError as error:
            get_logger().error("dead_letter_stripped", storrelse=len(job.incoming.value), exc_info=error)
        except MeldingsformidlerError:
            raise
        except Exception as error:  # noqa: BLE001 - a record must never stop the others (rule 7)
            unexpected(error, job.incoming)
        else:
            return
        await self._publisher.publish(self._dead_letter(job, stripped(job.incoming), command))

    def _dead_letter(self, job: Job, incoming: Incoming, command: DeadLetter) -> Outgoing:
        letter = dead_letter(
            incoming,
            record=job.record,
            digisos_id=job.digisos_id,
            kommunenummer=self._kommunenummer,
            error=command.error,
            attempts=command.attempts,
            redrives=job.redrives,
            now=self._clock(),
        )
        headers = dead_letter_headers(incoming, error=command.error, group=self._group, attempts=command.attempts)
        return Outgoing(dead_letter_topic(self._kommunenummer), incoming.key, encode(letter), headers)

    def _warn(self, record: SoknadRecord, warnings: tuple[str, ...]) -> None:
        for warning in warnings:
            metrics.PACKAGE_WARNINGS.labels(avvik=warning).inc()
            get_logger().warning(
                "package_let_through",
                avvik=warning,
                avsender=record.avsender,
                kommunenummer=self._kommunenummer,
                digisos_id=record.digisos_id,
                melding_id=record.melding_id,
            )

    @asynccontextmanager
    async def _alone(self, melding_id: MeldingId | None) -> AsyncGenerator[None]:
        """Let one at a time work on a melding (rule 6)."""
        if melding_id is None:
            yield
            return
        turn = self._at_work.setdefault(melding_id, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._at_work[melding_id]


@dataclass(slots=True)
class _Turn:
    """Whose turn it is to work on one melding, and how many wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


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
