from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.dlq.letters import read_letter
from broker.dlq.state import APNET, GJENKJORT, LOKKEVERN, LUKKET, OPERATOR, PARKERT, Dodebrev, fold
from schemas.names import Kommunenummer, MeldingId, Uuid

if TYPE_CHECKING:
    from conftest import Mailbox

    from broker.dlq.state import Answers

OSLO = Kommunenummer("0301")
BERGEN = Kommunenummer("4601")
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def folded(mailbox: Mailbox, now: datetime, answers: Answers | None = None, rounds: int = 3) -> Dodebrev:
    letters = [read_letter(one, Kommunenummer(one.topic.split(".")[1])) for one in mailbox.records]
    return fold(letters, mailbox.acts, answers or {}, now=now, register=mailbox.register(rounds))


def states(brev: Dodebrev) -> list[tuple[str, str | None]]:
    return [(sak.tilstand, sak.arsak) for sak in brev.saker]


def test_a_letter_that_nobody_has_touched_is_open(mailbox: Mailbox, now: datetime) -> None:
    mailbox.die()
    assert states(folded(mailbox, now)) == [("APEN", None)]


def test_what_follows_a_dead_letter_waits_behind_the_nearest_one(mailbox: Mailbox, now: datetime) -> None:
    first, second, third = (mailbox.die(melding=nr) for nr in (1, 2, 3))
    other = mailbox.die(soknad=2, melding=4)
    saker = folded(mailbox, now).saker
    assert [sak.bak for sak in saker] == [None, first, second, None]
    assert [sak.venter for sak in saker] == [(second, third), (third,), (), ()]
    assert saker[3].id == other


def test_two_kommuner_with_one_key_are_two_lines(mailbox: Mailbox, now: datetime) -> None:
    mailbox.die(melding=1)
    mailbox.die(melding=2, kommune=BERGEN)
    assert [sak.bak for sak in folded(mailbox, now).saker] == [None, None]


def test_a_kommune_that_names_anothers_melding_neither_hides_nor_closes_it(mailbox: Mailbox, now: datetime) -> None:
    own = mailbox.die()
    mailbox.die(kommune=BERGEN, runde=1, fra=own)
    brev = folded(mailbox, now, {(BERGEN, mailbox.soknad().melding_id): mailbox.later()})
    assert states(brev) == [("APEN", None), ("LUKKET", "besvart")]
    assert brev.saker[0].id == own


@pytest.mark.parametrize(
    ("handling", "state"),
    [
        (GJENKJORT, ("GJENKJORT", None)),
        (PARKERT, ("PARKERT", OPERATOR)),
        (LUKKET, ("LUKKET", OPERATOR)),
        (APNET, ("APEN", None)),
        ("noe.annet", ("APEN", None)),
    ],
)
def test_an_act_moves_its_letter(mailbox: Mailbox, now: datetime, handling: str, state: tuple[str, str | None]) -> None:
    brev = mailbox.die()
    mailbox.act(handling, brev)
    assert states(folded(mailbox, now)) == [state]


@pytest.mark.parametrize("handling", [GJENKJORT, PARKERT, LUKKET])
@pytest.mark.parametrize("aktor", ["operator-kari", "operator-ukjent", "broker"])
def test_an_act_that_nobody_has_signed_for_moves_nothing_and_is_told_of(
    mailbox: Mailbox, now: datetime, handling: str, aktor: str
) -> None:
    mailbox.act(handling, mailbox.die(), aktor, signed=False)
    (sak,) = folded(mailbox, now).saker
    assert (sak.tilstand, sak.handlinger) == ("APEN", ())
    (tvil,) = sak.uten_virkning
    assert (tvil.act, bool(tvil.tekst)) == (mailbox.acts[0], True)


def test_an_act_of_an_operator_whom_this_register_does_not_have_names_the_operator(
    mailbox: Mailbox, now: datetime
) -> None:
    mailbox.act(LUKKET, mailbox.die())
    letters = [read_letter(one, OSLO) for one in mailbox.records]
    (sak,) = fold(letters, mailbox.acts, {}, now=now, register=mailbox.register(entry=None)).saker
    assert sak.tilstand == "APEN"
    assert "kari er ukjent" in sak.uten_virkning[0].tekst


