"""A long outbox: the memory of ``python -m producers`` while it drains, and how fast it does.

The process is the real one, with Kafka, outbox, relay, the watch over topics and the register. Its outbox is filled beforehand,
as an hour without Kafka leaves it: for each søknad AKSEPTERT and the søknad itself, of 13 KB. The peak is the kernel's own
(``VmHWM``) over the whole life of the process, imports and all; the length of the outbox must not show in it.

Draining is judged against a publisher alone: the messages of as many søknader, from memory, to the same topics, in order for each
søknad. The relay also reads them from the disk, looks at each package, and makes each removal durable, with its SENDT.

Run it alone with ``python tests/benchmarks/bench_backlog.py``.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from _rows import Row, print_table
from _sender import (
    AVSENDER,
    EIER_KEY,
    NOWHERE,
    all_kommuner,
    cluster,
    kommune_certificate,
    make_keys,
    publish_katalog,
    scratch,
    write_keys,
)

from broker.clock import system_clock
from broker.files import write_private
from broker.kafka.admin import KafkaAdmin
from broker.kafka.publisher import KafkaPublisher
from broker.routing import TRANSPORT
from broker.sql import SqliteDatabase
from broker.supervisor.layout import free_ports
from crypto import certificate_pem, nokkel_id, write_private_key
from crypto.content_key import ContentKey
from producers.database import MIGRATIONS
from producers.intake import Accepted
from producers.messages import accepted_messages, sent_message
from producers.outbox import Outbox
from schemas.names import DigisosId, Eier, MeldingId, NavEksternRefId, Sha256, Uuid
from schemas.records import TRANSPORT_AKSEPTERT, SoknadRecord, TransportRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.kafka.settings import KafkaSettings
    from producers.outbox import Message
    from schemas.names import Kommunenummer

KOMMUNER = all_kommuner()[:20]
PACKAGE_BYTES = 13_000
SHORT, LONG = 1_000, 50_000
"""Messages that wait: two for each søknad."""
MESSAGES = 3
"""What a søknad is on the topics: AKSEPTERT, itself, SENDT."""
MEMORY_GOAL = 1.10
DRAIN_GOAL = 0.2
AT_ONCE = 256
DEADLINE_S = 300.0


def rows() -> list[Row]:
    """Measure everything; takes about a minute."""
    return asyncio.run(_rows())


async def _rows() -> list[Row]:
    async with scratch() as folder, cluster(KOMMUNER, folder) as kafka:
        await publish_katalog(kafka.admin, KOMMUNER)
        _write_sender_keys(folder)
        bare = await _publish_alone(kafka.producers, LONG // 2)
        peaks: dict[int, float] = {}
        rates: dict[int, float] = {}
        for messages in (SHORT, LONG):
            place = folder / f"{messages}.sqlite"
            await _fill(place, messages // 2, kafka.admin)
            peaks[messages], rates[messages] = await asyncio.to_thread(_drain, folder, place, kafka.producers)
        return [
            Row(
                name=f"produsenten: toppminne med {LONG} i utboksen mot {SHORT}",
                ours=peaks[LONG],
                floor=peaks[SHORT],
                ratio=peaks[LONG] / peaks[SHORT],
                goal=MEMORY_GOAL,
                better="lower",
                unit="MiB",
            ),
            Row(
                name=f"produsenten tømmer {LONG} i utboksen, mot bare publisering av det samme",
                ours=rates[LONG],
                floor=bare,
                ratio=rates[LONG] / bare,
                goal=DRAIN_GOAL,
                better="higher",
                unit="søknader/s",
            ),
        ]


def _accepted(nr: int, prefix: str) -> Accepted:
    now, kommune = system_clock(), KOMMUNER[nr % len(KOMMUNER)]
    package = os.urandom(PACKAGE_BYTES)
    ids = (MeldingId.new(), DigisosId.new(), NavEksternRefId(f"{prefix}-{nr}"))
    soknad = SoknadRecord(
        melding_id=ids[0],
        digisos_id=ids[1],
        kommunenummer=kommune,
        nav_ekstern_ref_id=ids[2],
        innsendt=now,
        avsender=AVSENDER,
        nokkel_id=_key_id(kommune),
        sha256=Sha256.of(package),
        storrelse=len(package),
        pakke=package,
    )
    transport = TransportRecord(
        hendelse_id=Uuid.new(),
        melding_id=ids[0],
        digisos_id=ids[1],
        kommunenummer=kommune,
        type=TRANSPORT_AKSEPTERT,
        tidspunkt=now,
        nav_ekstern_ref_id=ids[2],
        eier=Eier("e" * 64),
        sha256=soknad.sha256,
    )
    return Accepted(soknad, transport, 1, ContentKey.new())


_key_ids: dict[Kommunenummer, str] = {}


def _key_id(kommune: Kommunenummer) -> str:
    if kommune not in _key_ids:
        _key_ids[kommune] = nokkel_id(kommune_certificate(kommune))
    return _key_ids[kommune]


async def _publish_alone(kafka: KafkaSettings, soknader: int) -> float:
    """Publish as much from memory as the relay does from the outbox; return søknader a second."""
    async with KafkaPublisher(kafka) as publisher:
        await publisher.warm({message.outgoing.topic for nr in range(40) for message in _messages(nr)})
        waiting = iter(range(soknader))

        async def worker() -> None:
            for nr in waiting:
                for message in _messages(nr):
                    await publisher.publish(message.outgoing)

        started = time.monotonic()
        async with asyncio.TaskGroup() as workers:
            for _ in range(AT_ONCE):
                workers.create_task(worker())
        return soknader / (time.monotonic() - started)


_ready: list[tuple[Message, ...]] = []


def _messages(nr: int) -> tuple[Message, ...]:
    """Return a søknad's messages; a few hundred søknader serve for all, so that making them costs nothing here."""
    while len(_ready) <= nr % 400:
        aksept, soknad = accepted_messages(_accepted(len(_ready), "bar"), None)
        _ready.append((aksept, soknad, sent_message(soknad, system_clock())))
    return _ready[nr % 400]


