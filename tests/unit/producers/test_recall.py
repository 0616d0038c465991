from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from broker.krav import Godkjenning, Krav, sign
from broker.operatorer import Operator, Operatorer
from broker.routing import soknad_topic
from broker.styring import ALONE_FOR, VALID_FOR
from producers import recall as module
from producers import recall_rows
from producers.avsenderkopi import set_kanal
from producers.forsegling import Forsegler
from producers.omsending import Omsender
from producers.recall import ENDRET, SEND, TREKK, RecallUtvalg, Resultat, Tilbakekaller
from producers.recall_rows import FORESLATT, GODKJENT, UTFORT
from schemas.codec import decode
from schemas.errors import ApprovalError, GovernedActError, SelectionChangedError, SelectionError, StoreError
from schemas.names import Kommunenummer, MeldingId, Sha256, Uuid
from schemas.records import RevisjonRecord, SoknadRecord, TransportRecord

if TYPE_CHECKING:
    from producers.recall import Oversikt

OSLO = Kommunenummer("0301")


class Office:
    """Kari and Ola with a key each, who ask one process."""

    def __init__(self, world: Any, folder: Path, grense: int = 10) -> None:
        self.world = world
        self.operatorer = Operatorer(folder)
        for name in ("kari", "ola"):
            self.operatorer.add(name, world.now)
        self.limit(grense)
        self.kari: Operator = self.operatorer.choose("kari", world.now)
        self.ola: Operator = self.operatorer.choose("ola", world.now)
        omsender = Omsender(world.kopier, Forsegler(world.katalog, world.kopier, world.clock), world.clock)
        self.recall = Tilbakekaller(world.database, omsender, self.operatorer.load, world.clock, world.outbox.added.set)

    def limit(self, grense: int) -> None:
        register = self.operatorer.load()
        self.operatorer._save(register.model_copy(update={"grense": grense}))

    async def look(self, handling: str = TREKK, **utvalg: Any) -> Oversikt:
        return await self.recall.look(RecallUtvalg(**utvalg), handling)

    async def krav(self, handling: str = TREKK, who: Operator | None = None, **utvalg: Any) -> str:
        found = await self.look(handling, **utvalg)
        return sign(
            Krav(
                aktor=(who or self.kari).aktor,
                tidspunkt=self.world.now,
                id=Uuid.new(),
                handling=handling,
                utvalg=RecallUtvalg(til_nr=found.til_nr, **utvalg).to_json(),
                digest=found.digest,
                antall=found.antall,
                begrunnelse="feil i skjemaet",
            ),
            who or self.kari,
        )

    async def act(self, handling: str = TREKK, **utvalg: Any) -> Resultat:
        return await self.recall.demand(await self.krav(handling, **utvalg))

    async def approval(self, who: Operator, **changes: Any) -> tuple[Uuid, str]:
        (recall,) = await self.recall.recalls()
        fields = {
            "aktor": who.aktor,
            "tidspunkt": self.world.now,
            "id": recall.id,
            "digest": recall.digest,
            "krav": Sha256.of(recall.krav.encode()),
        }
        return recall.id, sign(Godkjenning(**(fields | changes)), who)

    async def outbox(self) -> list[Any]:
        return [queued.message for queued in await self.world.queued()]

    async def acts(self) -> list[str]:
        return [decode(RevisjonRecord, m.outgoing.value).handling for m in await self.outbox() if m.type == "REVISJON"]


@pytest.fixture
def office(world: Any, tmp_path: Path) -> Office:
    return Office(world, tmp_path / "kontor")


@pytest.fixture
async def sent(world: Any, make_sending: Any) -> list[MeldingId]:
    """Three meldinger that have left the outbox, an hour apart."""
    for nr in range(3):
        sending = make_sending(seed=nr, encrypt_for=world.keys.mottak)
        assert (await world.post(sending, path=f"0301/ref-{nr}")).status_code == 202
        world.now += timedelta(hours=1)
    await world.database.write(lambda connection: connection.execute("DELETE FROM utboks"))
    return [kopi.melding_id for kopi in await world.kopier.alive()]


