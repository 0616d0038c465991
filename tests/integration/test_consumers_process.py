"""``python -m consumers`` on a real Kafka, the simulated fagsystem as another process: HTTP, folders, kills."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI, Header
from fastapi.responses import JSONResponse, Response
from patience import until

from broker.record import Outgoing
from broker.routing import connector_rights, hendelse_topic, kvittering_topic, soknad_topic
from broker.supervisor.layout import free_ports
from broker.web import serve
from consumers.issued import claims_of
from consumers.settings import CONFIG_ENV
from crypto import Authority, Signer, certificate_pem, seal_package, write_private_key
from schemas.codec import decode, encode
from schemas.examples import make_pdf, make_soknad, make_vedlegg, synthetic_fodselsnummer
from schemas.forsendelse import Forsendelse
from schemas.kvittering import KvitteringClaims
from schemas.names import DigisosId, DokumentlagerId, Kommunenummer, MeldingId, NavEksternRefId, Organisasjonsnummer
from schemas.records import KvitteringRecord, SoknadRecord

pytestmark = pytest.mark.kafka

ORGNR = Organisasjonsnummer("889640782")
WITHIN_S = 60.0


class Dokumentlager:
    """Serves packages by range, and breaks off in the middle the first time."""

    def __init__(self) -> None:
        self.packages: dict[str, bytes] = {}
        self.ranges: list[str | None] = []
        self.app = FastAPI()
        self.app.post("/token")(self.token)
        self.app.get("/dokumentlager/v1/pakker/{package_id}")(self.package)

    async def token(self) -> JSONResponse:
        return JSONResponse({"access_token": "t", "expires_in": 100, "token_type": "Bearer"})

    async def package(
        self, package_id: str, authorization: str = Header(), wanted: str | None = Header(None, alias="Range")
    ) -> Response:
        assert authorization == "Bearer t"
        data = self.packages[package_id]
        self.ranges.append(wanted)
        etag = {"ETag": f'"{package_id}"'}
        if wanted is None:
            return StreamThatBreaks(data[: len(data) // 2], len(data), etag)
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        headers = etag | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        return Response(data[start:], status_code=206, headers=headers)


class StreamThatBreaks(Response):
    """Promises ``whole`` bytes, sends some, and cuts the connection."""

    def __init__(self, some: bytes, whole: int, headers: dict[str, str]) -> None:
        super().__init__(headers=headers)
        self.some, self.whole = some, whole

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        _ = scope, receive
        headers = [
            *((n, v) for n, v in self.raw_headers if n != b"content-length"),
            (b"content-length", b"%d" % self.whole),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.some, "more_body": True})
        raise ConnectionAbortedError


class World:
    """Two kommuner with one connector process, one over HTTP and one over folders."""

    def __init__(self, kafka: Any, folder: Path, numbers: tuple[Kommunenummer, Kommunenummer]) -> None:
        self.kafka = kafka
        self.folder = folder
        self.over_http, self.over_folders = numbers
        self.now = datetime.now(UTC)
        self.authority = Authority.create(self.now, "Test CA")
        self.sender = Signer(*self._issue("Avsender", "signering", "p256"))
        self.recipients = {number: self._key_files(f"kommune-{number}", "kryptering", "rsa2048") for number in numbers}
        self._key_files("innsyn", "kryptering", "rsa2048")
        self._key_files("konnektor", "signering", "p256")
        (folder / "ca.pem").write_bytes(certificate_pem(self.authority.certificate))
        self.fagsystem_port, self.health_port, self.lager_port = free_ports(3)
        self.lager = Dokumentlager()

    def _issue(self, name: str, purpose: Any, key: Any) -> Any:
        return self.authority.issue(name, ORGNR, purpose=purpose, now=self.now, valid_days=30, key=key)

    def _key_files(self, name: str, purpose: str, key: str) -> Any:
        certificate, private = self._issue(name, purpose, key)
        (self.folder / f"{name}.pem").write_bytes(certificate_pem(certificate))
        write_private_key(self.folder / f"{name}.key", private)
        return certificate

    def write_settings(self) -> None:
        lager = f"http://127.0.0.1:{self.lager_port}"
        kinds = {
            self.over_http: (
                "http",
                {"url": f"http://127.0.0.1:{self.fagsystem_port}/{self.over_http}", "intervall_s": 0.1},
            ),
            self.over_folders: ("filedrop", {"mappe": str(self.folder / "mapper"), "intervall_s": 0.1}),
        }
        document = {
            "konnektor": "acme",
            "leverandor": self.kafka.vendor,
            "signering": {"sertifikat": "konnektor.pem", "nokkel": "konnektor.key"},
            "tillit": {"rotter": ["ca.pem"]},
            "innsyn_sertifikat": "innsyn.pem",
            "tokenutsteder": {"navn": lager, "token_url": f"{lager}/token"},
            "dokumentlager_url": lager,
            "database": "konnektor.sqlite",
            "port": self.health_port,
            "kommuner": [
                {
                    "kommunenummer": str(number),
                    "nokler": [f"kommune-{number}.pem", f"kommune-{number}.key"],
                    "type": kind,
                    "innstillinger": own,
                }
                for number, (kind, own) in kinds.items()
            ],
        }
        (self.folder / "konnektor.yaml").write_text(yaml.safe_dump(document))

    async def environment(self) -> dict[str, str]:
        rules = [
            rule
            for number in (self.over_http, self.over_folders)
            for rule in connector_rights("konnektor-acme", self.kafka.vendor, number)
        ]
        settings = await self.kafka.principal("konnektor-acme", rules)
        return {CONFIG_ENV: str(self.folder / "konnektor.yaml"), **settings.environment()}

    def fagsystem_environment(self) -> dict[str, str]:
        return {
            "FORMIDLER_FAGSYSTEM_PORT": str(self.fagsystem_port),
            "FORMIDLER_FAGSYSTEM_MAPPE": str(self.folder / "http"),
            "FORMIDLER_FAGSYSTEM_FILEDROP": str(self.folder / "mapper"),
            "FORMIDLER_FAGSYSTEM_FORSINKELSER_S": "[0, 0.2, 0.4]",
        }

    def soknad(
        self, number: Kommunenummer, *, size: int = 3000, by_reference: bool = False
    ) -> tuple[SoknadRecord, Any]:
        innsendt = self.now.replace(microsecond=self.now.microsecond // 1000 * 1000)
        ids = {"digisos_id": DigisosId.new(), "melding_id": MeldingId.new(), "type": "SOKNAD"}
        stated = Forsendelse(kommunenummer=number, opprettet=innsendt, **ids)
        rng = random.Random(ids["melding_id"])
        person = synthetic_fodselsnummer(rng)
        content = {
            "soknad.json": make_soknad(rng, kind="kort", fodselsnummer=person, kommunenummer=number, now=self.now),
            "vedlegg.json": make_vedlegg([]),
            "Søknad.pdf": make_pdf(rng, size),
        }
        files = [("forsendelse.json", "application/json", stated.to_json())]
        files += [(name, "application/octet-stream", data) for name, data in content.items()]
        sealed, summary = seal_package(files, recipient=self.recipients[number], signer=self.sender, now=self.now)
        lager_id = DokumentlagerId.new() if by_reference else None
        if lager_id:
            self.lager.packages[lager_id] = sealed
        record = SoknadRecord(
            kommunenummer=number,
            nav_ekstern_ref_id=NavEksternRefId(f"ref-{ids['melding_id']}"),
            innsendt=innsendt,
            avsender=ORGNR,
            nokkel_id=summary.nokkel_id,
            sha256=summary.sha256,
            storrelse=summary.size,
            pakke=None if by_reference else sealed,
            dokumentlager_id=lager_id,
            **ids,
        )
        return record, {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}

    async def send(self, *records: SoknadRecord) -> None:
        publisher = await self.kafka.publisher()
        for record in records:
            topic = soknad_topic(record.kommunenummer)
            await publisher.publish(Outgoing(topic, record.digisos_id.encode(), encode(record)))

    async def kvitteringer(self, number: Kommunenummer, wanted: Callable[[list[KvitteringClaims]], bool]) -> Any:
        found: list[KvitteringClaims] = []
        async with asyncio.timeout(WITHIN_S):
            async for batch in await self.kafka.tail([kvittering_topic(number)]):
                found += [claims_of(decode(KvitteringRecord, one.value).jws) for one in batch]
                if wanted(found):
                    return found
        raise AssertionError("the topic ended")

    async def count(self, topic: str, least: int) -> int:
        found = 0
        async with asyncio.timeout(WITHIN_S):
            async for batch in await self.kafka.tail([topic]):
                found += len(batch)
                if found >= least:
                    return found
        return found

    def digests(self, record: SoknadRecord) -> dict[str, str]:
        places = {self.over_http: self.folder / "http" / record.kommunenummer / "soknader"}
        folder = places.get(record.kommunenummer, self.folder / "mapper" / record.kommunenummer / "arkiv")
        ours = {"leveranse.json", "svar.json", "FERDIG"}
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (folder / record.melding_id).iterdir()
            if path.name not in ours
        }


@contextmanager
def process(module: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", module], env={**os.environ, **environment}, stdout=file, stderr=file
        )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@pytest.fixture
async def world(kafka: Any, tmp_path: Path) -> AsyncIterator[World]:
    world = World(kafka, tmp_path, (await kafka.new_kommune(), await kafka.new_kommune()))
    world.write_settings()
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(world.lager.app, "127.0.0.1", world.lager_port, stop))
    yield world
    stop.set()
    await serving


def statuses(claims: list[KvitteringClaims], record: SoknadRecord) -> list[str]:
    return [one.status for one in claims if one.melding_id == record.melding_id]


def settled(claims: list[KvitteringClaims], *records: SoknadRecord) -> bool:
    return all("MOTTATT" in statuses(claims, record) for record in records)


async def test_a_soknad_goes_all_the_way_over_http_and_over_folders(world: World) -> None:
    small, small_files = world.soknad(world.over_http)
    large, large_files = world.soknad(world.over_http, size=2_000_000, by_reference=True)
    dropped, dropped_files = world.soknad(world.over_folders)
    await world.send(small, large, dropped)
    log = world.folder / "prosess.log"
    with (
        process("consumers.simulator", world.fagsystem_environment(), log),
        process("consumers", await world.environment(), log) as connector,
    ):
        over_http = await world.kvitteringer(world.over_http, lambda found: settled(found, small, large))
        over_folders = await world.kvitteringer(world.over_folders, lambda found: settled(found, dropped))
        assert await world.count(hendelse_topic(world.over_http), 6) >= 6
        assert await world.count(hendelse_topic(world.over_folders), 3) >= 3
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{world.health_port}") as http:
            assert (await http.get("/isready")).status_code == 200
            assert 'fiks_deliveries_total{resultat="MOTTATT"} 2.0' in (await http.get("/metrics")).text
    assert connector.returncode == 0
    assert statuses(over_http, small) == statuses(over_http, large) == ["MOTTATT"]
    assert statuses(over_folders, dropped) == ["LEVERT", "MOTTATT"]
    assert world.digests(small) == small_files
    assert world.digests(large) == large_files
    assert world.digests(dropped) == dropped_files
    assert world.lager.ranges[0] is None
    assert str(world.lager.ranges[1]).startswith("bytes=")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    delivered = {line["melding_id"] for line in lines if line["event"] == "soknad_delivered"}
    assert delivered == {small.melding_id, large.melding_id, dropped.melding_id}


async def test_a_kill_in_the_middle_loses_nothing_and_doubles_nothing(world: World) -> None:
    records = [world.soknad(world.over_http)[0] for _ in range(12)]
    environment = await world.environment()
    log = world.folder / "prosess.log"
    with process("consumers.simulator", world.fagsystem_environment(), log):
        await world.send(*records[:6])
        with process("consumers", environment, log) as connector:
            await world.kvitteringer(world.over_http, lambda found: len(found) >= 2)
            connector.kill()
            connector.wait()
        await world.send(*records[6:])
        with process("consumers", environment, log):
            claims = await world.kvitteringer(world.over_http, lambda found: settled(found, *records))
    for record in records:
        ours = [one for one in claims if one.melding_id == record.melding_id]
        assert len({one.kvittering_id for one in ours}) == 1, "a repeat is the original"
    folder = world.folder / "http" / world.over_http / "soknader"
    assert {path.name for path in folder.iterdir()} == {record.melding_id for record in records}


async def test_a_fagsystem_that_is_down_comes_back_and_one_that_rejects_says_why(world: World) -> None:
    first, rejected = world.soknad(world.over_http)[0], world.soknad(world.over_folders)[0]
    log = world.folder / "prosess.log"
    with process("consumers.simulator", world.fagsystem_environment(), log):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{world.fagsystem_port}") as http:
            await answers(http)
            await http.put(f"/styring/{world.over_http}", json={"tilstand": "nede"})
            await http.put(f"/styring/{world.over_folders}", json={"avvis": [{"ref": rejected.nav_ekstern_ref_id}]})
            await world.send(first, rejected)
            with process("consumers", await world.environment(), log):
                claims = await world.kvitteringer(world.over_folders, lambda found: len(found) == 2)
                assert (claims[1].status, claims[1].kode, claims[1].grad) == ("AVVIST", "demo.avvist", "VALIDERT")
                await until(lambda: "fagsystem_went_down" in log.read_text())
                await http.put(f"/styring/{world.over_http}", json={"tilstand": "oppe"})
                await world.kvitteringer(world.over_http, lambda found: settled(found, first))
                await until(lambda: "fagsystem_came_back" in log.read_text())


async def answers(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                if (await http.get("/isalive")).is_success:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.02)


async def test_a_wrong_setting_is_named_and_ends_the_process_with_78(world: World) -> None:
    settings = world.folder / "konnektor.yaml"
    settings.write_text(settings.read_text().replace("innsyn.pem", "finnes-ikke.pem"))
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "consumers",
        env={**os.environ, **await world.environment()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await asyncio.wait_for(child.communicate(), WITHIN_S)
    assert child.returncode == 78
    assert b"innsyn_sertifikat" in told
