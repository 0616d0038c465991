from __future__ import annotations

import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from connector_world import World
from patience import until

from broker.record import GJENKJORINGER_HEADER, Outgoing, header
from broker.routing import hendelse_topic, kvittering_topic, soknad_topic
from consumers.connector import Vedlagt
from consumers.dead_letters import VERDI_HEADER
from crypto import KeyRing, Spool, open_package, verify_jws
from schemas.codec import decode
from schemas.errors import FagsystemFailureError, FagsystemUnavailableError
from schemas.examples import make_digisos_soker
from schemas.kvittering import KvitteringClaims
from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256
from schemas.records import HendelseRecord, KvitteringRecord

pytestmark = pytest.mark.kafka


@pytest.fixture
async def world(kafka: Any, tmp_path: Path) -> World:
    number = await kafka.new_kommune()
    return World(kafka, number, await kafka.connector(number), tmp_path)


async def test_a_soknad_comes_to_the_fagsystem_and_its_kvittering_to_the_topic(world: World) -> None:
    record = world.soknad()
    await world.send(record)
    async with world.running():
        (claims,) = await world.kvitteringer(1)
    assert (claims.status, claims.grad, claims.nr, claims.forrige) == ("MOTTATT", "LAGRET", 1, None)
    assert (claims.digisos_id, claims.melding_id, claims.sha256) == (
        record.digisos_id,
        record.melding_id,
        record.sha256,
    )
    assert world.connector.soknader[record.melding_id].keys() == {"soknad.json", "vedlegg.json"}


async def test_the_kvittering_on_the_topic_is_signed_by_the_connector_and_says_what_the_record_says(
    world: World,
) -> None:
    record = world.soknad()
    await world.send(record)
    async with world.running():
        (incoming,) = await world.read(kvittering_topic(world.number), 1)
    on_topic = decode(KvitteringRecord, incoming.value)
    payload, _ = verify_jws(on_topic.jws, [world.issuer.certificate])
    assert KvitteringClaims.from_json(payload).record(on_topic.jws) == on_topic
    assert incoming.key == record.digisos_id.encode()
    assert header(incoming.headers, "ce_id") == on_topic.kvittering_id.encode()


