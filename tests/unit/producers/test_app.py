from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from typing import Any

import pytest
import structlog
from cryptography import x509
from starlette.requests import Request

from producers.app import batches
from producers.http_client import SoknadClient
from producers.library import duplicate_text
from producers.places import Places
from schemas.codec import decode
from schemas.errors import RefusedError
from schemas.names import DigisosId, Fodselsnummer, Kommunenummer, NavEksternRefId
from schemas.records import SoknadRecord, TransportRecord

KNR = Kommunenummer("0301")


async def test_a_soknad_is_answered_202_with_its_digisos_id_as_a_json_string(world: Any, sending: Any) -> None:
    answer = await world.post(sending)
    assert answer.status_code == 202
    digisos_id = DigisosId(answer.json())
    assert answer.text == f'"{digisos_id}"'
    aksept, soknad = [queued.message for queued in await world.queued()]
    assert (aksept.type, aksept.outgoing.topic) == ("AKSEPTERT", "fiks.transport.v1")
    assert (soknad.type, soknad.outgoing.topic) == ("SOKNAD", "fiks.0301.soknad.v1")
    assert {aksept.outgoing.key, soknad.outgoing.key} == {digisos_id.encode()}
    record = decode(SoknadRecord, soknad.outgoing.value)
    assert decode(TransportRecord, aksept.outgoing.value).sha256 == record.sha256
    files = world.keys.open(record.pakke)
    assert {name: files[name] for name in sending.content} == sending.content


async def test_messages_are_cloud_events_in_the_callers_trace(world: Any, sending: Any) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    await world.post(sending, traceparent=f"00-{trace}-00f067aa0ba902b7-01")
    for queued in await world.queued():
        headers = dict(queued.message.outgoing.headers)
        assert headers["ce_subject"] == b"0301"
        assert headers["content-type"] == b"application/avro"
        assert headers["traceparent"].decode().split("-")[1] == trace


async def test_a_client_as_navs_sends_and_understands_a_duplicate(world: Any, sending: Any) -> None:
    async with world.http() as http:
        client = SoknadClient("https://mottak.test", http)
        arguments: dict[str, Any] = {
            "soknad_json": sending.soknad_json,
            "vedlegg_json": sending.vedlegg_json,
            "files": sending.files,
            "token": world.token(sending.fodselsnummer),
        }
        first = await client.send(Kommunenummer("0301"), NavEksternRefId("r_1-A"), **arguments)
        again = await client.send(Kommunenummer("0301"), NavEksternRefId("r_1-A"), **arguments)
    assert (first.duplicate, again.duplicate) == (False, True)
    assert first.digisos_id == again.digisos_id


async def test_the_public_key_is_a_certificate_in_der_for_anybody_with_a_token(world: Any, sending: Any) -> None:
    path = "/digisos/api/v1/dokumentlager-public-key"
    async with world.http() as http:
        assert (await http.get(path)).status_code == 401
        answer = await http.get(path, headers={"Authorization": f"Bearer {world.token(sending.fodselsnummer)}"})
    assert x509.load_der_x509_certificate(answer.content) == world.keys.mottak


async def test_the_same_reference_again_is_the_same_soknad_in_the_words_that_clients_parse(
    world: Any, sending: Any
) -> None:
    digisos_id = (await world.post(sending)).json()
    answer = await world.post(sending, body=b"")
    assert answer.status_code == 400
    text = f"Soknad med tilhørende navEksternRefId ref-1 finnes allerede i Fiks-Digisos med DigisosId {digisos_id}"
    assert answer.json()["message"] == text == duplicate_text(NavEksternRefId("ref-1"), digisos_id)
    assert len(await world.queued()) == 2


async def test_a_hundred_at_once_with_one_reference_are_one_soknad(world: Any, sending: Any) -> None:
    answers = await asyncio.gather(*[world.post(sending) for _ in range(100)])
    accepted = [answer for answer in answers if answer.status_code == 202]
    assert len(accepted) == 1
    digisos_id = accepted[0].json()
    for answer in answers:
        if answer is not accepted[0]:
            assert answer.status_code == 400
            assert answer.json()["message"].endswith(f"med DigisosId {digisos_id}")
    assert len(await world.queued()) == 2


async def test_the_losers_of_a_race_leave_no_package_behind(world: Any, keys: Any, make_sending: Any) -> None:
    sending = make_sending(encrypt_for=keys.mottak, sizes=(1_000_000, 3000, 2500))
    answers = await asyncio.gather(*[world.post(sending) for _ in range(8)])
    assert sorted(answer.status_code for answer in answers) == [202] + [400] * 7
    assert len(world.stored_files()) == 1


async def test_somebody_elses_reference_is_refused_without_its_id(world: Any, keys: Any, make_sending: Any) -> None:
    digisos_id = (await world.post(make_sending(encrypt_for=keys.mottak))).json()
    answer = await world.post(make_sending(seed=2, encrypt_for=keys.mottak))
    assert answer.status_code == 403
    assert digisos_id not in answer.text


