"""Submission against the sum of its primitives, and memory for 150 MB over HTTP.

1. The Python call: søknader a second, from the call until SENDT is on its topic, against 1 ÷ the sum of what cannot be left
   out: validate both documents, zip the files with their digests, one ECDSA signature, one OAEP operation with AES and a
   digest of the package, one Avro frame, one record of that size produced, one row's share of a commit of a hundred.
2. HTTP: accepted søknader a second by a real process, each file encrypted by the client, against the same sum and one
   private RSA-3072 operation for each file.
3. Memory: how far a real process rises above idle while it takes in 150 MB of files over HTTP.

Run it alone with ``python tests/benchmarks/bench_submit.py``.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import sqlite3
import time
import zipfile
from functools import cache
from pathlib import Path
from random import Random
from statistics import median
from typing import TYPE_CHECKING

from _intake import Intake, body_of, mottak, running_intake
from _rows import Row, print_table
from _sender import (
    Sender,
    Sending,
    all_kommuner,
    cluster,
    kommune_certificate,
    make_katalog,
    make_keys,
    running_sender,
    scratch,
    sending_to,
)
from aiokafka import AIOKafkaProducer
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from broker.clock import system_clock
from crypto.algorithms import OAEP_SHA256
from producers.dokument import Dokument
from schemas.codec import encode
from schemas.examples import make_pdf
from schemas.names import DigisosId, MeldingId, NavEksternRefId, NokkelId, Organisasjonsnummer, Sha256
from schemas.records import SoknadRecord
from schemas.soknad_json import parse_soknad
from schemas.vedlegg_json import parse_vedlegg

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from _sender import Cluster

MIB = 1024 * 1024
KOMMUNER = all_kommuner()[:6]
SLICES = 5
SLICE = 200
AT_ONCE = 32
TIMES = 100
LARGE_FILES, LARGE_BYTES = 15, 10 * MIB
MEMORY_GOAL_MIB = 32


def rows() -> list[Row]:
    """Measure everything; takes about half a minute."""
    return asyncio.run(_rows())


async def _rows() -> list[Row]:
    sendings = [sending_to(KOMMUNER[nr % len(KOMMUNER)]) for nr in range(SLICE)]
    async with scratch() as folder, cluster(KOMMUNER, folder) as kafka:
        floor = Floor(kafka, folder)
        await floor.start()
        try:
            async with running_sender(kafka.producers, make_katalog(KOMMUNER), folder) as sender:
                call = await _call_row(sender, sendings, floor)
            (folder / "http").mkdir()
            async with running_intake(kafka, KOMMUNER, folder / "http") as intake:
                http = await _http_row(intake, sendings, floor)
                await intake.drained()
            (folder / "minne").mkdir()
            async with running_intake(kafka, KOMMUNER, folder / "minne") as intake:
                memory = await _memory_row(intake)
        finally:
            await floor.stop()
    return [call, http, memory]


async def _call_row(sender: Sender, sendings: list[Sending], floor: Floor) -> Row:
    async def ours() -> float:
        return await _per_second(lambda: sender.submit_all(sendings, at_once=AT_ONCE))

    await ours()
    mine, bare = await _in_turns(ours, floor.per_second)
    name = "innsending som Python-kall, til den er på emnet ÷ summen av primitivene"
    return Row(name, mine, bare, mine / bare, 0.7, "higher", "søknader/s")


async def _http_row(intake: Intake, sendings: list[Sending], floor: Floor) -> Row:
    bodies = {sending.kommunenummer: body_of(sending) for sending in sendings}

    async def ours() -> float:
        requests = [intake.request(sending, bodies[sending.kommunenummer]) for sending in sendings]
        figure = await _per_second(lambda: intake.send_all(requests, at_once=AT_ONCE))
        await intake.drained()  # the relay's work must not fall on the floor's turn
        return figure

    async def bare() -> float:
        return await floor.per_second(private_operations=len(sendings[0].files))

    await ours()
    mine, floors = await _in_turns(ours, bare)
    name = "innsending over HTTP med krypterte filer, til 202 ÷ det samme og en privat operasjon for hver fil"
    return Row(name, mine, floors, mine / floors, 0.6, "higher", "søknader/s")


async def _memory_row(intake: Intake) -> Row:
    """Send one søknad of 150 MB; its bytes are in this process, not in the one that is measured."""
    idle = _status_mib(intake.pid, "VmRSS")
    small = sending_to(KOMMUNER[0])
    rng = Random(1)
    files = [Dokument.of_bytes("Soknad.pdf", make_pdf(rng, LARGE_BYTES))]
    files += [Dokument.of_bytes(f"Vedlegg {nr}.pdf", make_pdf(rng, LARGE_BYTES)) for nr in range(LARGE_FILES - 1)]
    large = Sending(small.kommunenummer, small.person, small.soknad_json, small.vedlegg_json, tuple(files))
    await intake.send_all([intake.request(large, body_of(large))], at_once=1)
    peak = _status_mib(intake.pid, "VmHWM") - idle
    name = f"minne over hvile, innsending på {LARGE_FILES * LARGE_BYTES // MIB} MB over HTTP"
    return Row(name, peak, 0, peak, MEMORY_GOAL_MIB, "lower", "MiB")


def _status_mib(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


async def _per_second(work: Callable[[], Awaitable[object]]) -> float:
    begin = time.perf_counter()
    await work()
    return SLICE / (time.perf_counter() - begin)


async def _in_turns(*arms: Callable[[], Awaitable[float]]) -> list[float]:
    """Return each arm's median, measured in turns."""
    figures: list[list[float]] = [[] for _ in arms]
    for nr in range(SLICES):
        order = range(len(arms)) if nr % 2 == 0 else reversed(range(len(arms)))
        for arm in order:
            figures[arm].append(await arms[arm]())
    return [median(arm) for arm in figures]


