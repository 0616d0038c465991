from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI

from broker.tokens import Client
from broker.topic_identity import TopicIdentity, Verdict
from broker.web import install_fiks_errors
from producers.drift_routes import PREFIX, Drift, drift_router
from producers.gjenoppretting import Progress
from producers.topic_watch import TopicWatch
from schemas.codec import decode
from schemas.errors import BrokerUnavailableError
from schemas.names import Organisasjonsnummer
from schemas.records import RevisjonRecord

AVSENDER = Organisasjonsnummer("889640782")
TRANSPORT = "fiks.transport.v1"


class Tokens:
    organisation = AVSENDER

    async def client(self, _: object) -> Client:
        return Client("maskin", self.organisation)


class Cluster:
    async def seen(self, topics: Any) -> dict[str, TopicIdentity]:
        there = {TRANSPORT: TopicIdentity("t", 4), "fiks.0301.soknad.v1": TopicIdentity("s", 2)}
        return {name: there[name] for name in topics if name in there}


class Register:
    forgotten = 0
    fails = False

    def __init__(self, database: Any) -> None:
        self._database = database

    async def forget(self, also: Any) -> None:
        self.forgotten += 1
        await self._database.write(also)

    async def restore(self, _: object, __: object) -> Any:
        yield Progress(read=1)
        if self.fails:
            raise BrokerUnavailableError("Kafka svarer ikke")
        yield Progress(read=1, restored=1, done=True)


class Guards:
    def __init__(self, world: Any) -> None:
        self.topics = TopicWatch(world.database, Cluster(), world.katalog, lambda: None)
        self.register = Register(world.database)


@pytest.fixture
def guards(world: Any) -> Guards:
    return Guards(world)


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
def http(world: Any, guards: Any, tokens: Any) -> httpx.AsyncClient:
    app = FastAPI()
    install_fiks_errors(app)
    drift = Drift(tokens, AVSENDER, world.outbox, world.producer.packages, guards, world.health, world.clock)
    app.include_router(drift_router(drift))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://mottak.test")


@pytest.mark.parametrize("call", [("GET", ""), ("POST", "/gjenopprett"), ("POST", f"/emner/{TRANSPORT}/godta")])
async def test_only_the_senders_own_machines_get_in(
    http: httpx.AsyncClient, tokens: Tokens, call: tuple[str, str]
) -> None:
    tokens.organisation = Organisasjonsnummer("958935420")
    method, path = call
    assert (await http.request(method, f"{PREFIX}{path}")).status_code == 403


async def test_it_tells_what_waits_what_is_wrong_and_how_topics_are(
    http: httpx.AsyncClient, world: Any, sending: Any, guards: Guards
) -> None:
    await world.post(sending)
    world.health.add_check("kafka", lambda: "borte")
    world.health.add_notice("meldinger", lambda: "ett emne")
    await guards.topics.look()
    found = (await http.get(PREFIX)).json()
    assert found["venter"] == 2
    assert found["eldste"] is not None
    assert found["mangler"] == {"kafka": "borte", "meldinger": "ett emne"}
    assert {one["emne"]: one["dom"] for one in found["emner"]} == {TRANSPORT: "nytt", "fiks.0301.soknad.v1": "nytt"}


async def test_reading_back_is_told_step_by_step(http: httpx.AsyncClient, guards: Guards) -> None:
    lines = [orjson.loads(line) for line in (await http.post(f"{PREFIX}/gjenopprett")).text.splitlines()]
    assert [line["done"] for line in lines] == [False, True]
    guards.register.fails = True
    lines = [orjson.loads(line) for line in (await http.post(f"{PREFIX}/gjenopprett")).text.splitlines()]
    assert lines[-1] == {"kode": "transport.megler-utilgjengelig", "feil": "Kafka svarer ikke"}


async def acts(world: Any) -> list[RevisjonRecord]:
    return [
        decode(RevisjonRecord, one.message.outgoing.value)
        for one in await world.queued()
        if one.message.type == "REVISJON"
    ]


@pytest.mark.parametrize("topic", ["fiks.0301.soknad.v1", TRANSPORT])
async def test_that_a_topic_was_accepted_stands_in_the_revisjon(
    http: httpx.AsyncClient, world: Any, topic: str
) -> None:
    assert (
        await http.post(f"{PREFIX}/emner/{topic}/godta", json={"begrunnelse": "Kafka gikk tapt"})
    ).status_code == 200
    (act,) = await acts(world)
    assert (act.handling, act.objekt, act.begrunnelse) == ("utboks.emne-godtatt", topic, "Kafka gikk tapt")
    assert act.detaljer == {"klient": "maskin"}


async def test_that_references_were_read_back_stands_in_the_revisjon_before_and_after(
    http: httpx.AsyncClient, world: Any, guards: Guards
) -> None:
    guards.register.fails = True
    await http.post(f"{PREFIX}/gjenopprett")
    (begun,) = await acts(world)
    assert (begun.handling, begun.begrunnelse) == ("utboks.gjenoppretting-begynt", None)
    guards.register.fails = False
    await http.post(f"{PREFIX}/gjenopprett", json={"begrunnelse": "kopi fra i natt"})
    _, again, done = await acts(world)
    assert (again.begrunnelse, done.handling, done.objekt) == (
        "kopi fra i natt",
        "utboks.gjenopprettet",
        again.objekt,
    )
    assert done.detaljer == {"klient": "maskin", "lest": "1", "gjenopprettet": "1", "konflikter": "0", "pakker": "0"}


@pytest.mark.parametrize("path", ["/gjenopprett", "/emner/fiks.0301.soknad.v1/godta"])
async def test_a_reason_that_may_not_stand_in_the_revisjon_is_refused_and_nothing_is_done(
    http: httpx.AsyncClient, world: Any, guards: Guards, path: str
) -> None:
    for body in ({"begrunnelse": "ring 010203 12345"}, {"begrunnelse": 7}, {"begrunnelse": "x" * 501}):
        assert (await http.post(f"{PREFIX}{path}", json=body)).status_code == 400
    assert await acts(world) == []
    assert guards.topics.verdicts() == {}


async def test_a_topic_of_ours_is_accepted_and_no_other(http: httpx.AsyncClient, guards: Guards) -> None:
    accepted = await http.post(f"{PREFIX}/emner/fiks.0301.soknad.v1/godta")
    assert accepted.json() == {"emne": "fiks.0301.soknad.v1", "dom": Verdict.NEW.value}
    assert guards.register.forgotten == 0
    assert (await http.post(f"{PREFIX}/emner/{TRANSPORT}/godta")).status_code == 200
    assert guards.register.forgotten == 1
    for topic in ("fiks.0301.kvittering.v1", "fiks.katalog.v1", "noe"):
        assert (await http.post(f"{PREFIX}/emner/{topic}/godta")).status_code == 400
