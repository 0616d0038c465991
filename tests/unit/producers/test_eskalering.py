from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from broker.record import Incoming
from broker.routing import TRANSPORT
from producers import eskalering as module
from producers.avsenderkopi import Avsenderkopier
from producers.eskalering import MARGIN, Eskalerer
from producers.eskalering_follower import Withdrawals
from producers.utskrift import Utskrift
from producers.withdrawal import withdraw_in
from schemas.codec import decode, encode
from schemas.errors import ChannelError, ChannelUnavailableError, KeyFileError, UnsealError
from schemas.names import Kommunenummer, MeldingId, NavEksternRefId, Uuid
from schemas.records import TransportRecord

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime
    from pathlib import Path


@dataclass
class Channel:
    """A channel in memory; raises what it is given to raise."""

    navn: str = "PRINT"
    errors: list[Exception] = field(default_factory=list)
    taken: list[tuple[MeldingId, list[str]]] = field(default_factory=list)
    done: set[MeldingId] = field(default_factory=set)
    withdrawn: list[MeldingId] = field(default_factory=list)
    meanwhile: Any = None

    async def send(self, kopi: Any, opened: Any, entry: Any, now: datetime) -> None:
        assert entry.kommunenummer == kopi.kommunenummer
        assert now.tzinfo is not None
        if self.errors:
            raise self.errors.pop(0)
        self.taken.append((kopi.melding_id, sorted(one.name for one in opened.files)))
        if self.meanwhile is not None:
            await self.meanwhile()

    async def closed(self, waiting: Collection[MeldingId]) -> frozenset[MeldingId]:
        return frozenset(waiting) & self.done

    async def withdraw(self, melding_id: MeldingId) -> bool:
        self.withdrawn.append(melding_id)
        return melding_id not in self.done


class Sender:
    """The sender's escalation over a real database, with channels that a test decides about."""

    def __init__(self, world: Any, *channels: Any) -> None:
        self.world = world
        self.channels = channels or (Channel(),)
        self.offset = 0
        self.withdrawals = Withdrawals(world.database, self._no_tail, world.clock)
        self.eskalerer = self.make()

    def _no_tail(self, *_: object) -> Any:
        raise AssertionError

    def make(self) -> Eskalerer:
        return Eskalerer(
            kopier=self.world.kopier,
            katalog=self.world.katalog,
            kanaler=self.channels,
            clock=self.world.clock,
            added=self.world.outbox.added,
            jitter=lambda: 1.0,
        )

    async def accept(self, make_sending: Any, nr: int = 1) -> Any:
        sending = make_sending(seed=nr, encrypt_for=self.world.keys.mottak)
        answer = await self.world.post(sending, path=f"0301/ref-{nr}")
        assert answer.status_code == 202
        return next(one for one in await self.world.kopier.alive() if one.digisos_id == answer.json())

    async def read(self, kopi: Any, kind: str, kanal: str = "KAFKA", ahead: timedelta = timedelta()) -> int:
        event = TransportRecord(
            hendelse_id=Uuid.new(),
            melding_id=kopi.melding_id,
            digisos_id=kopi.digisos_id,
            kommunenummer=kopi.kommunenummer,
            type=kind,
            kanal=kanal,
            tidspunkt=self.world.now + ahead,
            nav_ekstern_ref_id=NavEksternRefId("ref-1"),
        )
        return await self.withdrawals.take_in([self.record(encode(event))])

    def record(self, value: bytes) -> Incoming:
        self.offset += 1
        return Incoming(TRANSPORT, 0, self.offset - 1, 0, b"k", value, ())

    async def look(self, after: timedelta = timedelta()) -> None:
        self.world.now += after
        await self.eskalerer.look()

    async def told(self) -> list[tuple[str, str, str | None]]:
        """Return the events since AKSEPTERT: type, channel and code."""
        queued = [one.message for one in await self.world.queued() if one.message.outgoing.topic == TRANSPORT]
        events = [decode(TransportRecord, one.outgoing.value) for one in queued]
        return [(one.type, one.kanal, one.kode) for one in events if one.type != "AKSEPTERT"]

    async def queued_soknader(self) -> int:
        return sum(one.message.type == "SOKNAD" for one in await self.world.queued())

    def channels_are(self, *kanaler: str) -> None:
        entry = self.world.katalog.get(Kommunenummer("0301"))
        self.world.katalog.put(entry.model_copy(update={"kanaler": kanaler}))


@pytest.fixture
def sender(world: Any) -> Sender:
    return Sender(world)


