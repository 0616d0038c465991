"""Takes what the fagsystem tells on its own, later answers and case updates, to their topics.

Rules:

1. An event is acknowledged when what it led to is durable on its topic, and not before.
2. A later answer continues the chain of the melding's LEVERT. The fagsystem's first final word counts: one that contradicts it
   is logged, acknowledged and changes nothing.
3. An answer for a melding that we have not answered for ourselves is held, unacknowledged, until we have: the fagsystem may be
   faster than our own hand-over. So is one for a søknad whose partition another process of this connector has, since only one may
   write in a chain; it is looked at again when partitions come.
4. A case update keeps NAV's format; the first one of a case says MOTTATT; it is signed by the connector and sealed for the
   sender's innsyn. What breaks this, or is too large for a record, is refused with a code and never comes again.
5. Events of one kommune are handled one at a time, in order; an outage of Kafka holds them all.
6. An update's meldingId follows from its files, all of them: a repeat is seen to be one, and a letter that was replaced is news.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

from broker.krasj import crash_point
from broker.log import get_logger
from broker.record import Outgoing, cloud_event_headers
from broker.retry import ALWAYS, Random, delay
from broker.routing import hendelse_topic
from broker.runtime import place_of
from consumers import metrics
from consumers.connector import ConnectorEvent, Oppdatering, SvarAvvist, SvarMottatt, reason_code
from consumers.kvitteringer import Answer
from crypto import seal_package
from schemas.codec import encode
from schemas.digisos_soker_json import FILENAME, check_first, parse_digisos_soker
from schemas.errors import (
    CertificateError,
    ContractError,
    MeldingsformidlerError,
    MismatchError,
    PackError,
    RecordTooLargeError,
    UnexpectedRecordError,
)
from schemas.forsendelse import FILENAME as FORSENDELSE
from schemas.forsendelse import Forsendelse
from schemas.kvittering import AVVIST, GRAD_LAGRET, GRAD_VALIDERT, MOTTATT
from schemas.names import MeldingId, Sha256
from schemas.records import HENDELSE_DIGISOS_SOKER, MAX_INLINE_PACKAGE_BYTES, HendelseRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography import x509

    from broker.clock import Clock
    from broker.ports import Publisher
    from consumers.connector import FagsystemConnector
    from consumers.dedup import DedupStore
    from consumers.kvitteringer import Kvitteringer
    from crypto import Signer
    from schemas.names import DigisosId, Kommunenummer

EVENT: Final = "no.fiks.hendelse.v1"
MAX_HELD: Final = 10_000
"""Answers held for meldinger that we know nothing of (rule 3); beyond this they are refused."""

_NAMESPACE: Final = UUID("0b0c5a3e-54f4-4b2e-9a5b-2f6a7f0d7c11")
_REFUSALS: Final = (ContractError, PackError, RecordTooLargeError)


@dataclass(frozen=True)
class Innsyn:
    """How case updates are sealed.

    Attributes:
        utsteder: The connector's id.
        recipient: Certificate of the sender's innsyn.
        signer: The connector's certificate and key.
    """

    utsteder: str
    recipient: x509.Certificate
    signer: Signer


class HendelseHandler:
    """Works for one kommune.

    Args:
        kommunenummer: The kommune.
        connector: Its fagsystem, guarded.
        store: The local store.
        kvitteringer: Issues its kvitteringer.
        innsyn: How updates are sealed.
        publisher: Takes updates.
        clock: What the time is.
        random: Spreads retries.
    """

    def __init__(
        self,
        kommunenummer: Kommunenummer,
        *,
        connector: FagsystemConnector,
        store: DedupStore,
        kvitteringer: Kvitteringer,
        innsyn: Innsyn,
        publisher: Publisher,
        clock: Clock,
        random: Random,
    ) -> None:
        self._kommunenummer = kommunenummer
        self._connector = connector
        self._store = store
        self._kvitteringer = kvitteringer
        self._innsyn = innsyn
        self._publisher = publisher
        self._clock = clock
        self._random = random
        self._held: dict[MeldingId, list[SvarMottatt | SvarAvvist]] = {}
        self._released: asyncio.Queue[MeldingId] = asyncio.Queue()
        self._log = get_logger().bind(kommunenummer=kommunenummer)
        self.owns: Callable[[DigisosId], bool] = lambda _: True
        """Whether this process is the one that answers for a søknad."""

    def release_all(self) -> None:
        """Say that partitions have become ours, and that the store knows what their former owner answered (rule 3)."""
        for melding_id in self._held:
            self._released.put_nowait(melding_id)

    def release(self, melding_id: MeldingId) -> None:
        """Say that a melding has got its first answer, so that what was held for it can go on (rule 3)."""
        if melding_id in self._held:
            self._released.put_nowait(melding_id)

    async def run(self) -> None:
        """Handle events until cancelled. An unavailable fagsystem is waited out."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._go_on_with_held())

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                async for event in self._connector.events():
                    failures = 0
                    await self._handle_until_done(event)
            except MeldingsformidlerError as error:
                failures += 1
                await asyncio.sleep(self._wait_after(failures, "connector_events_failed", error))
            else:
                return  # a connector that never tells anything

    async def _go_on_with_held(self) -> None:
        while True:
            for event in self._held.pop(await self._released.get(), []):
                await self._handle_until_done(event)

    async def _handle_until_done(self, event: ConnectorEvent) -> None:
        """Repeat what an outage stopped; a refusal is told once."""
        refusal: MeldingsformidlerError | None = None
        failures = 0
        while True:
            try:
                refusal = refusal or await self._refusal(event)
                if refusal is not None:
                    await event.refuse(refusal)
            except MeldingsformidlerError as error:
                failures += 1
                await asyncio.sleep(self._wait_after(failures, "connector_event_postponed", error))
            else:
                return

    async def _refusal(self, event: ConnectorEvent) -> MeldingsformidlerError | None:
        """Take the event to its topic; return why it can never get there, None when it did."""
        kind = type(event).__name__
        try:
            await self.handle(event)
        except _REFUSALS as error:
            refusal: MeldingsformidlerError = error
        except MeldingsformidlerError:
            raise
        except Exception as error:  # noqa: BLE001 - one event must never stop the others, or the kommune's søknader
            self._log.critical(
                "event_failed_unexpectedly", type=kind, feiltype=type(error).__name__, sted=place_of(error)
            )
            refusal = UnexpectedRecordError(f"uventet feil under behandling av hendelsen ({type(error).__name__})")
        else:
            return None
        metrics.EVENTS.labels(type=kind, resultat="AVVIST").inc()
        self._log.warning("connector_event_refused", type=kind, exc_info=refusal, digisos_id=_digisos_id(event))
        return refusal

    def _wait_after(self, failures: int, what: str, error: MeldingsformidlerError) -> float:
        """Log an outage and return how many seconds to wait."""
        wait = delay(ALWAYS, failures, self._random).total_seconds()
        log = self._log.error if isinstance(error, CertificateError) else self._log.warning
        log(what, vent_s=round(wait, 1), exc_info=error)
        return wait

    async def handle(self, event: ConnectorEvent) -> None:
        """Take one event to its topic and acknowledge it, or hold it.

        Raises:
            ContractError: It can never be accepted.
            PackError: A file's name is not allowed.
            RecordTooLargeError: It does not fit in a record.
            MeldingsformidlerError: Try again later.
        """
        match event:
            case SvarMottatt(melding_id=melding_id):
                await self._answer(event, melding_id, MOTTATT, GRAD_LAGRET, None)
            case SvarAvvist(melding_id=melding_id, kode=kode):
                await self._answer(event, melding_id, AVVIST, GRAD_VALIDERT, reason_code(kode))
            case Oppdatering():
                await self._update(event)
            case _:
                raise TypeError(f"{type(event).__name__} is no event of the contract")

    async def _answer(
        self, event: SvarMottatt | SvarAvvist, melding_id: MeldingId, status: str, grad: str, kode: str | None
    ) -> None:
        known = [one for one in await self._store.of_melding(melding_id) if not one.is_dead_letter]
        if not known:
            self._hold(event, melding_id)
            return
        if not self.owns(known[0].digisos_id):
            self._held.setdefault(melding_id, []).append(event)
            return
        final = next((one for one in known if one.is_final), None)
        digisos_id = known[0].digisos_id
        if final is None:
            answer = Answer(digisos_id, melding_id, known[0].sha256, status, grad, kode)
            await self._kvitteringer.issue(answer, unless=lambda each: each.is_final)
        elif final.status != status:
            self._log.warning("answer_contradicted", melding_id=melding_id, digisos_id=digisos_id, status=final.status)
        await self._kvitteringer.publish(digisos_id, allowed=partial(self.owns, digisos_id))
        crash_point("consumers.svar.after-publish")
        await event.ack()
        self._told(event, digisos_id=digisos_id, melding_id=melding_id, status=status, kode=kode)

    def _hold(self, event: SvarMottatt | SvarAvvist, melding_id: MeldingId) -> None:
        if len(self._held) >= MAX_HELD:
            raise MismatchError("svaret gjelder en melding som ikke er levert av denne konnektoren")
        self._log.warning("answer_held", melding_id=melding_id)
        self._held.setdefault(melding_id, []).append(event)

    async def _update(self, event: Oppdatering) -> None:
        document = parse_digisos_soker(event.digisos_soker)
        if not await self._store.has_case(self._kommunenummer, event.digisos_id):
            check_first(document)
        outgoing = await asyncio.get_running_loop().run_in_executor(None, self._seal, event)
        crash_point("consumers.hendelse.before-publish")
        await self._publisher.publish(outgoing)
        crash_point("consumers.hendelse.after-publish")
        await self._store.add_case(self._kommunenummer, event.digisos_id)
        await event.ack()
        self._told(event, digisos_id=event.digisos_id, status=document.latest_status(), filer=len(event.files))

    def _seal(self, event: Oppdatering) -> Outgoing:
        now = self._clock()
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)  # as exact as the record
        melding_id = _melding_id(event)
        forsendelse = Forsendelse(
            digisos_id=event.digisos_id,
            melding_id=melding_id,
            kommunenummer=self._kommunenummer,
            type=HENDELSE_DIGISOS_SOKER,
            opprettet=now,
        )
        files = [
            (FORSENDELSE, "application/json", forsendelse.to_json()),
            (FILENAME, "application/json", event.digisos_soker),
            *((each.name, "application/pdf", each.content) for each in event.files),
        ]
        sealed, summary = seal_package(files, recipient=self._innsyn.recipient, signer=self._innsyn.signer, now=now)
        if summary.size > MAX_INLINE_PACKAGE_BYTES:
            raise RecordTooLargeError(f"oppdateringen er på {summary.size} byte, og får ikke plass i en melding")
        record = HendelseRecord(
            melding_id=melding_id,
            digisos_id=event.digisos_id,
            kommunenummer=self._kommunenummer,
            tidspunkt=now,
            avsender=self._innsyn.utsteder,
            nokkel_id=summary.nokkel_id,
            sha256=summary.sha256,
            storrelse=summary.size,
            pakke=sealed,
        )
        headers = cloud_event_headers(
            event_id=melding_id,
            event_type=EVENT,
            source=f"/konnektor/{self._innsyn.utsteder}",
            subject=self._kommunenummer,
            time=now,
        )
        key = event.digisos_id.encode("ascii")
        return Outgoing(hendelse_topic(self._kommunenummer), key, encode(record), headers)

    def _told(self, event: ConnectorEvent, **what: object) -> None:
        kind = type(event).__name__
        metrics.EVENTS.labels(type=kind, resultat="PUBLISERT").inc()
        self._log.info("connector_event_published", type=kind, **what)


def _melding_id(event: Oppdatering) -> MeldingId:
    """Return the same id for the same update, whenever it comes, and another for any other content (rule 6)."""
    letters = "".join(f"/{Sha256.of(each.name.encode())}:{Sha256.of(each.content)}" for each in event.files)
    return MeldingId.of(uuid5(_NAMESPACE, f"{event.digisos_id}/{Sha256.of(event.digisos_soker)}{letters}"))


def _digisos_id(event: ConnectorEvent) -> str | None:
    return event.digisos_id if isinstance(event, Oppdatering) else None
