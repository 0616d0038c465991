from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from consumers.simulator.case import CasePlan, Regel, Styring, Switches
from schemas.digisos_soker_json import check_first, parse_digisos_soker

STORED = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_each_update_keeps_the_format_and_has_the_whole_history(number: int) -> None:
    document = parse_digisos_soker(CasePlan().document(STORED, number, "0315"))
    check_first(document)
    assert document.latest_status() == ("MOTTATT", "UNDER_BEHANDLING", "FERDIGBEHANDLET")[number - 1]


def test_a_case_goes_on_by_the_clock() -> None:
    plan = CasePlan((timedelta(), timedelta(hours=1), timedelta(days=1)))
    moments = (timedelta(seconds=-1), timedelta(), timedelta(hours=1), timedelta(days=2))
    assert [plan.due(STORED, STORED + wait) for wait in moments] == [0, 1, 2, 3]


@pytest.mark.parametrize("seconds", [0, 1, 2, 5])
def test_a_case_that_nobody_planned_goes_on_every_second(seconds: int) -> None:
    assert CasePlan().due(STORED, STORED + timedelta(seconds=seconds)) == min(seconds + 1, 3)


@pytest.mark.parametrize("field", ["navEksternRefId", "meldingId", "digisosId"])
def test_a_rule_rejects_by_any_id(field: str) -> None:
    styring = Styring(avvis=(Regel(ref="r", kode="demo.nei"),))
    assert styring.rejection({field: "r"}) == "demo.nei"
    assert styring.rejection({field: "s"}) is None


def test_the_next_ones_are_rejected_and_no_more() -> None:
    styring = Styring(avvis_neste=2)
    assert [styring.rejection({}) is not None for _ in range(3)] == [True, True, False]


def test_one_kommunes_switches_are_its_own_and_everybodys_reach_all() -> None:
    switches = Switches()
    switches.change("0301", {"tilstand": "nede"})
    assert switches.of("4601").tilstand == "oppe"
    switches.change_all({"svar": "senere"})
    assert (switches.of("0301").tilstand, switches.of("0301").svar) == ("nede", "senere")
    assert switches.of("5001").svar == "senere"


def test_a_switch_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="tilstnd"):
        Switches().change_all({"tilstnd": "nede"})


def test_a_wrong_value_is_refused_and_the_field_named() -> None:
    with pytest.raises(ValueError, match="tilstand"):
        Styring().changed({"tilstand": "kanskje"})
