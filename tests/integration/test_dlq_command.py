from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from connector_world import World

from broker.operatorer import Operatorer
from broker.record import Outgoing
from broker.routing import KATALOG, soknad_topic
from schemas.codec import encode
from schemas.names import DigisosId, Organisasjonsnummer
from schemas.records import KatalogRecord

if TYPE_CHECKING:
    from broker.kafka.settings import KafkaSettings

pytestmark = pytest.mark.kafka


@dataclass
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


class Shell:
    """A terminal with a data folder and access to Kafka."""

    def __init__(self, world: World, kafka: KafkaSettings, folder: Path) -> None:
        self.world = world
        self.folder = folder
        name = secrets.token_hex(4)
        self.kari, self.ola = f"kari-{name}", f"ola-{name}"
        self.operatorer = Operatorer(folder)
        for one in (self.kari, self.ola):
            self.operatorer.add(one, datetime.now(UTC))
        self.environment = {**os.environ, **kafka.environment(), "FORMIDLER_DATA": str(folder)}

    async def start(self, *arguments: str, operator: str | None = None) -> asyncio.subprocess.Process:
        command = Path(sys.executable).with_name("formidler")
        environment = self.environment | {"FORMIDLER_OPERATOR": operator or self.kari}
        return await asyncio.create_subprocess_exec(
            str(command),
            *arguments,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str, operator: str | None = None) -> Ran:
        process = await self.start(*arguments, operator=operator)
        out, err = await process.communicate()
        return Ran(process.returncode or 0, out.decode(), err.decode())

    async def dlq(self, verb: str, *arguments: str, operator: str | None = None) -> Ran:
        return await self.run("dlq", verb, *arguments, "--json", operator=operator)

    @property
    def here(self) -> tuple[str, str]:
        return "--kommune", str(self.world.number)

    async def counts(self) -> dict[str, int]:
        groups = (await self.dlq("list", *self.here, "--alle")).document["grupper"]
        names = ("antall", "apne", "gjenkjorte", "parkerte", "lukkede")
        return {name: sum(group[name] for group in groups) for name in names}

    async def published(self, at_least: int) -> int:
        return len(await self.world.read(soknad_topic(self.world.number), at_least))


@pytest.fixture
async def world(kafka: Any, tmp_path: Path) -> World:
    number = await kafka.new_kommune()
    world = World(kafka, number, await kafka.connector(number), tmp_path)
    entry = KatalogRecord(
        kommunenummer=number,
        navn="Prøve",
        organisasjonsnummer=Organisasjonsnummer("889640782"),
        leverandor=kafka.vendor,
        konnektor="acme",
        endret=world.now,
    )
    publisher = await kafka.publisher()
    await kafka.process("broker", number)
    await publisher.publish(Outgoing(KATALOG, number.encode(), encode(entry)))
    return world


@pytest.fixture
async def shell(world: World, tmp_path: Path) -> Shell:
    return Shell(world, await world.kafka.process("broker", world.number), tmp_path / "data")


async def die(world: World, count: int) -> None:
    for _ in range(count):
        await world.send(b"not ours", key=DigisosId.new().encode())
    async with world.running():
        await world.dead_letters(count)


