from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvittering.facts import SoknadState
from kvittering.frister import Arsak, Frister, decide, frister_for, waiting, withdrawal_id
from kvittering.projection import Projection, apply, project
from schemas.names import MeldingId, NavEksternRefId, Sha256

HOUR = 3600
FRISTER = Frister(bekreftet=timedelta(hours=24), mottatt=timedelta(hours=48), margin=timedelta(minutes=10))


def shown(facts: list[Any]) -> Projection:
    state = SoknadState(digisos_id=facts[0].digisos_id)
    for fact in facts:
        state = apply(state, fact).state
    return project(state)


def one(facts: list[Any]) -> Any:
    (found,) = waiting(shown(facts), FRISTER)
    return found


def at(kit: Any, hours: float) -> Any:
    return kit.now + timedelta(hours=hours)


def test_a_soknad_that_nobody_answers_is_late_a_day_after_acceptance_and_the_watch_acts_a_margin_later(
    kit: Any,
) -> None:
    soknad = kit.soknad()
    facts = [soknad.transport("AKSEPTERT"), soknad.transport("SENDT", 5)]
    found = one(facts)
    assert (found.arsak, found.kode, found.kanal) == (Arsak.IKKE_BEKREFTET, None, "KAFKA")
    assert (found.forfall, found.sjekk) == (at(kit, 24), at(kit, 24) + FRISTER.margin)
    assert decide(shown(facts), FRISTER, found.sjekk - timedelta(milliseconds=1)) == ()
    (event,) = decide(shown(facts), FRISTER, found.sjekk)
    assert (event.type, event.kanal, event.kode) == ("TTL_TIDSAVBRUDD", "KAFKA", "ikke-bekreftet")
    assert (event.melding_id, event.digisos_id, event.nav_ekstern_ref_id) == (
        soknad.melding_id,
        soknad.digisos_id,
        soknad.ref,
    )
    assert event.tidspunkt == found.sjekk


def test_what_never_left_the_sender_is_not_sent(kit: Any) -> None:
    assert one([kit.soknad().transport("AKSEPTERT")]).arsak is Arsak.IKKE_SENDT