@pytest.mark.parametrize(
    ("token", "status"),
    [("", 401), ("x.y.z", 401), ("other", 403)],
)
async def test_a_token_that_is_missing_broken_or_another_persons_is_refused(
    world: Any, sending: Any, token: str, status: int
) -> None:
    given = world.token("17912345678") if token == "other" else token
    answer = await world.post(sending, token=given, Authorization=f"Bearer {given}" if given else "")
    assert answer.status_code == status
    assert await world.queued() == []


async def test_an_expired_token_is_refused(world: Any, sending: Any) -> None:
    token = world.token(sending.fodselsnummer)
    world.now = world.now.replace(day=24)
    assert (await world.post(sending, token=token)).status_code == 401


@pytest.mark.parametrize(
    ("path", "status"),
    [("301/ref", 400), ("0301/ref%20x", 400), ("0301/" + "x" * 61, 400), ("9999/ref", 400), ("0301/a/b/c", 404)],
)
async def test_a_path_that_names_nothing_is_refused(world: Any, sending: Any, path: str, status: int) -> None:
    assert (await world.post(sending, path=path)).status_code == status


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"kan_motta_soknader": False}, "tar ikke imot"),
        ({"kanal": "PRINT"}, "tar ikke imot"),
        ({"har_midlertidig_deaktivert_mottak": True}, "midlertidig"),
    ],
)
async def test_a_kommune_that_cannot_receive_is_told_as_503(
    world: Any, sending: Any, changes: dict[str, Any], names: str
) -> None:
    world.katalog.put(world.katalog.get("0301").model_copy(update=changes))
    answer = await world.post(sending)
    assert answer.status_code == 503
    assert names in answer.json()["message"]


async def test_when_nothing_can_be_sealed_for_ourselves_either_it_is_refused_with_an_alarm(
    world: Any, sending: Any
) -> None:
    world.now += timedelta(days=4000)
    with structlog.testing.capture_logs() as logs:
        answer = await world.post(sending)
    assert answer.status_code == 503
    assert "sertifikat" in answer.json()["message"]
    assert [log["log_level"] for log in logs if log["event"] == "recipient_certificate_unusable"] == ["critical"]


async def test_before_the_katalog_is_read_nobody_is_told_that_a_kommune_is_unknown(world: Any, sending: Any) -> None:
    world.katalog_problem = "katalogen er ikke lest ferdig"
    assert (await world.post(sending, path="4601/ref")).status_code == 503
    assert (await world.post(sending)).status_code == 202


def without_signer(sending: Any) -> None:
    sending.files[1] = type(sending.files[1]).of_bytes("Ola Nordmann 17912345678.exe", b"MZ" * 2000)


def truncated(sending: Any) -> bytes:
    return sending.body()[:-200]


BODIES: dict[str, tuple[Any, dict[str, str], int]] = {
    "not multipart": (lambda _: b"{}", {"Content_Type": "application/json"}, 415),
    "no boundary": (lambda _: b"{}", {"Content_Type": "multipart/form-data"}, 400),
    "empty": (lambda _: b"", {}, 400),
    "cut": (truncated, {}, 400),
    "a type that is not taken": (lambda sending: (without_signer(sending), sending.body())[1], {}, 415),
    "too much": (lambda sending: sending.body().replace(b'"storrelse":4096', b'"storrelse":99999999'), {}, 413),
}


@pytest.mark.parametrize(("make_body", "headers", "status"), BODIES.values(), ids=BODIES)
async def test_bad_input_gets_fiks_error_object_and_leaves_nothing(
    world: Any, sending: Any, make_body: Any, headers: dict[str, str], status: int
) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = await world.post(sending, body=make_body(sending), **headers)
    assert answer.status_code == status
    error = answer.json()
    assert set(error) == {
        "timestamp", "status", "error", "errorId", "path", "originalPath", "message", "errorCode", "errorJson",
    }  # fmt: skip
    assert error["status"] == status
    assert error["message"]
    assert await world.queued() == []
    assert await world.outbox.find(NavEksternRefId("ref-1")) is None
    assert world.stored_files() == []
    told = answer.text + json.dumps(logs, default=str)
    for secret in (sending.fodselsnummer, "17912345678", "Nordmann", "Lønnslipp", "Kontoutskrift"):
        assert secret not in told


