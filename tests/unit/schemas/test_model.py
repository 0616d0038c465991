from __future__ import annotations

import pytest
from pydantic import ValidationError

from schemas.model import WireModel


class _Eksempel(WireModel):
    nav_ekstern_ref_id: str
    antall: int = 0


def test_the_wire_has_camel_case_and_python_snake_case() -> None:
    model = _Eksempel.model_validate({"navEksternRefId": "r", "antall": 2})
    assert model.nav_ekstern_ref_id == "r"
    assert model.model_dump(by_alias=True) == {"navEksternRefId": "r", "antall": 2}


def test_our_own_code_uses_the_python_names() -> None:
    assert _Eksempel(nav_ekstern_ref_id="r").nav_ekstern_ref_id == "r"


def test_a_field_of_a_newer_writer_passes() -> None:
    assert _Eksempel.model_validate({"navEksternRefId": "r", "nytt": 1}).antall == 0


def test_a_model_is_frozen() -> None:
    with pytest.raises(ValidationError):
        _Eksempel(nav_ekstern_ref_id="r").antall = 3  # type: ignore[misc]  # what must not be possible


def test_an_error_does_not_repeat_the_value() -> None:
    with pytest.raises(ValidationError) as caught:
        _Eksempel.model_validate({"navEksternRefId": "r", "antall": "hemmelig"})
    assert "hemmelig" not in str(caught.value)
