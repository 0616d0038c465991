"""Sealing again what was sealed for a certificate that is no longer to be used, and holding what can be sealed for nobody.

Rules:

1. Nothing leaves for a kommune sealed for a certificate that has expired, was revoked, or has gone from the katalog. That is
   looked at right before each publication.
2. Such a melding is sealed for the kommune's present certificate, from the sender's copy: the same encrypted content with another
   recipient. OMFORSEGLET with the new digest takes its place in the outbox, the melding follows, and behind it comes all that
   waited behind it. It is one transaction; a crash before it leaves everything as it was.
3. While the kommune has no certificate to seal for, its søknad topic is closed in the outbox: its søknader are taken in, told as
   AKSEPTERT, and held. That is shouted once, shown by ``/isready`` and counted by kommune.
4. A small package is sealed in memory, a large one into the dokumentlager, as a new package: the former one stays for whoever has
   been told of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING, Final

from broker.clock import to_milliseconds
from broker.log import get_logger
from broker.record import NOKKEL_HEADER, TRACEPARENT, header
from broker.routing import parse_topic
from crypto.certificates import judge_recipient, nokkel_id
from crypto.reseal import reseal
from producers import kopi_rows, metrics
from producers.messages import soknad_message, transport_message
from producers.queueing import put_in_place
from producers.spill import Spill
from schemas.codec import decode
from schemas.errors import CertificateError, CopyGoneError, InvalidNameError, OutcomeUnknownError, StoreError
from schemas.names import NokkelId, Sha256, Uuid
from schemas.records import SOKNAD, SoknadRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from cryptography import x509

    from broker.clock import Clock
    from broker.katalog import Katalog
    from broker.sql import Connection
    from producers.avsenderkopi import Avsenderkopier, Loaded
    from producers.outbox_rows import Message, Queued
    from schemas.names import Kommunenummer, MeldingId
    from schemas.records import TransportRecord

UEGNET: Final = "uegnet"
"""Why nothing can be sealed for a certificate whose time is right: another kind of key, too small, or for another use."""
CHECK_S: Final = 1.0
"""So often certificates are looked at, beside every change of the katalog."""


class Forsegler:
    """Seals again, and knows whom nothing can be sealed for.

    Args:
        katalog: The kommuner's certificates.
        kopier: The sender's copies.
        clock: What the time is.

    Attributes:
        version: Another number whenever a kommune's topic has opened or closed.
    """

    def __init__(self, katalog: Katalog, kopier: Avsenderkopier, clock: Clock) -> None:
        self._katalog = katalog
        self._kopier = kopier
        self._clock = clock
        self._closed: dict[Kommunenummer, str] = {}
        self._known: frozenset[Kommunenummer] = frozenset()
        self._suitable: set[NokkelId] = set()
        self.version = 0

    # --- rule 3

    def problem(self) -> str | None:
        """Return whose søknader are held, for ``/isready``; None when nobody's are."""
        if not self._closed:
            return None
        named = ", ".join(f"{number} ({why})" for number, why in sorted(self._closed.items())[:5])
        more = f" og {len(self._closed) - 5} til" if len(self._closed) > 5 else ""  # noqa: PLR2004 - as many as are named
        return f"ingen gyldige sertifikater for {named}{more}; søknadene tas imot og holdes tilbake"

    def closed(self, topic: str) -> bool:
        """Return whether the topic carries søknader to a kommune that nothing can be sealed for, or that we do not know (yet)."""
        try:
            name = parse_topic(topic)
        except InvalidNameError:
            return False
        number = name.kommunenummer
        return name.kind == "soknad" and number is not None and (number in self._closed or number not in self._known)

    def refresh(self) -> bool:
        """Look at every kommune's certificates; return whether a topic was opened."""
        numbers = frozenset(entry.kommunenummer for entry in self._katalog.all())
        found = {number: why for number in numbers if (why := self._why_not(number)) is not None}
        if found == self._closed and numbers == self._known:
            return False
        new = numbers - self._known
        former, self._closed, self._known = self._closed, found, numbers
        self.version += 1
        for number, why in found.items():
            if number not in former:
                get_logger().critical("recipient_certificate_unusable", kommunenummer=number, kode=why)
        for number in former.keys() - found.keys():
            get_logger().info("recipient_certificate_usable", kommunenummer=number)
        return bool(new or former.keys() - found.keys())

    def _why_not(self, kommunenummer: Kommunenummer) -> str | None:
        try:
            self.recipient(kommunenummer)
        except CertificateError:
            return self._katalog.no_recipient(kommunenummer, self._clock()) or UEGNET
        return None

    async def watch(self, changed: asyncio.Event) -> None:
        """Look again at every change of the katalog, and now and then, until cancelled; count what is held.

        Args:
            changed: Set at every change of the katalog; cleared here.
        """
        told: set[tuple[str, str]] = set()
        while True:
            changed.clear()
            if self.refresh():
                self._kopier.wake()
            told = await self._count(told)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await changed.wait()

    async def _count(self, told: set[tuple[str, str]]) -> set[tuple[str, str]]:
        """Set the gauge of what is held, and take away those that it no longer says anything of; return what it says."""
        if not self._closed and not told:
            return told
        try:
            held = await self._kopier.database.read(_waiting_by_kommune)
        except StoreError as error:
            get_logger().error("outbox_unreadable", exc_info=error)
            return told
        series = {(str(number), why) for number, why in self._closed.items()}
        for gone in told - series:
            metrics.SOKNADER_HELD.remove(*gone)
        for number, why in series:
            metrics.SOKNADER_HELD.labels(number, why).set(held.get(number, 0))
        return series

    # --- rules 1 and 2

    async def current(self, queued: Queued) -> bool:
        """Return whether a message may be published as it is; otherwise it has been replaced, or waits where it is.

        Raises:
            CopyGoneError: It would have to be sealed again, and its copy is destroyed.
            UnsealError: Its copy was altered where it lies.
            KeyFileError: The key of its copy is not among ours.
            PackageMissingError: The dokumentlager does not have its copy.
            StoreError: The outbox or the dokumentlager cannot be read or written.
        """
        message = queued.message
        if message.type != SOKNAD:
            return True
        why = self._katalog.recipient_problem(message.kommunenummer, sealed_for(message), self._clock())
        if why is None:
            return True
        try:
            recipient = self.recipient(message.kommunenummer)
        except CertificateError:
            if self.refresh():  # who looks next sees no difference, and would not wake anybody
                self._kopier.wake()
            return False
        parent = header(message.outgoing.headers, TRACEPARENT)
        await self.reseal(message.melding_id, recipient, queued=queued, traceparent=parent.decode() if parent else None)
        get_logger().info(
            "message_resealed", melding_id=message.melding_id, kommunenummer=message.kommunenummer, kode=why
        )
        return False

    def recipient(self, kommunenummer: Kommunenummer) -> x509.Certificate:
        """Return the certificate to seal for now.

        Raises:
            CertificateError: The kommune has none that may be sealed for.
        """
        now = self._clock()
        certificate = self._katalog.recipient(kommunenummer, now)
        name = nokkel_id(certificate)
        if name not in self._suitable:  # its time was judged by the katalog; the rest of it never changes
            judge_recipient(certificate, now)
            self._suitable.add(name)
        return certificate

    async def reseal(
        self,
        melding_id: MeldingId,
        recipient: x509.Certificate,
        *,
        queued: Queued | None = None,
        still: Callable[[Connection], bool] = lambda _: True,
        traceparent: str | None = None,
        redrives: int = 0,
        omgang: str | None = None,
    ) -> bool:
        """Seal a melding for another certificate and put it in the outbox, behind the OMFORSEGLET that tells of it.

        Returns:
            False when nothing was done, because ``queued`` had gone, or ``still`` said so.

        Args:
            melding_id: Which one.
            recipient: Judged already.
            queued: The message that this takes the place of, if it is still there; nothing is done when it has gone.
            still: Asked in the transaction whether it is still to be done: sealing takes a while.
            traceparent: W3C trace context of what the melding came with.
            redrives: How many times it was sent again, for the receiver that has answered once.
            omgang: The run that sends it again.

        Raises:
            CopyGoneError: Its copy is destroyed.
            UnsealError: Its copy was altered where it lies.
            KeyFileError: The key of its copy is not among ours.
            PackageMissingError: The dokumentlager does not have its copy.
            StoreError: Nothing of it is stored.
        """
        found = await self._kopier.load(melding_id)
        now = to_milliseconds(self._clock())
        record = await asyncio.to_thread(self._seal, found, recipient)
        event = kopi_rows.omforseglet(found.kopi.aksept, Uuid.new(), record.sha256, now)
        messages = (
            transport_message(event, traceparent),
            soknad_message(record, traceparent, redrives=redrives, queued=now),
        )

        def write(connection: Connection) -> bool:
            return still(connection) and _take_over(
                connection, record, event, messages, instead_of=queued, omgang=omgang
            )

        try:
            taken = await self._kopier.database.write(write)
        except OutcomeUnknownError:
            raise  # it may be ours: the package must stay
        except (StoreError, CopyGoneError):
            await self._drop(record)
            raise
        if not taken:
            await self._drop(record)
        self._kopier.wake()
        return taken

    async def _drop(self, record: SoknadRecord) -> None:
        """Forget a package that nobody was told of."""
        if record.dokumentlager_id is not None:
            await asyncio.to_thread(self._kopier.dokumentlager.delete, record.dokumentlager_id)

    def _seal(self, found: Loaded, recipient: x509.Certificate) -> SoknadRecord:
        """Seal the copy's content for ``recipient``: slow, and durable in the dokumentlager when it is large."""
        key = self._kopier.wrapper.unwrap(found.innhold.key, found.kopi.melding_id)
        spill = Spill(self._kopier.dokumentlager)
        digest, size = hashlib.sha256(), 0
        try:
            for piece in reseal(self._kopier.ciphertext(found), key, recipient):
                digest.update(piece)
                size += len(piece)
                spill.write(piece)
            stored = spill.store()
        except BaseException:
            spill.abort()
            raise
        return found.kopi.record.model_copy(
            update={
                "sha256": Sha256(digest.hexdigest()),
                "storrelse": size,
                "nokkel_id": nokkel_id(recipient),
                "pakke": stored.pakke,
                "dokumentlager_id": stored.dokumentlager_id,
            }
        )


