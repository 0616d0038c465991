from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from patience import until
from structlog.testing import capture_logs

from broker.routing import hendelse_topic, kvittering_topic
from consumers.connector import ConnectorEvent, Oppdatering, SvarAvvist, SvarMottatt, Vedlagt
from consumers.connectors.memory import MemoryConnector
from consumers.dedup import DedupStore
from consumers.hendelser import HendelseHandler, Innsyn
from consumers.kvitteringer import Answer, Kvitteringer
from crypto import KeyRing, Signer, Spool, open_package
from schemas.codec import decode
from schemas.digisos_soker_json import parse_digisos_soker
from schemas.errors import (
    BrokerUnavailableError,
    FagsystemFailureError,
    InvalidDocumentError,
    MeldingsformidlerError,
    PackError,
    RecordTooLargeError,
)
from schemas.examples import make_digisos_soker
from schemas.kvittering import AVVIST, GRAD_INGEN, GRAD_VALIDERT, LEVERT
from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256
from schemas.records import HendelseRecord

NUMBER = Kommunenummer("4601")
CASE = DigisosId.new()
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def handler(
    *,
    fagsystem: MemoryConnector,
    store: DedupStore,
    kvitteringer: Kvitteringer,
    publisher: Any,
    clock: Any,
    keys: Any,
) -> HendelseHandler:
    return HendelseHandler(
        NUMBER,
        connector=fagsystem,
        store=store,
        kvitteringer=kvitteringer,
        innsyn=Innsyn("acme", keys.innsyn, Signer(*keys.connector)),
        publisher=publisher,
        clock=clock,
        random=lambda: 0.0,
    )


class Settled:
    """Notes how an event was settled."""

    def __init__(self) -> None:
        self.calls: list[MeldingsformidlerError | None] = []

    async def __call__(self, error: MeldingsformidlerError | None) -> None:
        self.calls.append(error)


@pytest.fixture
def settled() -> Settled:
    return Settled()


async def levert(kvitteringer: Kvitteringer, status: str = LEVERT, grad: str = GRAD_VALIDERT) -> MeldingId:
    melding_id = MeldingId.new()
    await kvitteringer.issue(Answer(CASE, melding_id, Sha256.of(b"x"), status, grad))
    return melding_id


async def test_a_later_answer_continues_the_chain_and_is_acknowledged_when_durable(
    handler: HendelseHandler, kvitteringer: Kvitteringer, publisher: Any, settled: Settled
) -> None:
    melding_id = await levert(kvitteringer)
    publisher.failures = [BrokerUnavailableError("x")]
    with pytest.raises(BrokerUnavailableError):
        await handler.handle(SvarMottatt(settled, melding_id))
    assert settled.calls == []
    await handler.handle(SvarMottatt(settled, melding_id))
    assert settled.calls == [None]
    claims = publisher.claims(kvittering_topic(NUMBER))
    assert [(one.status, one.nr) for one in claims] == [("LEVERT", 1), ("MOTTATT", 2)]
    assert {one.sha256 for one in claims} == {Sha256.of(b"x")}


async def test_the_first_final_answer_counts(
    handler: HendelseHandler, kvitteringer: Kvitteringer, publisher: Any, settled: Settled
) -> None:
    melding_id = await levert(kvitteringer)
    await handler.handle(SvarMottatt(settled, melding_id))
    await handler.handle(SvarMottatt(settled, melding_id))
    await handler.handle(SvarAvvist(settled, melding_id, "demo.nei"))
    assert settled.calls == [None, None, None]
    assert [one.status for one in publisher.claims(kvittering_topic(NUMBER))] == ["LEVERT", "MOTTATT"]


