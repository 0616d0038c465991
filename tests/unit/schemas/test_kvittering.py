from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from schemas.errors import DecodeError
from schemas.kvittering import GRAD_LAGRET, MOTTATT, KvitteringClaims
from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256, Uuid


def make_claims(**changes: object) -> KvitteringClaims:
    fields = {
        "kvittering_id": Uuid("0c6f1f0a-54a1-4f0e-9d42-0a1b2c3d4e5f"),
        "digisos_id": DigisosId("3fa85f64-5717-4562-b3fc-2c963f66afa6"),
        "melding_id": MeldingId("9b2c0d7e-1f4a-4c3b-8d6e-5a7f8091a2b3"),
        "kommunenummer": Kommunenummer("0301"),
        "utsteder": "acme",
        "status": MOTTATT,
        "grad": GRAD_LAGRET,
        "sha256": Sha256("5e" * 32),
        "tidspunkt": datetime(2026, 11, 23, 12, 0, 0, 7000, UTC),
        "nr": 1,
    }
    return KvitteringClaims.model_validate(fields | changes)


def test_claims_come_back_as_they_were() -> None:
    assert KvitteringClaims.from_json(make_claims().to_json()) == make_claims()


def test_the_payload_has_the_names_of_the_wire() -> None:
    assert set(json.loads(make_claims().to_json())) == {
        "kvitteringId", "digisosId", "meldingId", "kommunenummer", "utsteder", "status", "grad", "kode", "sha256", "kanal",
        "tidspunkt", "nr", "forrige",
    }  # fmt: skip


def test_time_is_utc_with_milliseconds_and_z_whatever_the_zone() -> None:
    moment = datetime(2026, 11, 23, 13, 0, 0, 7000, timezone(timedelta(hours=1)))
    assert json.loads(make_claims(tidspunkt=moment).to_json())["tidspunkt"] == "2026-11-23T12:00:00.007Z"


def test_the_same_claims_are_the_same_bytes() -> None:
    assert make_claims().to_json() == make_claims().to_json()


def test_the_record_repeats_the_claims_in_clear() -> None:
    claims = make_claims()
    record = claims.record("a.b.c")
    assert record.jws == "a.b.c"
    for name in ("kvittering_id", "digisos_id", "melding_id", "kommunenummer", "status", "tidspunkt"):
        assert getattr(record, name) == getattr(claims, name)


def test_a_chain_starts_at_one() -> None:
    with pytest.raises(ValidationError):
        make_claims(nr=0)


def test_a_new_status_passes() -> None:
    assert make_claims(status="NOE_NYTT").status == "NOE_NYTT"


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"kvitteringId": "hemmelig"}', b"\xff"])
def test_what_is_no_kvittering_is_refused_without_its_content(data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        KvitteringClaims.from_json(data)
    assert "hemmelig" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", "Ola Nordmann"),
        ("status", "A" * 41),
        ("status", "LEVERT\n"),
        ("status", ""),
        ("grad", "lagret"),
        ("kanal", "15076500565"),
        ("kode", "Ola Nordmann"),
        ("kode", "a" * 81),
        ("kode", "f15076500565"),
        ("kode", "a\n"),
        ("kode", ""),
        ("utsteder", "Ola"),
        ("utsteder", "a" * 65),
        ("utsteder", ""),
        ("nr", 1_000_001),
        ("nr", 10**30),
    ],
)
def test_a_signed_field_has_a_form_that_leaves_no_room_for_personal_data(field: str, value: str | int) -> None:
    claims = json.loads(make_claims().to_json()) | {field: value}
    with pytest.raises(DecodeError) as caught:
        KvitteringClaims.from_json(json.dumps(claims).encode())
    assert str(caught.value) == f"kvittering: ugyldige felt: {field}"


@pytest.mark.parametrize("kode", ["krypto.apning", "kontrakt.ukjent-skjema", "Mangler_ID-2026.v1", "a" * 80, None])
def test_every_code_of_ours_and_of_a_fagsystem_fits(kode: str | None) -> None:
    assert make_claims(kode=kode).kode == kode