async def receive(world: Any, melding_id: MeldingId) -> None:
    await world.kopier.destroy(melding_id, now=world.now, kvittering_id=Uuid.new())
    await world.database.write(lambda connection: connection.execute("DELETE FROM utboks"))


async def test_what_is_affected_is_found_by_time_and_kommune_also_when_it_was_received(
    office: Office, world: Any, sent: list[MeldingId]
) -> None:
    await receive(world, sent[0])
    began = world.now - timedelta(hours=3)
    everything = await office.look(kommunenummer=OSLO)
    assert [(one.kopi.melding_id, one.stand) for one in everything.funn] == [
        (sent[0], "MOTTATT"),
        (sent[1], "SENDT"),
        (sent[2], "SENDT"),
    ]
    assert everything.antall == 3
    assert [f.kopi.melding_id for f in (await office.look(til=began + timedelta(hours=1))).funn] == sent[:1]
    assert [f.kopi.melding_id for f in (await office.look(fra=began + timedelta(hours=2))).funn] == sent[2:]
    assert (await office.look(kommunenummer=Kommunenummer("4601"))).antall == 0
    assert (await office.look(avsenderversjon="99")).antall == 0


async def test_pages_go_on_where_the_former_ended(office: Office, sent: list[MeldingId]) -> None:
    first = await office.recall.look(RecallUtvalg(), TREKK, antall=2)
    second = await office.recall.look(RecallUtvalg(), TREKK, antall=2, etter=first.etter)
    assert [one.kopi.melding_id for one in (*first.funn, *second.funn)] == sent
    assert first.digest == second.digest


async def test_what_nobody_has_received_is_withdrawn_and_the_rest_is_told_of(
    office: Office, world: Any, sent: list[MeldingId]
) -> None:
    await receive(world, sent[0])
    resultat = await office.act(kommunenummer=OSLO)
    assert resultat.tilstand == UTFORT
    assert resultat.antall == {"MOTTATT": 1, "TRUKKET": 2}
    assert resultat.for_sent == [sent[0]]
    messages = await office.outbox()
    withdrawals = [decode(SoknadRecord, m.outgoing.value) for m in messages if m.type == "TILBAKEKALL"]
    assert {one.melding_id for one in withdrawals} == set(sent[1:])
    assert {(one.type, one.pakke, one.dokumentlager_id, one.gyldig_til) for one in withdrawals} == {
        ("TILBAKEKALL", None, None, None)
    }
    assert {m.outgoing.topic for m in messages if m.type == "TILBAKEKALL"} == {soknad_topic(OSLO)}
    told = [decode(TransportRecord, m.outgoing.value) for m in messages if m.type == "TILBAKEKALT"]
    assert {(one.melding_id, one.kanal) for one in told} == {(melding, "KAFKA") for melding in sent[1:]}
    assert await office.acts() == [
        "tilbakekalling.godkjent",
        *["tilbakekalling.trukket"] * 2,
        "tilbakekalling.utfort",
    ]
    assert [one.stand for one in (await office.look()).funn] == ["MOTTATT", "TILBAKEKALT", "TILBAKEKALT"]


async def test_what_waits_in_the_outbox_never_leaves_it_and_is_withdrawn_all_the_same(
    office: Office, world: Any, sending: Any
) -> None:
    await world.post(sending)
    assert [one.stand for one in (await office.look()).funn] == ["I_UTBOKSEN"]
    assert (await office.act(kommunenummer=OSLO)).antall == {"TRUKKET": 1}
    kinds = [message.type for message in await office.outbox()]
    assert "SOKNAD" not in kinds
    assert kinds.index("AKSEPTERT") < kinds.index("TILBAKEKALT") < kinds.index("TILBAKEKALL")


