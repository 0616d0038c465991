from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from broker.record import header
from crypto.certificates import certificate_pem, nokkel_id
from producers.forsegling import Forsegler
from producers.kopi_rows import Utvalg
from producers.omsending import Bestilling, Omsender, Steg
from producers.withdrawal import withdraw_in
from schemas.codec import decode
from schemas.names import Kommunenummer, MeldingId, Organisasjonsnummer, Uuid
from schemas.records import RevisjonRecord, Sertifikat, SoknadRecord, TransportRecord

if TYPE_CHECKING:
    from producers.kopi_rows import Kopi

OSLO = Kommunenummer("0301")
RUN = Uuid("5a0e6f5c-6f6b-4c55-9a3b-0d6c3c2f4f11")


@pytest.fixture
def omsender(world: Any) -> Omsender:
    return Omsender(world.kopier, Forsegler(world.katalog, world.kopier, world.clock), world.clock)


@pytest.fixture
async def sent(world: Any, make_sending: Any) -> list[Kopi]:
    """Three meldinger that have left the outbox."""
    for nr in range(3):
        sending = make_sending(seed=nr, encrypt_for=world.keys.mottak)
        assert (await world.post(sending, path=f"0301/ref-{nr}")).status_code == 202
    world.former = [one.message for one in await world.queued()]
    await world.database.write(lambda connection: connection.execute("DELETE FROM utboks"))
    found: list[Kopi] = await world.kopier.alive()
    return found


def rotate(world: Any) -> Any:
    certificate, _ = world.keys.authority.issue(
        "Oslo",
        Organisasjonsnummer("889640782"),
        purpose="kryptering",
        now=world.now + timedelta(hours=1),
        key="rsa2048",
    )
    world.now += timedelta(hours=2)
    entry = world.katalog.get(OSLO)
    added = Sertifikat(
        nokkel_id=nokkel_id(certificate),
        bruk="KRYPTERING",
        pem=certificate_pem(certificate).decode(),
        gyldig_fra=certificate.not_valid_before_utc,
        gyldig_til=certificate.not_valid_after_utc,
    )
    world.katalog.put(entry.model_copy(update={"sertifikater": (*entry.sertifikater, added)}))
    return certificate


def order(**given: Any) -> Bestilling:
    return Bestilling(**({"utvalg": Utvalg(), "omgang": RUN, "bedt_av": "driften"} | given))


async def soknader(world: Any) -> list[SoknadRecord]:
    return [
        decode(SoknadRecord, one.message.outgoing.value) for one in await world.queued() if one.message.type == "SOKNAD"
    ]


def counted(steg: Steg) -> tuple[int, dict[str, int]]:
    return steg.sendt, dict(steg.hoppet_over)


async def test_what_is_sent_again_is_what_was_sent_marked_as_a_repeat(
    world: Any, omsender: Omsender, sent: list[Kopi]
) -> None:
    steg = await omsender.send(order())

    queued = [one.message for one in await world.queued() if one.message.type != "REVISJON"]
    assert (counted(steg), steg.etter, steg.ferdig) == ((3, {}), sent[-1].nr, False)
    assert [(one.type, one.melding_id) for one in queued] == [(one.type, one.melding_id) for one in world.former]
    assert [one.outgoing.value for one in queued] == [one.outgoing.value for one in world.former]
    assert [header(one.outgoing.headers, "fiks_gjenkjoringer") for one in queued if one.type == "SOKNAD"] == [b"1"] * 3
    assert (await omsender.send(order(etter=steg.etter))).ferdig


async def test_a_step_is_an_act_with_who_asked_and_why(world: Any, omsender: Omsender, sent: list[Kopi]) -> None:
    await omsender.send(order(begrunnelse="Kafka mistet disken"))
    (act,) = [
        decode(RevisjonRecord, one.message.outgoing.value)
        for one in await world.queued()
        if one.message.type == "REVISJON"
    ]
    assert (act.handling, act.objekt, act.begrunnelse) == ("avsenderkopi.sendt-igjen", RUN, "Kafka mistet disken")
    assert act.detaljer == {
        "antall": str(len(sent)),
        "tilOgMed": str(sent[-1].nr),
        "bedtAv": "driften",
        "kommunenummer": "alle",
    }


