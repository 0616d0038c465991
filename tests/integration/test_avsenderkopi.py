"""What the sender's own copies are for, with real processes: a Kafka that is lost, and keys that change."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from broker.cli.calling import sender_token
from broker.register import made_up_organisasjonsnummer
from broker.supervisor.bootstrap import bootstrap, choose_connectors
from broker.supervisor.layout import Layout
from broker.supervisor.up import Running, running
from consumers.dedup import DedupStore
from crypto import Authority, certificate_pem, write_private_key
from producers.demo.plan import PlannedSoknad, plan_day
from producers.demo.portal import Portal
from producers.drift_client import drift_client
from producers.kopi_routes import PREFIX
from producers.status_client import SenderStatusClient
from schemas.errors import RefusedError
from schemas.names import DigisosId, Kommunenummer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]  # each starts a whole set-up, the first one twice

KOMMUNER = tuple(Kommunenummer(number) for number in ("4641", "1811", "5612"))
AURLAND = KOMMUNER[0]
CONNECTORS = frozenset({"konnektor-fjordsak", "konnektor-arkivmappe"})
WITHIN_S = 90.0
RECEIVED = {"MOTTATT", "UNDER_BEHANDLING", "FERDIGBEHANDLET", "BEHANDLES_IKKE"}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return bootstrap(tmp_path / "data", choose_connectors(KOMMUNER), datetime.now(UTC))


async def formidler(layout: Layout, *arguments: str) -> Any:
    """Run a command on the set-up and return what it prints as JSON."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "broker.cli", *arguments, "--json", "--data", str(layout.folder),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(out) if out.strip() else None


async def send(layout: Layout, *soknader: PlannedSoknad) -> list[DigisosId]:
    async with httpx.AsyncClient(timeout=30) as http:
        portal = Portal.of(layout, http)
        return [(await portal.send(each, await portal.public_key(each.person))).digisos_id for each in soknader]


async def until(what: str, condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not await condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.1)


async def health(layout: Layout, name: str) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=5) as http:
        try:
            document: dict[str, Any] = (await http.get(f"{layout.address(name)}/isready")).json()
        except httpx.TransportError:
            return {"klar": False, "mangler": {}}
    return document


async def has_left(layout: Layout) -> bool:
    async with drift_client(layout.folder) as client:
        return bool((await client.get("/drift/v1/utboks"))["venter"] == 0)


async def copies(layout: Layout) -> dict[str, dict[str, Any]]:
    async with drift_client(layout.folder) as client:
        return {kopi["digisosId"]: kopi for kopi in (await client.get(PREFIX))["kopier"]}


async def received(layout: Layout, *ids: DigisosId) -> bool:
    """Whether the status of each is that its fagsystem has it, and its copy is destroyed."""
    async with httpx.AsyncClient(timeout=30) as http:
        client = SenderStatusClient(layout.address("kvittering"), http, await sender_token(http, layout))
        for digisos_id in ids:
            with suppress(RefusedError):  # it learns of it over Kafka
                if (await client.get(digisos_id))["status"] in RECEIVED:
                    continue
            return False
    return not (await copies(layout)).keys() & set(ids)


def deliveries(layout: Layout) -> list[str]:
    """Every delivery of a fagsystem, as the søknad's id."""
    folders = [*layout.fagsystem.glob("http/*/soknader/*"), *layout.fagsystem.glob("mapper/*/arkiv/*")]
    found = []
    for folder in folders:
        with suppress(FileNotFoundError, NotADirectoryError):
            found.append(json.loads((folder / "leveranse.json").read_bytes())["digisosId"])
    return found


async def test_a_lost_kafka_is_filled_again_from_the_copies_and_nothing_is_delivered_twice(layout: Layout) -> None:
    soknader = plan_day(3, 8, KOMMUNER, datetime.now(UTC)).soknader
    async with running(layout, external=None, report=lambda _: None) as up:
        before = await send(layout, *soknader[:2])
        await until("the first ones were not received", lambda: received(layout, *before))
        for name in CONNECTORS:
            await up.stop(name)
        lost = await send(layout, *soknader[2:5])
        await until("the others did not leave", lambda: has_left(layout))
        assert (await copies(layout)).keys() == set(lost)

    shutil.rmtree(layout.folder / "kafka")
    layout = Layout.load(layout.folder)
    async with running(
        layout, external=None, report=lambda _: None, leave_out=CONNECTORS | {"producers", "kvittering"}
    ) as up:
        await take_over_new_topics(layout, up)
        dry = await formidler(layout, "avsenderkopi", "send", "--alle-ikke-mottatt", "--torr")
        sent = await formidler(layout, "avsenderkopi", "send", "--alle-ikke-mottatt", "--begrunnelse", "Kafka er tapt")
        assert (dry["sendt"], sent["sendt"]) == (3, 3)
        await until("what was lost was not received", lambda: received(layout, *lost))
        again = await formidler(layout, "avsenderkopi", "send", "--alle-ikke-mottatt")

    assert again["sendt"] == 0
    assert sorted(deliveries(layout)) == sorted([*before, *lost])


