from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI

from broker.krav import Krav, sign
from broker.operatorer import Operatorer
from broker.web import FiksError, install_fiks_errors
from producers.forsegling import Forsegler
from producers.omsending import Omsender
from producers.recall import RecallUtvalg, Tilbakekaller
from producers.recall_routes import PREFIX, RecallDrift, recall_router
from schemas.names import Kommunenummer, MeldingId, Organisasjonsnummer, Sha256, Uuid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

AVSENDER = Organisasjonsnummer("889640782")
STRANGER = Organisasjonsnummer("958935420")


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
def operatorer(world: Any, tmp_path: Path) -> Operatorer:
    operatorer = Operatorer(tmp_path / "kontor")
    for name in ("kari", "ola"):
        operatorer.add(name, world.now)
    return operatorer


@pytest.fixture
async def http(world: Any, operatorer: Operatorer) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    install_fiks_errors(app)
    omsender = Omsender(world.kopier, Forsegler(world.katalog, world.kopier, world.clock), world.clock)
    recaller = Tilbakekaller(world.database, omsender, operatorer.load, world.clock, world.outbox.added.set)
    tokens: Any = Tokens()
    app.include_router(recall_router(RecallDrift(tokens, AVSENDER, recaller)))
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
        await http.get(PREFIX, headers=headers),
        await http.post(PREFIX, headers=headers, content=body),
        await http.post(f"{PREFIX}/sok", headers=headers, content=body),
        await http.post(f"{PREFIX}/{melding_id}/godkjenn", headers=headers, content=body),
    ]
    assert [answer.status_code for answer in answers] == [status] * 4


async def test_the_affected_are_listed_with_ids_and_versions_and_no_person(
    http: httpx.AsyncClient, melding_id: MeldingId
) -> None:
    answer = (await http.post(f"{PREFIX}/sok", json={"utvalg": {"kommunenummer": "0301"}})).json()
    (one,) = answer["meldinger"]
    assert answer["antall"] == 1
    assert (one["meldingId"], one["stand"]) == (melding_id, "I_UTBOKSEN")
    assert set(one) == {
        "meldingId", "digisosId", "kommunenummer", "type", "innsendt", "kanal", "avsenderversjon", "skjemaversjon", "stand",
    }  # fmt: skip


async def demanded(
    http: httpx.AsyncClient, operatorer: Operatorer, now: datetime, utvalg: RecallUtvalg, **more: Any
) -> tuple[Krav, str]:
    asked = {"utvalg": utvalg.model_dump(mode="json", by_alias=True)}
    found = (await http.post(f"{PREFIX}/sok", json=asked)).json()
    kari = operatorer.choose("kari", now)
    signed = json.loads(utvalg.model_copy(update={"til_nr": found["tilNr"]}).to_json())
    krav = Krav(
        aktor=kari.aktor,
        tidspunkt=now,
        id=Uuid.new(),
        handling="trekk",
        utvalg=json.dumps(signed | more),
        digest=Sha256(found["digest"]),
        antall=1,
        begrunnelse="feil",
    )
    return krav, sign(krav, kari)


@pytest.mark.parametrize(
    "body",
    [
        {"utvalg": {"komunenummer": "0301"}},
        {"utvalg": {"kommunenummer": "0301", "avsenderVersjon": "2"}},
        {"utvalgg": {"kommunenummer": "0301"}},
    ],
)
async def test_a_misspelt_field_is_refused_and_does_not_select_everything(
    http: httpx.AsyncClient, melding_id: MeldingId, body: dict[str, Any]
) -> None:
    answer = await http.post(f"{PREFIX}/sok", json=body)
    assert (answer.status_code, melding_id in answer.text) == (400, False)


async def test_nothing_is_done_to_a_selection_that_is_empty_or_has_a_misspelt_field(
    http: httpx.AsyncClient, world: Any, operatorer: Operatorer, melding_id: MeldingId
) -> None:
    for utvalg, more in ((RecallUtvalg(), {}), (RecallUtvalg(), {"meldinger": []}), (RecallUtvalg(), {"komune": "1"})):
        _, token = await demanded(http, operatorer, world.now, utvalg, **more)
        answer = await http.post(PREFIX, json={"jws": token})
        assert (answer.status_code, answer.json()["errorCode"]) == (400, "styring.utvalg")
    assert (await http.post(PREFIX, json={"jws": "x", "jwt": "y"})).status_code == 400
    assert (await http.get(PREFIX)).json() == {"tilbakekallinger": []}
    (one,) = (await http.post(f"{PREFIX}/sok", json={})).json()["meldinger"]
    assert (one["meldingId"], one["stand"]) == (melding_id, "I_UTBOKSEN")


async def test_a_signed_demand_is_carried_out_and_listed_with_its_proof(
    http: httpx.AsyncClient, world: Any, operatorer: Operatorer, melding_id: MeldingId
) -> None:
    krav, token = await demanded(http, operatorer, world.now, RecallUtvalg(kommunenummer=Kommunenummer("0301")))
    answer = await http.post(PREFIX, json={"jws": token})
    assert answer.json() == {"id": krav.id, "tilstand": "UTFORT", "antall": {"TRUKKET": 1}, "forSent": [], "endret": []}
    (listed,) = (await http.get(PREFIX)).json()["tilbakekallinger"]
    assert (listed["id"], listed["tilstand"], listed["krav"]) == (krav.id, "UTFORT", token)
    assert melding_id


async def test_what_is_refused_says_why_with_a_code(http: httpx.AsyncClient) -> None:
    answer = await http.post(PREFIX, json={"jws": "a.b.c"})
    assert (answer.status_code, answer.json()["errorCode"]) == (409, "styring.godkjenning")
    answer = await http.post(f"{PREFIX}/{Uuid.new()}/godkjenn", json={"jws": "a.b.c"})
    assert answer.status_code == 409
    assert (await http.post(PREFIX, json={})).status_code == 400
    assert (await http.post(f"{PREFIX}/sok", json={"utvalg": {"kommunenummer": "x"}})).status_code == 400
