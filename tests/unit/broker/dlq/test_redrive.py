from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from broker.dlq.letters import read_letter
from broker.dlq.plan import Plan, Utvalg, plan_redrive
from broker.dlq.redrive import FERDIG, STARTET, Oppdrag, Redriver
from broker.dlq.state import GJENKJORT, Dodebrev, fold
from broker.record import DEAD_LETTER_HEADER, Incoming, Outgoing, RecordPosition, header
from broker.revisjon import RevisjonWriter
from broker.revisjonskontroll import read_act
from broker.routing import REVISJON, soknad_topic
from schemas.codec import decode
from schemas.errors import AuditError, RecordTooLargeError, TransportError
from schemas.names import Kommunenummer, Sha256, Uuid
from schemas.records import RevisjonRecord, SoknadRecord

if TYPE_CHECKING:
    from conftest import Mailbox

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
OSLO = Kommunenummer("0301")


class Killed(BaseException):
    """The process is gone."""


class Kafka:
    """Topics in memory; some letters are refused, and the process may be killed after a publication."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.topics: dict[str, list[Outgoing]] = {}
        self.refused: dict[bytes, TransportError] = {}
        self.kill_after: int | None = None

    async def publish_all(self, batch: Iterable[Outgoing]) -> list[RecordPosition | TransportError]:
        await asyncio.sleep(0)
        outcomes = [self._publish(one) for one in batch]
        if self.kill_after is not None and len(self.on(soknad_topic(OSLO))) >= self.kill_after:
            raise Killed
        return outcomes

    def _publish(self, outgoing: Outgoing) -> RecordPosition | TransportError:
        brev = header(outgoing.headers, DEAD_LETTER_HEADER)
        if brev in self.refused:
            return self.refused[brev]
        there = self.topics.setdefault(outgoing.topic, [])
        there.append(outgoing)
        return RecordPosition(outgoing.topic, 0, len(there) - 1)

    def on(self, topic: str) -> list[Outgoing]:
        return self.topics.get(topic, [])

    def sent(self) -> list[str]:
        return [(header(one.headers, DEAD_LETTER_HEADER) or b"").decode() for one in self.on(soknad_topic(OSLO))]

    def acts(self) -> list[RevisjonRecord]:
        return [decode(RevisjonRecord, one.value) for one in self.on(REVISJON)]

    def state(self) -> Dodebrev:
        acts = []
        for nr, one in enumerate(self.on(REVISJON)):
            act = read_act(Incoming(REVISJON, 0, nr, 0, one.key, one.value or b""))
            assert act is not None
            acts.append(act)
        letters = [read_letter(one, OSLO) for one in self.mailbox.records]
        return fold(letters, acts, {}, now=NOW, register=self.mailbox.register())

    def plan(self, **utvalg: Any) -> Plan:
        return plan_redrive(self.state(), Utvalg(**utvalg))


class Signs:
    aktor = "operator-kari"

    def __init__(self, mailbox: Mailbox) -> None:
        self.sign = mailbox.sign


@pytest.fixture
def topics(mailbox: Mailbox) -> Kafka:
    return Kafka(mailbox)


@pytest.fixture
def redriver(topics: Kafka, mailbox: Mailbox) -> Redriver:
    return new_redriver(topics, mailbox)


def new_redriver(topics: Kafka, mailbox: Mailbox, rate: float = 0) -> Redriver:
    async def head(_: str) -> Sha256 | None:
        there = topics.on(REVISJON)
        return Sha256.of(there[-1].value or b"") if there else None

    writer = RevisjonWriter(topics, lambda: NOW, head)  # type: ignore[arg-type]  # it needs no more of a publisher
    return Redriver(fetch=mailbox, publisher=topics, writer=writer, signer=Signs(mailbox), rate=rate)  # type: ignore[arg-type]  # see above


def job(**changes: Any) -> Oppdrag:
    return Oppdrag(**({"begrunnelse": "leverandøren har rettet", "utvalg": "{}"} | changes))


async def test_a_plan_is_carried_out_in_order_and_each_letter_has_its_signed_line(
    topics: Kafka, redriver: Redriver, mailbox: Mailbox
) -> None:
    letters = [mailbox.die(melding=nr) for nr in (1, 2, 3)]
    utfall = await redriver.run(topics.plan(), job(), stop=asyncio.Event())
    assert (utfall.sendt, utfall.feilet, utfall.igjen, utfall.avbrutt) == (3, {}, 0, False)
    assert topics.sent() == letters
    assert [decode(SoknadRecord, one.value).melding_id for one in topics.on(soknad_topic(OSLO))] == [
        mailbox.soknad(1, nr).melding_id for nr in (1, 2, 3)
    ]
    acts = topics.acts()
    assert [act.handling for act in acts] == [STARTET, GJENKJORT, GJENKJORT, GJENKJORT, FERDIG]
    assert [act.objekt for act in acts[1:-1]] == letters
    assert {act.begrunnelse for act in acts} == {"leverandøren har rettet"}
    assert {act.aktor for act in acts} == {"operator-kari"}
    assert all(act.signatur for act in acts)
    assert acts[1].detaljer["runde"] == "1"
    assert acts[-1].detaljer["sendt"] == "3"
    assert {sak.tilstand for sak in topics.state().saker} == {"GJENKJORT"}


async def test_when_a_letter_does_not_go_nothing_of_its_line_does(
    topics: Kafka, redriver: Redriver, mailbox: Mailbox
) -> None:
    head, behind, last = (mailbox.die(melding=nr) for nr in (1, 2, 3))
    other = mailbox.die(soknad=2, melding=4)
    topics.refused[behind.encode()] = RecordTooLargeError("for stor")
    utfall = await redriver.run(topics.plan(), job(), stop=asyncio.Event())
    assert topics.sent() == [head, other]
    assert (utfall.sendt, utfall.feilet, utfall.igjen) == (2, {behind: "transport.for-stor"}, 1)
    assert {sak.id: sak.tilstand for sak in topics.state().saker} == {
        head: "GJENKJORT", behind: "APEN", last: "APEN", other: "GJENKJORT",
    }  # fmt: skip


async def test_a_letter_that_is_not_where_it_was_does_not_go(
    topics: Kafka, redriver: Redriver, mailbox: Mailbox
) -> None:
    first, second = mailbox.die(soknad=1), mailbox.die(soknad=2, melding=2)
    plan = topics.plan()
    mailbox.records[0] = mailbox.records[1]
    utfall = await redriver.run(plan, job(), stop=asyncio.Event())
    assert utfall.feilet == {first: "kontrakt.avvik"}
    assert topics.sent() == [second]


async def test_told_to_stop_it_ends_after_the_wave_and_the_next_run_sends_the_rest(
    topics: Kafka, mailbox: Mailbox
) -> None:
    letters = [mailbox.die(soknad=nr, melding=nr) for nr in range(1, 8)]
    stop = asyncio.Event()
    redriver = new_redriver(topics, mailbox, rate=2)
    utfall = await redriver.run(topics.plan(), job(), stop=stop, progress=lambda _: stop.set())
    assert (utfall.sendt, utfall.igjen, utfall.avbrutt) == (2, 5, True)
    stop.clear()
    utfall = await new_redriver(topics, mailbox).run(topics.plan(), job(), stop=stop)
    assert utfall.sendt == 5
    assert topics.sent() == letters


@pytest.mark.parametrize("killed", range(1, 7))
async def test_killed_at_any_publication_nothing_is_lost_and_order_is_kept(
    topics: Kafka, mailbox: Mailbox, killed: int
) -> None:
    for soknad in (1, 2):
        for nr in (1, 2, 3):
            mailbox.die(soknad=soknad, melding=soknad * 10 + nr)
    topics.kill_after = killed
    with pytest.raises(Killed):
        await new_redriver(topics, mailbox, rate=1000).run(topics.plan(), job(), stop=asyncio.Event())
    topics.kill_after = None
    await new_redriver(topics, mailbox).run(topics.plan(), job(), stop=asyncio.Event())
    for soknad in (1, 2):
        wanted = [mailbox.soknad(soknad, soknad * 10 + nr).melding_id for nr in (1, 2, 3)]
        sent = [decode(SoknadRecord, one.value) for one in topics.on(soknad_topic(OSLO))]
        own = [one.melding_id for one in sent if one.digisos_id == mailbox.soknad(soknad).digisos_id]
        assert list(dict.fromkeys(own)) == wanted
        assert len(own) <= 4  # at most the wave that was under way came twice
    assert {sak.tilstand for sak in topics.state().saker} == {"GJENKJORT"}


async def test_without_a_line_in_the_revisjon_nothing_is_sent(
    topics: Kafka, redriver: Redriver, mailbox: Mailbox
) -> None:
    mailbox.die()
    with pytest.raises(AuditError):
        await redriver.run(topics.plan(), job(begrunnelse="gjelder 01810012345"), stop=asyncio.Event())
    assert topics.sent() == []


async def test_the_rate_is_kept(topics: Kafka, mailbox: Mailbox) -> None:
    for nr in range(1, 7):
        mailbox.die(soknad=nr, melding=nr)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await new_redriver(topics, mailbox, rate=20).run(topics.plan(), job(), stop=asyncio.Event())
    assert loop.time() - began >= 6 / 20 - 0.05


async def test_an_approved_run_names_its_proposal_on_every_line(
    topics: Kafka, redriver: Redriver, mailbox: Mailbox
) -> None:
    mailbox.die()
    forslag = Uuid.new()
    await redriver.run(topics.plan(), job(forslag=forslag), stop=asyncio.Event())
    assert {act.detaljer["forslag"] for act in topics.acts()} == {forslag}
