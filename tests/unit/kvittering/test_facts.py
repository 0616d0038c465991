from __future__ import annotations

from typing import Any

import pytest

from kvittering.facts import SoknadState
from schemas.errors import StoreError
from schemas.names import Sha256


def test_the_first_accepted_message_is_the_soknad_and_the_first_acceptance_counts(kit: Any) -> None:
    soknad = kit.soknad()
    later = kit.soknad(digisos_id=soknad.digisos_id)
    moved = soknad.transport("AKSEPTERT", kommunenummer=kit.bergen, sha256=Sha256.of(b"en annen"))
    records = (soknad.transport("SENDT"), soknad.transport("AKSEPTERT"), later.transport("AKSEPTERT"), moved)
    meldinger = SoknadState(digisos_id=soknad.digisos_id, transport=records).meldinger()
    assert list(meldinger) == [soknad.melding_id, later.melding_id]
    assert (meldinger[soknad.melding_id].kommunenummer, meldinger[soknad.melding_id].sha256) == (
        kit.oslo,
        soknad.sha256,
    )


def test_a_digest_that_was_missing_may_come_later_once(kit: Any) -> None:
    soknad = kit.soknad()
    records = (
        soknad.transport("AKSEPTERT", sha256=None),
        soknad.transport("SENDT", sha256=Sha256.of(b"1")),
        soknad.transport("SENDT", sha256=Sha256.of(b"2")),
    )
    meldinger = SoknadState(digisos_id=soknad.digisos_id, transport=records).meldinger()
    assert meldinger[soknad.melding_id].sha256 == Sha256.of(b"1")


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_a_message_that_was_sealed_again_was_sent_as_each_of_its_packages(kit: Any, order: tuple[int, ...]) -> None:
    soknad = kit.soknad()
    first, second = Sha256.of(b"1"), Sha256.of(b"2")
    records = (
        soknad.transport("AKSEPTERT"),
        soknad.transport("OMFORSEGLET", sha256=first),
        soknad.transport("OMFORSEGLET", sha256=second),
    )
    given = tuple(records[index] for index in order)
    melding = SoknadState(digisos_id=soknad.digisos_id, transport=given).meldinger()[soknad.melding_id]

    assert melding.sha256 == soknad.sha256
    assert all(melding.was_sent_as(digest) for digest in (soknad.sha256, first, second))
    assert not melding.was_sent_as(Sha256.of(b"3"))


def test_being_sealed_again_makes_no_message_known(kit: Any) -> None:
    soknad = kit.soknad()
    records = (soknad.transport("OMFORSEGLET", sha256=Sha256.of(b"1")),)
    assert SoknadState(digisos_id=soknad.digisos_id, transport=records).meldinger() == {}


def test_a_stored_state_that_something_else_wrote_is_refused_without_its_content() -> None:
    with pytest.raises(StoreError) as raised:
        SoknadState.from_json('{"digisosId": "hemmelig"}')
    assert "hemmelig" not in str(raised.value)
