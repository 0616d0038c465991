from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from kvittering import projection as module
from kvittering.chain import VENTER_KJEDE, VENTER_SOKNAD, verify_ledd
from kvittering.facts import SoknadState
from kvittering.lifecycle import Soknadsstatus
from kvittering.projection import Projection, apply, fact_id, project
from schemas.errors import ChainError, MismatchError
from schemas.names import MeldingId, NavEksternRefId, Sha256

if TYPE_CHECKING:
    import pytest

S = Soknadsstatus


def fold(facts: list[Any]) -> SoknadState:
    state = SoknadState(
        digisos_id=facts[0].digisos_id if hasattr(facts[0], "digisos_id") else facts[0].claims.digisos_id
    )
    for fact in facts:
        state = apply(state, fact).state
    return state


def shown(facts: list[Any]) -> Projection:
    return project(fold(facts))


def interleaved(lanes: list[list[Any]], choices: list[int]) -> list[Any]:
    left = [list(lane) for lane in lanes]
    order: list[Any] = []
    for choice in choices:
        waiting = [lane for lane in left if lane]
        if not waiting:
            break
        order.append(waiting[choice % len(waiting)].pop(0))
    return order + [fact for lane in left for fact in lane]


def test_the_whole_way_in_order(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    facts = [
        soknad.transport("AKSEPTERT"),
        soknad.transport("SENDT", 1),
        oslo.issue(soknad, "LEVERT"),
        oslo.issue(soknad, "MOTTATT"),
        soknad.hendelse("UNDER_BEHANDLING", 100),
        soknad.hendelse("FERDIGBEHANDLET", 200),
    ]
    statuses = [shown(facts[: count + 1]).status for count in range(len(facts))]
    assert statuses == [S.AKSEPTERT, S.SENDT, S.SENDT, S.MOTTATT, S.UNDER_BEHANDLING, S.FERDIGBEHANDLET]


def test_what_is_shown_belongs_to_the_first_message(kit: Any) -> None:
    soknad = kit.soknad()
    projection = shown([soknad.transport("AKSEPTERT")])
    assert projection.kommunenummer == kit.oslo
    assert projection.nav_ekstern_ref_id == soknad.ref
    assert projection.eier == soknad.eier()
    assert projection.oppdatert == kit.now
    assert not projection.levert_fagsystem


def test_an_unknown_soknad_is_nobodys_and_has_no_status(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    projection = shown([oslo.issue(soknad), soknad.hendelse("UNDER_BEHANDLING")])
    assert projection.status is None
    assert projection.eier is None
    assert set(projection.verdicts.waits.values()) == {VENTER_SOKNAD}
    assert projection.historikk == ()


def test_a_kvittering_that_came_before_its_soknad_counts_when_the_soknad_comes(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    projection = shown([oslo.issue(soknad), soknad.transport("AKSEPTERT")])
    assert projection.status is S.MOTTATT
    assert not projection.verdicts.waits


def test_a_kvittering_may_come_before_sendt(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    facts = [soknad.transport("AKSEPTERT"), oslo.issue(soknad), soknad.transport("SENDT", 1)]
    assert shown(facts[:2]).status is S.MOTTATT
    assert shown(facts).status is S.MOTTATT
    assert [line.verdi for line in shown(facts).historikk] == ["AKSEPTERT", "SENDT", "MOTTATT"]


def test_a_repeat_of_any_fact_is_no_event(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    facts = [soknad.transport("AKSEPTERT"), oslo.issue(soknad), soknad.hendelse("MOTTATT")]
    state = fold(facts)
    for fact in facts:
        change = apply(state, fact)
        assert change.outcome == "GJENTATT"
        assert change.state is state


def test_a_rejection_leaves_the_citizen_at_sendt_with_a_code_until_something_says_otherwise(
    kit: Any, oslo: Any
) -> None:
    soknad = kit.soknad()
    facts = [
        soknad.transport("AKSEPTERT"),
        soknad.transport("SENDT", 60),  # the relay's clock runs after the connector's
        oslo.issue(soknad, "AVVIST", kode="krypto.apning"),
    ]
    assert (shown(facts).status, shown(facts).kode) == (S.SENDT, "krypto.apning")
    facts.append(oslo.issue(soknad, "LEVERT", tidspunkt=kit.now + timedelta(seconds=90)))
    assert (shown(facts).status, shown(facts).kode) == (S.SENDT, None)
    facts.append(oslo.issue(soknad, "MOTTATT", tidspunkt=kit.now + timedelta(seconds=95)))
    assert (shown(facts).status, shown(facts).kode) == (S.MOTTATT, None)


def test_a_channels_failure_is_a_code_and_not_a_status(kit: Any) -> None:
    soknad = kit.soknad()
    facts = [
        soknad.transport("AKSEPTERT"),
        soknad.transport("SENDT", 1),
        soknad.transport("TTL_TIDSAVBRUDD", 2),
        soknad.transport("SENDT", 3, kanal="SVARINN"),
    ]
    projection = shown(facts)
    assert (projection.status, projection.kode) == (S.SENDT, "TTL_TIDSAVBRUDD")
    assert projection.historikk[-1].kanal == "SVARINN"


def test_of_two_answers_in_the_same_millisecond_the_one_that_came_last_counts(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    at = kit.now + timedelta(seconds=9)
    facts = [soknad.transport("AKSEPTERT")]
    facts += [oslo.issue(soknad, "LEVERT", tidspunkt=at), oslo.issue(soknad, "AVVIST", tidspunkt=at, kode="x")]
    assert shown(facts).kode == "x"


def test_an_unreadable_records_rejection_belongs_to_the_soknad(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    facts = [soknad.transport("AKSEPTERT"), oslo.issue(soknad, "AVVIST", melding_id=None, kode="kontrakt.uleselig")]
    assert (shown(facts).status, shown(facts).kode) == (S.SENDT, "kontrakt.uleselig")


def test_a_late_transport_event_is_shown_and_changes_nothing(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    before = [soknad.transport("AKSEPTERT"), oslo.issue(soknad)]
    after = [*before, soknad.transport("TTL_TIDSAVBRUDD", 500)]
    assert shown(after).status is S.MOTTATT
    assert shown(after).kode is None
    assert shown(after).oppdatert == shown(before).oppdatert
    assert shown(after).historikk[-1].verdi == "TTL_TIDSAVBRUDD"


def test_a_late_kvittering_is_shown_and_changes_nothing(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    before = [soknad.transport("AKSEPTERT"), soknad.hendelse("FERDIGBEHANDLET", 5)]
    after = [*before, oslo.issue(soknad, "AVVIST", kode="sent")]
    assert (shown(after).status, shown(after).kode) == (S.FERDIGBEHANDLET, None)
    assert shown(after).oppdatert == shown(before).oppdatert
    assert "AVVIST" in [line.verdi for line in shown(after).historikk]


def test_the_fagsystem_may_say_mottatt_by_its_first_case_update_alone(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    projection = shown([soknad.transport("AKSEPTERT"), oslo.issue(soknad, "LEVERT"), soknad.hendelse("MOTTATT")])
    assert projection.status is S.MOTTATT
    assert projection.mottatt == kit.now + timedelta(seconds=100)
    assert projection.levert_fagsystem


def test_each_case_update_replaces_the_whole_case_history(kit: Any) -> None:
    soknad = kit.soknad()
    facts = [
        soknad.transport("AKSEPTERT"),
        soknad.hendelse("FERDIGBEHANDLET", 100),
        soknad.hendelse("UNDER_BEHANDLING", 90),
    ]
    projection = shown(facts)
    assert projection.status is S.UNDER_BEHANDLING
    assert [line.verdi for line in projection.historikk if line.type == "sak"] == ["UNDER_BEHANDLING"]


def test_a_case_update_without_a_status_or_with_a_new_one_changes_nothing(kit: Any) -> None:
    soknad = kit.soknad()
    facts = [soknad.transport("AKSEPTERT"), soknad.hendelse("FERDIGBEHANDLET", 100)]
    for vist in (None, "PAUSET"):
        assert shown([*facts, soknad.hendelse(vist, 200)]).status is S.FERDIGBEHANDLET


def test_an_ettersendelse_has_its_own_status_and_never_moves_the_soknad(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    later = kit.soknad(
        digisos_id=soknad.digisos_id, ref=NavEksternRefId("ref-10001"), sha256=Sha256.of(b"ettersendelsen")
    )
    facts = [soknad.transport("AKSEPTERT"), later.transport("AKSEPTERT", 1), oslo.issue(later)]
    projection = shown(facts)
    assert projection.status is S.AKSEPTERT
    assert [one.status for one in projection.meldinger] == [S.AKSEPTERT, S.MOTTATT]
    assert projection.nav_ekstern_ref_id == soknad.ref


def test_a_rejected_ettersendelse_shows_its_code_after_the_soknad_was_received(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    later = kit.soknad(digisos_id=soknad.digisos_id, sha256=Sha256.of(b"ettersendelsen"))
    facts = [soknad.transport("AKSEPTERT"), oslo.issue(soknad), later.transport("AKSEPTERT", 1)]
    facts.append(oslo.issue(later, "AVVIST", kode="krypto.apning"))
    assert (shown(facts).status, shown(facts).kode) == (S.MOTTATT, "krypto.apning")


def test_a_foreign_kommunes_kvittering_changes_nothing_whenever_it_comes(kit: Any, bergen: Any) -> None:
    soknad = kit.soknad()
    foreign, accepted = bergen.issue(soknad), soknad.transport("AKSEPTERT")
    early = apply(fold([foreign]), accepted)
    late = apply(fold([accepted]), foreign)
    assert early.state == late.state
    assert project(late.state).status is S.AKSEPTERT
    for change in (early, late):
        ((refused_id, error),) = change.refused
        assert refused_id == foreign.digest
        assert isinstance(error, MismatchError)
    assert (early.outcome, late.outcome) == ("MOTTATT", "UNDERKJENT")


def test_a_foreign_kommunes_case_update_changes_nothing_whenever_it_comes(kit: Any) -> None:
    soknad = kit.soknad()
    foreign, accepted = soknad.hendelse("FERDIGBEHANDLET", kommunenummer=kit.bergen), soknad.transport("AKSEPTERT")
    early, late = apply(fold([foreign]), accepted), apply(fold([accepted]), foreign)
    assert early.state == late.state
    assert [refused.fact_id for refused in (*early.refused, *late.refused)] == [foreign.melding_id] * 2


def test_a_kvittering_with_the_wrong_digest_is_refused_once_and_its_chain_goes_on(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    wrong, right = oslo.issue(soknad, sha256=Sha256.of(b"en annen")), oslo.issue(soknad)
    first = apply(fold([soknad.transport("AKSEPTERT")]), wrong)
    assert first.outcome == "UNDERKJENT"
    second = apply(first.state, right)
    assert (second.outcome, second.refused) == ("MOTTATT", ())
    assert apply(second.state, wrong).outcome == "GJENTATT"
    assert project(second.state).status is S.MOTTATT


def test_a_fork_is_refused_and_leaves_no_trace(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    state = fold([soknad.transport("AKSEPTERT"), oslo.issue(soknad, "LEVERT")])
    fork = verify_ledd(oslo.sign(oslo.claims(soknad, nr=1, forrige=None)), [oslo.certificate])
    change = apply(state, fork)
    assert change.outcome == "UNDERKJENT"
    assert isinstance(change.refused[0].error, ChainError)
    assert change.state == state


def test_a_gap_holds_the_status_back_and_heals_when_the_missing_link_comes(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    first, second = oslo.issue(soknad, "LEVERT"), oslo.issue(soknad, "MOTTATT")
    state = fold([soknad.transport("AKSEPTERT"), second])
    assert project(state).status is S.AKSEPTERT
    assert project(state).verdicts.waits == {second.digest: VENTER_KJEDE}
    assert project(apply(state, first).state).status is S.MOTTATT


def test_a_link_that_waited_and_never_fits_is_refused_when_that_is_known(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    first = oslo.issue(soknad, "LEVERT")
    odd = verify_ledd(oslo.sign(oslo.claims(soknad, forrige=Sha256.of(b"noe"))), [oslo.certificate])
    change = apply(fold([soknad.transport("AKSEPTERT"), odd]), first)
    assert change.outcome == "MOTTATT"
    assert [refused.fact_id for refused in change.refused] == [odd.digest]
    assert change.state.kvitteringer == (first,)


def test_the_state_survives_its_json(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    state = fold([soknad.transport("AKSEPTERT"), oslo.issue(soknad, "AVVIST", kode="x"), soknad.hendelse("MOTTATT")])
    assert SoknadState.from_json(state.to_json()) == state
    assert project(SoknadState.from_json(state.to_json())) == project(state)


def test_a_letter_is_sent_on_paper_and_its_former_channels_failure_is_shown_no_more(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    facts = [
        soknad.transport("AKSEPTERT"),
        soknad.transport("SENDT", 1),
        oslo.issue(soknad, "AVVIST", kode="krypto.apning"),
        soknad.transport("MAX_RETRIESAVBRUDD", 20, kode="krypto.apning"),
        soknad.transport("SENDT", 21, kanal="PRINT"),
    ]
    assert (shown(facts).status, shown(facts).kode) == (S.SENDT, "krypto.apning")
    facts.append(soknad.transport("UTSKREVET", 30, kanal="PRINT"))
    projection = shown(facts)
    assert (projection.status, projection.kode) == (S.SENDT_PA_PAPIR, None)
    assert projection.oppdatert == kit.now + timedelta(seconds=30)
    assert not projection.levert_fagsystem


def test_a_kvittering_from_after_the_withdrawal_is_shown_as_late_and_changes_nothing(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    before = [
        soknad.transport("AKSEPTERT"),
        soknad.transport("TTL_TIDSAVBRUDD", 20),
        soknad.transport("UTSKREVET", 30, kanal="PRINT"),
    ]
    for status, kode in (("MOTTATT", None), ("AVVIST", "levering.utlopt")):
        late = oslo.issue(soknad, status, kode=kode, tidspunkt=kit.now + timedelta(seconds=40))
        after = shown([*before, late])
        assert (after.status, after.oppdatert, after.kode, after.mottatt) == (
            S.SENDT_PA_PAPIR,
            shown(before).oppdatert,
            None,
            None,
        )
        assert (after.historikk[-1].verdi, after.historikk[-1].for_sent) == (status, True)
        assert late.digest in {ledd.digest for ledd in after.verdicts.holds}
        oslo.heads.pop(soknad.digisos_id)


def test_a_kvittering_from_before_the_withdrawal_counts_also_when_it_comes_after_the_letter(
    kit: Any, oslo: Any
) -> None:
    soknad = kit.soknad()
    facts = [
        soknad.transport("AKSEPTERT"),
        soknad.transport("TTL_TIDSAVBRUDD", 20),
        soknad.transport("UTSKREVET", 30, kanal="PRINT"),
        oslo.issue(soknad, tidspunkt=kit.now + timedelta(seconds=19)),
    ]
    assert shown(facts).status is S.MOTTATT
    assert not any(line.for_sent for line in shown(facts).historikk)


def test_a_case_update_counts_however_late(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    facts = [
        soknad.transport("AKSEPTERT"),
        soknad.transport("TTL_TIDSAVBRUDD", 20),
        soknad.transport("UTSKREVET", 30, kanal="PRINT"),
        oslo.issue(soknad, tidspunkt=kit.now + timedelta(seconds=40)),
        soknad.hendelse("UNDER_BEHANDLING", 50),
    ]
    assert shown(facts).status is S.UNDER_BEHANDLING
    assert shown(facts).levert_fagsystem


def test_what_a_person_stopped_moves_no_more_and_says_what_came_after(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    facts = [
        soknad.transport("AKSEPTERT"),
        soknad.transport("SENDT", 1),
        soknad.transport("STOPPET", 5),
        soknad.transport("UTSKREVET", 6, kanal="PRINT"),
        oslo.issue(soknad, tidspunkt=kit.now + timedelta(seconds=7)),
    ]
    projection = shown(facts)
    assert (projection.status, projection.kode) == (S.SENDT, "STOPPET")
    assert [(line.verdi, line.for_sent) for line in projection.historikk][-3:] == [
        ("STOPPET", False),
        ("UTSKREVET", True),
        ("MOTTATT", True),
    ]


def test_an_unreadable_records_late_rejection_is_late_for_the_soknad(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    late = oslo.issue(soknad, "AVVIST", melding_id=None, kode="x", tidspunkt=kit.now + timedelta(seconds=40))
    projection = shown([soknad.transport("AKSEPTERT"), soknad.transport("TTL_TIDSAVBRUDD", 20), late])
    assert projection.kode == "TTL_TIDSAVBRUDD"
    assert projection.historikk[-1].for_sent


TRANSPORT = ["SENDT", "BEKREFTET", "TTL_TIDSAVBRUDD", "IKKE_SENDT", "STOPPET", "SENDT", "UTSKREVET", "TILBAKEKALT"]
CASE = ["MOTTATT", "UNDER_BEHANDLING", "FERDIGBEHANDLET", "BEHANDLES_IKKE", None, "NY_STATUS"]


@given(
    transport=st.lists(st.sampled_from(TRANSPORT), max_size=5),
    answers=st.lists(st.sampled_from(["LEVERT", "MOTTATT", "AVVIST"]), max_size=4),
    case=st.lists(st.sampled_from(CASE), max_size=3),
    swaps=st.booleans(),
    foreign=st.booleans(),
    choices=st.lists(st.integers(0, 3), max_size=16),
    times=st.lists(st.integers(0, 3), min_size=17, max_size=17),
)
def test_topics_may_race_and_the_end_is_the_same(
    kit: Any,
    oslo: Any,
    bergen: Any,
    *,
    transport: list[str],
    answers: list[str],
    case: list[str | None],
    swaps: bool,
    foreign: bool,
    choices: list[int],
    times: list[int],
) -> None:
    soknad = kit.soknad()
    later = kit.soknad(digisos_id=soknad.digisos_id, sha256=Sha256.of(b"ettersendelsen"))
    when = iter(times)
    at = {"tidspunkt": lambda: kit.now + timedelta(seconds=next(when))}
    sent = [soknad.transport("AKSEPTERT"), later.transport("AKSEPTERT", 2)]
    sent += [soknad.transport(one, next(when)) for one in transport]
    received = [oslo.issue(soknad, one, tidspunkt=at["tidspunkt"](), kode=None) for one in answers]
    received.append(oslo.issue(later, "LEVERT", tidspunkt=at["tidspunkt"]()))
    if swaps:
        received.reverse()
    updates = [soknad.hendelse(one, next(when)) for one in case]
    lanes = [sent, received, updates]
    if foreign:
        lanes.append([bergen.issue(soknad), soknad.hendelse("BEHANDLES_IKKE", kommunenummer=kit.bergen)])
    expected = project(fold([fact for lane in lanes for fact in lane]))
    actual = project(fold(interleaved(lanes, choices)))
    assert (actual.status, actual.oppdatert, actual.kode) == (expected.status, expected.oppdatert, expected.kode)
    assert actual.historikk == expected.historikk
    assert actual.meldinger == expected.meldinger
    assert {fact_id(one) for one in actual.verdicts.holds} == {fact_id(one) for one in expected.verdicts.holds}
    assert all(one.tidspunkt <= other.tidspunkt for one, other in pairwise(actual.historikk))


@given(count=st.integers(1, 4), times=st.integers(1, 3))
def test_reading_everything_again_changes_nothing(kit: Any, oslo: Any, count: int, times: int) -> None:
    soknad = kit.soknad()
    facts = [soknad.transport("AKSEPTERT"), soknad.hendelse("UNDER_BEHANDLING")]
    facts += [oslo.issue(soknad) for _ in range(count)]
    assert project(fold(facts * times)) == project(fold(facts))


def test_an_unknown_melding_of_a_known_soknad_waits(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    other = kit.soknad(digisos_id=soknad.digisos_id, melding_id=MeldingId.new())
    projection = shown([soknad.transport("AKSEPTERT"), oslo.issue(other)])
    assert set(projection.verdicts.waits.values()) == {VENTER_SOKNAD}


def test_what_waits_is_bounded_for_each_issuer(
    kit: Any, oslo: Any, bergen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    soknad = kit.soknad()
    state = SoknadState(digisos_id=soknad.digisos_id)
    for _ in range(3):
        for fact in (oslo.issue(soknad), soknad.hendelse("MOTTATT")):
            state = apply(state, fact).state
    for fact in (oslo.issue(soknad), soknad.hendelse("MOTTATT")):
        change = apply(state, fact)
        assert (change.outcome, change.state) == ("UNDERKJENT", state)
        assert [one.error.code for one in change.refused] == ["kvittering.kjede"]
    assert apply(state, bergen.issue(soknad)).outcome == "MOTTATT"
    accepted = apply(state, soknad.transport("AKSEPTERT")).state
    assert project(accepted).verdicts.waits == {}
    assert len(project(accepted).verdicts.holds) == 3