@pytest.mark.parametrize("dead", [True, False])
async def test_an_answer_for_what_we_have_not_answered_is_held_until_we_have(
    handler: HendelseHandler, kvitteringer: Kvitteringer, fagsystem: MemoryConnector, *, dead: bool
) -> None:
    melding_id = await levert(kvitteringer, AVVIST, GRAD_INGEN) if dead else MeldingId.new()
    running = asyncio.create_task(handler.run())
    fagsystem.tell_mottatt(melding_id)
    await until(lambda: melding_id in handler._held)
    assert fagsystem.unsettled == 1
    await kvitteringer.issue(Answer(CASE, melding_id, Sha256.of(b"x"), LEVERT, GRAD_VALIDERT))
    handler.release(melding_id)
    await until(lambda: not fagsystem.unsettled)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_answer_for_a_soknad_that_another_process_has_is_held_until_its_partition_comes(
    handler: HendelseHandler, kvitteringer: Kvitteringer, fagsystem: MemoryConnector, publisher: Any
) -> None:
    melding_id = await levert(kvitteringer)
    handler.owns = lambda _: False
    running = asyncio.create_task(handler.run())
    fagsystem.tell_mottatt(melding_id)
    await until(lambda: melding_id in handler._held)
    handler.release_all()
    await until(lambda: handler._released.empty() and melding_id in handler._held)
    assert (fagsystem.unsettled, publisher.published) == (1, [])
    handler.owns = lambda _: True
    handler.release_all()
    await until(lambda: not fagsystem.unsettled)
    assert [one.status for one in publisher.claims(kvittering_topic(NUMBER))] == ["LEVERT", "MOTTATT"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_case_update_is_sealed_and_repeats_have_one_id(
    handler: HendelseHandler, publisher: Any, settled: Settled, keys: Any, clock: Any
) -> None:
    document = make_digisos_soker(["MOTTATT", "UNDER_BEHANDLING"], now=clock())
    for _ in range(2):
        await handler.handle(Oppdatering(settled, CASE, document, (Vedlagt("brev.pdf", b"%PDF"),)))
    first, second = [decode(HendelseRecord, one.value) for one in publisher.on(hendelse_topic(NUMBER))]
    assert first.melding_id == second.melding_id
    assert (first.avsender, first.kommunenummer, first.digisos_id) == ("acme", NUMBER, CASE)
    with Spool() as spool:
        spool.write(first.pakke or b"")
        spool.finish()
        ring = KeyRing([(keys.innsyn, keys.innsyn_key)])
        with open_package(spool, keys=ring, trust=keys.trust, now=clock()) as package:
            assert [file.name for file in package.files] == ["forsendelse.json", "digisos-soker.json", "brev.pdf"]
            assert package.read_bytes("digisos-soker.json", 10_000) == document


async def test_the_first_update_of_a_case_must_say_mottatt_and_later_ones_need_not(
    handler: HendelseHandler, settled: Settled, clock: Any
) -> None:
    started = make_digisos_soker(["MOTTATT"], now=clock())
    later = make_digisos_soker(["UNDER_BEHANDLING"], now=clock())
    with pytest.raises(InvalidDocumentError):
        await handler.handle(Oppdatering(settled, CASE, later))
    await handler.handle(Oppdatering(settled, CASE, started))
    await handler.handle(Oppdatering(settled, CASE, later))
    assert settled.calls == [None, None]


async def test_what_can_never_be_accepted_raises_what_says_so(
    handler: HendelseHandler, settled: Settled, clock: Any
) -> None:
    document = make_digisos_soker(["MOTTATT"], now=clock())
    for files, error in (
        ((Vedlagt("../brev.pdf", b"%PDF"),), PackError),
        ((Vedlagt("brev.pdf", secrets.token_bytes(600_000)),), RecordTooLargeError),
    ):
        with pytest.raises(error):
            await handler.handle(Oppdatering(settled, CASE, document, files))
    with pytest.raises(InvalidDocumentError):
        await handler.handle(Oppdatering(settled, CASE, b"{}"))
    with pytest.raises(TypeError):
        await handler.handle(ConnectorEvent(settled))


async def test_a_refusal_is_told_and_the_next_event_goes_on(
    handler: HendelseHandler, fagsystem: MemoryConnector, publisher: Any, clock: Any
) -> None:
    running = asyncio.create_task(handler.run())
    fagsystem.tell_oppdatering(CASE, b"{}")
    fagsystem.tell_oppdatering(CASE, make_digisos_soker(["MOTTATT"], now=clock()))
    await until(lambda: not fagsystem.unsettled)
    assert [error.code for error in fagsystem.refused] == ["kontrakt.ugyldig-dokument"]
    assert len(publisher.on(hendelse_topic(NUMBER))) == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_outage_holds_an_event_and_loses_it_not(
    handler: HendelseHandler, fagsystem: MemoryConnector, publisher: Any, clock: Any
) -> None:
    publisher.failures = [BrokerUnavailableError("x")]
    running = asyncio.create_task(handler.run())
    fagsystem.tell_oppdatering(CASE, make_digisos_soker(["MOTTATT"], now=clock()))
    await until(lambda: not fagsystem.unsettled)
    assert len(publisher.on(hendelse_topic(NUMBER))) == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def update_ids(handler: HendelseHandler, publisher: Any, settled: Settled, *updates: tuple[Vedlagt, ...]) -> Any:
    document = make_digisos_soker(now=NOW)
    for files in updates:
        await handler.handle(Oppdatering(settled, CASE, document, files))
    return [decode(HendelseRecord, each.value).melding_id for each in publisher.on(hendelse_topic(NUMBER))]


async def test_an_updates_id_follows_from_all_its_files(
    handler: HendelseHandler, publisher: Any, settled: Settled
) -> None:
    one, other = Vedlagt("brev.pdf", b"%PDF 1"), Vedlagt("brev.pdf", b"%PDF 2")
    renamed = Vedlagt("vedtak.pdf", b"%PDF 1")
    first, again, *rest = await update_ids(
        handler, publisher, settled, (one,), (one,), (other,), (renamed,), (), (one, renamed)
    )
    assert first == again
    assert len({first, *rest}) == 5


async def test_an_event_that_makes_our_own_code_fail_is_refused_and_the_next_one_goes(
    handler: HendelseHandler, fagsystem: MemoryConnector, publisher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deep(document: bytes) -> Any:
        if document == b"poison":
            raise RecursionError("12345678901")
        return parse_digisos_soker(document)

    monkeypatch.setattr("consumers.hendelser.parse_digisos_soker", deep)
    running = asyncio.create_task(handler.run())
    with capture_logs() as lines:
        fagsystem.tell_oppdatering(CASE, b"poison")
        fagsystem.tell_oppdatering(CASE, make_digisos_soker(now=NOW))
        await until(lambda: not fagsystem.unsettled)
    assert [each.code for each in fagsystem.refused] == ["kontrakt.uventet"]
    assert len(publisher.on(hendelse_topic(NUMBER))) == 1
    assert [line["feiltype"] for line in lines if line["log_level"] == "critical"] == ["RecursionError"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_refusal_that_cannot_be_told_is_told_again(
    handler: HendelseHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.hendelser.delay", lambda *_: timedelta())
    told: list[MeldingsformidlerError | None] = []

    async def settle(error: MeldingsformidlerError | None) -> None:
        told.append(error)
        if len(told) == 1:
            raise FagsystemFailureError("full disk")

    await handler._handle_until_done(Oppdatering(settle, CASE, b"no document"))
    assert told == [told[0], told[0]]
    assert isinstance(told[0], InvalidDocumentError)