async def test_tampered_foreign_and_broken_records_become_dead_letters_and_the_next_flows(world: World) -> None:
    tampered, moved, good = world.soknad(), world.soknad(), world.soknad()
    package = bytearray(tampered.pakke or b"")
    package[len(package) // 2] ^= 1
    tampered = tampered.model_copy(update={"pakke": bytes(package), "sha256": Sha256.of(bytes(package))})
    moved = moved.model_copy(update={"melding_id": MeldingId.new()})
    nobody, unreadable = DigisosId.new(), DigisosId.new()
    await world.send(tampered, moved, good.model_copy(update={"kommunenummer": Kommunenummer("0301")}))
    await world.send(b"not ours", key=unreadable.encode())
    await world.send(b"\0\0\0\0\1broken", key=b"\xff no id")
    await world.send(world.soknad(digisos_id=nobody), key=DigisosId.new().encode())
    last = world.soknad()
    await world.send(last)
    async with world.running():
        letters = await world.dead_letters(6)
        claims = await world.kvitteringer(6)
    codes = {letter.digisos_id: letter.kode for _, letter in letters}
    assert codes[tampered.digisos_id] == "krypto.apning"
    assert codes[moved.digisos_id] == "kontrakt.avvik"
    assert codes[good.digisos_id] == "kontrakt.avvik"
    assert codes[unreadable] == "kontrakt.ukjent-skjema"
    assert codes[None] == "kontrakt.uleselig"
    negative = {one.digisos_id: one for one in claims if one.status == "AVVIST"}
    assert {one.grad for one in negative.values()} == {"INGEN"}
    assert negative[tampered.digisos_id].kode == "krypto.apning"
    assert negative[tampered.digisos_id].melding_id == tampered.melding_id
    assert negative[unreadable].melding_id is None
    assert negative[unreadable].sha256 == Sha256.of(b"not ours")
    assert [one.digisos_id for one in claims if one.status == "MOTTATT"] == [last.digisos_id]


async def test_a_dead_letter_carries_the_record_byte_for_byte_and_both_header_families(world: World) -> None:
    value = b"not ours"
    await world.send(value, key=DigisosId.new().encode())
    async with world.running():
        ((incoming, letter),) = await world.dead_letters(1)
    assert letter.opprinnelig.verdi == value
    assert header(incoming.headers, "kafka_dlt-original-topic") == soknad_topic(world.number).encode()
    assert header(incoming.headers, "__connect.errors.topic") == soknad_topic(world.number).encode()
    assert header(incoming.headers, "fiks_kode") == b"kontrakt.ukjent-skjema"
    assert letter.trinn == "DEKODING"


async def test_what_somebody_filled_a_record_with_stops_nobody(world: World) -> None:
    topic, publisher = soknad_topic(world.number), await world.kafka.publisher()
    redriven = ((GJENKJORINGER_HEADER, b"9" * 20),)
    case, room = DigisosId.new().encode(), 1024 * 1024 - 200
    await publisher.publish(Outgoing(topic, case, b"junk", redriven))
    await publisher.publish(Outgoing(topic, DigisosId.new().encode(), b"junk", (("x", b"x" * (room - 40)),)))
    await publisher.publish(Outgoing(topic, DigisosId.new().encode(), b"x" * (room - 40)))
    await publisher.publish(Outgoing(topic, b"k" * room, b"junk"))
    last = world.soknad()
    await world.send(last)
    async with world.running():
        letters = await world.dead_letters(4)
        claims = await world.kvitteringer(4)
    assert {letter.kode for _, letter in letters} == {"kontrakt.ukjent-skjema"}
    assert {letter.gjenkjoringer for _, letter in letters} == {0}
    assert [one.digisos_id for one in claims if one.status == "MOTTATT"] == [last.digisos_id]
    (bare,) = [incoming for incoming, _ in letters if header(incoming.headers, VERDI_HEADER)]
    assert len(bare.key) + len(bare.value) < 10_000, "a key that does not fit twice"


async def test_a_fagsystem_that_is_down_loses_nothing_and_counts_nothing(world: World) -> None:
    world.connector.down = FagsystemUnavailableError("nede")
    records = [world.soknad() for _ in range(4)]
    await world.send(*records)
    async with world.running():
        await until(lambda: world.connector.deliveries >= 6)
        assert not world.connector.soknader
        world.connector.down = None
        claims = await world.kvitteringer(4)
    assert {one.melding_id for one in claims} == {one.melding_id for one in records}
    assert {one.status for one in claims} == {"MOTTATT"}


async def test_a_soknad_that_always_fails_is_dead_lettered_while_others_flow_past(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.delivery.delay", lambda *_: timedelta(milliseconds=1))
    bad, good = world.soknad(), world.soknad()
    deliver = world.connector.deliver

    async def picky(leveranse: Any) -> Any:
        if leveranse.melding_id == bad.melding_id:
            raise ValueError("a foreign error that quotes a person")
        return await deliver(leveranse)

    monkeypatch.setattr(world.connector, "deliver", picky)
    await world.send(bad, good)
    async with world.running():
        ((incoming, letter),) = await world.dead_letters(1)
        claims = await world.kvitteringer(2)
    assert (letter.kode, letter.trinn, len(letter.forsok)) == ("fagsystem.feil", "OVERLEVERING", 8)
    assert b"person" not in b"".join(value for _, value in incoming.headers)
    assert {one.melding_id: one.status for one in claims} == {bad.melding_id: "AVVIST", good.melding_id: "MOTTATT"}


async def test_an_ettersendelse_never_overtakes_its_soknad(world: World) -> None:
    first = world.soknad()
    later = [world.soknad(digisos_id=first.digisos_id, type="ETTERSENDELSE") for _ in range(3)]
    world.connector.failures = [FagsystemFailureError("x")]
    await world.send(first, *later)
    async with world.running():
        claims = await world.kvitteringer(4)
    assert world.connector.order == [first.melding_id, *(one.melding_id for one in later)]
    assert [one.nr for one in claims] == [1, 2, 3, 4]
    jws = [decode(KvitteringRecord, one.value).jws for one in await world.read(kvittering_topic(world.number), 4)]
    assert [one.forrige for one in claims] == [None, *(Sha256.of(each.encode()) for each in jws[:3])]


async def test_what_follows_a_dead_letter_is_parked_behind_it_across_a_restart_until_it_is_redriven(
    world: World,
) -> None:
    first = world.soknad()
    broken = first.model_copy(update={"sha256": Sha256.of(b"x")})
    second = world.soknad(digisos_id=first.digisos_id, type="ETTERSENDELSE")
    await world.send(broken)
    async with world.running():
        await world.kvitteringer(1)
    await world.send(second)
    async with world.running():
        claims = await world.kvitteringer(2)
        assert claims[1].kode == "levering.venter-bak-dodt-brev"
        assert world.connector.deliveries == 0
        await world.send(first, second, redrives=1)
        claims = await world.kvitteringer(4)
        third = world.soknad(digisos_id=first.digisos_id, type="ETTERSENDELSE")
        await world.send(third)
        claims = await world.kvitteringer(5)
    assert [one.status for one in claims] == ["AVVIST", "AVVIST", "MOTTATT", "MOTTATT", "MOTTATT"]
    assert world.connector.order == [first.melding_id, second.melding_id, third.melding_id]


@pytest.mark.parametrize("store", ["lokalt", "tapt"])
async def test_a_repeat_after_a_restart_gets_the_original_kvittering_byte_for_byte(world: World, store: str) -> None:
    record = world.soknad()
    await world.send(record)
    async with world.running():
        await world.kvitteringer(1)
    await world.send(record)
    async with world.running(store=store):
        first, second = await world.read(kvittering_topic(world.number), 2)
    assert first.value == second.value
    assert world.connector.deliveries == 1


async def test_offsets_are_committed_only_behind_what_is_done(world: World) -> None:
    records = [world.soknad() for _ in range(6)]
    await world.send(*records)
    async with world.running():
        await world.kvitteringer(6)
    async with world.running():
        await world.send(last := world.soknad())
        await until(lambda: last.melding_id in world.connector.soknader)
    assert world.connector.deliveries == 7


async def test_a_later_answer_continues_the_chain_and_is_acknowledged_when_it_is_durable(world: World) -> None:
    world.connector = world.new_fagsystem("LEVERT")
    accepted, rejected = world.soknad(), world.soknad()
    world.connector.tell_mottatt(accepted.melding_id)  # faster than our own hand-over
    await world.send(accepted, rejected)
    async with world.running():
        await world.kvitteringer(3)
        world.connector.tell_avvist(rejected.melding_id, "Ola Nordmann bor ikke her")
        claims = await world.kvitteringer(4)
        await until(lambda: not world.connector.unsettled)
    said = {one.melding_id: [c for c in claims if c.melding_id == one.melding_id] for one in (accepted, rejected)}
    assert [(c.status, c.grad, c.nr) for c in said[accepted.melding_id]] == [
        ("LEVERT", "VALIDERT", 1),
        ("MOTTATT", "LAGRET", 2),
    ]
    assert [(c.status, c.kode) for c in said[rejected.melding_id]] == [
        ("LEVERT", None),
        ("AVVIST", "fagsystem.ukjent-kode"),
    ]


async def test_a_case_update_is_sealed_for_innsyn_and_signed_by_the_connector(world: World) -> None:
    record = world.soknad()
    await world.send(record)
    document = make_digisos_soker(["MOTTATT"], now=world.now)
    async with world.running():
        world.connector.tell_oppdatering(record.digisos_id, document, Vedlagt("brev.pdf", b"%PDF-1.4"))
        (incoming,) = await world.read(hendelse_topic(world.number), 1)
        await until(lambda: not world.connector.unsettled)
    update = decode(HendelseRecord, incoming.value)
    with Spool() as spool:
        spool.write(update.pakke or b"")
        spool.finish()
        ring = KeyRing([(world.innsyn, world.innsyn_key)])
        with open_package(spool, keys=ring, trust=world.trust, now=world.now) as package:
            assert package.read_bytes("digisos-soker.json", 10_000) == document
            assert package.read_bytes("brev.pdf", 100) == b"%PDF-1.4"
            assert package.signer == world.issuer.certificate
            assert package.forsendelse is not None
            assert package.forsendelse.melding_id == update.melding_id


async def test_a_case_update_that_breaks_the_rules_is_refused_and_the_next_goes_through(world: World) -> None:
    case = DigisosId.new()
    async with world.running():
        world.connector.tell_oppdatering(case, make_digisos_soker(["UNDER_BEHANDLING"], now=world.now))
        world.connector.tell_oppdatering(case, make_digisos_soker(["MOTTATT"], now=world.now))
        big = Vedlagt("stort.pdf", secrets.token_bytes(600_000))
        world.connector.tell_oppdatering(case, make_digisos_soker(["MOTTATT"], now=world.now), big)
        await world.read(hendelse_topic(world.number), 1)
        await until(lambda: not world.connector.unsettled)
    assert [error.code for error in world.connector.refused] == ["kontrakt.ugyldig-dokument", "transport.for-stor"]
