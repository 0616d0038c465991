from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import decode, encode
from schemas.errors import ContractError, DecodeError, UnknownSchemaError
from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256, Uuid
from schemas.records import RECORD_TYPES, DeadLetterRecord, KvitteringRecord, Record, RevisjonRecord, StatusRecord
from schemas.registry import latest


def test_a_record_comes_back_as_it_was(record: Record) -> None:
    assert decode(type(record), encode(record)) == record


def test_the_frame_is_a_zero_and_the_schemas_id(record: Record) -> None:
    assert encode(record)[:5] == struct.pack(">bI", 0, latest(record.KIND).id)


def test_equal_records_are_equal_bytes(record: Record) -> None:
    assert encode(record) == encode(record.model_copy())


def test_a_record_of_another_kind_is_refused(record: Record) -> None:
    for kind, model in RECORD_TYPES.items():
        if kind != record.KIND:
            with pytest.raises(UnknownSchemaError):
                decode(model, encode(record))


@pytest.mark.parametrize("data", [None, b"", b"\x00", b"\x00\x00\x00\x00"])
def test_what_is_too_short_for_a_frame_is_refused(data: bytes | None) -> None:
    with pytest.raises(UnknownSchemaError):
        decode(StatusRecord, data)


@pytest.mark.parametrize("data", [b"\x01\x00\x00\x00\x06", b'{"status": 1}', b"\xff" * 40])
def test_a_foreign_frame_is_refused(data: bytes) -> None:
    with pytest.raises(UnknownSchemaError):
        decode(StatusRecord, data)


def test_an_unknown_schema_id_is_refused(record: Record) -> None:
    with pytest.raises(UnknownSchemaError):
        decode(type(record), b"\x00\x00\x00\x27\x0f" + encode(record)[5:])


def test_every_shorter_text_is_refused(record: Record) -> None:
    data = encode(record)
    for end in range(5, len(data)):
        with pytest.raises(ContractError):
            decode(type(record), data[:end])


def test_bytes_left_over_are_refused(record: Record) -> None:
    with pytest.raises(DecodeError, match="igjen"):
        decode(type(record), encode(record) + b"\x00")


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise_anything_but_a_contract_error(body: bytes) -> None:
    for kind, model in RECORD_TYPES.items():
        try:
            decode(model, struct.pack(">bI", 0, latest(kind).id) + body)
        except ContractError:
            continue


@given(st.data())
def test_no_change_of_a_byte_makes_it_raise_anything_else(data: st.DataObject) -> None:
    record = StatusRecord(
        digisos_id=DigisosId("3fa85f64-5717-4562-b3fc-2c963f66afa6"),
        kommunenummer=Kommunenummer("0301"),
        status="MOTTATT",
        oppdatert=datetime(2026, 1, 1, tzinfo=UTC),
    )
    encoded = bytearray(encode(record))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    try:
        decode(StatusRecord, bytes(encoded))
    except ContractError:
        return


def _kvittering(**changes: object) -> KvitteringRecord:
    fields = {
        "kvittering_id": Uuid("0c6f1f0a-54a1-4f0e-9d42-0a1b2c3d4e5f"),
        "digisos_id": DigisosId("3fa85f64-5717-4562-b3fc-2c963f66afa6"),
        "melding_id": MeldingId("9b2c0d7e-1f4a-4c3b-8d6e-5a7f8091a2b3"),
        "kommunenummer": Kommunenummer("0301"),
        "status": "MOTTATT",
        "tidspunkt": datetime(2026, 1, 1, tzinfo=UTC),
        "jws": "a.b.c",
    }
    return KvitteringRecord.model_construct(**(fields | changes))


def test_a_field_of_the_wrong_form_is_refused_by_name_and_never_by_value() -> None:
    with pytest.raises(DecodeError) as caught:
        decode(KvitteringRecord, encode(_kvittering(kommunenummer="hemmelig")))
    assert "kommunenummer" in str(caught.value)
    assert "hemmelig" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_error_in_the_bytes_does_not_quote_them() -> None:
    secret = b"Kari Nordmann-Hemmelig"
    data = encode(_kvittering())[:5] + bytes([len(secret) * 2]) + secret
    with pytest.raises(ContractError) as caught:
        decode(KvitteringRecord, data)
    assert "Kari" not in str(caught.value)
    assert caught.value.__cause__ is None


@given(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)), st.integers(-12, 14))  # noqa: DTZ001  # made aware below
def test_times_keep_their_milliseconds_whatever_the_zone(moment: datetime, hours: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    back = decode(KvitteringRecord, encode(_kvittering(tidspunkt=aware))).tidspunkt
    assert back.tzinfo is not None
    assert abs(back - aware) < timedelta(milliseconds=1)
    assert back.utcoffset() == timedelta(0)


@given(st.text(max_size=300), st.none() | st.text(max_size=300))
def test_any_text_survives(handling: str, begrunnelse: str | None) -> None:
    record = RevisjonRecord(
        revisjon_id=Uuid("0c6f1f0a-54a1-4f0e-9d42-0a1b2c3d4e5f"),
        aktor="broker",
        handling=handling,
        objekt="0301",
        tidspunkt=datetime(2026, 1, 1, tzinfo=UTC),
        begrunnelse=begrunnelse,
        forrige=Sha256("5e" * 32),
    )
    assert decode(RevisjonRecord, encode(record)) == record


@given(st.binary(max_size=2000))
def test_a_dead_letter_keeps_the_original_byte_for_byte(value: bytes) -> None:
    letter = DeadLetterRecord.model_validate(
        {
            "deadLetterId": "0c6f1f0a-54a1-4f0e-9d42-0a1b2c3d4e5f",
            "digisosId": None,
            "meldingId": None,
            "kommunenummer": None,
            "kode": "kontrakt.uleselig",
            "trinn": "DEKODING",
            "tidspunkt": datetime(2026, 1, 1, tzinfo=UTC),
            "forsok": (),
            "opprinnelig": {
                "topic": "t",
                "partisjon": 0,
                "offset": 0,
                "tidsstempel": datetime(2026, 1, 1, tzinfo=UTC),
                "verdi": value,
            },
        }
    )
    assert decode(DeadLetterRecord, encode(letter)).opprinnelig.verdi == value
