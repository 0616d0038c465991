"""What operators put right: Kafka's data lost, and dead letters sent again, with a crash in the middle of the act."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import httpx
import yaml
from environment import FILE_PROCESS, HTTP_PROCESS, KOMMUNER, ON_PAPER, OVER_FILES, OVER_HTTP
from harness import BrokenPromiseError
from scenarios import Scenario
from waiting import until

from broker.krasj import KRASJ_ENV, KRASJ_FILE_ENV
from schemas.codec import decode
from schemas.records import DeadLetterRecord, SoknadRecord

if TYPE_CHECKING:
    from environment import World
    from harness import Harness
    from journal import Entry

WHY: Final = "kaos"
DEAD_WITHIN_S: Final = 40.0


async def on_paper(h: Harness, run: str) -> int:
    """A fagsystem that never answers: the watch withdraws, the letter is printed, and the citizen is told so."""
    await asyncio.gather(h.send(run, *[ON_PAPER] * 3, ventet="PAPIR"), h.send(run, *KOMMUNER))
    return 0


async def wrong_key(h: Harness, run: str) -> int:
    """A connector with the wrong key makes dead letters of what follows; the right one and a redrive deliver all, in order."""
    number = OVER_HTTP[1]
    await _give_key(h.world, number, OVER_FILES)
    entries = await h.send(run, *[number] * 3, more=1)
    letters = await _until_dead(h, entries)
    await _give_key(h.world, number, number)
    marker = h.world.new_marker()
    redrive = ("dlq", "redrive", *letters, "-b", WHY)
    crashed = await h.world.formidler(
        *redrive, **{KRASJ_ENV: "broker.gjenkjoring.after-publish", KRASJ_FILE_ENV: str(marker)}
    )
    if not marker.exists():
        raise BrokenPromiseError(f"gjenkjøringen nådde ikke krasjpunktet: {crashed.stderr or crashed.stdout}")
    done = await h.world.formidler(*redrive)
    if done.returncode not in {0, 1}:
        raise BrokenPromiseError(f"formidler dlq redrive: {done.stderr or done.stdout}")
    return 1


async def _give_key(world: World, number: str, owner: str) -> None:
    """Let a kommune's connector begin anew with the key of ``owner``."""
    path = world.layout.connector_config(HTTP_PROCESS.removeprefix("konnektor-"))
    document: dict[str, Any] = yaml.safe_load(path.read_bytes())
    for kommune in document["kommuner"]:
        if kommune["kommunenummer"] == number:
            name = f"kommune-{owner}"
            kommune["nokler"] = [str(world.layout.key(name)), str(world.layout.certificate(name))]
    path.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), "utf-8")
    await world.stop(HTTP_PROCESS)
    await world.start(HTTP_PROCESS)


async def _until_dead(h: Harness, entries: list[Entry]) -> list[str]:
    """Wait until each søknad and what follows it are dead letters; return the letters' ids."""
    wanted = {entry.digisos_id for entry in entries}

    def letters() -> list[str]:
        found = [decode(DeadLetterRecord, raw.value) for raw in h.topics.read() if raw.topic.endswith(".soknad.v1.dlq")]
        return sorted({str(one.dead_letter_id) for one in found if str(one.digisos_id) in wanted})

    async def all_dead() -> bool:
        return len(await asyncio.to_thread(letters)) >= 2 * len(wanted)

    if not await until(all_dead, DEAD_WITHIN_S):
        raise BrokenPromiseError("feil nøkkel førte ikke til døde brev")
    return letters()


async def recalled(h: Harness, run: str) -> int:
    """Søknader are recalled while their fagsystem is down, with two crashes in the act: none is delivered, all are told of."""
    number = OVER_HTTP[0]
    await h.fagsystem({"tilstand": "nede"}, number)
    recalled = await h.send(run, *[number] * 3, ventet="AVVIST")
    kept = asyncio.create_task(h.send(run, *KOMMUNER[1:], more=1))
    if not all(await asyncio.gather(*(h.load.is_sent(entry) for entry in recalled))):
        raise BrokenPromiseError("ikke alt var på emnet før tilbakekallingen")
    chosen = [argument for entry in recalled for argument in ("--melding", _melding_of(h, entry))]
    act = ("recall", "trekk", *chosen, "-b", WHY)
    for point in ("producers.recall.before-commit", "producers.recall.withdrawn"):
        marker = await h.world.restart_to_crash("producers", point, 1)
        told = await h.world.formidler(*act)
        if not marker.exists():
            raise BrokenPromiseError(f"{point} ble ikke nådd: {told.stderr or told.stdout}")
        if not await until(lambda: _is_ready(h, "producers"), DEAD_WITHIN_S):
            raise BrokenPromiseError("producers kom ikke tilbake")
    await _operator(h, *act)
    await kept
    await h.fagsystem({"tilstand": "oppe"}, number)
    return 2


