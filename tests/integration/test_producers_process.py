"""``python -m producers`` on a real Kafka: from POST to the record on the kommune's topic, through kills and outages."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from patience import until
from producers_world import (  # fixtures among them
    DEADLINE_S,
    Process,
    World,
    authority,
    issuer,
    make_citizen,
    running,
    world,
)

from broker.record import Outgoing, header
from broker.routing import KATALOG, soknad_topic
from broker.supervisor.layout import free_ports
from schemas.codec import decode, encode
from schemas.errors import RefusedError
from schemas.names import DigisosId, Sha256
from schemas.records import (
    SoknadRecord,
)

pytestmark = pytest.mark.kafka

__all__ = ["authority", "issuer", "world"]


async def test_a_soknad_goes_from_post_to_the_kommunes_topic_and_opens_with_its_key(world: World) -> None:
    citizen = make_citizen(1, world.number)
    async with running(world) as process:
        digisos_id = await process.send(citizen, "ref-1")
        (record,) = await world.records(soknad_topic(world.number), lambda found: len(found) == 1)
        events = await world.transport(digisos_id)
        again = await process.send(citizen, "ref-1")
        assert await process.end(signal.SIGTERM) == 0
    assert again == digisos_id
    assert record.key == digisos_id.encode()
    assert header(record.headers, "ce_subject") == world.number.encode()
    soknad = decode(SoknadRecord, record.value)
    assert soknad.pakke is not None
    files = world.open(soknad, soknad.pakke)
    assert {name: files[name] for name in citizen.content} == citizen.content
    assert (files["soknad.json"], files["vedlegg.json"]) == (citizen.soknad_json, citizen.vedlegg_json)
    assert [one.type for one in events] == ["AKSEPTERT", "SENDT"]
    assert events[0].eier == citizen.fodselsnummer.eier(bytes.fromhex("ab" * 32))
    assert {one.melding_id for one in events} == {soknad.melding_id}
    for place in (process.log, *(world.folder / "data").iterdir()):
        assert citizen.fodselsnummer.encode() not in place.read_bytes()
    assert citizen.fodselsnummer.encode() not in record.value


async def test_a_large_package_is_fetched_in_ranges_by_the_kommunes_own_connector_alone(world: World) -> None:
    citizen = make_citizen(2, world.number, pdf_bytes=3_000_000)
    async with running(world) as process:
        await process.send(citizen, "ref-stor")
        (record,) = await world.records(soknad_topic(world.number), lambda found: len(found) == 1)
        soknad = decode(SoknadRecord, record.value)
        assert soknad.pakke is None
        path = f"/dokumentlager/v1/pakker/{soknad.dokumentlager_id}"
        owner = {"Authorization": f"Bearer {await world.connector_token(process.http)}"}

        whole = await process.http.get(path, headers=owner)
        assert (whole.status_code, len(whole.content)) == (200, soknad.storrelse)
        assert Sha256.of(whole.content) == soknad.sha256
        assert whole.headers["ETag"] == f'"{soknad.sha256}"'
        half = soknad.storrelse // 2
        first = await process.http.get(path, headers=owner | {"Range": f"bytes=0-{half - 1}"})
        rest = await process.http.get(
            path, headers=owner | {"Range": f"bytes={half}-", "If-Range": whole.headers["ETag"]}
        )
        assert (first.status_code, rest.status_code) == (206, 206)
        assert rest.headers["Content-Range"] == f"bytes {half}-{soknad.storrelse - 1}/{soknad.storrelse}"
        assert first.content + rest.content == whole.content
        stale = await process.http.get(path, headers=owner | {"Range": "bytes=0-1", "If-Range": '"annen"'})
        assert stale.status_code == 200
        beyond = await process.http.get(path, headers=owner | {"Range": f"bytes={soknad.storrelse}-"})
        assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{soknad.storrelse}")

        world.katalog.put(world.katalog.all()[0].model_copy(update={"konnektor": "konnektor-b"}))
        missing = await process.http.get("/dokumentlager/v1/pakker/3fa85f64-5717-4562-b3fc-2c963f66afa6", headers=owner)
        citizens = {"Authorization": f"Bearer {world.token(citizen)}"}
        assert (await process.http.get(path)).status_code == 401
        assert (await process.http.get(path, headers=citizens)).status_code == 403
        publisher = await world.kafka.publisher()
        await publisher.publish(Outgoing(KATALOG, world.number.encode(), encode(world.katalog.all()[0])))

        async def refused() -> bool:
            return (await process.http.get(path, headers=owner)).status_code == 404

        await until(refused)
        foreign = await process.http.get(path, headers=owner)
        assert foreign.json()["message"] == missing.json()["message"]
    files = world.open(soknad, whole.content)
    assert files["Soknad.pdf"] == citizen.content["Soknad.pdf"]
    stored = (world.folder / "dokumentlager" / f"{soknad.dokumentlager_id}.cms").read_bytes()
    assert b"%PDF" not in stored


async def test_kill_nine_at_any_time_loses_nothing_that_was_accepted(world: World) -> None:
    citizens = [make_citizen(nr, world.number, pdf_bytes=700_000 if nr % 4 == 0 else 4000) for nr in range(24)]
    accepted: dict[str, DigisosId] = {}

    async def send(process: Process, nr: int) -> None:
        try:
            accepted[f"ref-{nr}"] = await process.send(citizens[nr], f"ref-{nr}")
        except httpx.TransportError:
            return

    for batch in range(3):
        async with running(world) as process:
            sending = [asyncio.create_task(send(process, nr)) for nr in range(batch * 8, batch * 8 + 8)]
            await until(lambda batch=batch, sending=sending: len(accepted) > batch or all(t.done() for t in sending))
            process.child.kill()
            await asyncio.gather(*sending)
    before = dict(accepted)
    assert before
    async with running(world) as process:
        for nr in range(24):
            await send(process, nr)
        assert {ref: accepted[ref] for ref in before} == before
        events = await world.transport(*accepted.values())
        found = await world.records(
            soknad_topic(world.number), lambda found: len({record.key for record in found}) == 24
        )
    soknader = [decode(SoknadRecord, record.value) for record in found]
    assert {one.digisos_id for one in soknader} == set(accepted.values())
    assert len({(one.digisos_id, one.melding_id, one.sha256) for one in soknader}) == 24
    for digisos_id in accepted.values():
        mine = [one for one in events if one.digisos_id == digisos_id]
        assert mine[0].type == "AKSEPTERT"
        assert len({one.hendelse_id for one in mine if one.type == "SENDT"}) == 1
    referred = {f"{one.dokumentlager_id}.cms" for one in soknader if one.dokumentlager_id}
    stored = {path.name for path in (world.folder / "dokumentlager").iterdir()}
    assert referred <= stored
    assert {name.rpartition(".")[2] for name in stored} == {"cms"}  # what was half-way is gone


async def test_a_refusal_reaches_a_client_that_has_most_of_its_body_still_to_send(world: World) -> None:
    citizen = make_citizen(7, world.number, pdf_bytes=9_000_000)
    citizen.vedlegg_json = b"{"
    async with running(world) as process:
        with pytest.raises(RefusedError, match=r"vedlegg\.json") as refused:
            await process.send(citizen, "avvist")
        assert refused.value.status == 400
        again = make_citizen(7, world.number)
        assert await process.send(again, "avvist")


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is what sees the syscalls")
async def test_everything_is_synced_before_202_is_written(world: World) -> None:
    trace = world.folder / "trace"
    syscalls = "trace=fsync,fdatasync,rename,recvfrom,sendto,write,pwrite64"
    prefix = ("strace", "-f", "-y", "-s", "60", "-e", syscalls, "-o", str(trace))
    async with running(world, prefix=prefix) as process:
        await process.send(make_citizen(3, world.number), "liten")
        await until(lambda: queued(world) == 0)  # so that the relay's own writes are not among the next one's
        await process.send(make_citizen(4, world.number, pdf_bytes=1_500_000), "stor")
        # strace hands the signal on to nobody: ask the traced child itself.
        (child,) = [int(pid) for pid in children_of(process.child.pid)]
        os.kill(child, signal.SIGTERM)
        assert await asyncio.to_thread(process.child.wait, DEADLINE_S) == 0
    calls = trace.read_text("utf-8", "replace").splitlines()
    small, large = [calls[begin : end + 1] for begin, end in requests(calls)]
    for request in (small, large):
        written = first(request, r"pwrite64\(.*producers\.sqlite-wal")
        assert first(request[written:], r"f(data)?sync\(.*producers\.sqlite-wal") < len(request) - written - 1
    package = first(large, r"fsync\(.*dokumentlager/.*\.del")
    renamed = first(large, r"rename\(.*\.del.*\.cms")
    folder = first(large, r"fsync\(\d+<[^>]*/dokumentlager>")
    assert package < renamed < folder
    # What the process notes down of its own, every few seconds, may come before; the search is for what follows the package.
    written = folder + first(large[folder:], r"pwrite64\(.*producers\.sqlite-wal")
    assert written + first(large[written:], r"f(data)?sync\(.*producers\.sqlite-wal") < len(large) - 1


def queued(world: World) -> int:
    with closing(sqlite3.connect(world.environment["FORMIDLER_PRODUCERS_DATABASE"])) as database:
        return int(database.execute("SELECT count(*) FROM utboks").fetchone()[0])


def requests(calls: list[str]) -> list[tuple[int, int]]:
    """Return where each POST was read and where its 202 was written."""
    begins = [nr for nr, call in enumerate(calls) if '"POST /digisos' in call]
    ends = [nr for nr, call in enumerate(calls) if "202 Accepted" in call]
    assert (len(begins), len(ends)) == (2, 2)
    return list(zip(begins, ends, strict=True))


def first(calls: list[str], pattern: str) -> int:
    """Return the first call that matches and has ended; a call that another thread interrupted ends in a line of its own."""
    for nr, call in enumerate(calls):
        if not re.search(pattern, call):
            continue
        if "<unfinished ...>" not in call:
            return nr
        thread, name = call.split()[0], call.split()[1].partition("(")[0]
        return next(
            at for at in range(nr, len(calls)) if calls[at].startswith(thread) and f"<... {name} resumed>" in calls[at]
        )
    raise AssertionError(pattern)


def children_of(pid: int) -> list[str]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [child for task in tasks for child in (task / "children").read_text("ascii").split()]


async def test_while_kafka_is_away_soknader_are_accepted_and_leave_when_it_is_back(world: World) -> None:
    kafka_pid = world.kafka.server.pid
    async with running(world) as process:
        os.kill(kafka_pid, signal.SIGSTOP)
        try:
            ids = [await process.send(make_citizen(nr, world.number), f"ute-{nr}") for nr in range(10, 15)]

            async def told() -> bool:
                metrics = (await process.http.get("/metrics")).text
                return "fiks_outbox_messages 10.0" in metrics

            await until(told)
            assert (await process.http.get("/isalive")).status_code == 200
        finally:
            os.kill(kafka_pid, signal.SIGCONT)
        events = await world.transport(*ids)
        await process.wait_ready()
    assert [one.type for one in events].count("SENDT") == 5


async def test_kafka_can_be_stopped_for_long_and_what_was_accepted_meanwhile_leaves_in_order(world: World) -> None:
    count = 60
    async with running(world) as process:
        first = await process.send(make_citizen(500, world.number), "foer-stansen")
        await world.transport(first)
        await asyncio.to_thread(world.kafka.server.kill)
        try:
            sending = [process.send(make_citizen(nr, world.number), f"stans-{nr}") for nr in range(count)]
            ids = await asyncio.gather(*sending)

            async def told() -> bool:
                answer = await process.http.get("/isready")
                text = answer.json()["mangler"].get("kafka", "")
                return answer.status_code == 503 and bool(
                    re.search(rf"nå i \d+ s; søknader tas imot, {2 * count} meldinger venter .* i \d+ s", text)
                )

            await until(told)
        finally:
            await asyncio.to_thread(world.kafka.server.start)
        events = await world.transport(*ids)
        found = await world.records(
            soknad_topic(world.number), lambda found: len({record.key for record in found}) == count + 1
        )
        await process.wait_ready()
        assert queued(world) == 0
    first_seen: dict[str, list[str]] = {}
    for event in events:
        seen = first_seen.setdefault(event.digisos_id, [])
        seen += [event.type] if event.type not in seen else []
    assert set(map(tuple, first_seen.values())) == {("AKSEPTERT", "SENDT")}
    assert {record.key for record in found} == {one.encode() for one in [first, *ids]}


async def test_without_kafka_at_the_start_the_process_waits_and_says_why(world: World) -> None:
    (port,) = free_ports(1)
    world.settings = world.settings.model_copy(update={"bootstrap": f"127.0.0.1:{port}"})
    async with running(world, ready=False) as process:

        async def says_why() -> bool:
            try:
                answer = await process.http.get("/isready")
            except httpx.TransportError:
                return False
            return answer.status_code == 503 and "katalog" in answer.json()["mangler"]

        await until(says_why)
        with pytest.raises(RefusedError, match="ikke sammenlignet med Kafka ennå"):
            await process.send(make_citizen(5, world.number), "for-tidlig")
        assert await process.end(signal.SIGTERM) == 0


async def test_the_command_line_sends_once_however_often_it_is_called(world: World, tmp_path: Path) -> None:
    citizen = make_citizen(6, world.number)
    folder = tmp_path / "soknad"
    folder.mkdir()
    for name, content in ({"soknad.json": citizen.soknad_json} | citizen.content).items():
        (folder / name).write_bytes(content)
    names = [str(path) for path in sorted(folder.iterdir())]

    def call(address: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable, "-m", "broker.cli", "soknad", "send", *names,
            "--kommune", world.number, "--ref", "fra-skallet", "--intake-url", address, "--json",
        ]  # fmt: skip
        environment = os.environ | {"FORMIDLER_TOKEN": world.token(citizen)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    async with running(world) as process:
        answers = [await asyncio.to_thread(call, process.address) for _ in range(2)]
        assert [answer.returncode for answer in answers] == [0, 0], answers
        first, second = [json.loads(answer.stdout) for answer in answers]
        assert (first["duplikat"], second["duplikat"]) == (False, True)
        assert first["digisosId"] == second["digisosId"]
        refused = await asyncio.to_thread(call, "http://127.0.0.1:9")
    assert refused.returncode == 3
