"""Carries out what the delivery core commands for one record: deliver it, publish its kvittering, or dead-letter it.

Rules:

1. Whatever was answered before is answered again with the *original* kvitteringer (``consumers.dedup``), and the fagsystem is not
   asked. The same melding with the same digest is not even opened; with another digest (sealed again, or tampered with) it must
   open and verify first.
2. The answer is in the local store when ``deliver`` returns, and on its topic when ``publish`` returns.
3. A dead letter is durable on its topic before its negative kvittering is issued.
4. A dead letter blocks its key, unless the melding had been delivered before: then nothing is missing that others must wait for.
5. A redriven record is tried again although a dead letter has answered for it, unless an earlier melding of its søknad is still
   undelivered: then it waits behind that one, once more (``consumers.issued``), unless an operator has closed that for good.
6. One melding is worked on by one at a time, also across sessions: a slow delivery may outlive its partition's assignment, and
   whoever reads the record again in this process waits for it.
7. A hand-over does not begin once the sender's time for it is out: judged again when the package is open, which may take time.
8. A withdrawal asks nobody: the melding gets its negative kvittering, no dead letter, and is not handed over after that. One that
   was answered before keeps its answer, which is repeated.
9. A delivery that outlives its partition's assignment leaves nothing behind: no kvittering, no dead letter. Whoever has the
   partition now asks the fagsystem again, with the same key, and answers.
10. Whatever a record makes fail becomes an error of ours: a dead letter, with the place in the log, and never a dead process.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker.delivery_messages import DeadLettered, Handled
from broker.krasj import crash_point
from broker.log import get_logger
from broker.record import Outgoing, dead_letter_headers
from broker.routing import dead_letter_topic
from consumers import metrics
from consumers.connector import Avvist, Levert, Mottatt
from consumers.dead_letters import dead_letter, stripped
from consumers.job import Job, unexpected
from consumers.kvitteringer import Answer
from schemas.codec import encode
from schemas.errors import (
    BehindDeadLetterError,
    ExpiredError,
    MeldingsformidlerError,
    RecordTooLargeError,
    WithdrawnError,
)
from schemas.kvittering import AVVIST, GRAD_INGEN, GRAD_LAGRET, GRAD_VALIDERT, LEVERT, MOTTATT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from broker.clock import Clock
    from broker.delivery_messages import DeadLetter, Deliver, PublishKvittering, Withdraw
    from broker.ports import Publisher
    from broker.record import Incoming
    from consumers.connector import FagsystemConnector, Svar
    from consumers.dedup import DedupStore
    from consumers.issued import Issued
    from consumers.kvitteringer import Kvitteringer
    from consumers.opening import OpenedSoknad, Opener
    from schemas.names import Kommunenummer, MeldingId
    from schemas.records import SoknadRecord


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
            return await self._repeat(job, command, known)
        if job.redrives and await self._store.is_behind(
            self._kommunenummer, record.digisos_id, record.melding_id, past=job.past
        ):
            raise BehindDeadLetterError
        crash_point("consumers.deliver.before-open")
        with await self._opener.open(record, self._clock()) as opened:
            self._warn(record, opened.warnings)
            if any(not one.is_dead_letter for one in known):
                return await self._repeat(job, command, known)
            svar = await self._hand_over(job, record, opened)
        await self._kvitteringer.issue(_answer(svar, record), unless=lambda each: not each.is_dead_letter)
        crash_point("consumers.deliver.after-issue")
        job.resultat = type(svar).__name__.upper()
        self.on_answer(record.melding_id)
        return Handled(command.ticket, revives=await self._revives(job))

    async def _hand_over(self, job: Job, record: SoknadRecord, opened: OpenedSoknad) -> Svar:
        """Ask the fagsystem, if that may still begin; its answer counts only as long as the partition is ours."""
        if record.gyldig_til is not None and self._clock() >= record.gyldig_til:
            raise ExpiredError
        job.check_ours()
        crash_point("consumers.deliver.before-hand-over")
        svar = await self._connector.deliver(opened.leveranse())
        crash_point("consumers.deliver.after-hand-over")
        job.check_ours()
        return svar

    async def _revives(self, job: Job) -> bool:
        """Judge the key anew after something that can revive it."""
        if not job.redrives or job.digisos_id is None:
            return False
        return not await self._store.judge_key(self._kommunenummer, job.digisos_id)

    async def withdraw(self, job: Job, command: Withdraw) -> Handled:
        """Answer that the melding was withdrawn, or what was answered before (rule 8).

        Raises:
            StoreError: Nothing was issued.
            PartitionLostError: It is another process' concern now.
        """
        record = job.record
        if record is None:
            raise RuntimeError("a record that cannot be read was to be withdrawn")
        async with self._alone(record.melding_id):
            job.again = tuple(one for one in await self._store.of_melding(record.melding_id) if not one.is_dead_letter)
            job.resultat = "GJENTATT" if job.again else "TILBAKEKALT"
            if not job.again:
                job.check_ours()
                digisos_id, melding_id = record.digisos_id, record.melding_id
                answer = Answer(digisos_id, melding_id, record.sha256, AVVIST, GRAD_INGEN, WithdrawnError.code)
                await self._kvitteringer.issue(answer, unless=lambda each: not each.is_dead_letter)
                self.on_answer(melding_id)
        dead = await self._store.judge_key(self._kommunenummer, record.digisos_id)
        return Handled(command.ticket, repeated=True, revives=not dead, blocks=dead)

    async def publish(self, job: Job, command: PublishKvittering) -> None:
        """Publish what is stored for the record.

        Raises:
            TransportError: Not known to be published.
        """
        _ = command
        if (digisos_id := job.digisos_id) is not None:
            await self._kvitteringer.publish(
                digisos_id, again=job.again, parent=job.traceparent.encode(), allowed=job.is_ours
            )

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
            return await self._repeat(job, command, known)
        if isinstance(command.error, ExpiredError) and any(not one.is_dead_letter for one in known):
            return await self._repeat(job, command, known)  # it was handed over in time, perhaps sealed another way
        job.check_ours()
        crash_point("consumers.dead-letter.before-publish")
        await self._publish_dead_letter(job, command)
        crash_point("consumers.dead-letter.after-publish")
        job.check_ours()
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

    async def _repeat(self, job: Job, command: Deliver | DeadLetter, known: tuple[Issued, ...]) -> Handled:
        job.again = known
        job.resultat = "GJENTATT"
        return Handled(command.ticket, repeated=True, revives=await self._revives(job))

    async def _publish_dead_letter(self, job: Job, command: DeadLetter) -> None:
        """Publish the record as a dead letter; without its value if that does not fit, or cannot be written."""
        try:
            await self._publisher.publish(self._dead_letter(job, job.incoming, command))
        except RecordTooLargeError as error:
            get_logger().error("dead_letter_stripped", storrelse=len(job.incoming.value), exc_info=error)
        except MeldingsformidlerError:
            raise
        except Exception as error:  # noqa: BLE001 - a record must never stop the others (rule 10)
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
