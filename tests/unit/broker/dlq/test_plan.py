from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.dlq.letters import read_letter
from broker.dlq.plan import (
    FREMMED,
    PARKERT,
    STRIPPET,
    UBESVART,
    UTLOPT,
    VENTER,
    Plan,
    Utvalg,
    Waves,
    plan_redrive,
)
from broker.dlq.state import GJENKJORT, LOKKEVERN, LUKKET, Dodebrev, fold, line_of
from broker.dlq.state import PARKERT as PARKED
from schemas.names import Kommunenummer, Uuid

if TYPE_CHECKING:
    from conftest import Mailbox

OSLO, BERGEN = Kommunenummer("0301"), Kommunenummer("4601")
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def folded(mailbox: Mailbox, rounds: int = 3) -> Dodebrev:
    letters = [read_letter(one, Kommunenummer(one.topic.split(".")[1])) for one in mailbox.records]
    return fold(letters, mailbox.acts, {}, now=NOW, register=mailbox.register(rounds))


def planned(mailbox: Mailbox, **utvalg: Any) -> Plan:
    return plan_redrive(folded(mailbox), Utvalg(**utvalg))


def going(plan: Plan) -> list[Uuid]:
    return [step.letter.id for step in plan.steg]


def held(plan: Plan) -> dict[Uuid, str]:
    return {one.sak.id: one.grunn for one in plan.holdt}


def test_everything_that_waits_goes_after_what_it_waits_behind(mailbox: Mailbox) -> None:
    head = mailbox.die(melding=1)
    others = [mailbox.die(melding=nr, kode="levering.venter-bak-dodt-brev") for nr in (2, 3)]
    plan = planned(mailbox, koder=("krypto.apning",))
    assert going(plan) == [head, *others]
    assert [step.medfulgt for step in plan.steg] == [False, True, True]
    assert plan.holdt == ()


def test_nobody_passes_one_that_was_not_asked_for(mailbox: Mailbox) -> None:
    head, follower = mailbox.die(melding=1), mailbox.die(melding=2)
    plan = planned(mailbox, brev=(follower,))
    assert going(plan) == []
    assert held(plan) == {follower: VENTER}
    assert plan.holdt[0].bak == head


@pytest.mark.parametrize(
    ("died", "why"),
    [
        ({"verdi": None}, STRIPPET),
        ({"gyldig_til": NOW}, UTLOPT),
        ({"emne": "fiks.4601.soknad.v1"}, FREMMED),
        ({"runde": 3}, LOKKEVERN),
    ],
)
def test_what_cannot_go_is_held_and_everything_behind_it(mailbox: Mailbox, died: dict[str, Any], why: str) -> None:
    head, follower, other = mailbox.die(**died), mailbox.die(melding=2), mailbox.die(soknad=2, melding=3)
    plan = planned(mailbox)
    assert going(plan) == [other]
    assert held(plan) == {head: why, follower: VENTER}


def test_what_is_parked_goes_by_force_alone(mailbox: Mailbox) -> None:
    head, follower = mailbox.die(), mailbox.die(melding=2)
    mailbox.act(PARKED, head)
    assert held(planned(mailbox)) == {head: PARKERT, follower: VENTER}
    assert going(planned(mailbox, tving=True)) == [head, follower]


def test_force_neither_makes_an_original_nor_more_time(mailbox: Mailbox) -> None:
    mailbox.die(verdi=None)
    mailbox.die(soknad=2, melding=2, gyldig_til=NOW)
    assert going(planned(mailbox, tving=True)) == []


def test_what_is_under_way_goes_again_only_by_name_and_force(mailbox: Mailbox) -> None:
    head, follower = mailbox.die(), mailbox.die(melding=2)
    mailbox.act(GJENKJORT, head)
    assert going(planned(mailbox)) == [follower]
    assert held(planned(mailbox, brev=(head,))) == {head: UBESVART}
    assert going(planned(mailbox, tving=True)) == [follower]
    assert going(planned(mailbox, brev=(head,), tving=True)) == [head, follower]


def test_what_was_closed_for_good_is_passed(mailbox: Mailbox) -> None:
    head, follower = mailbox.die(), mailbox.die(melding=2)
    mailbox.act(LUKKET, head)
    plan = planned(mailbox)
    assert going(plan) == [follower]
    assert plan.steg[0].forbi


def test_the_urgent_go_first_and_then_who_has_waited_longest(mailbox: Mailbox) -> None:
    first = mailbox.die(soknad=1)
    second = mailbox.die(soknad=2, melding=2)
    urgent = mailbox.die(soknad=3, melding=3, hastegrad="NODHJELP")
    behind = mailbox.die(soknad=2, melding=4)
    assert going(planned(mailbox)) == [urgent, first, second, behind]


