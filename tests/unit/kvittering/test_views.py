from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from kvittering.facts import SoknadState
from kvittering.projection import Projection, apply, project
from kvittering.views import bundle, citizen_view, encode_view, operator_view, status_record, version_of
from schemas.names import Sha256


def shown(*facts: Any) -> Projection:
    first = facts[0]
    state = SoknadState(digisos_id=first.claims.digisos_id if hasattr(first, "jws") else first.digisos_id)
    for fact in facts:
        state = apply(state, fact).state
    return project(state)


def test_the_same_facts_are_the_same_bytes_and_the_same_version(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    accepted, ledd = soknad.transport("AKSEPTERT"), oslo.issue(soknad)
    one, other = (encode_view(citizen_view(shown(*facts))) for facts in ((accepted, ledd), (ledd, accepted)))
    assert one == other
    assert version_of(one) == version_of(other)
    assert version_of(one) != version_of(encode_view(citizen_view(shown(accepted))))
    assert b"\n" not in one


def test_a_citizen_is_not_shown_what_waits_or_was_refused(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    wrong = oslo.issue(soknad, sha256=Sha256.of(b"en annen"))
    behind_a_gap = oslo.issue(soknad, nr=7)
    view = citizen_view(shown(soknad.transport("AKSEPTERT"), wrong, behind_a_gap))
    assert view["kvitteringer"] == []
    assert [line["verdi"] for line in view["historikk"]] == ["AKSEPTERT"]


def test_operators_are_shown_what_waits_and_what_was_refused_and_why(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    wrong = oslo.issue(soknad, sha256=Sha256.of(b"en annen"))
    behind_a_gap = oslo.issue(soknad, nr=7)
    update = soknad.hendelse("MOTTATT", dokumenter=2)
    view = operator_view(shown(soknad.transport("AKSEPTERT"), wrong, behind_a_gap, update))
    assert view["venter"] == [{"id": behind_a_gap.digest, "kode": "venter.kjede"}]
    assert view["underkjent"] == [{"id": wrong.digest, "kode": "kontrakt.avvik"}]
    assert [(one["vist"], one["dokumenter"]) for one in view["oppdateringer"]] == [("MOTTATT", 2)]
    assert view["meldinger"][0]["sha256"] == soknad.sha256
    assert json.loads(encode_view(view)) == view


def test_a_bundle_has_every_link_of_the_chain_also_one_that_does_not_count(kit: Any, oslo: Any, bergen: Any) -> None:
    soknad = kit.soknad()
    wrong, right = oslo.issue(soknad, sha256=Sha256.of(b"en annen")), oslo.issue(soknad)
    projection = shown(soknad.transport("AKSEPTERT"), wrong, right)
    found = bundle(projection, [bergen.certificate, oslo.certificate])
    assert found["kvitteringer"] == [wrong.jws, right.jws]
    assert len(found["sertifikater"]) == 1


def test_a_soknad_that_is_not_known_has_no_status_for_the_portal(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    assert status_record(shown(oslo.issue(soknad))) is None
    record = status_record(shown(soknad.transport("AKSEPTERT")))
    assert record is not None
    assert (record.status, record.oppdatert, record.kode) == ("AKSEPTERT", kit.now, None)


def test_what_came_too_late_is_marked_and_nothing_else_is(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    late = oslo.issue(soknad, tidspunkt=kit.now + timedelta(seconds=40))
    projection = shown(soknad.transport("AKSEPTERT"), soknad.transport("TTL_TIDSAVBRUDD", 20), late)
    for view in (citizen_view(projection), operator_view(projection)):
        assert [(line["verdi"], line.get("forSent")) for line in view["historikk"]] == [
            ("AKSEPTERT", None),
            ("TTL_TIDSAVBRUDD", None),
            ("MOTTATT", True),
        ]
        assert view["kvitteringer"] == [late.jws]