def recipient_or_own(
    katalog: Katalog, kommunenummer: Kommunenummer, own: Sequence[x509.Certificate], now: datetime
) -> x509.Certificate:
    """Return the certificate to seal a submission for: the kommune's, or one of our own while it has none (rule 3).

    Args:
        katalog: The kommuner's certificates.
        kommunenummer: The receiver.
        own: What clients encrypt for us with; the newest that is valid is taken.
        now: Aware UTC.

    Raises:
        CertificateError: None of ours can be used either.
    """
    with contextlib.suppress(CertificateError):
        certificate = katalog.recipient(kommunenummer, now)
        judge_recipient(certificate, now)
        return certificate
    newest = max(own, key=lambda certificate: certificate.not_valid_before_utc, default=None)
    if newest is None:
        raise CertificateError("avsenderen har ikke noe sertifikat å ta imot med")
    judge_recipient(newest, now)
    return newest


def sealed_for(message: Message) -> NokkelId:
    """Return the certificate that a søknad's message is sealed for."""
    stated = header(message.outgoing.headers, NOKKEL_HEADER)
    if stated is not None:
        return NokkelId(stated.decode())
    return decode(SoknadRecord, message.outgoing.value or b"").nokkel_id  # from an outbox of an older version


def _waiting_by_kommune(connection: Connection) -> dict[str, int]:
    rows = connection.execute(
        "SELECT kommunenummer, count(*) FROM utboks WHERE type = ? GROUP BY kommunenummer", (SOKNAD,)
    ).fetchall()
    return {row[0]: row[1] for row in rows}


def _take_over(
    connection: Connection,
    record: SoknadRecord,
    event: TransportRecord,
    messages: Sequence[Message],
    *,
    instead_of: Queued | None,
    omgang: str | None,
) -> bool:
    """Store a melding that was sealed again, and put it in the outbox; return False when its message had gone.

    Raises:
        CopyGoneError: Its copy was destroyed meanwhile.
    """
    if kopi_rows.content(connection, record.melding_id) is None:
        raise CopyGoneError("avsenderkopien ble destruert mens meldingen ble forseglet på nytt")
    if instead_of is not None:
        removed = connection.execute("DELETE FROM utboks WHERE nr = ?", (instead_of.nr,)).rowcount
        if not removed:  # somebody else has published it, or sealed it again
            return False
    kopi_rows.replace_sealing(connection, record, event)
    put_in_place(connection, messages)
    if omgang is not None:
        kopi_rows.mark_sent(connection, [record.melding_id], omgang)
    return True
