"""What a connector does when something is wrong, against what it does when nothing is: poison, a dead fagsystem, a long queue.

Kafka is real and another process; the connector's code is real, and the fagsystem answers at once and forgets. One sealed package
of about 13 KB serves all søknader, under ids of their own: a setting lets this sender leave ``forsendelse.json`` out. All other
work is done on each.

* *Poison*: every tenth søknad is broken, half of them so that the package cannot be opened, half so that the fagsystem fails on
  them and they are tried again and again. How long do the other ninety per cent take, against the same ninety alone?
* *A dead fagsystem* among 50 kommuner in one process. How many søknader a second get the other 49?
* *A long queue*: how fast is one drained, against short ones, and how much memory does it take?

``FORMIDLER_BENCH_KO=50000`` in the environment is the full size of the queue; without it 5 000 lie there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from _rows import Row, medians
from _sender import AVSENDER, CONNECTOR, all_kommuner, cluster, make_keys, scratch, sending_to

from broker.clock import system_clock
from broker.kafka.publisher import KafkaPublisher
from broker.kafka.settings import KafkaSettings
from broker.log import configure_logging
from broker.record import Outgoing
from broker.routing import soknad_topic
from consumers.connector import Mottatt
from consumers.connectors.memory import SPEC, MemorySettings
from consumers.dedup import DedupStore
from consumers.kvitteringer import Issuer
from consumers.runner import Kommune, KommuneRunner, Shared
from crypto import KeyRing, Trust, nokkel_id, seal_package
from schemas.codec import decode, encode
from schemas.errors import FagsystemFailureError, FagsystemUnavailableError
from schemas.names import DigisosId, MeldingId, NavEksternRefId, Sha256
from schemas.records import SoknadRecord

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from _sender import Cluster
    from cryptography import x509

    from consumers.connector import ConnectorEvent, Leveranse, Svar
    from crypto import PrivateKey
    from schemas.names import Kommunenummer

QUEUED: Final = int(os.environ.get("FORMIDLER_BENCH_KO", "5000"))
SHORT: Final = 1_000
POISON_SLICE: Final = 900
POISON_SLICES: Final = 5
KOMMUNER: Final = 50
EACH: Final = 20
DEAD_SLICES: Final = 5
LONG_SLICES: Final = 2 if QUEUED <= 10_000 else 1
WARM: Final = 100
WITHIN_S: Final = 900.0
SAMPLE_S: Final = 0.1
PAGE: Final = resource.getpagesize()


def rows() -> list[Row]:
    """Measure; takes about two minutes, and four at full size."""
    with Path(os.devnull).open("w") as nowhere:
        configure_logging("bench", stream=nowhere, level=logging.ERROR)
        return asyncio.run(_rows())


async def _rows() -> list[Row]:
    kommuner = all_kommuner()[: KOMMUNER + 2]
    async with scratch() as folder, cluster(kommuner, folder) as kafka:
        return [
            await _poison(kafka, folder, kommuner[0]),
            *await _queue(kafka, folder, kommuner[1]),
            await _dead_fagsystem(kafka, folder, kommuner[2:]),
        ]


class _Fagsystem:
    """Answers at once and forgets; counts, and tells when it has as many as somebody waits for.

    Attributes:
        count: Søknader that it took.
        poison: Søknader that it fails on.
        dead: It does not answer at all.
    """

    def __init__(self) -> None:
        self.count = 0
        self.poison: set[MeldingId] = set()
        self.dead = False
        self._wanted = 0
        self._enough = asyncio.Event()

    async def start(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Nothing to let go of."""

    async def deliver(self, leveranse: Leveranse) -> Svar:
        """Read everything, as a fagsystem would."""
        if self.dead:
            raise FagsystemUnavailableError("målingen har slått det av")
        if leveranse.melding_id in self.poison:
            raise FagsystemFailureError("målingen har forgiftet den")
        for file in leveranse.files:
            async for _ in leveranse.read(file.name):
                pass
        self.count += 1
        if self.count == self._wanted:
            self._enough.set()
        return Mottatt()

    async def events(self) -> AsyncIterator[ConnectorEvent]:
        """Tell nothing."""
        await asyncio.Event().wait()
        yield  # type: ignore[misc]  # pragma: no cover - never reached; it makes this a generator

    async def took(self, more: int) -> None:
        """Return when it has taken so many since ``count`` was set to 0."""
        self._wanted = more
        self._enough.clear()
        if self.count < more:
            async with asyncio.timeout(WITHIN_S):
                await self._enough.wait()


@cache
def _recipient() -> tuple[x509.Certificate, PrivateKey]:
    return make_keys().authority.issue("Kommune", AVSENDER, purpose="kryptering", now=system_clock(), key="rsa2048")


