"""Sending meldinger again from the sender's copies: after a Kafka that was lost, or sealed anew after a key that was lost.

Rules:

1. Only what nobody has vouched for: the copy of everything else is destroyed. Only what the Kafka channel still has, whose
   receiver may still begin, and that was not recalled; the rest is counted by why it was passed over.
2. What is sent again is what was sent: the same AKSEPTERT with the same id, every OMFORSEGLET, then the melding with the same
   ids, marked as a repeat: a receiver that has rejected it tries once more, and one that has it answers as it did.
3. In the order accepted, so that a later melding never comes before its søknad.
4. A run has a name, and what it has sent bears it: a run that was broken off goes on under its name, and sends nothing twice.
5. Each step that did something is an act in the revisjon, with who asked for it and why.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from broker.krasj import crash_point
from broker.log import get_logger
from crypto.certificates import nokkel_id
from producers import kopi_rows, metrics, recall_rows
from producers.messages import soknad_message, transport_message
from producers.queueing import put_in_place, waits
from producers.revisjonsbok import write_act
from schemas.errors import CertificateError, CopyGoneError, CryptoError, PackageMissingError
from schemas.records import KANAL_KAFKA, SOKNAD

if TYPE_CHECKING:
    from broker.clock import Clock
    from broker.sql import Connection
    from producers.avsenderkopi import Avsenderkopier
    from producers.forsegling import Forsegler
    from producers.kopi_rows import Kopi, Utvalg
    from schemas.names import Uuid

MAX_STEP: Final = 500
"""Most meldinger in one step."""

SENDT_FOR: Final = "sendt-i-samme-omgang"
ANNEN_KANAL: Final = "annen-kanal"
UTLOPT: Final = "frist-utlopt"
I_UTBOKSEN: Final = "venter-i-utboksen"
RIKTIG: Final = "riktig-sertifikat"
UTEN_SERTIFIKAT: Final = "uten-gyldig-sertifikat"
BORTE: Final = "kopi-borte"
TILBAKEKALT: Final = "tilbakekalt"


@dataclass(slots=True)
class Steg:
    """What one step did.

    Attributes:
        sendt: How many meldinger were put in the outbox, or would have been.
        hoppet_over: How many were passed over, by why.
        etter: Where the next step begins.
        ferdig: Whether nothing is left.
    """

    sendt: int = 0
    hoppet_over: Counter[str] = field(default_factory=Counter[str])
    etter: int = 0
    ferdig: bool = False


@dataclass(frozen=True, slots=True)
class Bestilling:
    """What one step is to do.

    Attributes:
        utvalg: Which meldinger.
        omgang: The run's name.
        etter: Begin behind this place.
        antall: Look at so many.
        torr: Change nothing, only count.
        bedt_av: Who asked: an id of ours.
        begrunnelse: Why, in that person's words.
    """

    utvalg: Utvalg
    omgang: Uuid
    etter: int = 0
    antall: int = MAX_STEP
    torr: bool = False
    bedt_av: str = ""
    begrunnelse: str | None = None


class Omsender:
    """Sends again.

    Args:
        kopier: The sender's copies.
        forsegler: Seals for a kommune's present certificate.
        clock: What the time is.
    """

    def __init__(self, kopier: Avsenderkopier, forsegler: Forsegler, clock: Clock) -> None:
        self._kopier = kopier
        self._forsegler = forsegler
        self._clock = clock

    async def send(self, order: Bestilling) -> Steg:
        """Put meldinger in the outbox as they were last sealed.

        Raises:
            StoreError: Some may be there; the same run goes on where it broke off.
        """
        steg = Steg()
        for kopi in await self._page(order, steg):
            why = await self._kopier.database.read(partial(self._passed_over, kopi=kopi, order=order))
            if why is None and not order.torr:
                why = await self._kopier.database.write(partial(self._put, kopi=kopi, order=order))
            _count(steg, why)
        return await self._told(steg, order, "avsenderkopi.sendt-igjen")

    async def forsegl(self, order: Bestilling) -> Steg:
        """Seal meldinger for their kommune's newest certificate, and put them in the outbox.

        Raises:
            StoreError: Some may be there; the same run goes on where it broke off.
        """
        steg = Steg()
        for kopi in await self._page(order, steg):
            _count(steg, await self._forsegl(kopi, order))
        return await self._told(steg, order, "avsenderkopi.omforseglet")

    async def _page(self, order: Bestilling, steg: Steg) -> list[Kopi]:
        page = await self._kopier.alive(order.utvalg, etter=order.etter, antall=min(order.antall, MAX_STEP))
        steg.etter = page[-1].nr if page else order.etter
        steg.ferdig = not page
        return page

    async def _forsegl(self, kopi: Kopi, order: Bestilling) -> str | None:
        why = await self._kopier.database.read(partial(self._unfit, kopi=kopi, order=order))
        if why is not None:
            return why
        try:
            recipient = self._forsegler.recipient(kopi.kommunenummer)
        except CertificateError:
            return UTEN_SERTIFIKAT
        if nokkel_id(recipient) == kopi.nokkel_id:
            return RIKTIG
        if order.torr:
            return None
        found: list[str] = []

        def still(connection: Connection) -> bool:
            present = kopi_rows.load(connection, kopi.melding_id) or kopi
            why = self._unfit(connection, present, order)
            found[:] = [] if why is None else [why]  # a transaction may be run more than once
            return why is None

        try:
            await self._forsegler.reseal(
                kopi.melding_id, recipient, still=still, redrives=kopi.omsendinger + 1, omgang=order.omgang
            )
        except (CopyGoneError, CryptoError, PackageMissingError) as error:
            get_logger().error("sender_copy_unusable", melding_id=kopi.melding_id, exc_info=error)
            return BORTE
        return next(iter(found), None)

    def _unfit(self, connection: Connection, kopi: Kopi, order: Bestilling) -> str | None:
        valid_until = kopi.record.gyldig_til
        if kopi.omgang == order.omgang:
            return SENDT_FOR
        if kopi.kanal != KANAL_KAFKA:
            return ANNEN_KANAL
        if recall_rows.withdrawn(connection, kopi.melding_id):
            return TILBAKEKALT
        return UTLOPT if valid_until is not None and valid_until <= self._clock() else None

    def _passed_over(self, connection: Connection, kopi: Kopi, order: Bestilling) -> str | None:
        return self._unfit(connection, kopi, order) or (
            I_UTBOKSEN if waits(connection, kopi.melding_id, SOKNAD) else None
        )

    def _put(self, connection: Connection, kopi: Kopi, order: Bestilling) -> str | None:
        """Put what was sent in the outbox, unless something has happened to it since it was found."""
        innhold = kopi_rows.content(connection, kopi.melding_id)
        present = kopi_rows.load(connection, kopi.melding_id)
        if innhold is None or present is None:
            return BORTE
        if (why := self._unfit(connection, present, order)) is not None:
            return why
        record = present.record.model_copy(update={"pakke": innhold.pakke})
        events = [present.aksept, *kopi_rows.resealed_events(connection, present)]
        put_in_place(
            connection,
            [
                *(transport_message(event, None) for event in events),
                soknad_message(record, None, redrives=present.omsendinger + 1, queued=self._clock()),
            ],
        )
        kopi_rows.mark_sent(connection, [kopi.melding_id], order.omgang)
        crash_point("producers.omsending.before-commit")
        return None

    async def _told(self, steg: Steg, order: Bestilling, handling: str) -> Steg:
        """Account for a step (rule 5)."""
        if not steg.sendt or order.torr:
            return steg
        metrics.MELDINGER_SENT_AGAIN.inc(steg.sendt)
        number = order.utvalg.kommunenummer
        get_logger().warning("meldinger_sent_again", antall=steg.sendt, kommunenummer=number, kilde=handling)
        detaljer = {
            "antall": str(steg.sendt),
            "tilOgMed": str(steg.etter),
            "bedtAv": order.bedt_av,
            "kommunenummer": number or "alle",
        }
        await self._kopier.database.write(
            lambda connection: write_act(
                connection,
                handling,
                order.omgang,
                begrunnelse=order.begrunnelse,
                detaljer=detaljer,
                now=self._clock(),
            )
        )
        self._kopier.wake()
        return steg


def _count(steg: Steg, why: str | None) -> None:
    if why is None:
        steg.sendt += 1
    else:
        steg.hoppet_over[why] += 1
