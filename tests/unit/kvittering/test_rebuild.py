from __future__ import annotations

from typing import Any

from kvittering.facts import SoknadState
from kvittering.rebuild import Difference, differences


def test_states_that_are_shown_alike_do_not_differ(kit: Any) -> None:
    soknad = kit.soknad()
    state = SoknadState(digisos_id=soknad.digisos_id, transport=(soknad.transport("AKSEPTERT"),))
    assert differences([state], [state.model_copy()]) == []


def test_a_difference_names_the_soknad_and_the_fields(kit: Any) -> None:
    soknad = kit.soknad()
    accepted, sent = soknad.transport("AKSEPTERT"), soknad.transport("SENDT", 1)
    one = SoknadState(digisos_id=soknad.digisos_id, transport=(accepted,))
    other = SoknadState(digisos_id=soknad.digisos_id, transport=(accepted, sent))
    assert differences([one], [other]) == [
        Difference(soknad.digisos_id, ("historikk", "meldinger", "oppdatert", "status"))
    ]


def test_a_soknad_that_one_store_lacks_is_a_difference(kit: Any) -> None:
    soknad = kit.soknad()
    state = SoknadState(digisos_id=soknad.digisos_id, transport=(soknad.transport("AKSEPTERT"),))
    assert [one.digisos_id for one in differences([state], [])] == [soknad.digisos_id]
