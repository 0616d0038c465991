"""``python -m producers`` and what goes wrong around it: full disks, damaged files, old backups, topics that are others."""

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
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from patience import until
from producers_world import (  # fixtures among them
    Process,
    World,
    authority,
    issuer,
    know_the_topic,
    make_citizen,
    running,
    world,
)

from broker.routing import kommune_topics, soknad_topic
from schemas.codec import decode
from schemas.errors import RefusedError
from schemas.records import SoknadRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kafka

__all__ = ["authority", "issuer", "world"]


async def ready_state(process: Process) -> dict[str, str]:
    """Return what ``/isready`` says is wrong."""
    document = (await process.http.get("/isready")).json()
    return document["mangler"] | document.get("merknader", {})


async def formidler(world: World, process: Process, *arguments: str) -> dict[str, Any]:
    """Run a command as the sender's own machine; return its JSON."""
    command = [sys.executable, "-m", "broker.cli", *arguments, "--intake-url", process.address, "--json"]
    environment = os.environ | {"FORMIDLER_TOKEN": world.machine_token()}
    ran = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode in {0, 1}, ran.stderr
    document: dict[str, Any] = json.loads(ran.stdout) | {"exit": ran.returncode}
    return document


def rows(world: World) -> int:
    with closing(sqlite3.connect(world.environment["FORMIDLER_PRODUCERS_DATABASE"])) as database:
        return int(database.execute("SELECT count(*) FROM innsending").fetchone()[0])


def files(world: World) -> set[str]:
    return {path.name for path in Path(world.environment["FORMIDLER_PRODUCERS_DOKUMENTLAGER"]).iterdir()}


async def test_a_database_from_a_backup_takes_nothing_in_before_it_knows_again_what_was_accepted(world: World) -> None:
    place = Path(world.environment["FORMIDLER_PRODUCERS_DATABASE"])
    backup = world.folder / "sikkerhetskopi.sqlite"
    old, small, large = (
        make_citizen(nr, world.number, pdf_bytes=size) for nr, size in ((1, 4000), (2, 4000), (3, 10**6))
    )
    async with running(world) as process:
        ids = {"gammel": await process.send(old, "gammel")}
        await world.transport(*ids.values())
        assert await process.end(signal.SIGTERM) == 0
    shutil.copy(place, backup)
    async with running(world) as process:
        ids |= {"liten": await process.send(small, "liten"), "stor": await process.send(large, "stor")}
        await world.transport(*ids.values())
        assert await process.end(signal.SIGTERM) == 0
    for path in place.parent.glob(f"{place.name}*"):
        path.unlink()
    shutil.copy(backup, place)

    async with running(world, ready=False) as process:

        async def refuses() -> bool:
            try:
                return "formidler utboks gjenopprett" in (await ready_state(process)).get("register", "")
            except httpx.TransportError:  # not listening yet
                return False

        await until(refuses)
        for citizen, ref in ((small, "liten"), (make_citizen(9, world.number), "ny")):
            with pytest.raises(RefusedError, match="eldre enn") as refused:
                await process.send(citizen, ref)
            assert refused.value.status == 503
        stood = await formidler(world, process, "utboks", "vis")
        assert (stood["exit"], "register" in stood["mangler"]) == (1, True)
        found = await formidler(world, process, "utboks", "gjenopprett")
        assert {name: found[name] for name in ("exit", "restored", "packages", "conflicts", "done")} == {
            "exit": 0, "restored": 2, "packages": 1, "conflicts": 0, "done": True,
        }  # fmt: skip
        await process.wait_ready()
        again = {ref: await process.send(one, ref) for one, ref in ((old, "gammel"), (small, "liten"), (large, "stor"))}
        assert again == ids
        ids["ny"] = await process.send(make_citizen(9, world.number), "ny")
        await world.transport(*ids.values())
        records = await world.records(
            soknad_topic(world.number), lambda found: len({record.key for record in found}) == 4
        )
        big = next(one for record in records if (one := decode(SoknadRecord, record.value)).dokumentlager_id)
        owner = {"Authorization": f"Bearer {await world.connector_token(process.http)}"}
        answer = await process.http.get(f"/dokumentlager/v1/pakker/{big.dokumentlager_id}", headers=owner)
        assert (answer.status_code, len(answer.content)) == (200, big.storrelse)


