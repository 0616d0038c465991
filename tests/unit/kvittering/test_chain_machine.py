"""The places that the links of a chain get, in whatever order they are read: a model beside ``kvittering.chain.connect``."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from kvittering.chain import connect, verify_ledd
from kvittering.facts import Ledd
from schemas.names import Sha256


class Issuing(RuleBasedStateMachine):
    """An issuer whose links come in any order, some twice, some forged by itself: what must hold of the places they get."""

    def __init__(self) -> None:
        super().__init__()
        self.issuer, self.soknad = MADE_FOR
        self.issuer.heads.pop(self.soknad.digisos_id, None)
        self.made: list[Ledd] = []
        self.read: list[Ledd] = []

    def _make(self, **changes: Any) -> None:
        claims = self.issuer.claims(self.soknad, "LEVERT", **changes)
        self.made.append(verify_ledd(self.issuer.sign(claims), [self.issuer.certificate]))

    @rule()
    def the_next_link_is_made(self) -> None:
        self._make()
        self.issuer.heads[self.soknad.digisos_id] = (self.made[-1].claims.nr, self.made[-1].digest)

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def a_link_is_made_again_otherwise(self, data: st.DataObject) -> None:
        former = data.draw(st.sampled_from(self.made)).claims
        self._make(nr=former.nr, forrige=former.forrige)

    @rule(nr=st.integers(1, 5))
    def a_link_is_made_that_names_a_stranger(self, nr: int) -> None:
        self._make(nr=nr, forrige=Sha256.of(b"en fremmed"))

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def a_link_is_read(self, data: st.DataObject) -> None:
        self.read.append(data.draw(st.sampled_from(self.made)))

    @invariant()
    def each_link_has_one_fate(self) -> None:
        chains = connect(self.read)
        linked, waiting = {one.digest for one in chains.linked}, {one.digest for one in chains.waiting}
        fates = [linked, waiting, set(chains.broken)]
        assert sum(map(len, fates)) == len(set().union(*fates)) == len({one.digest for one in self.read})

    @invariant()
    def what_is_linked_is_one_unbroken_chain_from_its_first(self) -> None:
        chains = connect(self.read)
        links = sorted(chains.linked, key=lambda one: one.claims.nr)
        assert [one.claims.nr for one in links] == list(range(1, len(links) + 1))
        assert [one.claims.forrige for one in links] == [None, *(one.digest for one in links)][: len(links)]
        assert [head.digest for head in chains.heads.values()] == [one.digest for one in links[-1:]]

    @invariant()
    def whoever_was_there_first_keeps_its_place(self) -> None:
        before = {one.digest for one in connect(self.read[:-1]).linked}
        assert before <= {one.digest for one in connect(self.read).linked}

    @invariant()
    def a_repeat_changes_nothing(self) -> None:
        once, again = connect(self.read), connect([*self.read, *self.read])
        assert (once.heads, once.linked, once.waiting) == (again.heads, again.linked, again.waiting)


MADE_FOR: list[Any] = []
"""Issuer and søknad: a machine is made without fixtures, and a key takes a while to make."""


def test_any_order_of_reading_a_chain(kit: Any, oslo: Any) -> None:
    MADE_FOR[:] = [oslo, kit.soknad()]
    run_state_machine_as_test(Issuing, settings=settings(max_examples=40, stateful_step_count=25, deadline=None))