@cache
def _package() -> tuple[bytes, Sha256]:
    sending = sending_to(all_kommuner()[0])
    files = [
        ("soknad.json", "application/json", sending.soknad_json),
        ("vedlegg.json", "application/json", sending.vedlegg_json),
        *((file.filnavn, file.mimetype, b"".join(file.read())) for file in sending.files),
    ]
    certificate, _ = _recipient()
    sealed, summary = seal_package(files, recipient=certificate, signer=make_keys().signer, now=system_clock())
    return sealed, summary.sha256


def _record(kommunenummer: Kommunenummer, *, broken: bool = False) -> SoknadRecord:
    sealed, sha256 = _package()
    if broken:
        sealed = sealed[:-40] + bytes(byte ^ 1 for byte in sealed[-40:])
        sha256 = Sha256.of(sealed)
    now = system_clock()
    return SoknadRecord(
        melding_id=MeldingId.new(),
        digisos_id=DigisosId.new(),
        kommunenummer=kommunenummer,
        nav_ekstern_ref_id=NavEksternRefId("maling"),
        innsendt=now.replace(microsecond=now.microsecond // 1000 * 1000),
        avsender=AVSENDER,
        nokkel_id=nokkel_id(_recipient()[0]),
        sha256=sha256,
        storrelse=len(sealed),
        pakke=sealed,
    )


@dataclass
class _World:
    """Connectors in this process, one for each kommune, each with a fagsystem; and a sender."""

    fagsystemer: dict[Kommunenummer, _Fagsystem]
    runners: list[KommuneRunner]
    sender: KafkaPublisher

    async def ready(self) -> None:
        """Return when all of them read."""
        async with asyncio.timeout(WITHIN_S):
            while any(runner.problem() for runner in self.runners):  # noqa: ASYNC110 - readiness is asked for, not told
                await asyncio.sleep(SAMPLE_S)

    async def send(self, records: Sequence[SoknadRecord]) -> None:
        """Put søknader on their topics."""
        await _publish(self.sender, records)


async def _publish(sender: KafkaPublisher, records: Sequence[SoknadRecord]) -> None:
    messages = [Outgoing(soknad_topic(one.kommunenummer), one.digisos_id.encode(), encode(one)) for one in records]
    for outcome in await sender.publish_all(messages):
        if isinstance(outcome, Exception):
            raise outcome


@asynccontextmanager
async def _connectors(kafka: Cluster, folder: Path, kommuner: Sequence[Kommunenummer]) -> AsyncGenerator[_World]:
    keys, (certificate, key) = make_keys(), _recipient()
    async with AsyncExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(os.cpu_count()))
        shared = Shared(
            leverandor=CONNECTOR,
            issuer=Issuer(CONNECTOR, *keys.connector),
            innsyn=certificate,
            trust=Trust(roots=[keys.authority.certificate]),
            kafka=kafka.connector,
            publisher=await stack.enter_async_context(KafkaPublisher(kafka.connector)),
            dokumentlager=_Nowhere(),
            store=await stack.enter_async_context(DedupStore(folder / f"{kommuner[0]}.sqlite")),
            pool=pool,
            clock=system_clock,
            random=lambda: 0.5,
            without_forsendelse_from=frozenset({AVSENDER}),
        )
        fagsystemer = {number: _Fagsystem() for number in kommuner}
        ring = KeyRing([(certificate, key)])
        runners = [
            KommuneRunner(Kommune(number, ring, SPEC, MemorySettings()), shared, connector=fagsystem)
            for number, fagsystem in fagsystemer.items()
        ]
        sender = await stack.enter_async_context(KafkaPublisher(kafka.producers))
        running = [asyncio.create_task(runner.run()) for runner in runners]
        try:
            yield _World(fagsystemer, runners, sender)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


class _Nowhere:
    async def read(self, dokumentlager_id: object, size: int) -> AsyncIterator[bytes]:
        _ = dokumentlager_id, size
        raise AssertionError("every package is in its record")
        yield b""


# Poison.


async def _poison(kafka: Cluster, folder: Path, number: Kommunenummer) -> Row:
    clean: list[float] = []
    poisoned: list[float] = []
    async with _connectors(kafka, folder, [number]) as world:
        await world.ready()
        await _timed(world, number, poison=False)  # warm
        for nr in range(POISON_SLICES):
            for poison in (False, True) if nr % 2 == 0 else (True, False):
                (poisoned if poison else clean).append(await _timed(world, number, poison=poison))
    ours, floor = medians((poisoned, clean))
    name = f"10 % gift: de andre 90 % ({POISON_SLICE} søknader) mot de samme alene"
    return Row(name, ours, floor, ours / floor, 1.2, "lower", "s")


async def _timed(world: _World, number: Kommunenummer, *, poison: bool) -> float:
    """Return the seconds from the first søknad on its topic until the fagsystem has all the good ones."""
    fagsystem = world.fagsystemer[number]
    records: list[SoknadRecord] = []
    for nr in range(POISON_SLICE):
        records.append(_record(number))
        if poison and nr % 9 == 0:
            records.append(_record(number, broken=nr % 2 == 0))
            fagsystem.poison.add(records[-1].melding_id)
    fagsystem.count = 0
    began = time.perf_counter()
    await world.send(records)
    await fagsystem.took(POISON_SLICE)
    return time.perf_counter() - began