def test_levert_confirms_and_mottatt_has_a_deadline_of_its_own(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    facts = [soknad.transport("AKSEPTERT"), oslo.issue(soknad, "LEVERT")]
    found = one(facts)
    assert (found.arsak, found.forfall) == (Arsak.IKKE_MOTTATT, at(kit, 48))
    (event,) = decide(shown(facts), FRISTER, at(kit, 49))
    assert (event.type, event.kode) == ("TTL_TIDSAVBRUDD", "ikke-mottatt")


@pytest.mark.parametrize(
    ("grad", "arsak"), [("INGEN", Arsak.DODT_BREV), ("VALIDERT", Arsak.AVVIST)], ids=["dead letter", "rejection"]
)
def test_a_rejection_and_a_dead_letter_are_acted_on_at_the_deadline_and_not_before(
    kit: Any, oslo: Any, grad: str, arsak: Arsak
) -> None:
    soknad = kit.soknad()
    facts = [soknad.transport("AKSEPTERT"), oslo.issue(soknad, "AVVIST", grad=grad, kode="krypto.apning")]
    found = one(facts)
    assert (found.arsak, found.kode, found.forfall) == (arsak, "krypto.apning", at(kit, 24))
    assert decide(shown(facts), FRISTER, at(kit, 24)) == ()
    (event,) = decide(shown(facts), FRISTER, at(kit, 25))
    assert (event.type, event.kode) == ("MAX_RETRIESAVBRUDD", "krypto.apning")


def test_what_the_sender_stated_decides_and_not_a_katalog_that_changed(kit: Any) -> None:
    soknad = kit.soknad()
    facts = [soknad.transport("AKSEPTERT", gyldig_til=at(kit, 3)), soknad.transport("SENDT", 5)]
    assert one(facts).forfall == at(kit, 3)
    facts.append(soknad.transport("OMFORSEGLET", 60, gyldig_til=at(kit, 7)))
    assert one(facts).forfall == at(kit, 7)


def test_the_event_in_the_facts_is_what_keeps_it_from_being_written_again(kit: Any) -> None:
    soknad = kit.soknad()
    facts = [soknad.transport("AKSEPTERT"), soknad.transport("SENDT", 5)]
    (event,) = decide(shown(facts), FRISTER, at(kit, 25))
    after = [*facts, event]
    assert decide(shown(after), FRISTER, at(kit, 1000)) == ()
    assert (one(after).arsak, one(after).forfall, one(after).sjekk) == (Arsak.IKKE_BEKREFTET, at(kit, 24), None)
    again = decide(shown(facts), FRISTER, at(kit, 26))
    assert [other.hendelse_id for other in again] == [event.hendelse_id]


def test_a_channel_that_a_person_opened_again_is_told_of_and_not_withdrawn_a_second_time(kit: Any) -> None:
    soknad = kit.soknad()
    facts = [soknad.transport("AKSEPTERT"), soknad.transport("SENDT", 5)]
    facts += decide(shown(facts), FRISTER, at(kit, 25))
    facts.append(soknad.transport("SENDT", 30 * HOUR))
    assert (one(facts).forfall, one(facts).sjekk) == (at(kit, 54), None)


def test_a_letter_has_its_own_deadline_from_when_it_was_queued_and_is_never_withdrawn(kit: Any) -> None:
    soknad = kit.soknad()
    facts = [
        soknad.transport("AKSEPTERT"),
        soknad.transport("TTL_TIDSAVBRUDD", 25 * HOUR),
        soknad.transport("SENDT", 26 * HOUR, kanal="PRINT"),
    ]
    found = one(facts)
    assert (found.kanal, found.arsak, found.forfall, found.sjekk) == ("PRINT", Arsak.IKKE_BEKREFTET, at(kit, 50), None)
    assert decide(shown(facts), FRISTER, at(kit, 1000)) == ()


def test_a_middle_channel_is_withdrawn_in_its_turn(kit: Any) -> None:
    soknad = kit.soknad()
    facts = [
        soknad.transport("AKSEPTERT", gyldig_til=at(kit, 24)),
        soknad.transport("TTL_TIDSAVBRUDD", 25 * HOUR),
        soknad.transport("SENDT", 26 * HOUR, kanal="SVARINN"),
    ]
    (event,) = decide(shown(facts), FRISTER, at(kit, 51))
    assert (event.type, event.kanal) == ("TTL_TIDSAVBRUDD", "SVARINN")
    assert event.hendelse_id != withdrawal_id(soknad.melding_id, "KAFKA")


def test_a_channel_that_could_not_take_it_stays_on_the_list_with_its_code(kit: Any) -> None:
    soknad = kit.soknad()
    facts = [
        soknad.transport("AKSEPTERT"),
        soknad.transport("TTL_TIDSAVBRUDD", 25 * HOUR),
        soknad.transport("IKKE_SENDT", 26 * HOUR, kanal="PRINT", kode="ingen-kanal"),
    ]
    found = one(facts)
    assert (found.arsak, found.kode, found.kanal, found.sjekk) == (Arsak.KANAL_FEIL, "ingen-kanal", "PRINT", None)
    assert found.forfall == at(kit, 24)


def test_a_withdrawal_from_a_channel_that_is_past_means_nothing(kit: Any) -> None:
    soknad = kit.soknad()
    facts = [
        soknad.transport("AKSEPTERT"),
        soknad.transport("IKKE_SENDT", 25 * HOUR, kode="frist"),
        soknad.transport("SENDT", 25 * HOUR + 1, kanal="PRINT"),
        soknad.transport("TTL_TIDSAVBRUDD", 25 * HOUR + 2),
    ]
    assert one(facts).kanal == "PRINT"


def test_a_channel_that_is_opened_again_has_a_new_deadline(kit: Any) -> None:
    soknad = kit.soknad()
    facts = [
        soknad.transport("AKSEPTERT", gyldig_til=at(kit, 24)),
        soknad.transport("TTL_TIDSAVBRUDD", 25 * HOUR),
        soknad.transport("SENDT", 30 * HOUR),
    ]
    assert one(facts).forfall == at(kit, 54)


@pytest.mark.parametrize("kind", ["UTSKREVET", "STOPPET", "TILBAKEKALT"])
def test_what_is_printed_or_ended_by_a_person_waits_no_more(kit: Any, kind: str) -> None:
    soknad = kit.soknad()
    assert waiting(shown([soknad.transport("AKSEPTERT"), soknad.transport(kind, 9, kanal="PRINT")]), FRISTER) == ()


def test_what_the_fagsystem_has_waits_no_more(kit: Any, oslo: Any) -> None:
    soknad, other = kit.soknad(), kit.soknad()
    assert waiting(shown([soknad.transport("AKSEPTERT"), oslo.issue(soknad)]), FRISTER) == ()
    assert waiting(shown([other.transport("AKSEPTERT"), other.hendelse("UNDER_BEHANDLING")]), FRISTER) == ()


def test_a_late_mottatt_does_not_close_it(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    late = oslo.issue(soknad, tidspunkt=at(kit, 26))
    facts = [soknad.transport("AKSEPTERT"), soknad.transport("TTL_TIDSAVBRUDD", 25 * HOUR), late]
    assert [found.arsak for found in waiting(shown(facts), FRISTER)] == [Arsak.IKKE_SENDT]


def test_each_message_has_its_own_deadline_and_an_unknown_soknad_has_none(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    later = kit.soknad(
        digisos_id=soknad.digisos_id, ref=NavEksternRefId("ref-10001"), sha256=Sha256.of(b"ettersendelsen")
    )
    facts = [soknad.transport("AKSEPTERT"), oslo.issue(soknad), later.transport("AKSEPTERT", HOUR)]
    found = one(facts)
    assert (found.melding.melding_id, found.forfall) == (later.melding_id, at(kit, 25))
    assert waiting(project(SoknadState(digisos_id=soknad.digisos_id)), FRISTER) == ()


def test_the_katalog_says_each_kommunes_deadlines_and_the_default_the_rest(oslo: Any) -> None:
    entry = oslo.entry()
    assert frister_for(None, FRISTER) == FRISTER
    assert frister_for(entry, FRISTER) == FRISTER
    own = entry.model_copy(update={"frist_bekreftet_s": 60, "frist_mottatt_s": 120})
    assert frister_for(own, FRISTER) == Frister(timedelta(seconds=60), timedelta(seconds=120), FRISTER.margin)


KINDS = ["SENDT", "BEKREFTET", "TTL_TIDSAVBRUDD", "MAX_RETRIESAVBRUDD", "IKKE_SENDT", "UTSKREVET", "OMFORSEGLET"]


@given(
    events=st.lists(
        st.tuples(st.sampled_from(KINDS), st.sampled_from(["KAFKA", "SVARINN", "PRINT"]), st.integers(1, 60)),
        max_size=5,
    ),
    answers=st.lists(st.tuples(st.sampled_from(["LEVERT", "MOTTATT", "AVVIST"]), st.integers(1, 60)), max_size=3),
    moments=st.lists(st.integers(0, 200), min_size=1, max_size=4),
)
def test_whatever_happened_each_channel_is_withdrawn_at_most_once_and_only_what_waits_is(
    kit: Any, oslo: Any, events: list[tuple[str, str, int]], answers: list[tuple[str, int]], moments: list[int]
) -> None:
    soknad = kit.soknad()
    facts: list[Any] = [soknad.transport("AKSEPTERT")]
    facts += [soknad.transport(kind, hour * HOUR, kanal=kanal) for kind, kanal, hour in events]
    facts += [oslo.issue(soknad, status, tidspunkt=at(kit, hour)) for status, hour in answers]
    oslo.heads.pop(soknad.digisos_id, None)
    written: set[str] = set()
    for hour in sorted(moments):
        projection = shown(facts)
        due = decide(projection, FRISTER, at(kit, hour))
        assert {event.melding_id for event in due} <= {w.melding.melding_id for w in waiting(projection, FRISTER)}
        for event in due:
            assert event.kanal != "PRINT"
            assert event.tidspunkt >= at(kit, 0) + FRISTER.margin
        written |= {event.hendelse_id for event in due}
        facts += due
        assert decide(shown(facts), FRISTER, at(kit, hour)) == ()
    assert written <= {withdrawal_id(soknad.melding_id, kanal) for kanal in ("KAFKA", "SVARINN")}


def test_an_id_names_one_message_and_one_channel() -> None:
    one_id, other_id = MeldingId.new(), MeldingId.new()
    ids = [withdrawal_id(one_id, "KAFKA"), withdrawal_id(one_id, "SVARINN"), withdrawal_id(other_id, "KAFKA")]
    assert len(set(ids)) == 3
    assert withdrawal_id(one_id, "KAFKA") == ids[0]
