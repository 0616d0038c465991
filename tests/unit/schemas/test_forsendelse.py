from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from schemas.errors import InvalidDocumentError
from schemas.forsendelse import FILENAME, Forsendelse
from schemas.names import DigisosId, Enhetsnummer, Kommunenummer, MeldingId, NavEksternRefId

FORSENDELSE = Forsendelse(
    digisos_id=DigisosId("3fa85f64-5717-4562-b3fc-2c963f66afa6"),
    melding_id=MeldingId("9b2c0d7e-1f4a-4c3b-8d6e-5a7f8091a2b3"),
    kommunenummer=Kommunenummer("0301"),
    type="SOKNAD",
    opprettet=datetime(2026, 11, 23, 12, 0, tzinfo=UTC),
)


def test_it_comes_back_as_it_was() -> None:
    assert Forsendelse.from_json(FORSENDELSE.to_json()) == FORSENDELSE


def test_the_file_has_the_names_of_the_wire() -> None:
    assert set(json.loads(FORSENDELSE.to_json())) == {"digisosId", "meldingId", "kommunenummer", "type", "opprettet"}


def test_what_newer_senders_sign_is_there_when_it_is_known() -> None:
    newer = FORSENDELSE.model_copy(
        update={
            "enhetsnummer": Enhetsnummer("0315"),
            "nav_ekstern_ref_id": NavEksternRefId("ref-1"),
            "hastegrad": "NODHJELP",
        }
    )
    assert Forsendelse.from_json(newer.to_json()) == newer
    added = {"enhetsnummer": "0315", "navEksternRefId": "ref-1", "hastegrad": "NODHJELP"}
    assert json.loads(newer.to_json()) == json.loads(FORSENDELSE.to_json()) | added


def test_an_unknown_field_passes() -> None:
    document = json.loads(FORSENDELSE.to_json()) | {"nytt": {"a": 1}}
    assert Forsendelse.from_json(json.dumps(document).encode()) == FORSENDELSE


@pytest.mark.parametrize("field", ["digisosId", "meldingId", "kommunenummer", "type", "opprettet"])
def test_a_missing_field_is_named(field: str) -> None:
    document = json.loads(FORSENDELSE.to_json())
    del document[field]
    with pytest.raises(InvalidDocumentError) as caught:
        Forsendelse.from_json(json.dumps(document).encode())
    assert caught.value.path == field
    assert caught.value.document == FILENAME


@pytest.mark.parametrize("field", ["digisosId", "meldingId", "kommunenummer", "opprettet"])
def test_a_wrong_value_is_named_and_never_repeated(field: str) -> None:
    document = json.loads(FORSENDELSE.to_json()) | {field: "hemmelig verdi"}
    with pytest.raises(InvalidDocumentError) as caught:
        Forsendelse.from_json(json.dumps(document).encode())
    assert caught.value.path == field
    assert "hemmelig" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"hemmelig"'])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidDocumentError) as caught:
        Forsendelse.from_json(data)
    assert "hemmelig" not in str(caught.value)
    assert caught.value.__cause__ is None