# A dead fagsystem.


async def _dead_fagsystem(kafka: Cluster, folder: Path, kommuner: Sequence[Kommunenummer]) -> Row:
    alive: list[float] = []
    one_dead: list[float] = []
    async with _connectors(kafka, folder, kommuner) as world:
        await world.ready()
        await _rate(world, dead=None)  # warm
        for nr in range(DEAD_SLICES):
            for dead in (None, kommuner[0]) if nr % 2 == 0 else (kommuner[0], None):
                (alive if dead is None else one_dead).append(await _rate(world, dead=dead))
    ours, floor = medians((one_dead, alive))
    name = f"ett dødt fagsystem blant {KOMMUNER} kommuner: de andres søknader"
    return Row(name, ours, floor, ours / floor, 0.95, "higher", "per s")


async def _rate(world: _World, *, dead: Kommunenummer | None) -> float:
    """Return how many søknader a second the kommuner other than the first get."""
    first, *others = world.fagsystemer
    world.fagsystemer[first].dead = dead is not None
    records = [_record(number) for _ in range(EACH) for number in world.fagsystemer]
    for fagsystem in world.fagsystemer.values():
        fagsystem.count = 0
    began = time.perf_counter()
    await world.send(records)
    await asyncio.gather(*(world.fagsystemer[number].took(EACH) for number in others))
    rate = EACH * len(others) / (time.perf_counter() - began)
    world.fagsystemer[first].dead = False
    await world.fagsystemer[first].took(EACH)
    return rate


# A long queue.


async def _queue(kafka: Cluster, folder: Path, number: Kommunenummer) -> list[Row]:
    """Drain short queues and long ones in turn; the best of each side is what the neighbours on the machine disturbed least."""
    await _drain(kafka, folder / "varm", number, SHORT)
    short: list[_Drained] = []
    long: list[_Drained] = []
    for nr in range(LONG_SLICES):
        short += [await _drain(kafka, folder / f"kort-{nr}-{side}", number, SHORT) for side in range(2)]
        long.append(await _drain(kafka, folder / f"lang-{nr}", number, QUEUED))
    ours, floor = (max(one.rate for one in each) for each in (long, short))
    much, little = (max(one.peak_mib for one in each) for each in (long, short))
    what = f"{QUEUED} i kø mot {SHORT}"
    return [
        Row(f"tømme køen: {what}", ours, floor, ours / floor, 0.9, "higher", "per s"),
        Row(f"mest minne: {what}", much, little, much / little, 1.1, "lower", "MiB"),
    ]


@dataclass(frozen=True)
class _Drained:
    """How many søknader a second were taken, and the most memory meanwhile."""

    rate: float
    peak_mib: float


async def _drain(kafka: Cluster, folder: Path, number: Kommunenummer, queued: int) -> _Drained:
    """Queue søknader, start a connector, and measure from its hundredth søknad to its last."""
    await _fill(kafka, folder, number, queued)
    async with _connectors(kafka, folder, [number]) as world:
        fagsystem = world.fagsystemer[number]
        await fagsystem.took(WARM)
        began, peak = time.perf_counter(), 0.0
        draining = asyncio.create_task(fagsystem.took(queued))
        while not draining.done():
            peak = max(peak, _resident_mib())
            await asyncio.wait((draining,), timeout=SAMPLE_S)
        draining.result()
        return _Drained((queued - WARM) / (time.perf_counter() - began), peak)


async def _fill(kafka: Cluster, folder: Path, number: Kommunenummer, queued: int) -> None:
    """Let another process put søknader on the topic, so that what it needs is not counted here."""
    await asyncio.to_thread(folder.mkdir)
    template = folder / "mal.avro"
    await asyncio.to_thread(template.write_bytes, encode(_record(number)))
    child = await asyncio.create_subprocess_exec(
        sys.executable, __file__, str(template), str(queued), env={**os.environ, **kafka.producers.environment()}
    )
    if await child.wait():
        raise RuntimeError("the sender failed")


async def _send_copies(template: SoknadRecord, count: int) -> None:
    """Put ``count`` søknader on the topic, all with the package of ``template``."""
    async with KafkaPublisher(KafkaSettings.from_environment(os.environ)) as sender:
        for start in range(0, count, SHORT):
            ids = [
                {"melding_id": MeldingId.new(), "digisos_id": DigisosId.new()} for _ in range(min(SHORT, count - start))
            ]
            await _publish(sender, [template.model_copy(update=each) for each in ids])


def _resident_mib() -> float:
    """Return how much memory this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


if __name__ == "__main__":
    asyncio.run(_send_copies(decode(SoknadRecord, Path(sys.argv[1]).read_bytes()), int(sys.argv[2])))
