from __future__ import annotations

import hashlib
import hmac
import traceback
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from schemas.errors import InvalidNameError
from schemas.names import (
    DigisosId,
    DokumentlagerId,
    Eier,
    Enhetsnummer,
    Fodselsnummer,
    Kommunenummer,
    MeldingId,
    Name,
    NavEksternRefId,
    NokkelId,
    Organisasjonsnummer,
    Sha256,
    Uuid,
)

ID = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
HEX64 = "ab" * 32

VALID: list[tuple[type[Name], str]] = [
    (Kommunenummer, "0301"),
    (Kommunenummer, "9999"),
    (Enhetsnummer, "0312"),
    (Organisasjonsnummer, "889640782"),
    (NavEksternRefId, "a"),
    (NavEksternRefId, "A-z_09" * 10),
    (NavEksternRefId, "1309724802-130972480221"),
    (NavEksternRefId, "3fa85f64-5717-4562-b3fc-a13097248022"),
    (NavEksternRefId, "nav_3FA85F64-5717-4562-B3FC-13097248022A"),
    (DigisosId, ID),
    (MeldingId, ID),
    (DokumentlagerId, ID),
    (NokkelId, HEX64),
    (Sha256, HEX64),
    (Eier, HEX64),
    (Fodselsnummer, "13097248022"),
]

BROKEN: list[tuple[type[Name], str]] = [
    (Kommunenummer, ""),
    (Kommunenummer, "301"),
    (Kommunenummer, "03011"),
    (Kommunenummer, "0301\n"),
    (Kommunenummer, " 301"),
    (Kommunenummer, "03O1"),
    (Kommunenummer, "٠٣٠١"),  # digits to Unicode, not to Kafka
    (Enhetsnummer, "12"),
    (Organisasjonsnummer, "88964078"),
    (Organisasjonsnummer, "889 640 782"),
    (NavEksternRefId, ""),
    (NavEksternRefId, "a" * 61),
    (NavEksternRefId, "a/b"),
    (NavEksternRefId, "a b"),
    (NavEksternRefId, "ærlig"),
    (NavEksternRefId, "a\n"),
    (NavEksternRefId, "13097248022"),
    (NavEksternRefId, "soknad-13097248022_1"),
    (NavEksternRefId, "a13097248022b"),
    (NavEksternRefId, f"{ID}-13097248022"),
    (DigisosId, ID.upper()),
    (DigisosId, ID.replace("-", "")),
    (DigisosId, f"{{{ID}}}"),
    (DigisosId, ID + "\n"),
    (NokkelId, HEX64.upper()),
    (Sha256, HEX64[:-1]),
    (Eier, HEX64 + "0"),
    (Fodselsnummer, "1309724802"),
    (Fodselsnummer, "130972 48022"),
]


@pytest.mark.parametrize(("name", "text"), VALID)
def test_a_right_form_is_kept_as_it_is(name: type[Name], text: str) -> None:
    assert name(text) == text
    assert type(name(text)) is name


@pytest.mark.parametrize(("name", "text"), BROKEN)
def test_a_wrong_form_is_refused_without_repeating_it(name: type[Name], text: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        name(text)
    shown = "".join(traceback.format_exception(caught.value, limit=0))
    assert name.__name__ in str(caught.value)
    assert name.FORM in str(caught.value)
    assert not text or text not in shown


@given(st.text(max_size=8))
def test_a_kommunenummer_is_four_ascii_digits_and_nothing_else(text: str) -> None:
    if len(text) == 4 and text.isascii() and text.isdigit():
        assert Kommunenummer(text) == text
    else:
        with pytest.raises(InvalidNameError):
            Kommunenummer(text)


def test_leading_zeros_survive() -> None:
    assert str(Kommunenummer("0301")) == "0301"


def test_a_new_id_is_different_every_time_and_of_its_own_type() -> None:
    first, second = DigisosId.new(), DigisosId.new()
    assert first != second
    assert type(first) is DigisosId
    assert UUID(first).version == 4


def test_an_id_from_a_uuid_is_lower_case() -> None:
    assert MeldingId.of(UUID(ID.upper())) == ID


def test_a_digest_is_that_of_the_bytes() -> None:
    assert Sha256.of(b"abc") == hashlib.sha256(b"abc").hexdigest()


class _Model(BaseModel):
    kommunenummer: Kommunenummer
    digisos_id: DigisosId | None = None


def test_a_model_gets_the_type_and_writes_a_plain_string() -> None:
    model = _Model.model_validate_json('{"kommunenummer": "0301"}')
    assert type(model.kommunenummer) is Kommunenummer
    assert model.model_dump_json() == '{"kommunenummer":"0301","digisos_id":null}'
    assert type(model.model_dump()["kommunenummer"]) is str


def test_a_model_refuses_a_wrong_form() -> None:
    with pytest.raises(ValidationError):
        _Model.model_validate({"kommunenummer": "301"})


def test_a_number_is_no_kommunenummer() -> None:
    with pytest.raises(ValidationError):
        _Model.model_validate({"kommunenummer": 301})


PERSON = "13097248022"


def test_repr_of_a_fodselsnummer_hides_it() -> None:
    assert PERSON not in repr(Fodselsnummer(PERSON))
    assert PERSON not in repr({"person": [Fodselsnummer(PERSON)]})


def test_the_owner_is_an_hmac_that_depends_on_the_key() -> None:
    key = b"k" * 32
    eier = Fodselsnummer(PERSON).eier(key)
    assert eier == hmac.new(key, PERSON.encode(), hashlib.sha256).hexdigest()
    assert type(eier) is Eier
    assert eier != Fodselsnummer(PERSON).eier(b"l" * 32)


def test_names_of_different_kinds_can_be_told_apart() -> None:
    assert not isinstance(DigisosId(ID), MeldingId)
    assert isinstance(DigisosId(ID), Uuid)
