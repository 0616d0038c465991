from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kvittering.lifecycle import (
    AT_FAGSYSTEM,
    FAILURES,
    TRANSITIONS,
    Input,
    Sak,
    Soknadsstatus,
    Svar,
    Transport,
    follow,
    sak_input,
    svar_input,
    transport_input,
)

S = Soknadsstatus
INPUTS: tuple[Input, ...] = (*Transport, *Svar, *Sak)


def run(*inputs: Input | None, start: Soknadsstatus | None = None) -> Soknadsstatus | None:
    status = start
    for one in inputs:
        status = follow(status, one)
    return status


def interleaved(lanes: list[list[Input]], choices: list[int]) -> list[Input]:
    left = [list(lane) for lane in lanes]
    order: list[Input] = []
    for choice in choices:
        open_lanes = [lane for lane in left if lane]
        if not open_lanes:
            break
        order.append(open_lanes[choice % len(open_lanes)].pop(0))
    return order + [one for lane in left for one in lane]


def test_the_plain_way_is_akseptert_sendt_mottatt_under_behandling_ferdigbehandlet() -> None:
    seen = []
    status: Soknadsstatus | None = None
    for one in (Transport.AKSEPTERT, Transport.SENDT, Svar.MOTTATT, Sak.UNDER_BEHANDLING, Sak.FERDIGBEHANDLET):
        status = follow(status, one)
        seen.append(status)
    assert seen == [S.AKSEPTERT, S.SENDT, S.MOTTATT, S.UNDER_BEHANDLING, S.FERDIGBEHANDLET]


def test_every_status_has_a_row() -> None:
    assert set(TRANSITIONS) == {None, *Soknadsstatus}


def test_printed_is_sent_on_paper_and_never_mottatt() -> None:
    assert run(Transport.AKSEPTERT, Transport.SENDT, Transport.TTL_TIDSAVBRUDD, Transport.UTSKREVET) is S.SENDT_PA_PAPIR
    assert run(Transport.UTSKREVET) is S.SENDT_PA_PAPIR
    assert S.SENDT_PA_PAPIR not in AT_FAGSYSTEM


def test_only_the_print_channels_closing_receipt_gives_sent_on_paper() -> None:
    reached = {event for row in TRANSITIONS.values() for event, after in row.items() if after is S.SENDT_PA_PAPIR}
    assert reached == {Transport.UTSKREVET}


def test_what_the_fagsystem_says_outranks_paper() -> None:
    assert run(Svar.MOTTATT, start=S.SENDT_PA_PAPIR) is S.MOTTATT
    assert run(Sak.UNDER_BEHANDLING, start=S.SENDT_PA_PAPIR) is S.UNDER_BEHANDLING
    assert run(Transport.UTSKREVET, start=S.MOTTATT) is S.MOTTATT


@pytest.mark.parametrize("failure", sorted(FAILURES, key=str))
@pytest.mark.parametrize("status", [S.SENDT, S.SENDT_PA_PAPIR, *sorted(AT_FAGSYSTEM)])
def test_a_failure_never_moves_the_citizens_status(failure: Input, status: Soknadsstatus) -> None:
    assert follow(status, failure) is status


def test_a_rejected_soknad_stays_sendt_and_may_still_be_received() -> None:
    assert run(Transport.AKSEPTERT, Transport.SENDT, Svar.AVVIST) is S.SENDT
    assert run(Transport.AKSEPTERT, Transport.SENDT, Svar.AVVIST, Svar.MOTTATT) is S.MOTTATT


def test_levert_is_not_mottatt() -> None:
    assert run(Transport.AKSEPTERT, Transport.SENDT, Svar.LEVERT, Transport.BEKREFTET) is S.SENDT


def test_no_transport_event_gives_mottatt() -> None:
    for status, row in TRANSITIONS.items():
        reached = {after for event, after in row.items() if isinstance(event, Transport)}
        assert not reached & AT_FAGSYSTEM, status


