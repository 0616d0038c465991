from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from connector_world import World
from cryptography.hazmat.primitives.serialization import Encoding

from broker.dlq.desk import Desk, Gang
from broker.dlq.plan import Utvalg
from broker.dlq.redrive import Utfall
from broker.katalog import Katalog
from broker.operatorer import Operatorer
from broker.record import FORBI_HEADER, header
from broker.revisjon import RevisjonWriter
from broker.revisjon_reading import find_head, read_acts, read_records
from broker.revisjonskontroll import verify_revisjon
from broker.routing import REVISJON, soknad_topic
from crypto.certificates import nokkel_id
from schemas.errors import ApprovalError, BrokerUnavailableError, GovernedActError, SelectionChangedError
from schemas.names import DigisosId, Organisasjonsnummer, Uuid
from schemas.records import BRUK_KVITTERING, KatalogRecord, Sertifikat, SoknadRecord

if TYPE_CHECKING:
    from broker.kafka.settings import KafkaSettings
    from broker.operatorer import Operator

pytestmark = pytest.mark.kafka


class Office:
    """Operators at a desk, each with a name that no other test has."""

    def __init__(self, world: World, kafka: KafkaSettings, folder: Path) -> None:
        self.world = world
        self.operatorer = Operatorer(folder)
        self.now = datetime.now(UTC)
        name = secrets.token_hex(4)
        self.operatorer.add(f"kari-{name}", self.now)
        self.operatorer.add(f"ola-{name}", self.now)
        self.kari: Operator = self.operatorer.choose(f"kari-{name}", self.now)
        self.ola: Operator = self.operatorer.choose(f"ola-{name}", self.now)
        self.utvalg = Utvalg(kommuner=(world.number,))
        self.desk = Desk(folder, kafka, Katalog([entry(world)]), self.operatorer, lambda: datetime.now(UTC))

    async def states(self) -> list[str]:
        return [sak.tilstand for sak in (await self.desk.read([self.world.number])).brev.saker]

    async def ids(self) -> list[Uuid]:
        return [sak.id for sak in (await self.desk.read([self.world.number])).brev.saker]

    async def until_states(self, *wanted: str) -> None:
        async with asyncio.timeout(30):
            while await self.states() != list(wanted):  # noqa: ASYNC110 - what is asked lies in Kafka
                await asyncio.sleep(0.05)

    async def acts(self, operator: Operator) -> list[str]:
        acts = await read_acts(self.desk.kafka)
        return [act.record.handling for act in acts if act.record.aktor == operator.aktor]

    def limit(self, grense: int) -> None:
        path = self.operatorer.path
        path.write_text(path.read_text().replace("grense: 10", f"grense: {grense}"))


def entry(world: World) -> KatalogRecord:
    certificate = world.issuer.certificate
    signer = Sertifikat(
        nokkel_id=nokkel_id(certificate),
        bruk=BRUK_KVITTERING,
        pem=certificate.public_bytes(Encoding.PEM).decode(),
        gyldig_fra=certificate.not_valid_before_utc,
        gyldig_til=certificate.not_valid_after_utc,
    )
    return KatalogRecord(
        kommunenummer=world.number,
        navn="Prøve",
        organisasjonsnummer=Organisasjonsnummer("889640782"),
        leverandor=world.kafka.vendor,
        konnektor="acme",
        sertifikater=(signer,),
        endret=world.now,
    )


@pytest.fixture
async def world(kafka: Any, tmp_path: Path) -> World:
    number = await kafka.new_kommune()
    return World(kafka, number, await kafka.connector(number), tmp_path)


@pytest.fixture
async def office(world: World, tmp_path: Path) -> Office:
    return Office(world, await world.kafka.process("broker", world.number), tmp_path / "kontor")