async def test_withdrawing_again_changes_nothing(office: Office, sent: list[MeldingId]) -> None:
    await office.act(kommunenummer=OSLO)
    before = len(await office.outbox())
    assert (await office.act(kommunenummer=OSLO)).antall == {"TILBAKEKALT": 3}
    assert len(await office.outbox()) == before + 2  # the demand, and that it was carried out
    assert sent


async def test_an_act_is_for_what_was_there_when_the_operator_looked(
    office: Office, world: Any, make_sending: Any, sent: list[MeldingId]
) -> None:
    demand = await office.krav(kommunenummer=OSLO)
    await world.post(make_sending(seed=9, encrypt_for=world.keys.mottak), path="0301/ref-9")
    assert (await office.recall.demand(demand)).antall == {"TRUKKET": len(sent)}
    assert [one.stand for one in (await office.look()).funn][-1] == "I_UTBOKSEN"


async def hand_to(world: Any, melding_id: MeldingId, kanal: str) -> None:
    await world.database.write(lambda connection: set_kanal(connection, melding_id, kanal))


async def test_an_act_reaches_exactly_what_was_signed_and_tells_what_has_changed_meanwhile(
    office: Office, world: Any, sent: list[MeldingId]
) -> None:
    office.limit(0)
    await hand_to(world, sent[2], "SVARINN")
    await office.act(kanal="KAFKA")
    await hand_to(world, sent[0], "SVARINN")
    await hand_to(world, sent[2], "KAFKA")  # the question would find this one now, and the digest is of as many
    resultat = await office.recall.approve(*await office.approval(office.ola))
    assert resultat.antall == {"TRUKKET": 1, ENDRET: 1}
    assert resultat.endret == [sent[0]]
    assert [one.stand for one in (await office.look()).funn] == ["SENDT", "TILBAKEKALT", "SENDT"]