def _melding_of(h: Harness, entry: Entry) -> str:
    """Return the meldingId under which a søknad lies on its topic."""
    for raw in h.topics.read():
        if raw.topic == f"fiks.{entry.kommunenummer}.soknad.v1" and raw.key == str(entry.digisos_id).encode():
            return str(decode(SoknadRecord, raw.value).melding_id)
    raise BrokenPromiseError("søknaden ligger ikke på emnet")


async def _is_ready(h: Harness, name: str) -> bool:
    try:
        return (await h.http.get(f"{h.world.layout.address(name)}/isready")).is_success
    except httpx.TransportError:
        return False


async def kafka_lost(h: Harness, run: str) -> int:
    """Kafka's data folder is lost with søknader on their way: the runbook's commands, and all comes from the sender's copies."""
    await h.send(run, *KOMMUNER)
    await h.settle(run)
    await h.fagsystem({"tilstand": "nede"}, *OVER_HTTP)
    waiting = await h.send(run, *OVER_HTTP * 3)
    if not all(await asyncio.gather(*(h.load.is_sent(entry) for entry in waiting))):
        raise BrokenPromiseError("ikke alt var på emnene før tapet")
    await h.world.lose_kafka()
    h.topics.begin_again(h.world.admin.confluent())
    await _let_go_of_topics(h)
    marker = await h.world.restart_to_crash("producers", "producers.omsending.before-commit", 1)
    crashed = await _send_again(h)
    if not marker.exists():
        raise BrokenPromiseError(f"omsendingen nådde ikke krasjpunktet: {crashed}")
    await h.send(run, *KOMMUNER)
    told = await _send_again(h)
    if told.get("sendt", 0) + crashed.get("sendt", 0) < len(waiting):
        raise BrokenPromiseError(f"ikke alt ble sendt igjen: {crashed}, {told}")
    return 1


async def _let_go_of_topics(h: Harness) -> None:
    """Tell each process that the new topics are the right ones, as docs/drift.md says, and start again."""
    await h.world.start("broker")
    await h.world.start_to_see("kvittering", "godta-emner")
    await h.world.stop("kvittering")
    await _operator(h, "status", "godta-emner", "--json")
    await h.world.start_to_see("producers", "godta-emne")
    await _operator(h, "utboks", "godta-emne", "fiks.transport.v1")
    for number in h.world.layout.setup.kommuner():
        await h.world.formidler(
            "utboks", "godta-emne", f"fiks.{number}.soknad.v1"
        )  # those that are not held need no word
    await _let_go_at_connectors(h.world)
    await h.world.start("kvittering", "fagsystem", HTTP_PROCESS, FILE_PROCESS)


async def _let_go_at_connectors(world: World) -> None:
    """Tell each connector, which has not been started yet, that its topics are new."""
    for name in (HTTP_PROCESS, FILE_PROCESS):
        connector = name.removeprefix("konnektor-")
        config = str(world.layout.connector_config(connector))
        for number in world.layout.setup.konnektorer[connector].kommuner:
            for topic in (f"fiks.{number}.soknad.v1", f"fiks.{number}.kvittering.v1"):
                await world.command(
                    "connector", "godta-emne", "--config", config, topic
                )  # 1: there was nothing to let go


async def _operator(h: Harness, *arguments: str) -> None:
    done = await h.world.formidler(*arguments)
    if done.returncode:
        raise BrokenPromiseError(f"formidler {' '.join(arguments)}: {done.stderr or done.stdout}")


async def _send_again(h: Harness) -> dict[str, Any]:
    done = await h.world.formidler("avsenderkopi", "send", "--alle-ikke-mottatt", "--begrunnelse", WHY, "--json")
    try:
        return dict(json.loads(done.stdout.splitlines()[0]))
    except (ValueError, IndexError):
        return {"feil": done.stderr or done.stdout}


RECOVERIES: Final = (
    Scenario("ingen svarer: brevet skrives ut", on_paper),
    Scenario("feil nøkkel, gjenkjørt etter krasj", wrong_key),
    Scenario("tilbakekalt, med krasj underveis", recalled),
)
LOSSES: Final = (Scenario("Kafkas data tapt", kafka_lost),)
"""Last in a world, since topics and kvitteringer of before are gone afterwards."""