async def test_an_operator_sees_what_died_and_why_and_tries_it_dry_before_it_is_done(
    world: World, shell: Shell
) -> None:
    first = world.soknad()
    await world.send(first.model_copy(update={"sha256": "0" * 64}))
    await world.send(world.soknad(digisos_id=first.digisos_id, type="ETTERSENDELSE"))
    async with world.running():
        await world.dead_letters(2)
    groups = (await shell.dlq("list", *shell.here)).document["grupper"]
    assert [(one["kode"], one["trinn"], one["antall"]) for one in groups] == [
        ("krypto.apning", "APNING", 1),
        ("levering.venter-bak-dodt-brev", "KO", 1),
    ]
    letters = (await shell.dlq("list", *shell.here, "--detaljer")).document["brev"]
    assert letters[1]["bak"] == letters[0]["id"]
    shown = (await shell.dlq("show", letters[0]["id"])).document
    assert shown["venter"] == [letters[1]["id"]]
    assert shown["brev"][0]["headere"]["fiks_kode"] == "krypto.apning"
    assert shown["brev"][0]["opprinnelig"]["topic"] == soknad_topic(world.number)
    dry = await shell.dlq("redrive", *shell.here, "--kode", "krypto.apning", "--torr")
    assert [(one["id"], one["folgerMed"]) for one in dry.document["gjenkjores"]] == [
        (letters[0]["id"], False),
        (letters[1]["id"], True),
    ]
    assert (await shell.counts())["apne"] == 2
    done = await shell.dlq("redrive", letters[0]["id"], "-b", "ny nøkkel på plass")
    assert (done.code, done.document["sendt"]) == (0, 2)
    assert await shell.counts() == {"antall": 2, "apne": 0, "gjenkjorte": 2, "parkerte": 0, "lukkede": 0}
    acts = (await shell.run("revisjon", "list", "--aktor", f"operator-{shell.kari}", "--json")).document
    assert [act["handling"] for act in acts] == [
        "dlq.gjenkjoring.startet", "dlq.gjenkjort", "dlq.gjenkjort", "dlq.gjenkjoring.ferdig",
    ]  # fmt: skip
    assert {act["begrunnelse"] for act in acts} == {"ny nøkkel på plass"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_a_run_that_is_stopped_or_killed_is_resumed_by_the_same_command(
    world: World, shell: Shell, number: signal.Signals
) -> None:
    await die(world, 8)
    process = await shell.start("dlq", "redrive", *shell.here, "--rate", "2", "-b", "x")
    assert process.stderr is not None
    async with asyncio.timeout(60):
        told = b""
        while b"sendt" not in told:
            told += await process.stderr.read(100)
    process.send_signal(number)
    await process.communicate()
    assert process.returncode == (1 if number is signal.SIGINT else -signal.SIGKILL)
    left = (await shell.counts())["apne"]
    assert 0 < left < 8
    again = await shell.dlq("redrive", *shell.here, "--rate", "0", "-b", "x")
    assert (again.code, again.document["sendt"]) == (0, left)
    assert (await shell.counts())["gjenkjorte"] == 8
    assert 16 <= await shell.published(16) <= 18  # a wave of two may have come twice


async def test_more_than_ten_letters_are_redriven_by_two_operators_together(world: World, shell: Shell) -> None:
    await die(world, 11)
    proposed = await shell.dlq("redrive", *shell.here, "-b", "alle")
    forslag = proposed.document["forslag"]
    assert (proposed.code, "sendt" in proposed.document) == (0, False)
    assert (await shell.dlq("approve", forslag)).document["kode"] == "styring.godkjenning"
    assert [one["id"] for one in (await shell.dlq("forslag")).document if one["id"] == forslag] == [forslag]
    approved = await shell.dlq("approve", forslag, operator=shell.ola)
    assert (approved.code, approved.document["sendt"]) == (0, 11)


async def test_usage_that_is_wrong_or_dangerous_is_refused(world: World, shell: Shell) -> None:
    await die(world, 1)
    assert (await shell.run("dlq", "redrive", "-b", "x")).code == 2  # everything, without saying so
    assert (await shell.run("dlq", "redrive", *shell.here)).code == 2  # no reason
    person = await shell.dlq("park", *shell.here, "-b", "gjelder 01810012345")
    assert (person.code, person.document["kode"]) == (1, "revisjon")
    assert "01810012345" not in person.out + person.err
    unknown = await shell.dlq("show", "00000000-0000-4000-8000-000000000000")
    assert (unknown.code, unknown.document["kode"]) == (1, "styring")
    assert (await shell.counts())["apne"] == 1
    away = await shell.run("dlq", "list", "--json", operator=shell.kari)
    assert away.code == 0


async def test_letters_are_parked_opened_and_closed_with_a_reason(world: World, shell: Shell) -> None:
    await die(world, 1)
    assert (await shell.run("dlq", "park", *shell.here, "-b", "venter")).out.strip() == "1 brev parkert"
    held = await shell.run("dlq", "redrive", *shell.here, "-b", "x")
    assert "bruk --tving" in held.out
    assert (await shell.run("dlq", "park", *shell.here, "--opphev", "-b", "videre")).code == 0
    assert (await shell.run("dlq", "lukk", *shell.here, "-b", "sendt på papir")).code == 0
    assert (await shell.counts())["lukkede"] == 1
    assert "ingen døde brev" in (await shell.run("dlq", "list", *shell.here)).out


async def test_kafka_that_does_not_answer_is_told_in_words_and_a_code(shell: Shell) -> None:
    shell.environment |= {"FORMIDLER_KAFKA_BOOTSTRAP": "127.0.0.1:1", "FORMIDLER_KAFKA_REQUEST_TIMEOUT_MS": "1000"}
    ran = await shell.dlq("list")
    assert (ran.code, ran.document["kode"]) == (3, "transport.megler-utilgjengelig")
