"""Sending a søknad by a Python call, and the one way in that the HTTP intake shares with it.

Rules:

1. ``accept`` returns when the søknad is durable: the package in the dokumentlager first, then, in one transaction, the reference
   and the messages. ``202`` is given after that and never before.
2. Whatever goes wrong, nothing is left: no reference, no message, no file.
3. The heavy work (RSA, AES, digests, files) is done in a small pool of threads; the event loop only moves bytes.
4. One log line for each submission, accepted or refused. Never a value of it.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from broker.log import get_logger
from crypto.certificates import organisasjonsnummer
from producers import metrics
from producers.http_client import parts
from producers.intake import Innsending, Sealing, Submission
from producers.messages import accepted_messages
from producers.multipart import End, PartBegin, PartData, PartEnd
from producers.spill import Spill
from schemas.errors import (
    AlreadyAcceptedError,
    CertificateError,
    ContractError,
    MeldingsformidlerError,
    RefusedError,
    StoreError,
)
from schemas.names import DigisosId, MeldingId, Uuid

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence

    from broker.clock import Clock
    from broker.katalog import Katalog
    from crypto.keys import KeyRing, Signer
    from producers.checks import IntakeLimits
    from producers.dokument import Dokument
    from producers.dokumentlager import Dokumentlager
    from producers.intake import Accepted
    from producers.multipart import Event
    from producers.outbox import Message, Outbox, Registered
    from schemas.names import Enhetsnummer, Fodselsnummer, Kommunenummer, NavEksternRefId

T = TypeVar("T")

UNAVAILABLE: Final = 503


def duplicate_text(nav_ekstern_ref_id: NavEksternRefId, digisos_id: DigisosId) -> str:
    """Return the text that NAV's clients parse, letter by letter as Fiks writes it."""
    return (
        f"Soknad med tilhørende navEksternRefId {nav_ekstern_ref_id} finnes allerede i Fiks-Digisos "
        f"med DigisosId {digisos_id}"
    )


@dataclass(frozen=True)
class IntakeKeys:
    """The sender's keys.

    Attributes:
        signer: Signs packages.
        mottak: Opens what clients encrypted for us.
        eier_key: Central key of the owners' HMAC, at least 32 bytes.
    """

    signer: Signer
    mottak: KeyRing
    eier_key: bytes


