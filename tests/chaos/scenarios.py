"""What else may happen than a crash at a known place: one function for each, from fault to judgement.

A scenario sends, breaks something while it does, mends it, and lets the checker look until all has come to rest. Those that need
something which this machine has not got say so and are not run.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from checker import Finding
from environment import FAGSYSTEM, FILE_PROCESS, HTTP_PROCESS, KAFKA, KOMMUNER, OVER_FILES, OVER_HTTP
from harness import BrokenPromiseError, Harness, Result, all_kommuner
from load import SLAG
from syscalls import Tracer
from waiting import until
from witness import read_deliveries

if TYPE_CHECKING:
    from journal import Entry

PROCESSES: Final = ("producers", "kvittering", "broker", HTTP_PROCESS, FILE_PROCESS, "fagsystem")
KAFKA_DOWN_S: Final = 6.0
CUT_S: Final = 5.0
STORM_KILLS: Final = 8
USED_WITHIN_S: Final = 60.0

Body = Callable[[Harness, str], Awaitable[int]]
"""Does one run, and returns how many processes it killed."""


@dataclass(frozen=True)
class Scenario:
    """One scenario.

    Attributes:
        name: Its name.
        body: What it does.
        needs: Returns why it cannot be run here, or nothing.
    """

    name: str
    body: Body
    needs: Callable[[Harness], str] = lambda _: ""

    async def run(self, h: Harness) -> Result:
        """Run it once, and judge."""
        missing = self.needs(h)
        if missing:
            return Result(self.name, skipped=missing)
        began = time.monotonic()
        run = h.new_run()
        broken: list[Finding] = []
        kills = 0
        try:
            kills = await self.body(h, run)
        except BrokenPromiseError as error:
            broken.append(Finding("uforklart", self.name, str(error)))
        except Exception as error:  # noqa: BLE001 - what came of the others must be told all the same
            broken.append(Finding("uforklart", self.name, f"kunne ikke spilles til ende: {error!r}"))
        findings = [*broken, *await h.settle(run)]
        result = h.result(self.name, run, findings, kills=kills, seconds=time.monotonic() - began)
        h.report(f"{self.name}: {result.soknader} meldinger, {kills} drept, {len(findings)} funn")
        return result


def _wants_network(h: Harness) -> str:
    return "" if h.world.network else "verken toxiproxy-server eller Go (som bygger den) finnes her"


def _wants_strace(_: Harness) -> str:
    return "" if shutil.which("strace") else "strace finnes ikke her"


async def synced(h: Harness, run: str) -> int:
    """The fsync is seen in a trace of syscalls before 202 is written, for a small and for a large package."""
    pid = h.world.up.children["producers"].pid
    if pid is None:
        raise BrokenPromiseError("producers kjører ikke")
    async with Tracer(pid, h.world.layout.folder / "syscalls") as tracer:
        await h.send(run, KOMMUNER[0])
        await h.settle(run)  # so that the relay's own writes are not among the next one's
        await h.send(run, KOMMUNER[0], large=True)
    for problem in tracer.problems(large=1, small=0):
        raise BrokenPromiseError(problem)
    return 0


async def storm(h: Harness, run: str) -> int:
    """Processes are killed here and there, at any moment, while søknader come."""

    async def kill() -> None:
        for _ in range(STORM_KILLS):
            await h.world.kill(h.rng.choice(PROCESSES))
            await until(lambda: False, h.rng.uniform(0.2, 1.5))

    await asyncio.gather(kill(), *(h.send(run, *all_kommuner(http=2, files=2), more=1) for _ in range(2)))
    return STORM_KILLS


async def all_at_once(h: Harness, run: str) -> int:
    """Every process dies in the same moment, while søknader are under way."""
    sending = asyncio.create_task(h.send(run, *all_kommuner(http=3, files=3), more=1))
    await until(lambda: any(entry.accepted for entry in h.journal.story.of_run(run).entries.values()), 30)
    for name in PROCESSES:
        await h.world.kill(name)
    await sending
    return len(PROCESSES)


async def two_connectors(h: Harness, run: str) -> int:
    """Two processes share a connector's kommuner, and take turns in dying: partitions move in the middle of deliveries."""
    second = await h.world.start_second(HTTP_PROCESS)
    sending = asyncio.create_task(_trickle(h, run, 6))
    kills = 0
    for name in (HTTP_PROCESS, second, HTTP_PROCESS):
        await until(lambda: False, h.rng.uniform(1.5, 3.0))
        await h.world.kill(name)
        kills += 1
    await sending
    await h.world.stop(second)
    return kills