@pytest.mark.parametrize("change", ["laget-pa-nytt", "annet-antall-partisjoner"])
async def test_a_soknad_topic_that_is_another_holds_its_kommune_until_a_person_lets_it_go(
    world: World, change: str
) -> None:
    topic = soknad_topic(world.number)
    async with running(world) as process:
        first = await process.send(make_citizen(1, world.number), "foer")
        await world.transport(first)
        assert await process.end(signal.SIGTERM) == 0
    await world.kafka.admin.delete_topics([topic])
    partitions = 3 if change == "annet-antall-partisjoner" else 2
    await world.kafka.admin.ensure_topics(
        [one for one in kommune_topics(world.number, partitions) if one.name == topic]
    )
    async with running(world) as process:

        async def closed() -> bool:
            return topic in (await ready_state(process)).get("emner", "")

        await until(closed)
        second = await process.send(make_citizen(2, world.number), "etter")
        await world.transport(second, until="AKSEPTERT")
        stood = await formidler(world, process, "utboks", "vis")
        assert [one["dom"] for one in stood["emner"] if one["emne"] == topic] == ["laget-pa-nytt"]
        assert stood["venter"] == 1
        accepted = await formidler(world, process, "utboks", "godta-emne", topic)
        if change == "laget-pa-nytt":
            assert (accepted["dom"], accepted["exit"]) == ("nytt", 0)
            events = await world.transport(second)
            assert [one.type for one in events] == ["AKSEPTERT", "SENDT"]
        else:  # the katalog says two: that is for a person to put right first
            assert (accepted["dom"], accepted["exit"]) == ("annet-antall-partisjoner", 1)
            assert "3 partisjoner, ikke 2" in (await ready_state(process))["emner"]


async def test_a_damaged_package_is_held_and_goes_when_its_bytes_are_right_again(world: World) -> None:
    kafka_pid = world.kafka.server.pid
    async with running(world) as process:
        os.kill(kafka_pid, signal.SIGSTOP)
        try:
            damaged = await process.send(make_citizen(1, world.number, pdf_bytes=10**6), "stor")
            well = await process.send(make_citizen(2, world.number), "liten")
            (package,) = (world.folder / "dokumentlager").glob("*.cms")
            whole = package.read_bytes()
            os.truncate(package, len(whole) // 2)
        finally:
            os.kill(kafka_pid, signal.SIGCONT)
        await world.transport(well)

        async def told() -> bool:
            return "skadet" in (await ready_state(process)).get("meldinger", "")

        await until(told)
        records = await world.records(soknad_topic(world.number), lambda found: len(found) == 1)
        assert [record.key for record in records] == [well.encode()]
        package.write_bytes(whole)
        await world.transport(damaged)
    assert '"package_unusable"' in process.log.read_text()


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """A file system of its own, with so much room."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("ingen rett til å montere et filsystem her")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("pdf_bytes", [4000, 1_500_000], ids=["liten", "stor"])
async def test_a_full_disk_is_told_as_507_keeps_nothing_and_is_over_when_there_is_room(
    world: World, tmp_path: Path, pdf_bytes: int
) -> None:
    with small_disk(tmp_path / "disk", 6) as disk:
        world.environment |= {
            "FORMIDLER_PRODUCERS_DATABASE": str(disk / "producers.sqlite"),
            "FORMIDLER_PRODUCERS_DOKUMENTLAGER": str(disk / "dokumentlager"),
        }
        await know_the_topic(world.kafka, disk / "producers.sqlite")
        async with running(world) as process:
            first = await process.send(make_citizen(1, world.number), "foer")
            await world.transport(first)
            fill(disk / "fyll")
            before = (rows(world), files(world))
            for nr in range(3):
                with pytest.raises(RefusedError, match="behold utkastet og send på nytt") as refused:
                    await process.send(make_citizen(nr + 2, world.number, pdf_bytes), f"full-{nr}")
                assert refused.value.status == 507
            assert (rows(world), files(world)) == before
            assert (await process.http.get("/isalive")).status_code == 200
            answer = await process.http.get("/metrics")
            refusals = re.findall(
                r'fiks_soknader_refused_total\{reason="lager.fullt",status="507"\} ([0-9.]+)', answer.text
            )
            assert refusals == ["3.0"]
            (disk / "fyll").unlink()
            ids = [await process.send(make_citizen(nr + 2, world.number, pdf_bytes), f"full-{nr}") for nr in range(3)]
            await world.transport(first, *ids)
            await process.wait_ready()


def fill(path: Path) -> None:
    """Take all the room that there is."""
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