@pytest.fixture
def sick(world: World, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Meldinger that the fagsystem fails on, until it is mended: empty the set."""
    monkeypatch.setattr("broker.delivery.delay", lambda *_: timedelta(milliseconds=1))
    failing: set[str] = set()
    deliver = world.connector.deliver

    async def picky(leveranse: Any) -> Any:
        if leveranse.melding_id in failing:
            raise ValueError("a bug in the fagsystem")
        return await deliver(leveranse)

    monkeypatch.setattr(world.connector, "deliver", picky)
    return failing


def one_soknad(world: World, followers: int) -> list[SoknadRecord]:
    first = world.soknad()
    return [first, *(world.soknad(digisos_id=first.digisos_id, type="ETTERSENDELSE") for _ in range(followers))]


async def test_a_mended_fagsystem_gets_a_dead_soknad_and_all_that_waited_behind_it_in_order(
    world: World, office: Office, sick: set[str]
) -> None:
    records = one_soknad(world, followers=2)
    sick.add(records[0].melding_id)
    async with world.running():
        await world.send(*records)
        letters = await world.dead_letters(3)
        assert [letter.kode for _, letter in letters] == ["fagsystem.feil", *["levering.venter-bak-dodt-brev"] * 2]
        await world.kvitteringer(3)
        assert await office.states() == ["APEN"] * 3
        sick.clear()
        resultat = await office.desk.redrive(office.utvalg, office.kari, "leverandøren har rettet")
        assert resultat.utfall is not None
        assert resultat.utfall.sendt == 3
        await world.kvitteringer(6)
        await world.send(later := world.soknad(digisos_id=records[0].digisos_id, type="ETTERSENDELSE"))
        claims = await world.kvitteringer(7)
    assert world.connector.order == [*(one.melding_id for one in records), later.melding_id]
    assert [one.status for one in claims] == ["AVVIST"] * 3 + ["MOTTATT"] * 4
    assert await office.states() == ["LUKKET"] * 3
    assert await office.acts(office.kari) == [
        "dlq.gjenkjoring.startet", *["dlq.gjenkjort"] * 3, "dlq.gjenkjoring.ferdig",
    ]  # fmt: skip


async def test_a_redrive_that_fails_again_lets_nothing_overtake_and_can_be_done_once_more(
    world: World, office: Office, sick: set[str]
) -> None:
    records = one_soknad(world, followers=2)
    sick.add(records[0].melding_id)
    async with world.running():
        await world.send(*records)
        await world.dead_letters(3)
        await office.desk.redrive(office.utvalg, office.kari, "prøver")
        letters = await world.dead_letters(6)  # all three died again, the followers behind the first
        assert [letter.gjenkjoringer for _, letter in letters[3:]] == [1, 1, 1]
        assert world.connector.order == []
        assert await office.states() == ["APEN"] * 3
        sick.clear()
        await office.desk.redrive(office.utvalg, office.kari, "rettet nå")
        await office.until_states("LUKKET", "LUKKET", "LUKKET")
    assert world.connector.order == [one.melding_id for one in records]


async def test_after_its_rounds_a_letter_is_parked_until_it_is_forced(
    world: World, office: Office, sick: set[str]
) -> None:
    record = world.soknad()
    sick.add(record.melding_id)
    async with world.running():
        await world.send(record)
        for rounds in range(1, 4):
            await world.dead_letters(rounds)
            await office.desk.redrive(office.utvalg, office.kari, "prøver")
        await world.dead_letters(4)
        resultat = await office.desk.redrive(office.utvalg, office.kari, "prøver")
        assert resultat.plan is not None
        assert [held.grunn for held in resultat.plan.holdt] == ["lokkevern"]
        assert await office.states() == ["PARKERT"]
        sick.clear()
        forced = office.utvalg.model_copy(update={"tving": True})
        await office.desk.redrive(forced, office.kari, "årsaken er funnet")
        await office.until_states("LUKKET")
    assert world.connector.order == [record.melding_id]


async def test_what_waited_behind_a_letter_that_is_closed_for_good_goes_past_it(
    world: World, office: Office, sick: set[str]
) -> None:
    records = one_soknad(world, followers=1)
    sick.add(records[0].melding_id)
    async with world.running():
        await world.send(*records)
        await world.dead_letters(2)
        head, follower = await office.ids()
        await office.desk.mark("dlq.lukk", Utvalg(brev=(head,)), office.kari, "sendt på papir")
        assert await office.states() == ["LUKKET", "APEN"]
        await office.desk.redrive(office.utvalg, office.kari, "ettersendelsen skal fram")
        await office.until_states("LUKKET", "LUKKET")
    assert world.connector.order == [records[1].melding_id]
    (sent,) = (await world.read(soknad_topic(world.number), 3))[2:]
    assert header(sent.headers, FORBI_HEADER) == b"1"
    assert follower


async def test_parked_letters_stay_until_they_are_opened(world: World, office: Office) -> None:
    await world.send(b"not ours", b"not ours either", key=DigisosId.new().encode())
    async with world.running():
        await world.dead_letters(2)
        await office.desk.mark("dlq.park", office.utvalg, office.kari, "venter på leverandøren")
        assert await office.states() == ["PARKERT"] * 2
        resultat = await office.desk.redrive(office.utvalg, office.kari, "x")
        assert resultat.utfall is None
        await office.desk.mark("dlq.apne", office.utvalg, office.kari, "leverandøren har svart")
        assert await office.states() == ["APEN"] * 2


async def test_a_stop_leaves_the_rest_for_the_next_run(world: World, office: Office) -> None:
    office.limit(100)
    for _ in range(8):
        await world.send(b"not ours", key=DigisosId.new().encode())
    async with world.running():
        await world.dead_letters(8)
    stop = asyncio.Event()

    def progress(utfall: Utfall) -> None:
        if utfall.sendt:
            stop.set()

    first = await office.desk.redrive(office.utvalg, office.kari, "x", Gang(3, stop, progress))
    assert first.utfall is not None
    assert (first.utfall.sendt, first.utfall.igjen, first.utfall.avbrutt) == (3, 5, True)
    assert sorted(await office.states()) == ["APEN"] * 5 + ["GJENKJORT"] * 3
    second = await office.desk.redrive(office.utvalg, office.kari, "x", Gang(0))
    assert second.utfall is not None
    assert (second.utfall.sendt, second.utfall.igjen) == (5, 0)
    assert len(await world.read(soknad_topic(world.number), 16)) == 16


async def test_a_run_that_is_killed_after_publishing_is_finished_by_the_next(
    world: World, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.limit(100)
    records = one_soknad(world, followers=2)
    broken = records[0].model_copy(update={"sha256": "0" * 64})
    async with world.running():
        await world.send(broken, *records[1:])
        await world.dead_letters(3)
    whole = RevisjonWriter.record_all
    calls = 0

    async def second_fails(self: RevisjonWriter, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise BrokerUnavailableError("borte")
        return await whole(self, *args, **options)

    monkeypatch.setattr(RevisjonWriter, "record_all", second_fails)
    with pytest.raises(BrokerUnavailableError):
        await office.desk.redrive(office.utvalg, office.kari, "x")
    assert await office.states() == ["APEN"] * 3  # one is on the topic, and nothing says so
    resultat = await office.desk.redrive(office.utvalg, office.kari, "x")
    assert resultat.utfall is not None
    assert resultat.utfall.sendt == 3
    assert len(await world.read(soknad_topic(world.number), 7)) == 7


async def test_many_letters_need_another_operator_who_approves_exactly_those(world: World, office: Office) -> None:
    office.limit(2)
    for _ in range(3):
        await world.send(b"not ours", key=DigisosId.new().encode())
    async with world.running():
        await world.dead_letters(3)
    resultat = await office.desk.redrive(office.utvalg, office.kari, "alle på en gang")
    assert resultat.forslag is not None
    assert not resultat.utfort
    assert await office.states() == ["APEN"] * 3
    with pytest.raises(ApprovalError, match="den som foreslo"):
        await office.desk.approve(resultat.forslag, office.kari)
    await world.send(b"not ours", key=DigisosId.new().encode())
    async with world.running():
        await world.dead_letters(4)  # one more, which is no part of it
        approved = await office.desk.approve(resultat.forslag, office.ola)
        assert approved.utfall is not None
        assert approved.utfall.sendt == 3
        await world.dead_letters(7)
    with pytest.raises(ApprovalError, match="utfort"):
        await office.desk.approve(resultat.forslag, office.ola)
    assert await office.acts(office.ola) == [
        "forslag.godkjent", "dlq.gjenkjoring.startet", *["dlq.gjenkjort"] * 3, "dlq.gjenkjoring.ferdig", "forslag.utfort",
    ]  # fmt: skip


async def test_a_selection_that_has_changed_is_not_approved(world: World, office: Office) -> None:
    office.limit(1)
    for _ in range(2):
        await world.send(b"not ours", key=DigisosId.new().encode())
    async with world.running():
        await world.dead_letters(2)
    resultat = await office.desk.mark("dlq.lukk", office.utvalg, office.kari, "foreldet")
    assert resultat.forslag is not None
    await office.desk.mark("dlq.lukk", Utvalg(brev=(resultat.merket[0],)), office.kari, "denne er sikker")
    with pytest.raises(SelectionChangedError, match="Ingenting er gjort"):
        await office.desk.approve(resultat.forslag, office.ola)
    assert sorted(await office.states()) == ["APEN", "LUKKET"]
    await office.desk.withdraw(resultat.forslag, office.kari, "gjelder ikke lenger")
    with pytest.raises(ApprovalError, match="trukket"):
        await office.desk.approve(resultat.forslag, office.ola)


async def test_two_who_act_at_once_do_not_get_in_each_others_way(world: World, office: Office) -> None:
    await world.send(b"not ours", key=DigisosId.new().encode())
    async with world.running():
        await world.dead_letters(1)
    outcomes = await asyncio.gather(
        office.desk.mark("dlq.park", office.utvalg, office.kari, "x"),
        office.desk.mark("dlq.park", office.utvalg, office.ola, "x"),
        return_exceptions=True,
    )
    assert sum(isinstance(one, GovernedActError) for one in outcomes) == 1
    assert await office.states() == ["PARKERT"]


async def test_the_revisjon_of_all_that_holds_and_is_found_again_from_its_end(
    world: World, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.revisjon_reading.FIRST_LOOK", 1)
    await world.send(b"not ours", key=DigisosId.new().encode())
    async with world.running():
        await world.dead_letters(1)
    for operator in (office.kari, office.ola, office.kari):
        await office.desk.mark("dlq.park", office.utvalg, operator, "x")
        await office.desk.mark("dlq.apne", office.utvalg, operator, "y")
    records = await read_records(office.desk.kafka, [REVISJON])
    found = verify_revisjon(records, office.operatorer.load())
    own = {office.kari.aktor, office.ola.aktor}
    assert [one for one in found.problemer if one.aktor in own] == []
    assert {aktor: found.antall[aktor] for aktor in own} == {office.kari.aktor: 4, office.ola.aktor: 2}
    assert await find_head(office.desk.kafka, "operator-finnes-ikke") is None
