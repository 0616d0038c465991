"""Sending a søknad by a Python call, and the one way in that the HTTP intake shares with it.

Rules:

1. ``accept`` returns when the søknad is durable: the package in the dokumentlager first, then, in one transaction, the reference
   and the messages. ``202`` is given after that and never before.
2. Whatever goes wrong, nothing is left: no reference, no message, no file.
3. What is heavy (private RSA operations, megabytes, files) is done in a small pool of threads. What takes a millisecond is done
   on the event loop, one submission in each of its rounds: two threads that fight for the interpreter's lock cost more.
4. One log line for each submission, accepted or refused. Never a value of it.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from broker.clock import to_milliseconds
from broker.log import get_logger
from crypto.certificates import organisasjonsnummer
from producers import metrics
from producers.checks import ENCRYPTION
from producers.envelopes import Failures, SeenKeys
from producers.forsegling import recipient_or_own
from producers.http_client import parts
from producers.intake import Innsending, Sealing
from producers.multipart import End, PartBegin, PartData, PartEnd
from producers.packages import Packages
from producers.places import MAX_CONCURRENT, MAX_PER_PERSON, Places
from producers.reception import Reception, no_certificate
from producers.versions import parse_version
from schemas.errors import (
    AlreadyAcceptedError,
    CertificateError,
    ContractError,
    MeldingsformidlerError,
    RefusedError,
    StoreFullError,
)
from schemas.names import DigisosId, MeldingId, Uuid
from schemas.records import KANAL_KAFKA

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence

    from broker.clock import Clock
    from broker.katalog import Katalog
    from crypto.keys import KeyRing, Signer
    from producers.avsenderkopi import Avsenderkopier
    from producers.checks import IntakeLimits
    from producers.dokument import Dokument
    from producers.dokumentlager import Dokumentlager
    from producers.multipart import Event
    from producers.outbox import Outbox, Registered
    from schemas.names import Enhetsnummer, Fodselsnummer, Kommunenummer, NavEksternRefId

T = TypeVar("T")

UNAVAILABLE: Final = 503
INSUFFICIENT_STORAGE: Final = 507
TOO_MANY_FAILURES: Final = "for-mange-feil"
BEHIND: Final = "gjenoppretting"
"""The reason while the database knows less than the topics do."""
FRIST_BEKREFTET: Final = timedelta(hours=24)
"""How long a receiver may wait before it begins, where the katalog does not say: after that the next channel has the søknad."""
LIGHT_BYTES: Final = 128 * 1024
"""No more than this is sealed on the event loop."""


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
        kopier: Keeps the sender's copies.
        keys: The sender's keys.
        limits: How much a submission may hold.
        clear_files: Whether files may come in clear over HTTP.
        clock: What the time is.
        closed: Why nothing is taken in now; None when it is.
        places: How many submissions may be under way; more wait, with their bytes still at the client.
        frist_bekreftet: How long a receiver may wait before it begins, where the katalog does not say.
    """

    def __init__(
        self,
        *,
        katalog: Katalog,
        katalog_problem: Callable[[], str | None],
        outbox: Outbox,
        dokumentlager: Dokumentlager,
        kopier: Avsenderkopier,
        keys: IntakeKeys,
        limits: IntakeLimits,
        clear_files: bool,
        clock: Clock,
        closed: Callable[[], str | None] = lambda: None,
        places: Places | None = None,
        frist_bekreftet: timedelta = FRIST_BEKREFTET,
    ) -> None:
        self._katalog = katalog
        self._katalog_problem = katalog_problem
        self._closed = closed
        self.outbox = outbox
        self.dokumentlager = dokumentlager
        self.packages = Packages(dokumentlager)
        self.kopier = kopier
        self._keys = keys
        self.avsender = organisasjonsnummer(keys.signer.certificate)
        self.limits = limits
        self._clear_files = clear_files
        self._clock = clock
        self._frist_bekreftet = frist_bekreftet
        self._seen = SeenKeys()
        self._failures = Failures()
        self.places = places or Places(MAX_CONCURRENT, MAX_PER_PERSON)
        self._turn = asyncio.Lock()
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
        avsenderversjon: str | None = None,
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
            avsenderversjon: Which version of the sender's program this is, for a later recall; see ``producers.versions``.

        Raises:
            AlreadyAcceptedError: The reference was accepted before; ``digisos_id`` is the søknad's.
            RefusedError: Not accepted; the text says which part or field, and what to do.
            ContractError: ``soknad_json`` or ``vedlegg_json`` breaks its format.
            StoreError: It cannot be stored now. Try again.
        """
        async with self.receive(
            kommunenummer,
            nav_ekstern_ref_id,
            person,
            traceparent=traceparent,
            avsenderversjon=None if avsenderversjon is None else parse_version(avsenderversjon),
            clear_files=True,
            patient=True,
        ) as reception:
            pieces = parts(soknad_json, vedlegg_json, files, None, enhetsnummer=enhetsnummer)
            small = sum(file.storrelse for file in files) <= LIGHT_BYTES
            await reception.feed(lambda: _events(pieces), light=small)
            return await reception.accept()

    @asynccontextmanager
    async def receive(
        self,
        kommunenummer: Kommunenummer,
        nav_ekstern_ref_id: NavEksternRefId,
        person: Fodselsnummer,
        *,
        traceparent: str | None = None,
        avsenderversjon: str | None = None,
        clear_files: bool | None = None,
        patient: bool = False,
    ) -> AsyncGenerator[Reception]:
        """Receive one submission: feed it within the context, then ``accept``.

        Args:
            kommunenummer: The receiver.
            nav_ekstern_ref_id: The sender's own id.
            person: Whose token it is.
            traceparent: W3C trace context, for the messages.
            avsenderversjon: The sender's version, checked.
            clear_files: Whether files may be in clear; the setting's value when None.
            patient: The bytes are here already, so wait for a place as long as it takes, whoever the person is.

        Raises:
            AlreadyAcceptedError: The reference is taken, before a byte is read.
            RefusedError: There is no place, or the kommune cannot receive.
            StoreError: The outbox cannot be read.
        """
        started = time.monotonic()
        reception: Reception | None = None
        log = get_logger().bind(kommunenummer=kommunenummer)
        try:
            self._refuse_while_closed()
            async with self.places.patiently() if patient else self.places.place(person.eier(self._keys.eier_key)):
                await self._refuse_duplicate(nav_ekstern_ref_id, person)
                self._refuse_guesser(person)
                sealing = self._sealing(kommunenummer, clear=self._clear_files if clear_files is None else clear_files)
                innsending = self._innsending(kommunenummer, nav_ekstern_ref_id, person, avsenderversjon)
                reception = Reception(self, innsending, sealing, traceparent)
                try:
                    yield reception
                finally:
                    await reception.close()
        except MeldingsformidlerError as error:
            self._note_refusal(error, kommunenummer, person, started)
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

    async def in_turn(self, call: Callable[[], T]) -> T:
        """Run ``call`` on the event loop, alone in one of its rounds."""
        async with self._turn:
            result = call()
            await asyncio.sleep(0)  # the turn lasts until the loop has looked at everything else
            return result

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

    def _note_refusal(
        self, error: MeldingsformidlerError, kommunenummer: Kommunenummer, person: Fodselsnummer, started: float
    ) -> None:
        reason, status = _outcome(error)
        if reason == ENCRYPTION:
            self._failures.note(person.eier(self._keys.eier_key), self._clock())
        metrics.SOKNADER_REFUSED.labels(status=str(status), reason=reason).inc()
        get_logger().info(
            "soknad_refused",
            kommunenummer=kommunenummer,
            http_status=status,
            kode=error.code,
            resultat=reason,
            varighet_ms=_since(started),
        )

    def _refuse_while_closed(self) -> None:
        if (problem := self._closed()) is not None:
            raise RefusedError(UNAVAILABLE, f"{problem}; prøv igjen senere", reason=BEHIND)

    def _refuse_guesser(self, person: Fodselsnummer) -> None:
        if self._failures.too_many(person.eier(self._keys.eier_key), self._clock()):
            raise RefusedError(
                429, "for mange filer har ikke latt seg dekryptere; prøv igjen senere", reason=TOO_MANY_FAILURES
            )

    def _innsending(
        self,
        kommunenummer: Kommunenummer,
        nav_ekstern_ref_id: NavEksternRefId,
        person: Fodselsnummer,
        avsenderversjon: str | None,
    ) -> Innsending:
        tidspunkt = to_milliseconds(self._clock())
        entry = self._katalog.get(kommunenummer)
        own = None if entry is None else entry.frist_bekreftet_s
        frist = self._frist_bekreftet if own is None else timedelta(seconds=own)
        return Innsending(
            kommunenummer=kommunenummer,
            nav_ekstern_ref_id=nav_ekstern_ref_id,
            person=person,
            eier=person.eier(self._keys.eier_key),
            digisos_id=DigisosId.new(),
            melding_id=MeldingId.new(),
            hendelse_id=Uuid.new(),
            tidspunkt=tidspunkt,
            avsenderversjon=avsenderversjon,
            gyldig_til=tidspunkt + frist,
        )

    def _sealing(self, kommunenummer: Kommunenummer, *, clear: bool) -> Sealing:
        entry = self._katalog.get(kommunenummer)
        if entry is None and (problem := self._katalog_problem()) is not None:
            raise RefusedError(UNAVAILABLE, f"{problem}; prøv igjen", reason="katalog")
        if entry is None:
            raise RefusedError(400, "kommunenummer er ikke i katalogen", reason="kommune")
        if not entry.kan_motta_soknader or entry.kanal != KANAL_KAFKA:
            raise RefusedError(UNAVAILABLE, "kommunen tar ikke imot digitale søknader", reason="kommune")
        if entry.har_midlertidig_deaktivert_mottak:
            raise RefusedError(
                UNAVAILABLE, "kommunen har midlertidig stengt for mottak; prøv igjen senere", reason="kommune"
            )
        try:
            recipient = recipient_or_own(self._katalog, kommunenummer, self._keys.mottak.certificates, self._clock())
        except CertificateError as error:
            raise no_certificate(kommunenummer, error) from error
        return Sealing(recipient, self._keys.signer, self.avsender, self._keys.mottak, clear, self.limits, self._seen)


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
        case StoreFullError():
            return error.code, INSUFFICIENT_STORAGE
        case _:
            return error.code, UNAVAILABLE if error.retriable else 500


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