async def test_an_act_that_was_broken_off_goes_on_when_its_operator_demands_it_again(
    office: Office, world: Any, sent: list[MeldingId], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await office.krav(kanal="KAFKA")
    withdraw, calls = module.withdraw_in, iter((True, False))

    def breaks_off(*arguments: Any) -> str:
        if not next(calls):
            raise StoreError("borte")
        return withdraw(*arguments)

    with monkeypatch.context() as broken:
        broken.setattr(module, "withdraw_in", breaks_off)
        broken.setattr(recall_rows, "signed", partial(recall_rows.signed, antall=1))
        with pytest.raises(StoreError):
            await office.recall.demand(token)
    (begun,) = await office.recall.recalls()
    assert begun.tilstand == GODKJENT
    await hand_to(world, sent[1], "SVARINN")  # so that the question finds something else now
    world.now += timedelta(hours=1)
    fields: dict[str, Any] = {
        "tidspunkt": world.now,
        "id": begun.id,
        "handling": begun.handling,
        "utvalg": begun.utvalg,
        "digest": begun.digest,
        "antall": begun.antall,
        "begrunnelse": "igjen",
    }
    for changes in ({"digest": Sha256("0" * 64)}, {"handling": SEND}, {"aktor": office.ola.aktor}):
        other = Krav(**({"aktor": office.kari.aktor} | fields | changes))
        with pytest.raises(ApprovalError, match="et annet krav"):
            await office.recall.demand(sign(other, office.ola if "aktor" in changes else office.kari))
    resultat = await office.recall.demand(sign(Krav(aktor=office.kari.aktor, **fields), office.kari))
    assert (resultat.id, resultat.antall) == (begun.id, {"TILBAKEKALT": 1, ENDRET: 1, "TRUKKET": 1})
    (done,) = await office.recall.recalls()
    assert (done.tilstand, done.begrunnelse) == (UTFORT, "feil i skjemaet")


async def test_many_small_acts_within_a_day_are_one_large_one(
    office: Office, world: Any, sent: list[MeldingId]
) -> None:
    office.limit(2)
    for melding_id in sent[:2]:
        assert (await office.act(meldinger=(melding_id,))).tilstand == UTFORT
    third = await office.act(meldinger=(sent[2],))
    assert third.tilstand == FORESLATT
    others = await office.krav(who=office.ola, meldinger=(sent[2],))
    assert (await office.recall.demand(others)).tilstand == UTFORT
    world.now += ALONE_FOR
    assert (await office.act(SEND, meldinger=(sent[2],))).tilstand == UTFORT


async def test_what_another_has_approved_does_not_count_against_the_limit(
    office: Office, sent: list[MeldingId]
) -> None:
    office.limit(2)
    await office.act(kommunenummer=OSLO)
    await office.recall.approve(*await office.approval(office.ola))
    assert (await office.act(SEND, meldinger=tuple(sent[:2]))).tilstand == UTFORT


async def test_a_demand_says_how_many_it_is_for(office: Office, world: Any, sent: list[MeldingId]) -> None:
    found = await office.look(kommunenummer=OSLO)
    krav = Krav(
        aktor=office.kari.aktor,
        tidspunkt=world.now,
        id=Uuid.new(),
        handling=TREKK,
        utvalg=RecallUtvalg(kommunenummer=OSLO, til_nr=found.til_nr).to_json(),
        digest=found.digest,
        antall=1,
        begrunnelse="x",
    )
    with pytest.raises(SelectionChangedError, match="antall"):
        await office.recall.demand(sign(krav, office.kari))
    assert len(sent) == 3


async def test_a_proposal_of_before_the_meldinger_were_kept_is_carried_out_on_what_its_digest_is_of(
    office: Office, world: Any, sent: list[MeldingId]
) -> None:
    office.limit(0)
    await office.act(kanal="KAFKA")
    await world.database.write(lambda connection: connection.execute("DELETE FROM tilbakekalling_melding"))
    await hand_to(world, sent[0], "SVARINN")
    with pytest.raises(SelectionChangedError):
        await office.recall.approve(*await office.approval(office.ola))
    await hand_to(world, sent[0], "KAFKA")
    assert (await office.recall.approve(*await office.approval(office.ola))).antall == {"TRUKKET": 3}


async def test_sending_again_takes_what_nobody_has_received_or_withdrawn(
    office: Office, world: Any, sent: list[MeldingId]
) -> None:
    await receive(world, sent[0])
    await office.act(meldinger=(sent[1],))
    resultat = await office.act(SEND, kommunenummer=OSLO)
    assert resultat.antall == {"MOTTATT": 1, "TILBAKEKALT": 1, "SENDT_IGJEN": 1}
    assert [m.melding_id for m in await office.outbox() if m.type == "SOKNAD"] == [sent[2]]


async def test_more_than_the_limit_waits_for_another_operator(
    office: Office, world: Any, sent: list[MeldingId]
) -> None:
    office.limit(2)
    resultat = await office.act(kommunenummer=OSLO)
    assert resultat.tilstand == FORESLATT
    assert [m.type for m in await office.outbox()] == ["REVISJON"]
    recall_id, own = await office.approval(office.kari)
    with pytest.raises(ApprovalError, match="den som foreslo"):
        await office.recall.approve(recall_id, own)
    _, others = await office.approval(office.ola)
    assert (await office.recall.approve(recall_id, others)).antall == {"TRUKKET": 3}
    assert "tilbakekalling.godkjent" in await office.acts()
    (recall,) = await office.recall.recalls()
    assert (recall.tilstand, recall.godkjent_av) == (UTFORT, "operator-ola")
    assert len(sent) == 3
    assert world.now


async def test_an_old_proposal_is_not_approved(office: Office, world: Any, sent: list[MeldingId]) -> None:
    office.limit(0)
    await office.act(kommunenummer=OSLO)
    world.now += VALID_FOR + timedelta(seconds=1)
    with pytest.raises(ApprovalError, match="gammelt"):
        await office.recall.approve(*await office.approval(office.ola))
    assert [one.stand for one in (await office.look()).funn] == ["SENDT"] * len(sent)
    world.now -= timedelta(seconds=1)
    assert (await office.recall.approve(*await office.approval(office.ola))).antall == {"TRUKKET": len(sent)}


async def test_an_approval_is_for_one_demand_and_by_who_it_says(office: Office, sent: list[MeldingId]) -> None:
    office.limit(0)
    await office.act(kommunenummer=OSLO)
    for changes in ({"id": Uuid.new()}, {"digest": Sha256("0" * 64)}, {"krav": Sha256("0" * 64)}):
        recall_id, token = await office.approval(office.ola, **changes)
        with pytest.raises(ApprovalError, match="noe annet"):
            await office.recall.approve(recall_id, token)
    recall_id, token = await office.approval(office.kari, aktor=office.ola.aktor)
    with pytest.raises(ApprovalError, match="annen enn det sier"):
        await office.recall.approve(recall_id, token)
    with pytest.raises(ApprovalError):
        await office.recall.approve(recall_id, await office.krav(who=office.ola))
    with pytest.raises(ApprovalError, match="ingen slik"):
        await office.recall.approve(Uuid.new(), (await office.approval(office.ola))[1])
    assert [one.stand for one in (await office.look()).funn] == ["SENDT"] * len(sent)


async def test_a_selection_that_is_another_by_now_is_refused_and_nothing_is_done(
    office: Office, world: Any, sent: list[MeldingId]
) -> None:
    found = await office.look(kommunenummer=OSLO)
    fields: dict[str, Any] = {
        "aktor": office.kari.aktor,
        "tidspunkt": world.now,
        "id": Uuid.new(),
        "handling": TREKK,
        "digest": found.digest,
        "antall": 1,
        "begrunnelse": "x",
    }
    utvalg = RecallUtvalg(meldinger=(sent[0],), til_nr=found.til_nr)
    with pytest.raises(SelectionError, match="tomt"):
        await office.recall.demand(sign(Krav(utvalg='{"tilNr":9}', **fields), office.kari))
    with pytest.raises(SelectionChangedError, match="Ingenting er gjort"):
        await office.recall.demand(sign(Krav(utvalg=utvalg.to_json(), **fields), office.kari))
    with pytest.raises(GovernedActError, match="tilNr"):
        await office.recall.demand(sign(Krav(utvalg="{}", **fields), office.kari))
    assert await office.outbox() == []


async def test_a_demand_counts_for_as_long_as_it_is_fresh_and_once(
    office: Office, world: Any, sent: list[MeldingId]
) -> None:
    demand = await office.krav(kommunenummer=OSLO)
    await office.recall.demand(demand)
    assert (await office.recall.demand(demand)).antall == {"TILBAKEKALT": len(sent)}
    world.now += timedelta(hours=1)
    with pytest.raises(ApprovalError, match="gammelt"):
        await office.recall.demand(demand)


async def test_nobody_but_an_operator_demands(
    office: Office, world: Any, sent: list[MeldingId], tmp_path: Path
) -> None:
    stranger = Operatorer(tmp_path / "fremmed")
    stranger.add("kari", world.now)
    with pytest.raises(ApprovalError, match="signert"):
        await office.recall.demand(await office.krav(who=stranger.choose("kari", world.now)))
    office.operatorer.remove("kari", world.now)
    with pytest.raises(ApprovalError, match="signert"):
        await office.act(kommunenummer=OSLO)
    for token in ("", "a.b.c"):
        with pytest.raises(ApprovalError):
            await office.recall.demand(token)
    assert await office.outbox() == []
    assert sent


async def test_a_process_without_a_register_does_nothing(office: Office, world: Any, sent: list[MeldingId]) -> None:
    bare = Tilbakekaller(world.database, office.recall._omsender, None, world.clock, lambda: None)
    with pytest.raises(ApprovalError, match="FORMIDLER_PRODUCERS_OPERATORER"):
        await bare.demand(await office.krav())
    assert sent