async def take_over_new_topics(layout: Layout, up: Running) -> None:
    """Do what the runbook says after a lost Kafka."""
    starting = asyncio.create_task(up.start_named("producers"))

    async def accepted() -> bool:
        with suppress(httpx.TransportError):
            async with drift_client(layout.folder) as client:  # as `formidler utboks godta-emne` does
                for topic in ("fiks.transport.v1", *(f"fiks.{number}.soknad.v1" for number in KOMMUNER)):
                    await client.post(f"/drift/v1/utboks/emner/{topic}/godta", {})
            return True
        return False

    await until("the producers' topics were not taken over", accepted)
    await starting

    stopped = asyncio.create_task(up.start_named("kvittering"))

    async def told() -> bool:
        return "godta-emner" in str((await health(layout, "kvittering"))["mangler"])

    await until("kvittering did not see that its topics are new", told)
    stopped.cancel()
    await asyncio.wait([stopped])
    await up.stop("kvittering")
    await formidler(layout, "status", "godta-emner")
    await up.start_named("kvittering")

    for name, connector in layout.setup.konnektorer.items():
        async with DedupStore(
            layout.database(f"konnektor-{name}")
        ) as store:  # as `formidler connector godta-emne` does
            for number in connector.kommuner:
                assert await store.forget_topic(f"fiks.{number}.soknad.v1")
                assert await store.forget_topic(f"fiks.{number}.kvittering.v1")
        await up.start_named(f"konnektor-{name}")


class Kommune:
    """A kommune whose certificates are changed in the katalog file and in its connector's settings."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.files: list[Any] = [f"nokler/kommune-{AURLAND}.pem"]
        self.authority = Authority.create(datetime.now(UTC), "Kommunens nye CA")

    def issue(self, name: str) -> None:
        certificate, key = self.authority.issue(
            "Aurland", made_up_organisasjonsnummer(4641), purpose="kryptering", now=datetime.now(UTC), key="rsa2048"
        )
        write_private_key(self.layout.key(name), key)
        self.layout.certificate(name).write_bytes(certificate_pem(certificate))
        self.files.append(f"nokler/{name}.pem")

    def revoke(self, index: int) -> None:
        self.files[index] = {"fil": self.files[index], "tilbakekalt": datetime.now(UTC).isoformat()}

    def write(self) -> None:
        document = yaml.safe_load(self.layout.katalog.read_text("utf-8"))
        for entry in document["kommuner"]:
            if entry["kommunenummer"] == AURLAND:
                entry["krypteringssertifikater"] = self.files
        new = self.layout.katalog.with_suffix(".ny")
        new.write_text(yaml.safe_dump(document, allow_unicode=True), "utf-8")
        new.replace(self.layout.katalog)

    def give_connector(self, *names: str) -> None:
        path = self.layout.connector_config("fjordsak")
        document = yaml.safe_load(path.read_text("utf-8"))
        for entry in document["kommuner"]:
            if entry["kommunenummer"] == AURLAND:
                pairs = [(self.layout.key(name), self.layout.certificate(name)) for name in names]
                entry["nokler"] = [str(path) for pair in pairs for path in pair]
        path.write_text(yaml.safe_dump(document, allow_unicode=True), "utf-8")


async def test_a_kommunes_keys_change_while_soknader_are_under_way(layout: Layout) -> None:
    kommune = Kommune(layout)
    soknader = [each for each in plan_day(3, 40, KOMMUNER, datetime.now(UTC)).soknader if each.kommunenummer == AURLAND]
    async with running(layout, external=None, report=lambda _: None) as up:
        # With overlap: what is sealed for the former certificate opens beside what is sealed for the new one.
        await up.stop("konnektor-fjordsak")
        old = await send(layout, soknader[0])
        await until("the first one did not leave", lambda: has_left(layout))
        kommune.issue("ny")
        kommune.write()

        async def sealed_for_new() -> bool:
            new = await send(layout, soknader.pop())
            known = await copies(layout)
            return bool(known[new[0]]["nokkelId"] != known[old[0]]["nokkelId"])

        await until("nothing was sealed for the new certificate", sealed_for_new)
        kommune.give_connector("kommune-4641", "ny")
        await up.start_named("konnektor-fjordsak")
        await until("a søknad of the overlap was not received", lambda: received(layout, *old))

        # A revoked one and no other: taken in, held, and sealed for the next when it comes.
        kommune.revoke(0)
        kommune.revoke(1)
        kommune.write()

        async def alarmed() -> bool:
            return "4641 (tilbakekalt)" in str((await health(layout, "producers")).get("merknader"))

        await until("nobody was told that the kommune has no certificate", alarmed)
        held = await send(layout, soknader.pop(), soknader.pop())
        assert set(held) <= (await copies(layout)).keys()
        kommune.issue("tredje")
        kommune.give_connector("tredje")
        await up.stop("konnektor-fjordsak")
        kommune.write()
        await up.start_named("konnektor-fjordsak")
        await until("what was held was not received", lambda: received(layout, *held))

        # A lost key: what lies on the topic opens for nobody, and one command seals it anew.
        await up.stop("konnektor-fjordsak")
        sent = await send(layout, soknader.pop(), soknader.pop())
        await until("they did not leave", lambda: has_left(layout))
        kommune.issue("fjerde")
        kommune.revoke(2)
        kommune.write()
        kommune.give_connector("fjerde")
        await up.start_named("konnektor-fjordsak")

        async def resealed() -> bool:
            result = await formidler(layout, "avsenderkopi", "forsegl", "--kommune", AURLAND)
            return bool(result["sendt"] == len(sent))

        await until("the katalog did not get there", resealed)
        await until("what was sealed anew was not received", lambda: received(layout, *sent))

    delivered = deliveries(layout)
    assert {*old, *held, *sent} <= set(delivered)
    assert len(delivered) == len(set(delivered))
