"""Escalation: what the watch withdrew from a channel goes on to the next, from the sender's own copy.

Rules:

1. A withdrawal that was read is a row (``eskalering_rows``), and the offset is noted with it: it takes effect once, whatever
   crashes or is read again.
2. The next channel is the next of the katalog's that somebody has built. Those in between are told of (``kanal-mangler``); when
   none is left that is told of too (``ingen-kanal``), loudly, and tried again each hour: a disk may have got room.
3. The row, the events and what they take out of the outbox are one transaction, after the channel has the message. A channel
   takes what it has already as sent, so a crash between the two repeats nothing.
4. When the copy is gone because a receiver vouched for the message, nothing is sent, and what a crash left in a channel is taken
   out of it: BEKREFTET lifts the withdrawal.
5. What lies in the outbox when its deadline has passed is taken out of there, and goes on like the rest. This needs no Kafka.
6. A channel's closing receipt (``kanaler.CLOSES``) destroys the sender's copy in the transaction that tells of it.
7. What a person ended is given to no channel, and taken out of the one that has it, if that is not too late; then it is told
   that it was too late. The sender's own recalls are known from the database, whatever Kafka has brought by then.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from broker.krasj import crash_point
from broker.log import get_logger
from broker.retry import Course, Rule, delay, rule_for
from producers import eskalering_rows as rows
from producers import kopi_rows, metrics, recall_rows
from producers.avsenderkopi import destroy_in, set_kanal
from producers.eskalering_events import (
    FRIST_UTLOPT,
    INGEN_KANAL,
    KANAL_MANGLER,
    KOPI_BORTE,
    confirmed,
    event,
    expired_in_outbox,
    not_sent,
    sent,
)
from producers.eskalering_rows import Eskalering, Expired, Tilstand
from producers.kanaler import CLOSES, Next, next_channel
from producers.messages import transport_message
from producers.outbox_rows import insert_message
from schemas.errors import (
    ChannelError,
    ChannelUnavailableError,
    CopyGoneError,
    MeldingsformidlerError,
    StoreError,
    UnsealError,
)
from schemas.records import KANAL_KAFKA

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from broker.clock import Clock
    from broker.katalog import Katalog
    from broker.retry import Random
    from broker.sql import Connection
    from producers.avsenderkopi import Avsenderkopier
    from producers.kanaler import Kanal
    from producers.kopi_rows import Kopi
    from producers.outbox_rows import Message
    from schemas.records import KatalogRecord

LOOK_S: Final = 1.0
MARGIN: Final = timedelta(minutes=10)
"""How long after its deadline a søknad may be left in the outbox: what is on its way to Kafka has come there by then."""
CLAIM: Final = timedelta(minutes=5)
"""For how long other instances leave a row alone that one has begun with."""
STRANDED_EVERY: Final = timedelta(hours=1)
UTSKREVET: Final = "utskrevet"
"""Why a copy was destroyed that was printed."""
UNOPENED: Final = Rule(Course.WAIT, first=timedelta(seconds=10), ceiling=timedelta(minutes=10))
"""The copy cannot be opened now, which is not the channel's fault."""


