from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from broker.issuer import LocalIssuer
from broker.katalog import Katalog
from broker.tokens import StaticJwks, TokenVerifier
from broker.web import Health
from crypto.certificates import certificate_pem
from kvittering.app import FORBIDDEN, Innsyn, create_app
from kvittering.hub import MAX_STREAMS_EACH, Hub
from kvittering.store import StatusStore
from kvittering.verification import verify_chain
from schemas.names import DigisosId, Organisasjonsnummer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAV = Organisasjonsnummer("889640782")
EIER_KEY = b"k" * 32
PATH = "/innsyn/v1/soknader"


class Door:
    """The application over a store that tests fill, called in memory."""

    def __init__(self, kit: Any, store: StatusStore, oslo: Any) -> None:
        self.kit, self.store, self.hub, self.health, self.log = kit, store, Hub(), Health(), kit.log()
        self.oslo = oslo
        self.issuer = LocalIssuer(
            "http://utsteder", "meg", generate_private_key(SECP256R1()), Katalog(), lambda: kit.now
        )
        tokens = TokenVerifier("http://utsteder", "meg", StaticJwks(self.issuer.jwks()), lambda: kit.now)
        katalog = Katalog([oslo.entry()])
        innsyn = Innsyn(store, self.hub, tokens, EIER_KEY, katalog, frozenset([NAV]))
        transport = httpx.ASGITransport(create_app(innsyn, self.health))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://kvittering")

    async def take(self, *facts: Any) -> None:
        for fact in facts:
            put = self.log.kvittering if hasattr(fact, "jws") else self.log.transport
            await self.store.apply([self.kit.read(put(fact), self.oslo)], self.kit.now)

    def citizen(self, soknad: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.issuer.citizen_token(soknad.fodselsnummer)}"}

    def machine(self, organisation: str | None = NAV, scope: str = "ks:fiks") -> dict[str, str]:
        claims: dict[str, Any] = {"client_id": "klient", "scope": scope}
        if organisation:
            claims["consumer"] = {"authority": "iso6523-actorid-upis", "ID": f"0192:{organisation}"}
        return {"Authorization": f"Bearer {self.issuer._sign(claims)}"}


@pytest.fixture
async def door(kit: Any, oslo: Any, tmp_path: Path) -> AsyncIterator[Door]:
    async with StatusStore(tmp_path / "k.sqlite") as store:
        made = Door(kit, store, oslo)
        async with made.http:
            yield made


async def test_a_citizen_sees_status_history_and_kvitteringer(door: Door, kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    ledd = oslo.issue(soknad)
    await door.take(soknad.transport("AKSEPTERT"), soknad.transport("SENDT", 1), ledd)
    answer = await door.http.get(f"{PATH}/{soknad.digisos_id}", headers=door.citizen(soknad))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "digisosId": soknad.digisos_id,
        "kommunenummer": "0301",
        "navEksternRefId": "ref-1",
        "status": "MOTTATT",
        "oppdatert": "2026-11-23T12:00:10.000Z",
        "historikk": [
            {
                "tidspunkt": "2026-11-23T12:00:00.000Z",
                "type": "transport",
                "verdi": "AKSEPTERT",
                "kanal": "KAFKA",
                "meldingId": soknad.melding_id,
            },
            {
                "tidspunkt": "2026-11-23T12:00:01.000Z",
                "type": "transport",
                "verdi": "SENDT",
                "kanal": "KAFKA",
                "meldingId": soknad.melding_id,
            },
            {
                "tidspunkt": "2026-11-23T12:00:10.000Z",
                "type": "kvittering",
                "verdi": "MOTTATT",
                "kanal": "KAFKA",
                "utsteder": "konnektor-oslo",
                "meldingId": soknad.melding_id,
            },
        ],
        "kvitteringer": [ledd.jws],
    }
    assert soknad.fodselsnummer not in answer.text
    assert soknad.eier() not in answer.text


async def test_the_list_is_the_citizens_own_newest_first(door: Door, kit: Any) -> None:
    old, new, foreign = kit.soknad(), kit.soknad(), kit.soknad(fodselsnummer=kit.other_person)
    for after, soknad in enumerate((old, new, foreign)):
        await door.take(soknad.transport("AKSEPTERT", after))
    answer = await door.http.get(PATH, headers=door.citizen(old))
    assert [one["digisosId"] for one in answer.json()] == [new.digisos_id, old.digisos_id]