async def test_what_was_recalled_is_neither_sent_nor_sealed_again(
    world: Any, omsender: Omsender, sent: list[Kopi]
) -> None:
    now = world.now
    await world.database.write(lambda connection: withdraw_in(connection, sent[1], Uuid.new(), now))
    rotate(world)
    assert counted(await omsender.forsegl(order(torr=True))) == (2, {"tilbakekalt": 1})
    assert counted(await omsender.send(order())) == (2, {"tilbakekalt": 1})
    assert sent[1].melding_id not in {one.melding_id for one in await soknader(world) if one.type == "SOKNAD"}


async def test_what_is_recalled_after_it_was_found_is_not_sent_again(
    world: Any, omsender: Omsender, sent: list[Kopi], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(omsender, "_passed_over", lambda *_, **__: None)
    now = world.now
    await world.database.write(lambda connection: withdraw_in(connection, sent[0], Uuid.new(), now))
    assert counted(await omsender.send(order())) == (2, {"tilbakekalt": 1})


async def test_what_is_recalled_while_it_is_sealed_again_stays_recalled(
    world: Any, omsender: Omsender, sent: list[Kopi], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, load = world.now, world.kopier.load

    async def load_and_recall(melding_id: MeldingId) -> Any:
        loaded = await load(melding_id)
        if melding_id == sent[0].melding_id:
            await world.database.write(lambda connection: withdraw_in(connection, sent[0], Uuid.new(), now))
        return loaded

    rotate(world)
    monkeypatch.setattr(world.kopier, "load", load_and_recall)
    assert counted(await omsender.forsegl(order())) == (2, {"tilbakekalt": 1})
    assert [one.type for one in await soknader(world)].count("SOKNAD") == 2


async def test_what_another_channel_takes_after_it_was_found_is_not_sent_again(
    world: Any, omsender: Omsender, sent: list[Kopi], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(omsender, "_passed_over", lambda *_, **__: None)
    await world.kopier.move(sent[0].melding_id, "PRINT")

    async def page(_: Bestilling, steg: Steg) -> list[Kopi]:
        steg.etter = sent[-1].nr
        return sent

    monkeypatch.setattr(omsender, "_page", page)
    assert counted(await omsender.send(order())) == (2, {"annen-kanal": 1})


async def test_a_run_that_was_broken_off_sends_nothing_twice_and_the_next_run_does(
    world: Any, omsender: Omsender, sent: list[Kopi]
) -> None:
    await omsender.send(order(antall=2))
    await world.database.write(lambda connection: connection.execute("DELETE FROM utboks"))

    assert counted(await omsender.send(order())) == (1, {"sendt-i-samme-omgang": 2})
    await world.database.write(lambda connection: connection.execute("DELETE FROM utboks"))
    assert counted(await omsender.send(order(omgang=Uuid.new()))) == (3, {})
    assert [kopi.omsendinger for kopi in await world.kopier.alive()] == [2, 2, 2]
    last = [one.message.outgoing.headers for one in await world.queued() if one.message.type == "SOKNAD"]
    assert {header(headers, "fiks_gjenkjoringer") for headers in last} == {b"2"}
    assert len(sent) == 3


async def test_a_dry_run_counts_and_changes_nothing(world: Any, omsender: Omsender, sent: list[Kopi]) -> None:
    rotate(world)
    assert counted(await omsender.send(order(torr=True))) == (3, {})
    assert counted(await omsender.forsegl(order(torr=True))) == (3, {})
    assert await world.queued() == []
    assert await world.kopier.alive() == sent


async def test_what_should_not_be_sent_again_is_passed_over_and_counted(
    world: Any, omsender: Omsender, sent: list[Kopi]
) -> None:
    first, second, third = sent
    await world.kopier.move(first.melding_id, "PRINT")
    await world.kopier.destroy(second.melding_id, now=world.now)
    expired = third.record.model_copy(update={"gyldig_til": world.now}).model_dump_json(by_alias=True)
    await world.database.write(
        lambda connection: connection.execute(
            "UPDATE avsenderkopi SET soknad = ? WHERE melding_id = ?", (expired, third.melding_id)
        )
    )
    for work in (omsender.send, omsender.forsegl):
        assert counted(await work(order())) == (0, {"annen-kanal": 1, "frist-utlopt": 1})


async def test_what_still_waits_in_the_outbox_is_left_there(world: Any, omsender: Omsender, sending: Any) -> None:
    await world.post(sending)
    before = await world.queued()
    assert counted(await omsender.send(order())) == (0, {"venter-i-utboksen": 1})
    assert await world.queued() == before


async def test_after_a_lost_key_everything_is_sealed_for_the_new_certificate_in_order(
    world: Any, omsender: Omsender, sent: list[Kopi]
) -> None:
    new = rotate(world)
    steg = await omsender.forsegl(order(utvalg=Utvalg(kommunenummer=OSLO)))

    records = await soknader(world)
    types = [one.message.type for one in await world.queued() if one.message.type != "REVISJON"]
    assert counted(steg) == (3, {})
    assert types == ["OMFORSEGLET", "SOKNAD"] * 3
    assert [record.melding_id for record in records] == [kopi.melding_id for kopi in sent]
    assert {record.nokkel_id for record in records} == {nokkel_id(new)}
    assert counted(await omsender.forsegl(order(omgang=Uuid.new()))) == (0, {"riktig-sertifikat": 3})


async def test_one_melding_alone_can_be_sealed_again(world: Any, omsender: Omsender, sent: list[Kopi]) -> None:
    rotate(world)
    steg = await omsender.forsegl(order(utvalg=Utvalg(kommunenummer=OSLO, meldinger=(sent[1].melding_id,))))
    assert counted(steg) == (1, {})
    assert [record.melding_id for record in await soknader(world)] == [sent[1].melding_id]


async def test_what_was_sealed_again_is_sent_again_with_its_event(
    world: Any, omsender: Omsender, sent: list[Kopi]
) -> None:
    rotate(world)
    await omsender.forsegl(order())
    events = [
        decode(TransportRecord, one.message.outgoing.value).hendelse_id
        for one in await world.queued()
        if one.message.type == "OMFORSEGLET"
    ]
    await world.database.write(lambda connection: connection.execute("DELETE FROM utboks"))

    await omsender.send(order(omgang=Uuid.new()))

    queued = [one.message for one in await world.queued() if one.message.type != "REVISJON"]
    again = [decode(TransportRecord, one.outgoing.value).hendelse_id for one in queued if one.type == "OMFORSEGLET"]
    assert [one.type for one in queued] == ["AKSEPTERT", "OMFORSEGLET", "SOKNAD"] * len(sent)
    assert again == events


async def test_without_a_certificate_nothing_can_be_sealed(world: Any, omsender: Omsender, sent: list[Kopi]) -> None:
    world.katalog.put(world.katalog.get(OSLO).model_copy(update={"sertifikater": ()}))
    assert counted(await omsender.forsegl(order())) == (0, {"uten-gyldig-sertifikat": len(sent)})


async def test_a_copy_that_was_altered_stops_no_other(world: Any, omsender: Omsender, sent: list[Kopi]) -> None:
    rotate(world)
    await world.database.write(
        lambda connection: connection.execute(
            "UPDATE kopiinnhold SET pakke = ? WHERE melding_id = ?", (b"tull", sent[1].melding_id)
        )
    )
    assert counted(await omsender.forsegl(order())) == (2, {"kopi-borte": 1})