@pytest.mark.parametrize("kind", ["TTL_TIDSAVBRUDD", "MAX_RETRIESAVBRUDD"])
async def test_what_is_withdrawn_goes_to_the_next_channel_in_clear_and_is_told_of(
    sender: Sender, make_sending: Any, kind: str
) -> None:
    kopi = await sender.accept(make_sending)
    assert await sender.read(kopi, kind) == 1
    await sender.look()
    ((melding_id, files),) = sender.channels[0].taken
    assert melding_id == kopi.melding_id
    assert {"Soknad.pdf", "soknad.json", "Lønnslipp.png"} <= set(files)
    assert await sender.told() == [("SENDT", "PRINT", None)]
    assert (await sender.world.kopier.get(kopi.melding_id)).kanal == "PRINT"
    assert await sender.queued_soknader() == 0  # it lay in the outbox, and must not leave it any more


async def test_it_happens_once_however_often_the_withdrawal_is_read_and_whoever_reads_it(
    sender: Sender, make_sending: Any
) -> None:
    kopi = await sender.accept(make_sending)
    assert [await sender.read(kopi, "TTL_TIDSAVBRUDD") for _ in range(3)] == [1, 0, 0]
    await asyncio.gather(sender.look(), sender.make().look())
    await sender.read(kopi, "MAX_RETRIESAVBRUDD")
    await sender.make().look()
    assert len(sender.channels[0].taken) == 1
    assert await sender.told() == [("SENDT", "PRINT", None)]


async def test_a_crash_after_the_channel_has_it_repeats_the_channel_and_not_the_event(
    sender: Sender, make_sending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kopi = await sender.accept(make_sending)
    await sender.read(kopi, "TTL_TIDSAVBRUDD")

    async def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sender.eskalerer, "_write", crash)
    with pytest.raises(KeyboardInterrupt):
        await sender.look()
    sender.eskalerer = sender.make()
    await sender.look()
    assert len(sender.channels[0].taken) == 1  # another instance may be at it: left alone for a while
    await sender.look(module.CLAIM)
    assert len(sender.channels[0].taken) == 2
    assert await sender.told() == [("SENDT", "PRINT", None)]


async def test_channels_that_nobody_has_built_are_told_of_and_passed_by(sender: Sender, make_sending: Any) -> None:
    sender.channels_are("KAFKA", "SVARINN", "EPOST", "PRINT")
    await sender.read(await sender.accept(make_sending), "TTL_TIDSAVBRUDD")
    await sender.look()
    assert await sender.told() == [
        ("IKKE_SENDT", "SVARINN", "kanal-mangler"),
        ("IKKE_SENDT", "EPOST", "kanal-mangler"),
        ("SENDT", "PRINT", None),
    ]


async def test_when_no_channel_is_left_it_is_told_once_loudly_and_tried_again_when_there_is_one(
    sender: Sender, make_sending: Any
) -> None:
    sender.channels_are("KAFKA", "SVARINN")
    await sender.read(await sender.accept(make_sending), "TTL_TIDSAVBRUDD")
    with capture_logs() as logs:
        await sender.look()
    assert [(one["log_level"], one["resultat"]) for one in logs if one["event"] == "message_escalated"] == [
        ("critical", "ingen-kanal")
    ]
    told = [("IKKE_SENDT", "SVARINN", "kanal-mangler"), ("IKKE_SENDT", "SVARINN", "ingen-kanal")]
    assert await sender.told() == told
    await sender.look(module.STRANDED_EVERY)
    assert await sender.told() == told
    sender.channels_are("KAFKA", "SVARINN", "PRINT")
    await sender.look(module.STRANDED_EVERY)
    assert await sender.told() == [*told, ("SENDT", "PRINT", None)]


async def test_a_channel_that_fails_is_tried_again_with_growing_waits_and_then_gives_way(
    world: Any, make_sending: Any
) -> None:
    failing = Channel("SVARINN", errors=[ChannelUnavailableError("full")] * 100)
    sender = Sender(world, failing, Channel())
    sender.channels_are("KAFKA", "SVARINN", "PRINT")
    await sender.read(await sender.accept(make_sending), "TTL_TIDSAVBRUDD")
    await sender.look()
    assert (len(failing.errors), await sender.told()) == (99, [])
    await sender.look(timedelta(seconds=9))
    assert len(failing.errors) == 99
    await sender.look(timedelta(seconds=1))
    assert len(failing.errors) == 98
    for _ in range(30):
        await sender.look(timedelta(minutes=10))
    assert len(failing.errors) == 100 - 24
    assert await sender.told() == [("IKKE_SENDT", "SVARINN", "kanal.utilgjengelig"), ("SENDT", "PRINT", None)]


