from __future__ import annotations

import pytest
from pydantic import ValidationError

from schemas.records import RECORD_TYPES, Record, SoknadRecord


def test_every_kind_has_an_example(records: dict[str, Record]) -> None:
    assert set(records) == set(RECORD_TYPES)
    assert all(type(records[kind]) is model for kind, model in RECORD_TYPES.items())


def test_every_field_of_the_examples_is_set(record: Record) -> None:
    unset = {name for name, value in record if value is None} - {"pakke", "dokumentlager_id"}
    assert unset == set()


def test_a_record_never_shows_its_package(records: dict[str, Record]) -> None:
    assert "pakke" not in repr(records["soknad"])
    assert "verdi=b" not in repr(records["dlq"]).replace("Header(navn='ce_id', verdi=b", "")


def test_a_naive_time_is_refused(records: dict[str, Record]) -> None:
    naive = records["soknad"].model_dump() | {"innsendt": "2026-11-23T12:00:00"}
    with pytest.raises(ValidationError):
        SoknadRecord.model_validate(naive)


def test_a_package_must_say_what_its_record_says(records: dict[str, Record]) -> None:
    soknad = records["soknad"]
    assert isinstance(soknad, SoknadRecord)
    stated = soknad.forsendelse().model_dump()
    assert stated.pop("opprettet") == soknad.innsendt
    assert stated == {name: getattr(soknad, name) for name in stated}
    assert None not in stated.values()


def test_urgency_is_a_closed_list(records: dict[str, Record]) -> None:
    with pytest.raises(ValidationError):
        SoknadRecord.model_validate(records["soknad"].model_dump() | {"hastegrad": "HASTER"})


def test_the_type_of_a_message_is_an_open_list(records: dict[str, Record]) -> None:
    assert SoknadRecord.model_validate(records["soknad"].model_dump() | {"type": "NYTT"}).type == "NYTT"