def test_what_a_removed_operator_signed_afterwards_does_not_count(mailbox: Mailbox, now: datetime) -> None:
    brev = mailbox.die()
    before = mailbox.act(PARKERT, brev)
    mailbox.act(LUKKET, brev)
    gone = (
        mailbox.register()
        .operatorer[0]
        .model_copy(update={"fjernet": before.record.tidspunkt + timedelta(microseconds=1)})
    )
    letters = [read_letter(one, OSLO) for one in mailbox.records]
    (sak,) = fold(letters, mailbox.acts, {}, now=now, register=mailbox.register(entry=gone)).saker
    assert (sak.tilstand, [tvil.act.record.handling for tvil in sak.uten_virkning]) == ("PARKERT", [LUKKET])


def test_a_signed_act_that_is_put_on_the_topic_once_more_is_the_one_that_it_was(
    mailbox: Mailbox, now: datetime
) -> None:
    brev = mailbox.die()
    closed = mailbox.act(LUKKET, brev)
    mailbox.act(APNET, brev)
    mailbox.acts.append(replace(closed, offset=99, at_ms=mailbox.later()))
    (sak,) = folded(mailbox, now).saker
    assert (sak.tilstand, len(sak.handlinger)) == ("APEN", 2)


def test_the_last_act_counts(mailbox: Mailbox, now: datetime) -> None:
    brev = mailbox.die()
    for handling in (PARKERT, APNET, GJENKJORT, PARKERT):
        mailbox.act(handling, brev)
    assert states(folded(mailbox, now)) == [("PARKERT", OPERATOR)]


def test_an_answer_after_the_letter_closes_it_and_one_from_before_does_not(mailbox: Mailbox, now: datetime) -> None:
    before = mailbox.later()
    mailbox.die()
    melding = mailbox.soknad().melding_id
    assert states(folded(mailbox, now, {(OSLO, melding): before})) == [("APEN", None)]
    assert states(folded(mailbox, now, {(OSLO, melding): mailbox.later()})) == [("LUKKET", "besvart")]


def test_a_round_that_failed_is_the_same_sak_open_again(mailbox: Mailbox, now: datetime) -> None:
    first = mailbox.die()
    mailbox.act(GJENKJORT, first)
    second = mailbox.die(runde=1, fra=first, kode="fagsystem.feil")
    (sak,) = folded(mailbox, now).saker
    assert (sak.tilstand, sak.id, sak.newest.kode, sak.attempts) == ("APEN", second, "fagsystem.feil", 2)
    assert [letter.id for letter in sak.brev] == [first, second]
    assert [act.record.handling for act in sak.handlinger] == [GJENKJORT]
    assert folded(mailbox, now).find(first) == folded(mailbox, now).find(second) == sak


def test_one_that_could_not_be_read_is_known_again_by_where_it_was_sent_from(mailbox: Mailbox, now: datetime) -> None:
    first = mailbox.die(verdi=b"tull")
    second = mailbox.die(verdi=b"tull", runde=1, fra=first)
    mailbox.die(runde=2, fra=second)  # by now it can be read
    (sak,) = folded(mailbox, now).saker
    assert len(sak.brev) == 3


def test_two_that_could_not_be_read_are_two(mailbox: Mailbox, now: datetime) -> None:
    mailbox.die(verdi=b"tull")
    mailbox.die(verdi=b"tull")
    assert len(folded(mailbox, now).saker) == 2


def test_a_letter_written_twice_is_one(mailbox: Mailbox, now: datetime) -> None:
    mailbox.die()
    mailbox.records.append(mailbox.records[0])
    (sak,) = folded(mailbox, now).saker
    assert len(sak.brev) == 1


