from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvittering.kanaler import withdrawals_of
from schemas.names import MeldingId


@pytest.mark.parametrize("kind", ["TTL_TIDSAVBRUDD", "MAX_RETRIESAVBRUDD"])
def test_what_a_channel_says_after_it_was_withdrawn_is_late_and_the_same_moment_is_in_time(kit: Any, kind: str) -> None:
    soknad = kit.soknad()
    found = withdrawals_of([soknad.transport(kind, 10)])
    late = [found.is_late(soknad.melding_id, "KAFKA", kit.now + timedelta(seconds=s)) for s in (9, 10, 11)]
    assert late == [False, False, True]


def test_a_withdrawal_is_of_one_message_and_one_channel(kit: Any) -> None:
    soknad = kit.soknad()
    found = withdrawals_of([soknad.transport("TTL_TIDSAVBRUDD", 10)])
    after = kit.now + timedelta(seconds=20)
    assert not found.is_late(soknad.melding_id, "PRINT", after)
    assert not found.is_late(MeldingId.new(), "KAFKA", after)


@pytest.mark.parametrize("kind", ["SENDT", "BEKREFTET"])
def test_a_later_sendt_or_bekreftet_opens_the_channel_again_and_an_earlier_one_does_not(kit: Any, kind: str) -> None:
    soknad = kit.soknad()
    withdrawn = soknad.transport("TTL_TIDSAVBRUDD", 10)
    after = kit.now + timedelta(seconds=20)
    for opened_s, late in ((9, True), (10, True), (11, False)):
        found = withdrawals_of([withdrawn, soknad.transport(kind, opened_s)])
        assert found.is_late(soknad.melding_id, "KAFKA", after) is late


@pytest.mark.parametrize("kind", ["STOPPET", "TILBAKEKALT"])
def test_what_a_person_ended_is_ended_on_every_channel_and_stays_so(kit: Any, kind: str) -> None:
    soknad = kit.soknad()
    found = withdrawals_of([soknad.transport(kind, 10), soknad.transport("SENDT", 15, kanal="PRINT")])
    after = kit.now + timedelta(seconds=20)
    assert found.is_late(soknad.melding_id, "PRINT", after)
    assert found.is_late(soknad.melding_id, "KAFKA", after)
    assert not found.is_late(soknad.melding_id, "KAFKA", kit.now)


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["SENDT", "BEKREFTET", "TTL_TIDSAVBRUDD", "MAX_RETRIESAVBRUDD", "STOPPET", "IKKE_SENDT"]),
            st.sampled_from(["KAFKA", "PRINT"]),
            st.integers(0, 5),
        ),
        max_size=6,
    ),
    order=st.randoms(use_true_random=False),
    asked=st.integers(0, 6),
)
def test_the_order_in_which_events_are_read_does_not_matter(
    kit: Any, events: list[tuple[str, str, int]], order: Any, asked: int
) -> None:
    soknad = kit.soknad()
    records = [soknad.transport(kind, at, kanal=kanal) for kind, kanal, at in events]
    shuffled = list(records)
    order.shuffle(shuffled)
    at = kit.now + timedelta(seconds=asked)
    for kanal in ("KAFKA", "PRINT"):
        expected = withdrawals_of(records).is_late(soknad.melding_id, kanal, at)
        assert withdrawals_of(shuffled).is_late(soknad.melding_id, kanal, at) is expected