@pytest.mark.parametrize("path", ["", "/kvitteringer", "/hendelser"])
async def test_a_foreign_soknad_and_one_that_is_not_there_get_the_same_answer(door: Door, kit: Any, path: str) -> None:
    mine, foreign = kit.soknad(), kit.soknad(fodselsnummer=kit.other_person)
    await door.take(mine.transport("AKSEPTERT"), foreign.transport("AKSEPTERT"))
    answers = [
        await door.http.get(f"{PATH}/{one}{path}", headers=door.citizen(mine))
        for one in (foreign.digisos_id, DigisosId.new())
    ]
    assert [answer.status_code for answer in answers] == [403, 403]
    assert [answer.json()["message"] for answer in answers] == [FORBIDDEN, FORBIDDEN]
    hidden = ("timestamp", "errorId", "path", "originalPath")
    one, other = ({k: v for k, v in answer.json().items() if k not in hidden} for answer in answers)
    assert one == other


async def test_a_soknad_whose_acceptance_has_not_come_is_nobodys(door: Door, kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    await door.take(oslo.issue(soknad))
    answer = await door.http.get(f"{PATH}/{soknad.digisos_id}", headers=door.citizen(soknad))
    assert answer.status_code == 403


@pytest.mark.parametrize("path", ["", "/x", f"/{DigisosId.new()}", f"/{DigisosId.new()}/hendelser"])
async def test_without_a_token_nothing_is_told(door: Door, path: str) -> None:
    answer = await door.http.get(PATH + path)
    assert answer.status_code in {400, 401}
    if path != "/x":
        assert answer.status_code == 401


async def test_a_machine_is_no_citizen_and_a_citizen_no_machine(door: Door, kit: Any) -> None:
    soknad = kit.soknad()
    assert (await door.http.get(PATH, headers=door.machine())).status_code == 403
    asked = {"digisosIdListe": [soknad.digisos_id]}
    url = "/digisos/api/v1/nav/soknader/status?sporingsId=1"
    assert (await door.http.post(url, json=asked, headers=door.citizen(soknad))).status_code == 403


async def test_the_bundle_verifies_offline(door: Door, kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    await door.take(soknad.transport("AKSEPTERT"), oslo.issue(soknad, "LEVERT"), oslo.issue(soknad))
    answer = await door.http.get(f"{PATH}/{soknad.digisos_id}/kvitteringer", headers=door.citizen(soknad))
    found = answer.json()
    assert found["digisosId"] == soknad.digisos_id
    assert found["sertifikater"] == [certificate_pem(oslo.certificate).decode()]
    assert verify_chain(found["kvitteringer"], [oslo.certificate], package=soknad.sha256).holder


async def test_a_sender_asks_which_soknader_the_fagsystem_has(door: Door, kit: Any, oslo: Any) -> None:
    received, sent = kit.soknad(), kit.soknad()
    await door.take(received.transport("AKSEPTERT"), oslo.issue(received), sent.transport("AKSEPTERT"))
    ids = [received.digisos_id, sent.digisos_id, DigisosId.new()]
    url = "/digisos/api/v1/nav/soknader/status"
    answer = await door.http.post(url + "?sporingsId=1", json={"digisosIdListe": ids}, headers=door.machine())
    assert answer.json() == {
        "statusListe": [
            {"digisosId": one, "levertFagsystem": delivered}
            for one, delivered in zip(ids, (True, False, False), strict=True)
        ]
    }
    assert (await door.http.post(url, json={"digisosIdListe": ids}, headers=door.machine())).status_code == 400


@pytest.mark.parametrize("organisation", ["958935420", None])
async def test_a_vendor_may_not_ask(door: Door, organisation: str | None) -> None:
    asked = {"digisosIdListe": [DigisosId.new()]}
    headers = door.machine(organisation)
    url = "/digisos/api/v1/nav/soknader/status?sporingsId=1"
    assert (await door.http.post(url, json=asked, headers=headers)).status_code == 403
    assert (await door.http.get(f"/drift/v1/soknader/{DigisosId.new()}", headers=headers)).status_code == 403


async def test_a_bad_list_is_refused_by_field_and_without_its_value(door: Door) -> None:
    url = "/digisos/api/v1/nav/soknader/status?sporingsId=1"
    for asked in ({"digisosIdListe": ["hemmelig-verdi"]}, {}, {"digisosIdListe": "hemmelig-verdi"}):
        answer = await door.http.post(url, json=asked, headers=door.machine())
        assert answer.status_code == 400
        assert "digisosIdListe" in answer.json()["message"]
        assert "hemmelig-verdi" not in answer.text


STATUS_URL = "/digisos/api/v1/nav/soknader/status?sporingsId=1"


class Body:
    """A request's body that counts what was read of it."""

    def __init__(self, chunks: int) -> None:
        self.chunks, self.read = chunks, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.read < self.chunks:
            self.read += 1
            yield b" " * 65_536


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x"}])
async def test_nothing_of_a_body_is_read_before_the_token_holds(door: Door, headers: dict[str, str]) -> None:
    body = Body(10_000)
    assert (await door.http.post(STATUS_URL, content=body, headers=headers)).status_code == 401
    assert body.read == 0


async def test_a_body_is_read_only_as_far_as_it_may_be_long(door: Door) -> None:
    body = Body(10_000)
    answer = await door.http.post(STATUS_URL, content=body, headers=door.machine())
    assert answer.status_code == 413
    assert body.read <= 17


async def test_a_body_that_is_no_json_is_refused_and_does_not_crash(door: Door) -> None:
    for body in (b"", b"[" * 100_000, b"\xff", b"null"):
        assert (await door.http.post(STATUS_URL, content=body, headers=door.machine())).status_code == 400
    many = {"digisosIdListe": ["x"] * 5_000}
    assert len((await door.http.post(STATUS_URL, json=many, headers=door.machine())).text) < 2_000


async def test_an_owner_with_too_many_streams_is_told_so_before_another_begins(door: Door, kit: Any) -> None:
    soknad = kit.soknad()
    await door.take(soknad.transport("AKSEPTERT"))
    with ExitStack() as open_streams:
        for _ in range(MAX_STREAMS_EACH):
            open_streams.enter_context(door.hub.listen(soknad.digisos_id, soknad.eier()))
        answer = await door.http.get(f"{PATH}/{soknad.digisos_id}/hendelser", headers=door.citizen(soknad))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")


async def test_a_stream_ends_with_the_token_that_opened_it(door: Door, kit: Any) -> None:
    soknad = kit.soknad()
    await door.take(soknad.transport("AKSEPTERT"))
    token = door.issuer._sign({"pid": str(soknad.fodselsnummer), "exp": int(kit.now.timestamp()) + 1})
    async with asyncio.timeout(10):
        answer = await door.http.get(
            f"{PATH}/{soknad.digisos_id}/hendelser", headers={"Authorization": f"Bearer {token}"}
        )
    assert answer.status_code == 200
    assert answer.text.count("event: status") == 1


async def test_operators_see_codes_and_what_waits(door: Door, kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    await door.take(soknad.transport("AKSEPTERT"), oslo.issue(soknad, "AVVIST", kode="krypto.apning"))
    shown = (await door.http.get(f"/drift/v1/soknader/{soknad.digisos_id}", headers=door.machine())).json()
    assert (shown["status"], shown["kode"]) == ("SENDT", "krypto.apning")
    assert [one["kode"] for one in shown["meldinger"]] == ["krypto.apning"]
    assert soknad.eier() not in str(shown)
    unknown = await door.http.get(f"/drift/v1/soknader/{DigisosId.new()}", headers=door.machine())
    assert unknown.status_code == 404


async def test_readiness_gives_its_reasons(door: Door) -> None:
    assert (await door.http.get("/isready")).status_code == 200
    door.health.add_check("emner", lambda: "emnene er ikke lest ferdig")
    answer = await door.http.get("/isready")
    assert answer.status_code == 503
    assert answer.json()["mangler"] == {"emner": "emnene er ikke lest ferdig"}
    assert "fiks_receipt_latency_seconds_bucket" in (await door.http.get("/metrics")).text