class Eskalerer:
    """Gives withdrawn messages to the next channel.

    Args:
        kopier: The sender's copies, and the database of everything here.
        katalog: Each kommune's channels.
        kanaler: The channels that are built, by name.
        clock: What the time is.
        added: Called when something came to the outbox.
        jitter: Spreads the waits.
    """

    def __init__(
        self,
        *,
        kopier: Avsenderkopier,
        katalog: Katalog,
        kanaler: Iterable[Kanal],
        clock: Clock,
        added: asyncio.Event,
        jitter: Random = random.random,
    ) -> None:
        self._kopier = kopier
        self._database = kopier.database
        self._katalog = katalog
        self._kanaler: Mapping[str, Kanal] = {kanal.navn: kanal for kanal in kanaler}
        self._clock = clock
        self._added = added
        self._jitter = jitter

    async def run(self, katalog_ready: asyncio.Event) -> None:
        """Work until cancelled.

        Args:
            katalog_ready: Nothing is sent anywhere before it is set.
        """
        await katalog_ready.wait()
        while True:
            try:
                await self.look()
            except (StoreError, ChannelError) as error:
                get_logger().warning("escalation_failed", vent_s=LOOK_S, exc_info=error)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Do what is due now.

        Raises:
            StoreError: The database cannot be read or written. What was done is done.
            ChannelError: A channel cannot say what it is done with.
        """
        await self._take_expired()
        for tilstand in (Tilstand.VENTER, Tilstand.INGEN_KANAL):
            for row in await self._due(tilstand):
                await self._begin(row)
        for row in await self._due(Tilstand.TILBAKE):
            await self._take_back(row)
        for kanal in self._kanaler.values():
            await self._close(kanal)

    async def _due(self, tilstand: Tilstand) -> list[Eskalering]:
        now = self._clock()
        return await self._database.read(lambda connection: rows.due(connection, tilstand, now))

    async def _take_expired(self) -> None:
        """Take out of the outbox what may not leave it any more (rule 5)."""
        now = self._clock()
        for one in await self._database.read(lambda connection: rows.expired(connection, now, MARGIN)):
            if await self._database.write(partial(_expire, one=one, now=now)):
                self._tell(one, KANAL_KAFKA, FRIST_UTLOPT, critical=False)

    async def _begin(self, row: Eskalering) -> None:
        now = self._clock()
        if not await self._database.write(lambda connection: rows.claim(connection, row, now + CLAIM)):
            return
        crash_point("producers.eskalering.claimed")
        kopi, entry = await self._kopier.get(row.melding_id), self._katalog.get(row.kommunenummer)
        if await self._database.read(lambda connection: recall_rows.withdrawn(connection, row.melding_id)):
            await self._take_back(row)  # the event that tells of it may come before the watch's, or much later
        elif kopi is None or (kopi.destruert is not None and (kopi.arsak or kopi.kvittering_id is None)):
            await self._strand(row, row.fra_kanal, KOPI_BORTE, now)
        elif kopi.destruert is not None:
            await self._confirm(row, now)
        elif entry is None:
            await self._postpone(row, UNOPENED, now)
        else:
            after = KANAL_KAFKA if row.tilstand is Tilstand.INGEN_KANAL else row.fra_kanal
            await self._advance(row, kopi, entry, next_channel(entry.channels(), after, self._kanaler), now)

    async def _confirm(self, row: Eskalering, now: datetime) -> None:
        """Tell that the former channel has answered, when no other has the message (rule 4)."""
        _, done = await self._withdraw(row)
        if done is not None:
            await self._closed(row, done)
            return
        await self._write(row, Tilstand.UNODVENDIG, None, [confirmed(row, now)])
        self._tell(row, row.fra_kanal, "svart-likevel", critical=False)

    async def _advance(self, row: Eskalering, kopi: Kopi, entry: KatalogRecord, coming: Next, now: datetime) -> None:
        if coming.kanal is None:
            await self._strand(row, entry.channels()[-1], INGEN_KANAL, now, coming.skipped)
            return
        kanal = self._kanaler[coming.kanal]
        try:
            await self._send(kanal, kopi, entry, now)
        except CopyGoneError:
            await self._postpone(
                row, UNOPENED, now, counted=False
            )  # it was destroyed meanwhile: the next look finds why
        except UnsealError as error:
            await self._strand(row, kanal.navn, error.code, now, coming.skipped)
        except ChannelError as error:
            await self._failed(row, kanal, error, coming, now)
        except MeldingsformidlerError as error:
            get_logger().error(
                "sender_copy_not_opened", melding_id=row.melding_id, forsok=row.forsok + 1, exc_info=error
            )
            await self._postpone(row, UNOPENED, now)
        else:
            messages = [*self._skipped(row, coming, now), sent(row, kanal.navn, now)]
            if await self._write(row, Tilstand.SENDT, kanal.navn, messages):
                self._tell(row, kanal.navn, "sendt", critical=False)
            elif await self._database.read(lambda connection: rows.is_ended(connection, row)):
                await kanal.withdraw(row.melding_id)  # a person ended it while it was being sent

    async def _send(self, kanal: Kanal, kopi: Kopi, entry: KatalogRecord, now: datetime) -> None:
        opened = await self._kopier.open(kopi.melding_id, now)
        try:
            await kanal.send(kopi, opened, entry, now)
        except MeldingsformidlerError:
            raise
        except Exception as error:  # a mistake of ours that this message brings out stops no other
            get_logger().critical("channel_failed_unexpectedly", kanal=kanal.navn, feiltype=type(error).__name__)
            raise ChannelUnavailableError("kanalen førte til en uventet feil") from error
        finally:
            opened.close()

    async def _failed(self, row: Eskalering, kanal: Kanal, error: ChannelError, coming: Next, now: datetime) -> None:
        rule, forsok = rule_for(error), row.forsok + 1
        get_logger().warning(
            "channel_failed", melding_id=row.melding_id, kanal=kanal.navn, forsok=forsok, exc_info=error
        )
        if row.tilstand is Tilstand.INGEN_KANAL:
            await self._postpone(row, Rule(Course.WAIT, first=STRANDED_EVERY, ceiling=STRANDED_EVERY), now)
        elif rule.course is not Course.GIVE_UP and (rule.course is not Course.COUNT or forsok < rule.attempts):
            await self._postpone(row, rule, now)
        else:
            messages = [*self._skipped(row, coming, now), not_sent(row, kanal.navn, error.code, now)]
            await self._write(row, Tilstand.VIDERE, kanal.navn, messages, on=kanal.navn)
            self._tell(row, kanal.navn, error.code, critical=True)

    async def _strand(
        self, row: Eskalering, kanal: str, kode: str, now: datetime, skipped: tuple[str, ...] = ()
    ) -> None:
        """Tell that there is no way left, once, and try again each hour."""
        if row.tilstand is Tilstand.INGEN_KANAL:
            await self._postpone(row, Rule(Course.WAIT, first=STRANDED_EVERY, ceiling=STRANDED_EVERY), now)
            return
        messages = [*self._skipped(row, Next(skipped, None), now), not_sent(row, kanal, kode, now)]

        # Without a copy there is nothing to try again with.
        state = Tilstand.AVSLUTTET if kode == KOPI_BORTE else Tilstand.INGEN_KANAL

        def write(connection: Connection) -> None:
            if _move(connection, row, state, None, messages):
                rows.postpone(connection, rows.moved(row, state), row.forsok, now + STRANDED_EVERY)

        await self._database.write(write)
        self._added.set()
        self._tell(row, kanal, kode, critical=True)

    async def _write(
        self,
        row: Eskalering,
        tilstand: Tilstand,
        til_kanal: str | None,
        messages: list[Message],
        *,
        on: str | None = None,
    ) -> bool:
        """Move a row with what is told about it, unless it has moved; ``on`` is the channel that another row goes on from."""
        now = self._clock()

        def write(connection: Connection) -> bool:
            if not _move(connection, row, tilstand, til_kanal, messages):
                return False
            if tilstand is Tilstand.SENDT and til_kanal is not None:
                set_kanal(connection, row.melding_id, til_kanal)
            if on is not None:
                rows.insert(connection, row, on, now)
            return True

        written = await self._database.write(write)
        self._added.set()
        return written

    def _skipped(self, row: Eskalering, coming: Next, now: datetime) -> list[Message]:
        if row.tilstand is Tilstand.INGEN_KANAL:
            return []  # told before
        return [not_sent(row, kanal, KANAL_MANGLER, now) for kanal in coming.skipped]

    async def _postpone(self, row: Eskalering, rule: Rule, now: datetime, *, counted: bool = True) -> None:
        forsok = row.forsok + counted
        until = now + (delay(rule, forsok, self._jitter) if counted else timedelta())
        await self._database.write(lambda connection: rows.postpone(connection, row, forsok, until))

    async def _take_back(self, row: Eskalering) -> None:
        withdrawn, done = await self._withdraw(row)
        if done is not None:
            await self._closed(row, done)
            return
        await self._database.write(lambda connection: rows.move(connection, row, Tilstand.AVSLUTTET))
        self._tell(row, row.til_kanal or "", "tatt-tilbake" if withdrawn else "avsluttet", critical=False)

    async def _withdraw(self, row: Eskalering) -> tuple[bool, Kanal | None]:
        """Take a message out of its channel; return whether that was done, and the channel that was done with it before.

        A crash may have left it in a channel that the row does not name: then it is taken out of each.
        """
        withdrawn = False
        for kanal in self._kanaler.values():
            if row.til_kanal not in {None, kanal.navn}:
                continue
            if await kanal.withdraw(row.melding_id):
                withdrawn = True
            elif await kanal.closed([row.melding_id]):
                return withdrawn, kanal
        return withdrawn, None

    async def _close(self, kanal: Kanal) -> None:
        """Close what the channel is done with, a page at a time."""
        if kanal.navn not in CLOSES:
            return
        after, open_here = "", 0
        while True:
            page = await self._database.read(partial(rows.sent_to, kanal=kanal.navn, after=after))
            if not page:
                break
            closed = await kanal.closed([row.melding_id for row in page])
            for row in page:
                if row.melding_id in closed:
                    await self._closed(row, kanal)
            open_here += len(page) - len(closed)
            after = page[-1].melding_id
        metrics.CHANNEL_OPEN.labels(kanal.navn).set(open_here)

    async def _closed(self, row: Eskalering, kanal: Kanal) -> None:
        now = self._clock()
        record = event(row, CLOSES[kanal.navn], kanal.navn, now)

        def write(connection: Connection) -> bool:
            if not _move(connection, row, Tilstand.LUKKET, kanal.navn, [transport_message(record, None)]):
                return False
            return destroy_in(connection, row.melding_id, now=now, kvittering_id=record.hendelse_id, arsak=UTSKREVET)

        if await self._database.write(write):
            self._kopier.told([row.melding_id], kvittering_id=record.hendelse_id, arsak=UTSKREVET)
        self._added.set()
        self._tell(row, kanal.navn, record.type, critical=False)

    def _tell(self, row: Eskalering | Expired, kanal: str, resultat: str, *, critical: bool) -> None:
        metrics.ESCALATIONS.labels(kanal, resultat).inc()
        log = get_logger().critical if critical else get_logger().info
        log(
            "message_escalated",
            digisos_id=row.digisos_id,
            melding_id=row.melding_id,
            kommunenummer=row.kommunenummer,
            kanal=kanal,
            resultat=resultat,
        )


def _move(
    connection: Connection, row: Eskalering, tilstand: Tilstand, til_kanal: str | None, messages: Iterable[Message]
) -> bool:
    """Move a row and put what is told about it in the outbox; nothing when another instance has moved it."""
    if not rows.move(connection, row, tilstand, til_kanal):
        return False
    rows.take_from_outbox(connection, row.melding_id)
    for message in messages:
        insert_message(connection, message)
    crash_point("producers.eskalering.before-commit")
    return True


def _expire(connection: Connection, one: Expired, now: datetime) -> bool:
    """Take a søknad out of the outbox; return whether it is to go on to the next channel."""
    if rows.take_from_outbox(connection, one.melding_id) == 0:
        return False
    kopi = kopi_rows.load(connection, one.melding_id)
    if kopi is not None and kopi.destruert is not None:
        return False  # it was published before a crash, and answered
    if not rows.insert(connection, one, KANAL_KAFKA, now):
        return False
    insert_message(connection, expired_in_outbox(one, now))
    return True
