from __future__ import annotations

import os
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI

from broker.tokens import Client
from broker.web import install_fiks_errors
from producers import packages as packages_module
from producers.package_routes import package_router
from producers.packages import Packages
from schemas.errors import PackageDamagedError, PackageMissingError
from schemas.names import DokumentlagerId, Sha256

SIZES = (1_000_000, 3000, 2500)


async def large(world: Any, make_sending: Any) -> tuple[DokumentlagerId, Sha256, Any]:
    await world.post(make_sending(encrypt_for=world.keys.mottak, sizes=SIZES))
    (path,) = world.stored_files()
    return DokumentlagerId(path.stem), Sha256.of(path.read_bytes()), path


async def test_a_whole_package_is_read_once_for_each_state_of_its_file(
    world: Any, make_sending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, sha256, path = await large(world, make_sending)
    packages = Packages(world.dokumentlager)
    reads = 0
    real = packages.digest

    def counted(dokumentlager_id: DokumentlagerId) -> Sha256:
        nonlocal reads
        reads += 1
        return real(dokumentlager_id)

    monkeypatch.setattr(packages, "digest", counted)
    for _ in range(3):
        await packages.check_stored(package, sha256)
    assert reads == 1
    os.utime(path, (1, 1))
    await packages.check_stored(package, sha256)
    assert reads == 2


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
async def test_a_package_that_is_not_what_was_stored_is_told_as_damaged(
    world: Any, make_sending: Any, damage: str
) -> None:
    package, sha256, path = await large(world, make_sending)
    packages = Packages(world.dokumentlager)
    await packages.check_stored(package, sha256)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "changed": whole[:-1] + b"!", "empty": b""}[damage])
    with pytest.raises(PackageDamagedError):
        await packages.check_stored(package, sha256, len(whole))
    with pytest.raises(PackageDamagedError):
        await packages.check_stored(package, sha256)
    path.write_bytes(whole)
    await packages.check_stored(package, sha256)


async def test_a_package_that_is_gone_is_told_as_missing(world: Any, make_sending: Any) -> None:
    package, sha256, path = await large(world, make_sending)
    path.unlink()
    with pytest.raises(PackageMissingError):
        await Packages(world.dokumentlager).check_stored(package, sha256)


@pytest.mark.parametrize("light", [0, 10**9])
async def test_a_package_in_the_outbox_itself_is_looked_at_as_well(
    world: Any, sending: Any, monkeypatch: pytest.MonkeyPatch, light: int
) -> None:
    monkeypatch.setattr(packages_module, "LIGHT_BYTES", light)
    await world.post(sending)
    aksept, soknad = [queued.message for queued in await world.queued()]
    packages = Packages(world.dokumentlager)
    await packages.check(aksept)
    await packages.check(soknad)
    value = bytearray(soknad.outgoing.value)
    value[len(value) // 2] ^= 1
    damaged = type(soknad)(
        **{name: getattr(soknad, name) for name in soknad.__slots__ if name != "outgoing"},
        outgoing=type(soknad.outgoing)(soknad.outgoing.topic, soknad.outgoing.key, bytes(value)),
    )
    with pytest.raises(PackageDamagedError):
        await packages.check(damaged)


async def test_only_so_many_packages_are_remembered(
    world: Any, make_sending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages_module, "REMEMBERED", 1)
    packages = Packages(world.dokumentlager)
    for nr in range(2):
        await world.post(make_sending(seed=nr, encrypt_for=world.keys.mottak, sizes=SIZES), path=f"0301/ref-{nr}")
    for path in world.stored_files():
        await packages.check_stored(DokumentlagerId(path.stem), Sha256.of(path.read_bytes()))
    assert len(packages._whole) == 1


async def test_a_damaged_package_is_not_served_and_the_alarm_goes(world: Any, make_sending: Any) -> None:
    package, _, path = await large(world, make_sending)
    path.write_bytes(path.read_bytes()[:1000])
    app = FastAPI()
    install_fiks_errors(app)
    app.include_router(
        package_router(Connector(), world.katalog, world.outbox, world.dokumentlager, world.producer.packages)  # type: ignore[arg-type]  # tokens that let everybody in
    )
    with structlog.testing.capture_logs() as logs:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://mottak.test") as http:
            damaged = await http.get(f"/dokumentlager/v1/pakker/{package}")
            path.unlink()
            missing = await http.get(f"/dokumentlager/v1/pakker/{package}")
    for answer in (damaged, missing):
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
        assert "skadet" in answer.json()["message"]
    assert [log["log_level"] for log in logs if log["event"] == "package_unusable"] == ["critical"] * 2


class Connector:
    async def client(self, _: object) -> Client:
        return Client("acme-oslo", None)