async def _trickle(h: Harness, run: str, times: int) -> None:
    for _ in range(times):
        await h.send(run, *OVER_HTTP, more=1)


async def kafka_killed(h: Harness, run: str) -> int:
    """Kafka is killed and started again at once, twice, while søknader come."""

    async def kill() -> None:
        for _ in range(2):
            await h.world.restart_kafka()

    await asyncio.gather(kill(), h.send(run, *all_kommuner(http=3, files=3), more=1))
    return 2


async def kafka_away(h: Harness, run: str) -> int:
    """Kafka is away for a while: søknader are accepted all the same, and drain in order afterwards."""
    outage = asyncio.create_task(h.world.restart_kafka(down_s=KAFKA_DOWN_S))
    await until(lambda: h.world.kafka.pid is None, 10)
    entries = await h.send(run, *all_kommuner(http=4, files=4))
    in_time = not outage.done() and all(entry.accepted for entry in entries)
    await outage
    if not in_time:
        raise BrokenPromiseError("mottaket gikk ikke videre mens Kafka var borte")
    return 1


def network_fault(proxy: str, *toxics: tuple[str, str, dict[str, int]], blocks: bool = False) -> Body:
    """Return a scenario in which the network in front of Kafka or of the fagsystem is cut (no toxics) or spoiled.

    Args:
        proxy: Where.
        toxics: Kind, direction and attributes of each.
        blocks: Whether nothing can come through, which is looked at: a fault that does not bite proves nothing.
    """

    async def body(h: Harness, run: str) -> int:
        network = h.world.network
        if network is None:
            raise RuntimeError("a scenario was run without what it needs")
        sending = asyncio.create_task(h.send(run, *all_kommuner(http=3, files=2), more=1))
        await until(lambda: any(entry.accepted for entry in h.journal.story.of_run(run).entries.values()), 30)
        try:
            if not toxics:
                await network.cut(proxy)
            for kind, stream, attributes in toxics:
                await network.spoil(proxy, kind, stream, **attributes)
            during = await h.send(run, *OVER_HTTP)
            await until(lambda: False, CUT_S)
            if blocks:
                _check_held_back(h, during)
        finally:
            await network.heal()
        await sending
        return 0

    return body


def _check_held_back(h: Harness, entries: list[Entry]) -> None:
    """See to it that a fault has bitten: nothing that was sent while it lasted is at the fagsystem.

    Raises:
        BrokenPromiseError: Something is.
    """
    there = {one.leveranse.get("navEksternRefId") for one in read_deliveries(h.world.layout.fagsystem)}
    if there & {entry.ref for entry in entries}:
        raise BrokenPromiseError("feilen bet ikke: en søknad kom fram mens den varte")


def fagsystem_error(change: dict[str, Any], *, lasts_s: float = 0.0, blocks: bool = False) -> Body:
    """Return a scenario in which the fagsystem over HTTP has this fault.

    Args:
        change: Its switches; errors that are counted must all have been made in the end.
        lasts_s: For so long after the søknader are sent.
        blocks: Whether nothing can come through, which is looked at.
    """

    async def body(h: Harness, run: str) -> int:
        await h.fagsystem(change, *OVER_HTTP)
        try:
            entries = await h.send(run, *OVER_HTTP, more=1)
            await h.send(run, OVER_FILES)
            await until(lambda: False, lasts_s)
            if blocks:
                _check_held_back(h, entries)
        finally:
            await h.fagsystem(_WELL, *OVER_HTTP)
        if not await until(lambda: _used_up(h), USED_WITHIN_S):
            raise BrokenPromiseError("feilen bet ikke: fagsystemet ble ikke spurt så mange ganger")
        return 0

    return body


async def _used_up(h: Harness) -> bool:
    """Whether every error that was ordered has been made."""
    base = h.world.layout.address("fagsystem")
    switches = [(await h.http.get(f"{base}/styring/{number}")).json() for number in OVER_HTTP]
    return all(one["feilNeste"] == one["svarTaptNeste"] == 0 for one in switches)


_WELL: Final[dict[str, Any]] = {"tilstand": "oppe", "svar": "straks", "tull": False}


async def refusing(h: Harness, run: str) -> int:
    """The fagsystem refuses one søknad, which must not be shown as received, and takes the others."""
    prepared = h.load.prepare(run, OVER_HTTP[0], ventet="AVVIST")
    await h.fagsystem({"avvis": [{"ref": prepared.entry.ref, "kode": "kaos.avvist"}]}, OVER_HTTP[0])
    await asyncio.gather(h.load.send(prepared), h.send(run, *KOMMUNER, more=1))
    return 0