async def test_a_channel_that_never_can_gives_way_at_once(world: Any, make_sending: Any) -> None:
    sender = Sender(world, Channel("SVARINN", errors=[ChannelError("nei")]), Channel())
    sender.channels_are("KAFKA", "SVARINN", "PRINT")
    await sender.read(await sender.accept(make_sending), "TTL_TIDSAVBRUDD")
    await sender.look()
    await sender.look()
    assert await sender.told() == [("IKKE_SENDT", "SVARINN", "kanal"), ("SENDT", "PRINT", None)]


async def test_a_mistake_of_ours_stops_no_other_message(sender: Sender, make_sending: Any) -> None:
    sender.channels[0].errors = [ZeroDivisionError("en feil")]
    first, second = await sender.accept(make_sending, 1), await sender.accept(make_sending, 2)
    await sender.read(first, "TTL_TIDSAVBRUDD")
    await sender.read(second, "TTL_TIDSAVBRUDD")
    await sender.look()
    assert len(sender.channels[0].taken) == 1
    await sender.look(timedelta(minutes=1))
    assert {melding_id for melding_id, _ in sender.channels[0].taken} == {first.melding_id, second.melding_id}


async def test_a_copy_that_cannot_be_opened_now_is_waited_for_and_one_that_was_altered_is_not(
    sender: Sender, make_sending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kopi = await sender.accept(make_sending)
    await sender.read(kopi, "TTL_TIDSAVBRUDD")
    errors: list[Exception] = [KeyFileError("nøkkelen mangler"), UnsealError()]
    real = sender.world.kopier.open

    async def broken(_: Avsenderkopier, *args: Any) -> Any:
        if errors:
            raise errors.pop(0)
        return await real(*args)

    monkeypatch.setattr(Avsenderkopier, "open", broken)
    await sender.look()
    assert (await sender.told(), len(errors)) == ([], 1)
    await sender.look(timedelta(minutes=1))
    assert await sender.told() == [("IKKE_SENDT", "PRINT", "krypto.apning")]
    await sender.look(module.STRANDED_EVERY)  # somebody has put a whole package back
    assert (await sender.told())[-1] == ("SENDT", "PRINT", None)


async def test_when_the_receiver_had_answered_after_all_the_withdrawal_is_lifted_and_nothing_sent(
    sender: Sender, make_sending: Any
) -> None:
    kopi = await sender.accept(make_sending)
    await sender.world.kopier.destroy(kopi.melding_id, now=sender.world.now, kvittering_id=Uuid.new())
    await sender.read(kopi, "TTL_TIDSAVBRUDD")
    await sender.look()
    assert (sender.channels[0].taken, await sender.told()) == ([], [("BEKREFTET", "KAFKA", None)])


async def test_what_is_told_of_a_withdrawal_is_later_than_it_though_the_watchs_clock_is_a_little_ahead(
    sender: Sender, make_sending: Any
) -> None:
    kopi = await sender.accept(make_sending)
    await sender.world.kopier.destroy(kopi.melding_id, now=sender.world.now, kvittering_id=Uuid.new())
    await sender.read(kopi, "TTL_TIDSAVBRUDD", ahead=timedelta(seconds=2))
    await sender.look(timedelta(seconds=1))
    assert await sender.told() == []
    await sender.look(timedelta(seconds=1))
    assert await sender.told() == [("BEKREFTET", "KAFKA", None)]


async def test_no_message_waits_for_a_clock_that_was_far_ahead(sender: Sender, make_sending: Any) -> None:
    await sender.read(await sender.accept(make_sending), "TTL_TIDSAVBRUDD", ahead=timedelta(days=20))
    await sender.look(timedelta(minutes=1))
    assert await sender.told() == [("SENDT", "PRINT", None)]


async def test_a_copy_that_is_gone_without_anybodys_answer_is_told_of_loudly(sender: Sender, make_sending: Any) -> None:
    kopi = await sender.accept(make_sending)
    await sender.world.kopier.destroy(kopi.melding_id, now=sender.world.now, arsak="utlopt")
    await sender.read(kopi, "TTL_TIDSAVBRUDD")
    await sender.look()
    await sender.look(module.STRANDED_EVERY)
    assert await sender.told() == [("IKKE_SENDT", "KAFKA", "kopi-borte")]


async def test_a_soknad_whose_deadline_passes_in_the_outbox_goes_on_without_kafka(
    sender: Sender, make_sending: Any
) -> None:
    await sender.accept(make_sending)
    await sender.look(timedelta(hours=24))
    assert (await sender.told(), await sender.queued_soknader()) == ([], 1)
    await sender.look(MARGIN)
    assert await sender.told() == [("IKKE_SENDT", "KAFKA", "frist-utlopt"), ("SENDT", "PRINT", None)]
    assert await sender.queued_soknader() == 0
    kopi = (await sender.world.kopier.alive())[0]
    assert await sender.read(kopi, "TTL_TIDSAVBRUDD") == 0  # the watch finds out when Kafka is back


async def test_a_kommunes_own_deadline_decides_when_the_outbox_is_left(sender: Sender, make_sending: Any) -> None:
    entry = sender.world.katalog.get(Kommunenummer("0301"))
    sender.world.katalog.put(entry.model_copy(update={"frist_bekreftet_s": 3600}))
    kopi = await sender.accept(make_sending)
    assert kopi.record.gyldig_til == kopi.aksept.gyldig_til == sender.world.now + timedelta(hours=1)
    await sender.look(timedelta(hours=1) + MARGIN)
    assert (await sender.told())[0] == ("IKKE_SENDT", "KAFKA", "frist-utlopt")


async def test_what_was_published_before_a_crash_and_answered_only_leaves_the_outbox(
    sender: Sender, make_sending: Any
) -> None:
    kopi = await sender.accept(make_sending)
    await sender.world.kopier.destroy(kopi.melding_id, now=sender.world.now, kvittering_id=Uuid.new())
    await sender.look(timedelta(hours=25))
    assert (await sender.told(), await sender.queued_soknader()) == ([], 0)


async def test_a_printed_letter_closes_it_and_destroys_the_copy_with_proof(sender: Sender, make_sending: Any) -> None:
    kopi = await sender.accept(make_sending)
    await sender.read(kopi, "TTL_TIDSAVBRUDD")
    await sender.look()
    await sender.look()
    assert len(await sender.told()) == 1
    sender.channels[0].done.add(kopi.melding_id)
    await sender.look()
    await sender.look()
    assert await sender.told() == [("SENDT", "PRINT", None), ("UTSKREVET", "PRINT", None)]
    gone = await sender.world.kopier.get(kopi.melding_id)
    assert (gone.arsak, gone.destruert) == ("utskrevet", sender.world.now)
    assert [one.message.type for one in await sender.world.queued()].count("REVISJON") == 2  # opened, destroyed


@pytest.mark.parametrize("kind", ["STOPPET", "TILBAKEKALT"])
async def test_what_a_person_ends_is_not_sent_and_is_taken_out_of_a_channel(
    sender: Sender, make_sending: Any, kind: str
) -> None:
    waiting, sent = await sender.accept(make_sending, 1), await sender.accept(make_sending, 2)
    await sender.read(sent, "TTL_TIDSAVBRUDD")
    await sender.look()
    await sender.read(waiting, "TTL_TIDSAVBRUDD")
    for kopi in (waiting, sent):
        await sender.read(kopi, kind)
    await sender.look()
    await sender.look(timedelta(days=1))
    assert sent.melding_id in sender.channels[0].withdrawn
    assert [melding_id for melding_id, _ in sender.channels[0].taken] == [sent.melding_id]


async def crashes_when_sent(sender: Sender) -> None:
    """Let the process die when the channel has a message and the row does not say so yet; another is there after the claim."""

    async def crash() -> None:
        raise KeyboardInterrupt

    sender.channels[0].meanwhile = crash
    with pytest.raises(KeyboardInterrupt):
        await sender.look()
    sender.channels[0].meanwhile = None
    sender.eskalerer = sender.make()


async def test_what_a_crash_left_in_a_channel_is_taken_out_when_the_receiver_has_answered_meanwhile(
    sender: Sender, make_sending: Any
) -> None:
    kopi = await sender.accept(make_sending)
    await sender.read(kopi, "TTL_TIDSAVBRUDD")
    await crashes_when_sent(sender)
    await sender.world.kopier.destroy(kopi.melding_id, now=sender.world.now, kvittering_id=Uuid.new())
    await sender.look(module.CLAIM)
    assert sender.channels[0].withdrawn == [kopi.melding_id]
    assert await sender.told() == [("BEKREFTET", "KAFKA", None)]


async def test_what_a_crash_left_in_a_channel_and_was_printed_is_told_to_be_printed(
    sender: Sender, make_sending: Any
) -> None:
    kopi = await sender.accept(make_sending)
    await sender.read(kopi, "TTL_TIDSAVBRUDD")
    await crashes_when_sent(sender)
    sender.channels[0].done.add(kopi.melding_id)
    await sender.world.kopier.destroy(kopi.melding_id, now=sender.world.now, kvittering_id=Uuid.new())
    await sender.look(module.CLAIM)
    assert await sender.told() == [("UTSKREVET", "PRINT", None)]
    assert (await sender.world.kopier.get(kopi.melding_id)).arsak is None  # the receiver's own answer is the proof


@pytest.mark.parametrize("kind", ["STOPPET", "TILBAKEKALT"])
async def test_what_a_crash_left_in_a_channel_is_taken_out_when_a_person_has_ended_it_meanwhile(
    sender: Sender, make_sending: Any, kind: str
) -> None:
    kopi = await sender.accept(make_sending)
    await sender.read(kopi, "TTL_TIDSAVBRUDD")
    await crashes_when_sent(sender)
    await sender.read(kopi, kind)
    await sender.look()
    assert (sender.channels[0].withdrawn, await sender.told()) == ([kopi.melding_id], [])


async def test_what_was_recalled_goes_to_no_channel_though_the_watch_withdrew_it_after_that(
    sender: Sender, make_sending: Any
) -> None:
    kopi = await sender.accept(make_sending)
    recall, now = Uuid.new(), sender.world.now
    await sender.world.database.write(lambda connection: withdraw_in(connection, kopi, recall, now))
    await sender.read(kopi, "TILBAKEKALT")
    await sender.read(kopi, "TTL_TIDSAVBRUDD")  # the watch decided it before it had read of the recall
    await sender.look()
    await sender.look(timedelta(days=1))
    assert sender.channels[0].taken == []
    assert await sender.told() == [("TILBAKEKALT", "KAFKA", None)]


async def test_what_was_recalled_while_kafka_is_down_goes_to_no_channel(sender: Sender, make_sending: Any) -> None:
    kopi = await sender.accept(make_sending)
    await sender.read(kopi, "TTL_TIDSAVBRUDD")
    recall, now = Uuid.new(), sender.world.now
    await sender.world.database.write(lambda connection: withdraw_in(connection, kopi, recall, now))
    await sender.look()
    assert sender.channels[0].taken == []


async def test_what_a_person_ends_while_it_is_being_sent_is_taken_back(sender: Sender, make_sending: Any) -> None:
    kopi = await sender.accept(make_sending)
    await sender.read(kopi, "TTL_TIDSAVBRUDD")

    async def ended() -> None:
        await sender.read(kopi, "STOPPET")

    sender.channels[0].meanwhile = ended
    await sender.look()
    assert (set(sender.channels[0].withdrawn), await sender.told()) == ({kopi.melding_id}, [])


async def test_what_a_person_ends_too_late_is_told_to_be_printed(sender: Sender, make_sending: Any) -> None:
    kopi = await sender.accept(make_sending)
    await sender.read(kopi, "TTL_TIDSAVBRUDD")
    await sender.look()
    sender.channels[0].done.add(kopi.melding_id)
    await sender.read(kopi, "STOPPET")
    await sender.look()
    assert await sender.told() == [("SENDT", "PRINT", None), ("UTSKREVET", "PRINT", None)]


async def test_the_real_print_channel_takes_it_from_the_copy_to_the_queue_and_closes_it(
    world: Any, make_sending: Any, tmp_path: Path
) -> None:
    channel = Utskrift(tmp_path / "utskrift")
    channel.prepare()
    sender = Sender(world, channel)
    kopi = await sender.accept(make_sending)
    await sender.read(kopi, "TTL_TIDSAVBRUDD")
    await sender.look()
    (channel.folder / "ko" / kopi.melding_id).rename(channel.folder / "ferdig" / kopi.melding_id)
    await sender.look()
    assert await sender.told() == [("SENDT", "PRINT", None), ("UTSKREVET", "PRINT", None)]


async def test_it_works_on_when_the_database_fails_for_a_while(
    sender: Sender, make_sending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    await sender.read(await sender.accept(make_sending), "TTL_TIDSAVBRUDD")
    failures = [ChannelUnavailableError("borte")] * 3
    real = sender.channels[0].closed

    async def closed(waiting: Any) -> Any:
        if failures:
            raise failures.pop()
        return await real(waiting)

    monkeypatch.setattr(sender.channels[0], "closed", closed)
    ready = asyncio.Event()
    running = asyncio.create_task(sender.eskalerer.run(ready))
    await asyncio.sleep(0)
    assert sender.channels[0].taken == []
    ready.set()
    async with asyncio.timeout(10):
        while failures or not sender.channels[0].taken:  # noqa: ASYNC110 - lists have no event
            await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