class Floor:
    """What cannot be left out, each step with the plainest library call there is, one after the other."""

    def __init__(self, kafka: Cluster, folder: Path) -> None:
        settings = kafka.producers
        self._producer = AIOKafkaProducer(
            **settings.connection(), acks="all", enable_idempotence=True, max_batch_size=256 * 1024, linger_ms=2
        )
        self._database = sqlite3.connect(folder / "gulv.sqlite", isolation_level=None)
        self._sending = sending_to(KOMMUNER[0])
        self._package = os.urandom(13_000)
        self._record = _record(self._package)

    async def start(self) -> None:
        """Connect, and make the table."""
        await self._producer.start()
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "CREATE TABLE rad (nr INTEGER PRIMARY KEY, verdi BLOB)",
        ):
            self._database.execute(statement)

    async def stop(self) -> None:
        """Disconnect."""
        await self._producer.stop()
        self._database.close()

    async def per_second(self, *, private_operations: int = 0) -> float:
        """Return 1 ÷ the sum of the steps."""
        steps = (self._validate, self._zip, self._sign, self._seal, self._frame)
        total = sum(_seconds(step) for step in steps)
        total += self._commit_share() + await self._produce()
        return 1 / (total + private_operations * _seconds(_private_operation))

    def _validate(self) -> None:
        parse_soknad(self._sending.soknad_json)
        parse_vedlegg(self._sending.vedlegg_json)

    def _zip(self) -> None:
        files = {"soknad.json": self._sending.soknad_json, "vedlegg.json": self._sending.vedlegg_json}
        files |= {file.filnavn: b"".join(file.read()) for file in self._sending.files}
        with zipfile.ZipFile(io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                hashlib.sha256(content).digest()
                hashlib.sha512(content).digest()
                archive.writestr(name, content, compresslevel=0 if name.endswith(".pdf") else 6)

    def _sign(self) -> None:
        key = make_keys().signer.private_key
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        key.sign(b"manifest", ec.ECDSA(hashes.SHA256()))

    def _seal(self) -> None:
        public = kommune_certificate(KOMMUNER[0]).public_key()
        assert isinstance(public, rsa.RSAPublicKey)
        key = os.urandom(32)
        public.encrypt(key, OAEP_SHA256)
        Cipher(AES(key), CBC(os.urandom(16))).encryptor().update(self._package[:12_992])
        hashlib.sha256(self._package).digest()

    def _frame(self) -> None:
        encode(self._record)

    def _commit_share(self) -> float:
        begin = time.perf_counter()
        self._database.execute("BEGIN IMMEDIATE")
        for _ in range(TIMES):
            self._database.execute("INSERT INTO rad (verdi) VALUES (?)", (self._package,))
        self._database.execute("COMMIT")
        return (time.perf_counter() - begin) / TIMES

    async def _produce(self) -> float:
        topic = f"fiks.{KOMMUNER[0]}.soknad.v1"
        begin = time.perf_counter()
        sent = [await self._producer.send(topic, self._package, key=b"gulv") for _ in range(TIMES)]
        await asyncio.gather(*sent)
        return (time.perf_counter() - begin) / TIMES


def _seconds(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    for _ in range(TIMES):
        step()
    return (time.perf_counter() - begin) / TIMES


@cache
def _wrapped() -> bytes:
    return mottak()[1].public_key().encrypt(os.urandom(32), OAEP_SHA256)


def _private_operation() -> None:
    mottak()[1].decrypt(_wrapped(), OAEP_SHA256)


def _record(package: bytes) -> SoknadRecord:
    return SoknadRecord(
        melding_id=MeldingId.new(),
        digisos_id=DigisosId.new(),
        kommunenummer=KOMMUNER[0],
        nav_ekstern_ref_id=NavEksternRefId("gulv"),
        innsendt=system_clock(),
        avsender=Organisasjonsnummer("889640782"),
        nokkel_id=NokkelId("0" * 64),
        sha256=Sha256.of(package),
        storrelse=len(package),
        pakke=package,
    )


if __name__ == "__main__":
    print_table(rows())
