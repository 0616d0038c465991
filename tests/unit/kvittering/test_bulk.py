from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.routing import kvittering_topic
from crypto.keys import KeyRing
from kvittering.bulk import fold_all
from schemas.names import Sha256

if TYPE_CHECKING:
    from kvittering.bulk import Folded


def fold(kit: Any, *records: Any, issuers: tuple[Any, ...]) -> Folded:
    konnektorer = {one.kommunenummer: one.konnektor() for one in issuers}
    return fold_all(records, konnektorer=konnektorer, keys=KeyRing([]), now=kit.now)


def test_all_of_a_soknad_becomes_one_row_and_one_status(kit: Any, oslo: Any) -> None:
    soknad, log = kit.soknad(), kit.log()
    facts = [log.transport(soknad.transport(kind)) for kind in ("AKSEPTERT", "SENDT")]
    folded = fold(kit, *facts, log.kvittering(oslo.issue(soknad)), issuers=(oslo,))
    assert [row[:4] for row in folded.soknader] == [(soknad.digisos_id, soknad.eier(), kit.oslo, "MOTTATT")]
    assert [row[0] for row in folded.raw] == [record.topic for record in facts] + [kvittering_topic(kit.oslo)]
    assert [one.digisos_id for one in folded.statuses] == [soknad.digisos_id]
    assert folded.letters == []


def test_a_soknad_that_nothing_counts_about_has_a_dead_letter_and_no_row(kit: Any, oslo: Any, bergen: Any) -> None:
    soknad, log = kit.soknad(), kit.log()
    forged = log.kvittering(bergen.issue(soknad, kommunenummer=kit.oslo, utsteder=oslo.name))
    fork = [log.kvittering(oslo.issue(kit.soknad(), forrige=Sha256.of(b"noe")))]
    folded = fold(kit, forged, *fork, issuers=(oslo, bergen))
    assert folded.soknader == []
    assert folded.statuses == []
    assert [(one.topic, one.offset) for one in folded.letters] == [(forged.topic, 0), (forged.topic, 1)]
    assert folded.outcomes == {"UNDERKJENT": 2}


def test_a_fact_that_waited_and_is_refused_gives_the_letter_of_its_own_record(kit: Any, oslo: Any, bergen: Any) -> None:
    soknad, log = kit.soknad(), kit.log()
    foreign, accepted = log.kvittering(bergen.issue(soknad)), log.transport(soknad.transport("AKSEPTERT"))
    folded = fold(kit, foreign, accepted, issuers=(oslo, bergen))
    (letter,) = folded.letters
    assert (letter.topic, letter.offset) == (accepted.topic, accepted.offset)  # whose reading gave it
    assert foreign.value in bytes(letter.row[2])  # type: ignore[call-overload]  # a row has no types


def test_records_of_several_soknader_may_lie_in_between_each_other(kit: Any, oslo: Any) -> None:
    one, other, log = kit.soknad(), kit.soknad(), kit.log()
    records = [log.transport(soknad.transport("AKSEPTERT")) for soknad in (one, other)]
    records += [log.kvittering(oslo.issue(soknad)) for soknad in (other, one)]
    folded = fold(kit, *records, issuers=(oslo,))
    assert {row[0]: row[3] for row in folded.soknader} == {one.digisos_id: "MOTTATT", other.digisos_id: "MOTTATT"}
