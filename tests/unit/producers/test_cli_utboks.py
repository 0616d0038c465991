from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from typer.testing import CliRunner

from producers import cli_utboks

if TYPE_CHECKING:
    from collections.abc import Callable

ADDRESS = ("--intake-url", "http://mottak.test", "--token", "maskin")
STATE = {
    "venter": 4,
    "eldste": "2026-11-23T12:00:00+00:00",
    "mangler": {"kafka": "Kafka tar ikke imot"},
    "emner": [
        {"emne": "fiks.0301.soknad.v1", "dom": "laget-pa-nytt", "tiltak": "se docs/drift.md"},
        {"emne": "fiks.4601.soknad.v1", "dom": "samme", "tiltak": None},
        {"emne": "fiks.5001.soknad.v1", "dom": "annet-antall-partisjoner", "tiltak": "se docs/drift.md"},
    ],
}


class Intake:
    """An intake that answers as it is told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.answer: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(200, json=STATE)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == "Bearer maskin"
        self.asked.append(f"{request.method} {request.url.path}")
        self.bodies.append(request.content)
        return self.answer(request)


@pytest.fixture
def intake(monkeypatch: pytest.MonkeyPatch) -> Intake:
    found = Intake()
    real = httpx.AsyncClient

    def client(**options: Any) -> httpx.AsyncClient:
        return real(transport=httpx.MockTransport(found), **options)

    monkeypatch.setattr("producers.cli_utboks.httpx.AsyncClient", client)
    return found


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli_utboks.app, [*arguments, *ADDRESS])


def test_what_waits_and_what_is_held_is_shown_and_is_an_exit_code(intake: Intake) -> None:
    shown = run("vis")
    assert shown.exit_code == 1
    assert "4 meldinger venter" in shown.output
    assert "fiks.0301.soknad.v1" in shown.output
    assert "fiks.4601.soknad.v1" not in shown.output
    assert json.loads(run("vis", "--json").stdout) == STATE
    intake.answer = lambda _: httpx.Response(200, json=STATE | {"mangler": {}})
    assert run("vis").exit_code == 0


def test_reading_back_tells_what_came_of_it(intake: Intake) -> None:
    steps = [
        {"read": 1, "restored": 1, "conflicts": 0, "packages": 0, "done": False},
        {"read": 3, "restored": 2, "conflicts": 0, "packages": 1, "done": True},
    ]
    intake.answer = lambda _: httpx.Response(200, text="".join(f"{json.dumps(step)}\n" for step in steps))
    told = run("gjenopprett")
    assert (told.exit_code, intake.asked) == (0, ["POST /drift/v1/utboks/gjenopprett"])
    assert "2 referanser gjenopprettet, 1 pakker funnet igjen" in " ".join(told.output.split())
    assert json.loads(run("gjenopprett", "--json").stdout) == steps[-1]


def test_reading_back_that_was_broken_off_is_a_failure(intake: Intake) -> None:
    intake.answer = lambda _: httpx.Response(200, text='{"kode": "transport", "feil": "Kafka svarer ikke"}\n')
    told = run("gjenopprett")
    assert told.exit_code == 1
    assert "Kafka svarer ikke" in told.output


def test_a_topic_is_accepted_by_name_or_all_that_were_made_anew(intake: Intake) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json=STATE)
        return httpx.Response(200, json={"emne": request.url.path.split("/")[-2], "dom": "nytt"})

    intake.answer = answer
    assert run("godta-emne", "fiks.5001.soknad.v1").exit_code == 0
    assert run("godta-emne", "--alle").exit_code == 0
    assert [one for one in intake.asked if one.startswith("POST")] == [
        "POST /drift/v1/utboks/emner/fiks.5001.soknad.v1/godta",
        "POST /drift/v1/utboks/emner/fiks.0301.soknad.v1/godta",
    ]
    assert run("godta-emne").exit_code == 2
    assert run("godta-emne", "fiks.0301.soknad.v1", "--alle").exit_code == 2


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (("godta-emne", "fiks.0301.soknad.v1"), {"emne": "fiks.0301.soknad.v1", "dom": "nytt"}),
        (("gjenopprett",), {"read": 0, "restored": 0, "conflicts": 0, "packages": 0, "done": True}),
    ],
)
def test_a_reason_goes_along_when_there_is_one(
    intake: Intake, command: tuple[str, ...], answer: dict[str, object]
) -> None:
    intake.answer = lambda _: httpx.Response(200, text=json.dumps(answer))
    assert run(*command, "--begrunnelse", "Kafka gikk tapt").exit_code == 0
    assert run(*command).exit_code == 0
    assert [json.loads(body) for body in intake.bodies] == [{"begrunnelse": "Kafka gikk tapt"}, {"begrunnelse": None}]


def test_a_topic_that_is_still_another_is_a_failure(intake: Intake) -> None:
    intake.answer = lambda _: httpx.Response(200, json={"emne": "x", "dom": "annet-antall-partisjoner"})
    assert run("godta-emne", "fiks.0301.soknad.v1").exit_code == 1


def test_a_refusal_and_an_intake_that_is_away_have_exit_codes_of_their_own(intake: Intake) -> None:
    intake.answer = lambda _: httpx.Response(403, json={"message": "bare avsenderens egne maskiner har tilgang"})
    refused = run("vis")
    assert refused.exit_code == 1
    assert "avsenderens egne" in refused.output

    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("borte", request=request)

    intake.answer = away
    assert run("vis").exit_code == 3