async def test_a_client_that_goes_away_half_way_leaves_nothing(world: Any, keys: Any, make_sending: Any) -> None:
    sending = make_sending(encrypt_for=keys.mottak, sizes=(2_000_000, 3000, 2500))
    body = sending.body()
    messages = [
        {"type": "http.request", "body": body[:1_500_000], "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/digisos/api/v1/soknader/0301/ref-1", "raw_path": b"",
        "query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1", "server": ("mottak", 80),
        "client": ("test", 1), "asgi": {"version": "3.0"},
        "headers": [
            (b"authorization", f"Bearer {world.token(sending.fodselsnummer)}".encode()),
            (b"content-type", b"multipart/form-data; boundary=grense"),
        ],
    }  # fmt: skip
    with structlog.testing.capture_logs() as logs:
        await world.app(scope, receive, send)
    assert [log["resultat"] for log in logs if log["event"] == "soknad_refused"] == ["avbrutt"]
    assert world.stored_files() == []
    assert await world.queued() == []


async def hold_a_place(world: Any, person: str, held: asyncio.Event, done: asyncio.Event) -> None:
    async with world.producer.receive(KNR, NavEksternRefId("holder"), Fodselsnummer(person)):
        held.set()
        await done.wait()


@pytest.mark.parametrize(("total", "holder_is"), [(2, "the same"), (1, "another")])
async def test_who_gets_no_place_is_told_when_to_come_back(
    world: Any, sending: Any, total: int, holder_is: str
) -> None:
    world.producer.places = Places(total, 1, wait_s=0.05)
    held, done = asyncio.Event(), asyncio.Event()
    person = sending.fodselsnummer if holder_is == "the same" else "17912345678"
    holder = asyncio.create_task(hold_a_place(world, person, held, done))
    await held.wait()
    answer = await world.post(sending)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["errorCode"] == "innsending.avvist.opptatt"
    done.set()
    await holder
    assert (await world.post(sending)).status_code == 202


async def test_slow_senders_keep_nobody_else_out(world: Any, make_sending: Any) -> None:
    world.producer.places = Places(3, 2, wait_s=0.05)
    slow, other = (
        make_sending(seed=1, encrypt_for=world.keys.mottak),
        make_sending(seed=2, encrypt_for=world.keys.mottak),
    )
    done = asyncio.Event()
    held = [asyncio.Event() for _ in range(2)]
    holders = [asyncio.create_task(hold_a_place(world, slow.fodselsnummer, event, done)) for event in held]
    for event in held:
        await event.wait()
    assert (await world.post(slow)).status_code == 503
    assert (await world.post(other)).status_code == 202
    done.set()
    await asyncio.gather(*holders)


@pytest.mark.parametrize("bounds", [{"idle_s": 0.02}, {"idle_s": 60.0, "total_s": 0.02}])
async def test_a_body_that_does_not_come_in_time_is_given_up(bounds: dict[str, float]) -> None:
    given = asyncio.Event()

    async def receive() -> Any:
        if given.is_set():
            await asyncio.Event().wait()
        given.set()
        return {"type": "http.request", "body": b"x", "more_body": True}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(RefusedError, match="avbrutt"):
        [batch async for batch in batches(request, 100, **bounds)]


async def test_who_sends_what_cannot_be_decrypted_ten_times_must_wait(world: Any, make_sending: Any) -> None:
    guesser, other = (make_sending(seed=seed, encrypt_for=world.keys.mottak) for seed in (1, 2))
    guesser.encrypt_for = world.keys.kommune
    for nr in range(10):
        assert (await world.post(guesser, path=f"0301/ref-{nr}")).status_code == 400
    guesser.encrypt_for = world.keys.mottak
    answer = await world.post(guesser)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3600")
    assert answer.json()["errorCode"] == "innsending.avvist.for-mange-feil"
    assert (await world.post(other, path="0301/other")).status_code == 202
    world.now = world.now + timedelta(hours=1)
    assert (await world.post(guesser)).status_code == 202


async def test_a_method_that_a_client_invents_makes_no_series_of_its_own(world: Any) -> None:
    async with world.http() as http:
        assert (await http.request("OPPFINN", "/isalive")).status_code == 405
        metrics = (await http.get("/metrics")).text
    assert "OPPFINN" not in metrics
    assert 'method="_OTHER"' in metrics


async def test_one_line_tells_of_an_accepted_soknad_without_the_person(world: Any, sending: Any) -> None:
    with structlog.testing.capture_logs() as logs:
        digisos_id = (await world.post(sending)).json()
    (line,) = [log for log in logs if log["event"] == "soknad_accepted"]
    assert (line["digisos_id"], line["kommunenummer"], line["filer"]) == (digisos_id, "0301", 3)
    assert not re.search(r"\d{11}", json.dumps([log for log in logs if log is not line], default=str))
    assert sending.fodselsnummer not in json.dumps(logs, default=str)


async def test_readiness_tells_what_is_missing_and_metrics_count(world: Any, sending: Any) -> None:
    await world.post(sending)
    world.health.add_check("kafka", lambda: "Kafka tar ikke imot")
    async with world.http() as http:
        ready = await http.get("/isready")
        metrics = (await http.get("/metrics")).text
    assert (ready.status_code, ready.json()["mangler"]) == (503, {"kafka": "Kafka tar ikke imot"})
    assert 'fiks_soknader_accepted_total{kommunenummer="0301"}' in metrics
    assert 'route="/digisos/api/v1/soknader/{kommunenummer}/{navEksternRefId}"' in metrics
    assert "ref-1" not in metrics