class Producer:
    """Takes søknader in.

    Args:
        katalog: Who can receive.
        katalog_problem: Why the katalog is not there yet; None when it is.
        outbox: Keeps what was accepted.
        dokumentlager: Keeps large packages.
        keys: The sender's keys.
        limits: How much a submission may hold.
        clear_files: Whether files may come in clear over HTTP.
        clock: What the time is.
        max_concurrent: Most submissions under way; more wait, with their bytes still at the client.
    """

    def __init__(
        self,
        *,
        katalog: Katalog,
        katalog_problem: Callable[[], str | None],
        outbox: Outbox,
        dokumentlager: Dokumentlager,
        keys: IntakeKeys,
        limits: IntakeLimits,
        clear_files: bool,
        clock: Clock,
        max_concurrent: int = 64,
    ) -> None:
        self._katalog = katalog
        self._katalog_problem = katalog_problem
        self.outbox = outbox
        self.dokumentlager = dokumentlager
        self._keys = keys
        self._avsender = organisasjonsnummer(keys.signer.certificate)
        self.limits = limits
        self._clear_files = clear_files
        self._clock = clock
        self._room = asyncio.Semaphore(max_concurrent)
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="intake")

    def close(self) -> None:
        """Free the threads, when no submission is under way any more."""
        self._threads.shutdown()

    async def submit(
        self,
        kommunenummer: Kommunenummer,
        nav_ekstern_ref_id: NavEksternRefId,
        *,
        soknad_json: bytes,
        vedlegg_json: bytes,
        files: Sequence[Dokument],
        person: Fodselsnummer,
        enhetsnummer: Enhetsnummer | None = None,
        traceparent: str | None = None,
    ) -> DigisosId:
        """Send a søknad; when this returns it is durable, and ours to deliver.

        Args:
            kommunenummer: The receiver.
            nav_ekstern_ref_id: The sender's own id of this submission; the same one again is the same søknad.
            soknad_json: UTF-8.
            vedlegg_json: UTF-8.
            files: In clear, ``soknad.pdf`` first.
            person: Whose søknad it is; must be the one in ``soknad_json``.
            enhetsnummer: The receiving office, where ``soknad_json`` does not say it.
            traceparent: W3C trace context, for the messages.

        Raises:
            AlreadyAcceptedError: The reference was accepted before; ``digisos_id`` is the søknad's.
            RefusedError: Not accepted; the text says which part or field, and what to do.
            ContractError: ``soknad_json`` or ``vedlegg_json`` breaks its format.
            StoreError: It cannot be stored now. Try again.
        """
        async with self.receive(
            kommunenummer, nav_ekstern_ref_id, person, traceparent=traceparent, clear_files=True
        ) as reception:
            pieces = parts(soknad_json, vedlegg_json, files, None, enhetsnummer=enhetsnummer)
            await reception.feed(lambda: _events(pieces))
            return await reception.accept()

    @asynccontextmanager
    async def receive(
        self,
        kommunenummer: Kommunenummer,
        nav_ekstern_ref_id: NavEksternRefId,
        person: Fodselsnummer,
        *,
        traceparent: str | None = None,
        clear_files: bool | None = None,
    ) -> AsyncGenerator[Reception]:
        """Receive one submission: feed it within the context, then ``accept``.

        Args:
            kommunenummer: The receiver.
            nav_ekstern_ref_id: The sender's own id.
            person: Whose token it is.
            traceparent: W3C trace context, for the messages.
            clear_files: Whether files may be in clear; the setting's value when None.

        Raises:
            AlreadyAcceptedError: The reference is taken, before a byte is read.
            RefusedError: The kommune cannot receive.
            StoreError: The outbox cannot be read.
        """
        started = time.monotonic()
        reception: Reception | None = None
        log = get_logger().bind(kommunenummer=kommunenummer)
        try:
            async with self._room:
                await self._refuse_duplicate(nav_ekstern_ref_id, person)
                sealing = self._sealing(kommunenummer, clear=self._clear_files if clear_files is None else clear_files)
                innsending = self._innsending(kommunenummer, nav_ekstern_ref_id, person)
                reception = Reception(self, innsending, sealing, traceparent)
                try:
                    yield reception
                finally:
                    await reception.close()
        except MeldingsformidlerError as error:
            reason, status = _outcome(error)
            metrics.SOKNADER_REFUSED.labels(status=str(status), reason=reason).inc()
            log.info(
                "soknad_refused", http_status=status, kode=error.code, resultat=reason, varighet_ms=_since(started)
            )
            raise
        accepted = reception.accepted
        if accepted is None:
            log.info("soknad_abandoned", varighet_ms=_since(started))
            return
        metrics.SOKNADER_ACCEPTED.labels(kommunenummer=kommunenummer).inc()
        log.info(
            "soknad_accepted",
            digisos_id=accepted.soknad.digisos_id,
            melding_id=accepted.soknad.melding_id,
            enhetsnummer=accepted.soknad.enhetsnummer,
            hastegrad=accepted.soknad.hastegrad,
            dokumentlager_id=accepted.soknad.dokumentlager_id,
            storrelse=accepted.soknad.storrelse,
            filer=accepted.files,
            varighet_ms=_since(started),
        )

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Run ``call`` in the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def already_accepted(
        self, former: Registered, nav_ekstern_ref_id: NavEksternRefId, person: Fodselsnummer
    ) -> RefusedError:
        """Return the error for a reference that is taken: its søknad's id for the owner, and nothing for others."""
        if former.eier != person.eier(self._keys.eier_key):
            return RefusedError(403, "navEksternRefId er brukt av en annen person", reason="person")
        text = duplicate_text(nav_ekstern_ref_id, former.digisos_id)
        return AlreadyAcceptedError(text, digisos_id=former.digisos_id)

    async def _refuse_duplicate(self, nav_ekstern_ref_id: NavEksternRefId, person: Fodselsnummer) -> None:
        former = await self.outbox.find(nav_ekstern_ref_id)
        if former is not None:
            raise self.already_accepted(former, nav_ekstern_ref_id, person)

    def _innsending(
        self, kommunenummer: Kommunenummer, nav_ekstern_ref_id: NavEksternRefId, person: Fodselsnummer
    ) -> Innsending:
        now = self._clock()
        return Innsending(
            kommunenummer=kommunenummer,
            nav_ekstern_ref_id=nav_ekstern_ref_id,
            person=person,
            eier=person.eier(self._keys.eier_key),
            digisos_id=DigisosId.new(),
            melding_id=MeldingId.new(),
            hendelse_id=Uuid.new(),
            tidspunkt=now.replace(microsecond=now.microsecond // 1000 * 1000),  # what a record can hold
        )

    def _sealing(self, kommunenummer: Kommunenummer, *, clear: bool) -> Sealing:
        entry = self._katalog.get(kommunenummer)
        if entry is None and (problem := self._katalog_problem()) is not None:
            raise RefusedError(UNAVAILABLE, f"{problem}; prøv igjen", reason="katalog")
        if entry is None:
            raise RefusedError(400, "kommunenummer er ikke i katalogen", reason="kommune")
        if not entry.kan_motta_soknader:
            raise RefusedError(UNAVAILABLE, "kommunen tar ikke imot digitale søknader", reason="kommune")
        if entry.har_midlertidig_deaktivert_mottak:
            raise RefusedError(
                UNAVAILABLE, "kommunen har midlertidig stengt for mottak; prøv igjen senere", reason="kommune"
            )
        try:
            recipient = self._katalog.recipient(kommunenummer, self._clock())
        except CertificateError as error:
            raise no_certificate(kommunenummer, error) from error
        return Sealing(recipient, self._keys.signer, self._avsender, self._keys.mottak, clear, self.limits)


class Reception:
    """One submission under way. Made by ``Producer.receive``.

    Attributes:
        accepted: What became of it; None until ``accept`` has returned.
    """

    def __init__(self, producer: Producer, innsending: Innsending, sealing: Sealing, traceparent: str | None) -> None:
        self._producer = producer
        self._innsending = innsending
        self._sealing = sealing
        self._traceparent = traceparent
        self._submission: Submission | None = None
        self._running: asyncio.Future[Any] | None = None
        self.accepted: Accepted | None = None

    async def feed(self, produce: Callable[[], Iterable[Event]]) -> None:
        """Take the next events.

        Args:
            produce: Returns them; called in a thread, where parsing belongs too.

        Raises:
            RefusedError: A check failed.
            ContractError: A JSON document breaks its format.
            StoreError: The package cannot be written.
        """

        def work() -> None:
            submission = self._begun()
            for event in produce():
                submission.feed(event)

        await self._in_thread(work)

    async def accept(self) -> DigisosId:
        """Make the submission durable and return its id.

        Raises:
            AlreadyAcceptedError: Its reference was taken meanwhile.
            RefusedError: It is not complete, or not what it should be.
            StoreError: It cannot be stored, and nothing of it is.
        """

        def finish() -> tuple[Accepted, Sequence[Message]]:
            accepted = self._begun().finish()
            return accepted, accepted_messages(accepted, self._traceparent)

        accepted, messages = await self._in_thread(finish)
        try:
            former = await self._producer.outbox.accept(accepted, messages)
        except StoreError:
            await self._forget(accepted)
            raise
        if former is not None:
            await self._forget(accepted)
            raise self._producer.already_accepted(former, self._innsending.nav_ekstern_ref_id, self._innsending.person)
        self.accepted = accepted
        return accepted.soknad.digisos_id

    async def close(self) -> None:
        """Wait for the thread that may still be at work, and leave nothing behind unless it was accepted."""
        if self._running is not None and not self._running.done():
            await asyncio.wait({self._running})
            self._running.exception()  # whoever wanted it is gone
        if self._submission is not None:
            await self._producer.in_thread(self._submission.abort)

    def _begun(self) -> Submission:
        """Return the submission, begun at the first bytes: sealing starts with an RSA operation, which belongs in a thread."""
        if self._submission is None:
            try:
                self._submission = Submission(self._innsending, self._sealing, Spill(self._producer.dokumentlager))
            except CertificateError as error:
                raise no_certificate(self._innsending.kommunenummer, error) from error
        return self._submission

    async def _forget(self, accepted: Accepted) -> None:
        dokumentlager_id = accepted.soknad.dokumentlager_id
        if dokumentlager_id is not None:
            await self._in_thread(lambda: self._producer.dokumentlager.delete(dokumentlager_id))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        # Shielded: the thread cannot be stopped half-way, and ``close`` must wait for it before it tidies up.
        running = asyncio.ensure_future(self._producer.in_thread(call))
        self._running = running
        return await asyncio.shield(running)


def no_certificate(kommunenummer: Kommunenummer, error: CertificateError) -> RefusedError:
    """Raise the alarm about a kommune that nothing can be sealed for, and return the answer to the sender."""
    get_logger().critical("recipient_certificate_unusable", kommunenummer=kommunenummer, exc_info=error)
    return RefusedError(
        UNAVAILABLE,
        "kommunen har ikke noe gyldig sertifikat; driften er varslet, prøv igjen senere",
        reason="sertifikat",
    )


def _events(pieces: Iterable[tuple[str, Iterable[bytes]]]) -> Iterator[Event]:
    for nr, (name, content) in enumerate(pieces, 1):
        yield PartBegin(nr, name)
        for piece in content:
            yield PartData(piece)
        yield PartEnd()
    yield End()


def _outcome(error: MeldingsformidlerError) -> tuple[str, int]:
    """Return the word and the status that metrics and the log show."""
    match error:
        case RefusedError():
            return error.reason, error.status
        case ContractError():
            return "json", 400
        case _:
            return error.code, UNAVAILABLE if error.retriable else 500


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
