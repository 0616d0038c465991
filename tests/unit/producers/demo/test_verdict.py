from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from broker.record import Incoming
from broker.routing import soknad_topic
from broker.supervisor.bootstrap import DEFAULT_KOMMUNER
from producers.demo import verdict
from producers.demo.journey import Journey
from producers.demo.plan import Day, Role, plan_day
from producers.demo.scan import Scan
from schemas.codec import encode
from schemas.names import (
    DigisosId,
    Kommunenummer,
    MeldingId,
    NavEksternRefId,
    NokkelId,
    Organisasjonsnummer,
    Sha256,
    Uuid,
)
from schemas.records import DeadLetterRecord, Opprinnelig, SoknadRecord

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def make_day() -> Day:
    return plan_day(1, 12, DEFAULT_KOMMUNER, NOW)


def line(kind: str, value: str, code: str | None = None) -> dict[str, Any]:
    return {"tidspunkt": "2026-11-23T12:00:01.500Z", "type": kind, "verdi": value} | ({"kode": code} if code else {})


def make_journey(day: Day, index: int) -> Journey:
    """A søknad that went as it should."""
    planned = day.soknader[index]
    ended = {
        Role.AVVISES: ("SENDT", [line("kvittering", "AVVIST", "fagsystem.regel")]),
        Role.ENDRES: ("SENDT", [line("kvittering", "AVVIST", "krypto.apning")]),
    }
    status, history = ended.get(planned.role, ("FERDIGBEHANDLET", [line("kvittering", "MOTTATT")]))
    journey = Journey(planned, NOW, DigisosId.new(), view={"status": status, "historikk": history})
    if planned.role is Role.DOBBEL:
        journey.repeated = journey.digisos_id
    return journey


def make_journeys(day: Day) -> list[Journey]:
    return [make_journey(day, index) for index in range(len(day.soknader))]


def make_received(journeys: list[Journey]) -> dict[str, list[dict[str, str]]]:
    silent = {Role.AVVISES, Role.ENDRES}
    return {j.planned.ref: [] if j.planned.role in silent else [j.planned.files()] for j in journeys}


def make_letter(digisos_id: DigisosId | None, code: str = "krypto.apning") -> DeadLetterRecord:
    origin = Opprinnelig(topic="t", partisjon=0, offset=0, tidsstempel=NOW)
    return DeadLetterRecord(
        dead_letter_id=Uuid.new(),
        digisos_id=digisos_id,
        melding_id=None,
        kommunenummer=None,
        kode=code,
        trinn="APNING",
        tidspunkt=NOW,
        forsok=(),
        opprinnelig=origin,
    )


def make_record(kommunenummer: Kommunenummer, digisos_id: DigisosId) -> Incoming:
    record = SoknadRecord(
        melding_id=MeldingId.new(),
        digisos_id=digisos_id,
        kommunenummer=kommunenummer,
        nav_ekstern_ref_id=NavEksternRefId("a"),
        innsendt=NOW,
        avsender=Organisasjonsnummer("889640782"),
        nokkel_id=NokkelId("a" * 64),
        sha256=Sha256("a" * 64),
        storrelse=1,
        pakke=b"x",
    )
    return Incoming(soknad_topic(kommunenummer), 0, 0, 0, digisos_id.encode(), encode(record))


def test_a_day_that_went_well_is_judged_well() -> None:
    day = make_day()
    journeys = make_journeys(day)
    tampered = [j.digisos_id for j in journeys if j.planned.role is Role.ENDRES]
    records = [make_record(j.planned.kommunenummer, j.digisos_id) for j in journeys if j.digisos_id]
    checks = [
        verdict.check_statuses(journeys),
        verdict.check_files(journeys, make_received(journeys)),
        verdict.check_offices(journeys, {j.planned.ref: [j.planned.enhetsnummer] for j in journeys}),
        verdict.check_duplicate(journeys),
        verdict.check_down(["SENDT", "SENDT"], journeys, day),
        verdict.check_refused(journeys),
        verdict.check_dead_letters(journeys, [make_letter(digisos_id) for digisos_id in tampered]),
        verdict.check_records(journeys, records),
        verdict.check_scan(Scan(1, 1, 1, ())),
    ]
    assert [check.claim for check in checks if not check.holds] == []