def test_filters_choose_by_kommune_code_schema_and_time(mailbox: Mailbox) -> None:
    oslo = mailbox.die(soknad=1, tidspunkt=NOW - timedelta(days=2))
    bergen = mailbox.die(soknad=2, melding=2, kommune=BERGEN, kode="fagsystem.feil", trinn="OVERLEVERING")
    strange = mailbox.die(soknad=3, melding=3, verdi=b"\x00\x00\x00\x00\x01rest")
    assert going(planned(mailbox, kommuner=(BERGEN,))) == [bergen]
    assert going(planned(mailbox, koder=("krypto.apning",))) == [oslo, strange]
    assert going(planned(mailbox, skjemaer=("soknad:1",))) == [strange]
    assert going(planned(mailbox, fra=NOW)) == [bergen, strange]
    assert going(planned(mailbox, til=NOW)) == [oslo]
    assert going(planned(mailbox, brev=(bergen,))) == [bergen]


def test_an_older_letter_names_its_sak_too(mailbox: Mailbox) -> None:
    first = mailbox.die()
    second = mailbox.die(runde=1, fra=first)
    assert going(planned(mailbox, brev=(first,))) == [second]


def test_what_came_after_a_proposal_is_no_part_of_it_and_is_not_passed_either(mailbox: Mailbox) -> None:
    head, follower = mailbox.die(), mailbox.die(melding=2)
    moment = mailbox.later()
    digest = planned(mailbox, for_ms=moment).digest()
    mailbox.die(melding=3)
    assert planned(mailbox, for_ms=moment).digest() == digest
    mailbox.act(GJENKJORT, head)
    mailbox.die(runde=1, fra=head)  # died again: what is behind it must not go past it
    plan = planned(mailbox, for_ms=moment)
    assert going(plan) == []
    assert held(plan) == {follower: VENTER}


def test_the_digest_is_of_the_letters_and_of_those_that_went_already(mailbox: Mailbox) -> None:
    first, second = mailbox.die(soknad=1), mailbox.die(soknad=2, melding=2)
    digest = planned(mailbox).digest()
    mailbox.act(GJENKJORT, first)
    assert going(planned(mailbox)) == [second]
    assert planned(mailbox).digest() != digest
    assert planned(mailbox).digest([first]) == digest


def test_waves_have_one_letter_of_each_line(mailbox: Mailbox) -> None:
    for soknad in (1, 2, 3):
        for nr in range(soknad):
            mailbox.die(soknad=soknad, melding=soknad * 10 + nr)
    waves = Waves(planned(mailbox).steg, 2)
    shown = []
    while wave := waves.next():
        shown.append([step.letter.melding_id for step in wave])
    ids = {(s, n): mailbox.soknad(s, s * 10 + n).melding_id for s in (1, 2, 3) for n in range(s)}
    assert shown == [
        [ids[1, 0], ids[2, 0]],
        [ids[2, 1], ids[3, 0]],
        [ids[3, 1]],
        [ids[3, 2]],
    ]


def test_a_line_can_be_given_up_in_the_middle(mailbox: Mailbox) -> None:
    for nr in (1, 2, 3):
        mailbox.die(melding=nr)
    other = mailbox.die(soknad=2, melding=4)
    waves = Waves(planned(mailbox).steg, 1)
    (first,) = waves.next()
    assert len(waves.stop(first)) == 2
    assert waves.stop(first) == []
    assert waves.left == 1
    assert [step.letter.id for step in waves.next()] == [other]


letters = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from(["", "", "", "strippet", "utlopt", "runde"]),
        st.sampled_from(["", "", "", GJENKJORT, PARKED, LUKKET]),
        st.sampled_from(["krypto.apning", "fagsystem.feil"]),
    ),
    max_size=16,
)
choices = st.fixed_dictionaries(
    {"tving": st.booleans(), "koder": st.sampled_from([(), ("krypto.apning",), ("fagsystem.feil",)])}
)
HOW: dict[str, dict[str, Any]] = {
    "": {},
    "strippet": {"verdi": None},
    "utlopt": {"gyldig_til": NOW},
    "runde": {"runde": 3},
}


@settings(max_examples=300)
@given(letters, choices, st.integers(1, 4))
def test_nothing_is_lost_nothing_goes_twice_and_nothing_overtakes(
    new_mailbox: Callable[[], Mailbox],
    letters: list[tuple[int, str, str, str]],
    choice: dict[str, Any],
    size: int,
) -> None:
    mailbox = new_mailbox()
    for nr, (soknad, how, act, kode) in enumerate(letters):
        brev = mailbox.die(soknad=soknad, melding=nr, kode=kode, **HOW[how])
        if act:
            mailbox.act(act, brev)
    state, utvalg = folded(mailbox), Utvalg(**choice)
    plan = plan_redrive(state, utvalg)
    waves, sent = Waves(plan.steg, size), []
    while wave := waves.next():
        assert 1 <= len(wave) <= size
        assert len({line_of(step.letter) for step in wave}) == len(wave)
        sent += [step.letter.id for step in wave]
    assert sorted(sent) == sorted(going(plan))
    assert len(set(sent)) == len(sent)
    assert not set(sent) & set(held(plan))
    for sak in state.saker:
        if utvalg.matches(sak) and sak.tilstand in {"APEN", "PARKERT", "UTLOPT"}:
            assert sak.id in sent or sak.id in held(plan)
        if sak.id not in sent:
            continue
        assert sak.tilstand in {"APEN", "PARKERT"}
        for earlier in state.line(sak):
            if earlier.first.position.offset < sak.first.position.offset and earlier.is_undelivered:
                assert sent.index(earlier.id) < sent.index(sak.id)
