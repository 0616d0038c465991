from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI

from broker.web import FiksError, install_fiks_errors
from producers.forsegling import Forsegler
from producers.kopi_routes import KopiDrift, kopi_router
from producers.omsending import Omsender
from schemas.names import MeldingId, Organisasjonsnummer, Uuid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AVSENDER = Organisasjonsnummer("889640782")
STRANGER = Organisasjonsnummer("958935420")
PATH = "/drift/v1/avsenderkopier"
RUN = "5a0e6f5c-6f6b-4c55-9a3b-0d6c3c2f4f11"


@dataclass(frozen=True)
class Caller:
    client_id: str
    organisasjonsnummer: Organisasjonsnummer


class Tokens:
    """Takes the word of whoever calls."""

    async def client(self, authorization: str | None) -> Caller:
        match authorization:
            case "Bearer avsender":
                return Caller("driften", AVSENDER)
            case "Bearer fremmed":
                return Caller("leverandor", STRANGER)
            case _:
                raise FiksError(401, "uten gyldig token")


@pytest.fixture
async def http(world: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    install_fiks_errors(app)
    omsender = Omsender(world.kopier, Forsegler(world.katalog, world.kopier, world.clock), world.clock)
    tokens: Any = Tokens()
    app.include_router(kopi_router(KopiDrift(tokens, AVSENDER, world.kopier, omsender)))
    headers = {"Authorization": "Bearer avsender"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="https://drift.test", headers=headers
    ) as client:
        yield client


@pytest.fixture
async def melding_id(world: Any, sending: Any) -> MeldingId:
    await world.post(sending)
    (kopi,) = await world.kopier.alive()
    return MeldingId(kopi.melding_id)


@pytest.mark.parametrize(("token", "status"), [("", 401), ("Bearer fremmed", 403)])
async def test_nobody_but_the_senders_own_machines_is_let_in(
    http: httpx.AsyncClient, melding_id: MeldingId, token: str, status: int
) -> None:
    headers = {"Authorization": token}
    body = b"\x00 not even JSON"
    answers = [
        await http.get(PATH, headers=headers),
        await http.get(f"{PATH}/{melding_id}", headers=headers),
        await http.post(f"{PATH}/send", headers=headers, content=body),
        await http.post(f"{PATH}/forsegl", headers=headers, content=body),
    ]
    assert [answer.status_code for answer in answers] == [status] * 4


async def test_copies_are_listed_in_pages(world: Any, http: httpx.AsyncClient, make_sending: Any) -> None:
    for nr in range(3):
        await world.post(make_sending(seed=nr, encrypt_for=world.keys.mottak), path=f"0301/ref-{nr}")
    first = (await http.get(PATH, params={"antall": 2})).json()
    second = (await http.get(PATH, params={"antall": 2, "etter": first["etter"]})).json()
    other = (await http.get(PATH, params={"kommunenummer": "4601"})).json()

    assert (first["antall"], len(first["kopier"]), len(second["kopier"])) == (3, 2, 1)
    assert [kopi["navEksternRefId"] for kopi in first["kopier"] + second["kopier"]] == ["ref-0", "ref-1", "ref-2"]
    assert other == {"antall": 0, "etter": 0, "kopier": []}


async def test_the_proof_of_a_destroyed_copy_names_its_kvittering(
    world: Any, http: httpx.AsyncClient, melding_id: MeldingId
) -> None:
    before = (await http.get(f"{PATH}/{melding_id}")).json()
    kvittering_id = Uuid.new()
    await world.kopier.destroy(melding_id, now=world.now, kvittering_id=kvittering_id)
    after = (await http.get(f"{PATH}/{melding_id}")).json()

    assert (before["destruert"], before["kvitteringId"]) == (None, None)
    assert before["forseglinger"] == [before["sha256"]]
    assert (after["destruert"], after["kvitteringId"]) == ("2026-11-23T12:00:00.000Z", kvittering_id)
    assert (await http.get(f"{PATH}/{MeldingId.new()}")).status_code == 404


async def test_a_step_says_what_it_did_and_where_the_next_begins(
    world: Any, http: httpx.AsyncClient, melding_id: MeldingId
) -> None:
    await world.database.write(lambda connection: connection.execute("DELETE FROM utboks"))
    step = (await http.post(f"{PATH}/send", json={"omgang": RUN, "begrunnelse": "prøve"})).json()
    last = (await http.post(f"{PATH}/send", json={"omgang": RUN, "etter": step["etter"]})).json()

    assert (step["sendt"], step["hoppetOver"], step["ferdig"]) == (1, {}, False)
    assert (last["sendt"], last["ferdig"]) == (0, True)
    assert {one.message.melding_id for one in await world.queued() if one.message.type == "SOKNAD"} == {melding_id}


async def test_an_order_for_others_meldinger_does_nothing(
    world: Any, http: httpx.AsyncClient, melding_id: MeldingId
) -> None:
    await world.database.write(lambda connection: connection.execute("DELETE FROM utboks"))
    for choice in ({"kommunenummer": "4601"}, {"meldinger": [str(MeldingId.new())]}):
        assert (await http.post(f"{PATH}/send", json={"omgang": RUN, **choice})).json()["ferdig"]
    assert await world.queued() == []
    assert (await http.post(f"{PATH}/forsegl", json={"omgang": RUN})).json()["hoppetOver"] == {"riktig-sertifikat": 1}
    assert melding_id


@pytest.mark.parametrize(
    "body", [b"", b"tull", b"{}", b'{"omgang": "x"}', b'{"omgang": "%s", "antall": 0}' % RUN.encode()]
)
async def test_an_order_that_is_none_is_refused_without_its_values(http: httpx.AsyncClient, body: bytes) -> None:
    answer = await http.post(f"{PATH}/send", content=body)
    assert answer.status_code == 400
    assert "ugyldig eller manglende felt" in answer.json()["message"]