async def poisoned(h: Harness, run: str) -> int:
    """One record in ten can never be delivered: all others are, and each of those becomes a dead letter."""
    for _ in range(2):
        slag = list(SLAG)
        await asyncio.gather(
            h.send(run, *all_kommuner(http=4, files=4), more=2),
            h.poison(run, OVER_HTTP, slag[:2]),
            h.poison(run, [OVER_FILES], slag[2:]),
        )
    return 0


async def repeated(h: Harness, run: str) -> int:
    """One reference is sent twenty times at once, and again: one søknad, and everybody gets its id."""
    prepared = h.load.prepare(run, h.rng.choice(KOMMUNER))
    answers = await asyncio.gather(*(h.load.send(prepared) for _ in range(20)))
    ids = {entry.digisos_id for entry in answers}
    again = await h.load.send(prepared)
    if ids != {again.digisos_id} or None in ids:
        raise BrokenPromiseError("samme referanse fikk flere svar")
    return 0


async def impatient(h: Harness, run: str) -> int:
    """Clients break off and never come back: each søknad is there whole, or not at all."""
    await asyncio.gather(
        *(
            h.load.send(h.load.prepare(run, h.rng.choice(KOMMUNER), large=h.rng.random() < 0.3), patience_s=patience)
            for patience in [h.rng.uniform(0.02, 1.5) for _ in range(15)]
        )
    )
    return 0


async def clock_jumps(h: Harness, run: str) -> int:
    """Time jumps an hour ahead, twice, while søknader are under way."""
    sending = asyncio.create_task(h.send(run, *all_kommuner(http=3, files=3), more=1))
    for _ in range(2):
        await until(lambda: False, 1.0)
        await h.jump("1h")
    await sending
    return 0


SCENARIOS: Final = (
    Scenario("fsync før 202", synced, _wants_strace),
    Scenario("samme referanse tjue ganger", repeated),
    Scenario("klienter som bryter av", impatient),
    Scenario("drap på måfå", storm),
    Scenario("alle drept på én gang", all_at_once),
    Scenario("to konnektorprosesser dør på skift", two_connectors),
    Scenario("Kafka drept og startet", kafka_killed),
    Scenario("Kafka borte en stund", kafka_away),
    Scenario("nett til Kafka kuttet", network_fault(KAFKA, blocks=True), _wants_network),
    Scenario(
        "nett til Kafka tregt",
        network_fault(
            KAFKA,
            ("latency", "downstream", {"latency": 300, "jitter": 200}),
            ("bandwidth", "upstream", {"rate": 60}),
        ),
        _wants_network,
    ),
    Scenario(
        "nett til Kafka taust",
        network_fault(KAFKA, ("timeout", "downstream", {"timeout": 0}), blocks=True),
        _wants_network,
    ),
    Scenario("nett til fagsystemet kuttet", network_fault(FAGSYSTEM, blocks=True), _wants_network),
    Scenario(
        "nett til fagsystemet brutt midt i",
        network_fault(FAGSYSTEM, ("limit_data", "upstream", {"bytes": 4000})),
        _wants_network,
    ),
    Scenario(
        "svar fra fagsystemet borte på nettet",
        network_fault(FAGSYSTEM, ("limit_data", "downstream", {"bytes": 20})),
        _wants_network,
    ),
    Scenario("fagsystemet nede", fagsystem_error({"tilstand": "nede"}, lasts_s=2, blocks=True)),
    Scenario("fagsystemet feiler", fagsystem_error({"feilNeste": 2, "feilStatus": 500})),
    Scenario("fagsystemet ber oss vente", fagsystem_error({"feilNeste": 2, "feilStatus": 429})),
    Scenario("fagsystemet kjenner oss ikke", fagsystem_error({"feilNeste": 2, "feilStatus": 401})),
    Scenario("fagsystemet svarer tull", fagsystem_error({"feilNeste": 2, "feilStatus": 409, "tull": True}, lasts_s=2)),
    Scenario("fagsystemet tregt", fagsystem_error({"tilstand": "treg", "treghetS": 1.0}, lasts_s=2)),
    Scenario("fagsystemet henger", fagsystem_error({"tilstand": "treg", "treghetS": 600.0}, lasts_s=7, blocks=True)),
    Scenario("fagsystemets svar går tapt", fagsystem_error({"svarTaptNeste": 2})),
    Scenario("fagsystemet svarer senere", fagsystem_error({"svar": "senere"}, lasts_s=1)),
    Scenario("fagsystemet avviser", refusing),
    Scenario("hver tiende er ødelagt", poisoned),
    Scenario("klokken hopper", clock_jumps),
)
