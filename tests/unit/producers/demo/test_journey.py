from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from broker.supervisor.bootstrap import DEFAULT_KOMMUNER
from producers.demo.journey import Journey
from producers.demo.plan import Role, plan_day

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def make_journey(status: str | None = None, *history: dict[str, Any], role: Role = Role.VANLIG) -> Journey:
    planned = next(one for one in plan_day(1, 12, DEFAULT_KOMMUNER, NOW).soknader if one.role is role)
    return Journey(planned, NOW, view={} if status is None else {"status": status, "historikk": list(history)})


def line(kind: str, value: str, second: int = 0, code: str | None = None) -> dict[str, Any]:
    return {"tidspunkt": f"2026-11-23T12:00:{second:02}.500Z", "type": kind, "verdi": value, "kode": code}


def test_nothing_is_known_before_the_first_answer() -> None:
    journey = make_journey()
    assert (journey.status, journey.codes, journey.history, journey.timeline()) == ("", [], [], [])
    assert not journey.answered
    assert not journey.ended


def test_only_a_kvittering_is_an_answer() -> None:
    assert not make_journey("SENDT", line("transport", "SENDT")).answered
    assert make_journey("MOTTATT", line("transport", "SENDT"), line("kvittering", "MOTTATT")).answered


def test_codes_come_in_the_order_in_which_they_came() -> None:
    journey = make_journey(
        "MOTTATT",
        line("kvittering", "AVVIST", code="krypto.apning"),
        line("transport", "SENDT"),
        line("kvittering", "AVVIST", code="fagsystem.regel"),
    )
    assert journey.codes == ["krypto.apning", "fagsystem.regel"]


@pytest.mark.parametrize(
    ("status", "ended"), [("SENDT", False), ("MOTTATT", False), ("UNDER_BEHANDLING", False), ("FERDIGBEHANDLET", True)]
)
def test_an_ordinary_one_ends_when_the_kommune_has_finished(status: str, *, ended: bool) -> None:
    assert make_journey(status).ended is ended


@pytest.mark.parametrize("role", [Role.AVVISES, Role.ENDRES])
def test_one_that_is_to_be_refused_ends_with_the_refusal(role: Role) -> None:
    assert not make_journey("SENDT", line("transport", "SENDT"), role=role).ended
    assert make_journey("SENDT", line("kvittering", "AVVIST", code="fagsystem.regel"), role=role).ended


def test_the_timeline_counts_from_when_it_was_sent() -> None:
    journey = make_journey(
        "SENDT", line("transport", "SENDT", 1), line("kvittering", "AVVIST", 3, code="fagsystem.regel")
    )
    assert journey.timeline() == [(1.5, "SENDT"), (3.5, "AVVIST (fagsystem.regel)")]


def test_the_timeline_says_mottatt_once_though_the_case_says_it_too() -> None:
    journey = make_journey(
        "MOTTATT", line("kvittering", "MOTTATT", 1), line("sak", "MOTTATT", 2), line("sak", "UNDER_BEHANDLING", 3)
    )
    assert journey.timeline() == [(1.5, "MOTTATT"), (3.5, "UNDER_BEHANDLING")]