async def _fill(place: Path, soknader: int, kafka: KafkaSettings) -> None:
    """Put as many søknader in an outbox, and let it know what the other measurements left on the transport topic."""
    async with SqliteDatabase(place, MIGRATIONS) as database, KafkaAdmin(kafka) as admin:
        read = [(one.partition, offset) for one, offset in (await admin.end_offsets([TRANSPORT])).items()]
        await database.write(lambda c: c.executemany("INSERT INTO transport_lest VALUES (?, ?)", read).rowcount)
        outbox = Outbox(database)
        for start in range(0, soknader, 500):
            some = [_accepted(nr, place.stem) for nr in range(start, min(start + 500, soknader))]
            await asyncio.gather(*[outbox.accept(one, accepted_messages(one, None)) for one in some])


def _write_sender_keys(folder: Path) -> None:
    keys = make_keys()
    write_keys(KOMMUNER[:1], folder)
    mottak, mottak_key = keys.authority.issue(
        "Mottak", AVSENDER, purpose="kryptering", now=system_clock(), key="rsa2048"
    )
    (folder / "avsender.pem").write_bytes(certificate_pem(keys.connector[0]))
    write_private_key(folder / "avsender.key", keys.connector[1])
    (folder / "mottak.pem").write_bytes(certificate_pem(mottak))
    write_private_key(folder / "mottak.key", mottak_key)
    write_private(folder / "kopi.key", EIER_KEY.hex().encode())


def _environment(folder: Path, place: Path, kafka: KafkaSettings, port: int) -> dict[str, str]:
    settings = {
        "PORT": str(port),
        "DATABASE": str(place),
        "DOKUMENTLAGER": str(folder / "dokumentlager"),
        "SIGNING_CERTIFICATE": str(folder / "avsender.pem"),
        "SIGNING_KEY": str(folder / "avsender.key"),
        "MOTTAK_CERTIFICATE": str(folder / "mottak.pem"),
        "MOTTAK_KEYS": json.dumps([str(folder / "mottak.key"), str(folder / "mottak.pem")]),
        "KOPI_KEYS": json.dumps([str(folder / "kopi.key")]),
        "EIER_KEY": str(folder / "eier.key"),
        "ISSUER": NOWHERE,
        "JWKS_URL": f"{NOWHERE}/jwks",
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FORMIDLER_", "KAFKA_"))}
    return clean | kafka.environment() | {f"FORMIDLER_PRODUCERS_{name}": value for name, value in settings.items()}


def _drain(folder: Path, place: Path, kafka: KafkaSettings) -> tuple[float, float]:
    """Run the process until its outbox is empty; return its peak memory in MiB and søknader a second."""
    (port,) = free_ports(1)
    log = folder / f"{place.stem}.log"
    with log.open("wb") as out, closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True)) as watching:
        queued = _queued(watching)
        process = subprocess.Popen(
            [sys.executable, "-m", "producers"], env=_environment(folder, place, kafka, port), stdout=out, stderr=out
        )
        try:
            _until(lambda: _queued(watching) < queued, process, log)
            begun, left = time.monotonic(), _queued(watching)
            _until(lambda: _queued(watching) == 0, process, log)
            rate = left / 2 / (time.monotonic() - begun)
            status = Path(f"/proc/{process.pid}/status").read_text("ascii")
        finally:
            process.kill()
            process.wait()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    if peak is None:
        raise RuntimeError("the kernel tells no peak")
    return int(peak[1]) / 1024, rate


def _queued(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT count(*) FROM utboks").fetchone()[0])


def _until(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the process did not drain its outbox: {log.read_text()[-2000:]}")
        time.sleep(0.05)


if __name__ == "__main__":
    print_table(rows())