def test_a_kommune_may_reopen_a_case() -> None:
    assert run(Sak.FERDIGBEHANDLET, Sak.UNDER_BEHANDLING, start=S.MOTTATT) is S.UNDER_BEHANDLING
    assert run(Sak.MOTTATT, start=S.UNDER_BEHANDLING) is S.MOTTATT


@pytest.mark.parametrize("status", sorted(AT_FAGSYSTEM))
@pytest.mark.parametrize("late", [*Transport, *Svar])
def test_what_is_late_changes_nothing(status: Soknadsstatus, late: Input) -> None:
    assert follow(status, late) is status


@pytest.mark.parametrize("event", INPUTS)
@pytest.mark.parametrize("status", [None, *Soknadsstatus])
def test_a_repeat_is_a_no_op(status: Soknadsstatus | None, event: Input) -> None:
    once = follow(status, event)
    assert follow(once, event) is once


def test_a_code_that_a_newer_sender_invented_changes_nothing() -> None:
    assert transport_input("SENDT_MED_DRONE") is None
    assert svar_input("KANSKJE") is None
    assert sak_input("PAUSET") is None
    assert sak_input(None) is None
    assert follow(S.SENDT, None) is S.SENDT


def test_known_codes_are_their_inputs_and_two_sources_mottatt_are_told_apart() -> None:
    assert transport_input("SENDT") is Transport.SENDT
    assert svar_input("MOTTATT") is Svar.MOTTATT
    assert sak_input("MOTTATT") is Sak.MOTTATT
    assert len({Svar.MOTTATT, Sak.MOTTATT}) == 2


@given(
    transport=st.lists(st.sampled_from(list(Transport)), max_size=6),
    svar=st.lists(st.sampled_from(list(Svar)), max_size=4),
    sak=st.lists(st.sampled_from(list(Sak)), max_size=4),
    choices=st.lists(st.integers(0, 5), max_size=14),
)
def test_topics_may_race_and_the_end_is_the_same(
    transport: list[Transport], svar: list[Svar], sak: list[Sak], choices: list[int]
) -> None:
    lanes: list[list[Input]] = [[Transport.AKSEPTERT, *transport], [*svar], [*sak]]
    in_turn = [one for lane in lanes for one in lane]
    assert run(*interleaved(lanes, choices)) is run(*in_turn)


class Life(RuleBasedStateMachine):
    """One søknad whose three sources write in any order, beside what must hold whatever they write."""

    def __init__(self) -> None:
        super().__init__()
        self.status: Soknadsstatus | None = None
        self.seen: list[Input] = []

    @rule(event=st.sampled_from(INPUTS))
    def something_happens(self, event: Input) -> None:
        before, self.status = self.status, follow(self.status, event)
        self.seen.append(event)
        if not isinstance(event, Sak):
            assert rank(self.status) >= rank(before), "only the case may go back"

    @invariant()
    def mottatt_is_the_fagsystems_word(self) -> None:
        answered = any(event is Svar.MOTTATT or isinstance(event, Sak) for event in self.seen)
        assert (self.status in AT_FAGSYSTEM) is answered

    @invariant()
    def paper_is_shown_when_it_was_printed_and_the_fagsystem_is_silent(self) -> None:
        printed = Transport.UTSKREVET in self.seen
        assert (self.status is S.SENDT_PA_PAPIR) is (printed and self.status not in AT_FAGSYSTEM)

    @invariant()
    def the_latest_case_decides(self) -> None:
        cases = [event for event in self.seen if isinstance(event, Sak)]
        assert not cases or self.status == cases[-1].value


def rank(status: Soknadsstatus | None) -> int:
    return [None, S.AKSEPTERT, S.SENDT, S.SENDT_PA_PAPIR].index(status) if status not in AT_FAGSYSTEM else 4


TestLife = Life.TestCase