@pytest.mark.parametrize("role", list(Role))
def test_a_status_that_is_not_true_is_seen(role: Role) -> None:
    journeys = make_journeys(make_day())
    victim = next(j for j in journeys if j.planned.role is role)
    victim.view["status"] = "MOTTATT"
    assert not verdict.check_statuses(journeys).holds


def test_a_file_with_one_byte_changed_is_seen() -> None:
    journeys = make_journeys(make_day())
    received = make_received(journeys)
    next(files for files in received.values() if files)[0]["soknad.json"] = "0" * 64
    assert not verdict.check_files(journeys, received).holds


def test_a_missing_file_is_seen() -> None:
    journeys = make_journeys(make_day())
    received = make_received(journeys)
    next(files for files in received.values() if files)[0].popitem()
    assert not verdict.check_files(journeys, received).holds


def test_a_soknad_delivered_twice_is_seen() -> None:
    journeys = make_journeys(make_day())
    received = make_received(journeys)
    twice = next(files for files in received.values() if files)
    twice.append(twice[0])
    assert not verdict.check_files(journeys, received).holds


def test_a_tampered_soknad_at_the_fagsystem_is_seen() -> None:
    journeys = make_journeys(make_day())
    received = make_received(journeys)
    tampered = next(j for j in journeys if j.planned.role is Role.ENDRES)
    received[tampered.planned.ref] = [tampered.planned.files()]
    assert not verdict.check_files(journeys, received).holds


def test_a_duplicate_that_became_a_new_soknad_is_seen() -> None:
    journeys = make_journeys(make_day())
    next(j for j in journeys if j.planned.role is Role.DOBBEL).repeated = DigisosId.new()
    assert not verdict.check_duplicate(journeys).holds


def test_mottatt_while_the_fagsystem_was_down_is_seen() -> None:
    day = make_day()
    assert not verdict.check_down(["SENDT", "MOTTATT"], make_journeys(day), day).holds


def test_a_refused_soknad_that_is_also_received_is_seen() -> None:
    journeys = make_journeys(make_day())
    refused = next(j for j in journeys if j.planned.role is Role.AVVISES)
    refused.view["historikk"].append(line("kvittering", "MOTTATT"))
    assert not verdict.check_refused(journeys).holds


@pytest.mark.parametrize("letters", [[], [make_letter(None)], [make_letter(DigisosId.new())]])
def test_a_wrong_set_of_dead_letters_is_seen(letters: list[DeadLetterRecord]) -> None:
    assert not verdict.check_dead_letters(make_journeys(make_day()), letters).holds


def test_a_soknad_on_another_kommunes_topic_is_seen() -> None:
    journeys = make_journeys(make_day())
    records = [make_record(Kommunenummer("0301"), j.digisos_id) for j in journeys if j.digisos_id]
    assert not verdict.check_records(journeys, records).holds


def test_a_soknad_that_lies_twice_on_its_topic_is_seen() -> None:
    journeys = make_journeys(make_day())
    records = [make_record(j.planned.kommunenummer, j.digisos_id) for j in journeys if j.digisos_id]
    assert not verdict.check_records(journeys, [*records, records[0]]).holds


def test_plaintext_anywhere_is_seen() -> None:
    assert not verdict.check_scan(Scan(1, 1, 1, ("kafka/x.log: navn",))).holds


def test_a_soknad_at_another_office_is_seen() -> None:
    journeys = make_journeys(make_day())
    offices: dict[str, list[str | None]] = {j.planned.ref: [j.planned.enhetsnummer] for j in journeys}
    offices[journeys[3].planned.ref] = ["9999"]
    assert not verdict.check_offices(journeys, offices).holds


def test_offices_that_nobody_was_handed_over_for_are_no_proof() -> None:
    journeys = make_journeys(make_day())
    assert not verdict.check_offices(journeys, {j.planned.ref: [] for j in journeys}).holds