def test_the_loop_guard_parks_after_its_rounds_until_an_operator_opens(mailbox: Mailbox, now: datetime) -> None:
    brev = mailbox.die()
    for runde in (1, 2, 3):
        assert states(folded(mailbox, now)) == [("APEN", None)]
        mailbox.act(GJENKJORT, brev)
        brev = mailbox.die(runde=runde, fra=brev)
    assert states(folded(mailbox, now)) == [("PARKERT", LOKKEVERN)]
    mailbox.act(APNET, brev)
    assert states(folded(mailbox, now)) == [("APEN", None)]


def test_what_was_closed_for_good_stays_closed_whatever_comes_of_it(mailbox: Mailbox, now: datetime) -> None:
    first = mailbox.die()
    mailbox.act(LUKKET, first)
    mailbox.die(runde=1, fra=first)
    assert states(folded(mailbox, now)) == [("LUKKET", OPERATOR)]


def test_a_parked_letter_that_was_sent_again_and_died_is_open(mailbox: Mailbox, now: datetime) -> None:
    first = mailbox.die()
    mailbox.act(PARKERT, first)
    mailbox.die(runde=1, fra=first)
    assert states(folded(mailbox, now)) == [("APEN", None)]


def test_a_letter_past_its_time_belongs_to_the_next_channel(mailbox: Mailbox, now: datetime) -> None:
    mailbox.die(gyldig_til=now)
    mailbox.die(melding=2, gyldig_til=now + timedelta(seconds=1))
    brev = folded(mailbox, now)
    assert states(brev) == [("UTLOPT", None), ("APEN", None)]
    assert brev.saker[1].bak == brev.saker[0].id
    assert states(folded(mailbox, now, {(OSLO, mailbox.soknad().melding_id): mailbox.later()}))[0] == (
        "LUKKET",
        "besvart",
    )


def test_what_is_closed_or_under_way_holds_nobody(mailbox: Mailbox, now: datetime) -> None:
    first, second, _ = (mailbox.die(melding=nr) for nr in (1, 2, 3))
    mailbox.act(LUKKET, first)
    mailbox.act(GJENKJORT, second)
    assert [sak.bak for sak in folded(mailbox, now).saker] == [None, None, None]


steps = st.lists(
    st.tuples(
        st.sampled_from(["die", "again", GJENKJORT, PARKERT, APNET, LUKKET, "answer"]),
        st.integers(1, 2),
        st.integers(1, 3),
    ),
    max_size=25,
)


@settings(max_examples=150)
@given(steps, st.randoms(use_true_random=False))
def test_every_letter_is_in_one_sak_whatever_order_topics_are_read_in(
    new_mailbox: Callable[[], Mailbox], steps: list[tuple[str, int, int]], rng: random.Random
) -> None:
    now = NOW
    mailbox = new_mailbox()
    newest: dict[tuple[int, int], Uuid] = {}
    answers: dict[tuple[Kommunenummer, MeldingId], int] = {}
    for what, soknad, nr in steps:
        melding = soknad * 10 + nr
        former = newest.get((soknad, melding))
        if what == "die" and former is None:
            newest[soknad, melding] = mailbox.die(soknad=soknad, melding=melding)
        elif what == "again" and former is not None:
            newest[soknad, melding] = mailbox.die(soknad=soknad, melding=melding, runde=1, fra=former)
        elif what == "answer":
            answers[OSLO, mailbox.soknad(soknad, melding).melding_id] = mailbox.later()
        elif former is not None:
            mailbox.act(what, former)
    brev = folded(mailbox, now, answers)
    everything: list[Any] = [letter.id for sak in brev.saker for letter in sak.brev]
    assert sorted(everything) == sorted({read_letter(one, OSLO).id for one in mailbox.records})
    for sak in brev.saker:
        assert [letter.position.offset for letter in sak.brev] == sorted(letter.position.offset for letter in sak.brev)
        if sak.bak is not None:
            earlier = brev.find(sak.bak)
            assert earlier is not None
            assert earlier.first.position.offset < sak.first.position.offset
            assert sak.id in earlier.venter
    shuffled = list(mailbox.acts)
    rng.shuffle(shuffled)
    letters = [read_letter(one, OSLO) for one in mailbox.records]
    assert fold(letters, shuffled, answers, now=now, register=mailbox.register()).saker == brev.saker
