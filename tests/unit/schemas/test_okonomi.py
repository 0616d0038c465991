from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.documents import parse_document
from schemas.errors import InvalidDocumentError
from schemas.okonomi import Okonomi

ROW: dict[str, Any] = {"kilde": "bruker", "type": "ny", "tittel": "Ny", "overstyrtAvBruker": False}
LISTS = [
    ("opplysninger", "utbetaling"),
    ("opplysninger", "utgift"),
    ("oversikt", "inntekt"),
    ("oversikt", "utgift"),
    ("oversikt", "formue"),
]


def okonomi(part: str, name: str, row: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {"opplysninger": {"utbetaling": []}, "oversikt": {"inntekt": []}}
    tree[part][name] = [ROW, row]
    return tree


def parse(tree: dict[str, Any]) -> Okonomi:
    return parse_document(Okonomi, json.dumps(tree).encode(), "okonomi")


@pytest.mark.parametrize(("part", "name"), LISTS)
@pytest.mark.parametrize("field", ROW)
def test_every_row_has_four_required_fields(part: str, name: str, field: str) -> None:
    broken = {key: value for key, value in ROW.items() if key != field}

    with pytest.raises(InvalidDocumentError) as caught:
        parse(okonomi(part, name, broken))

    assert (caught.value.path, caught.value.reason) == (f"{part}.{name}[1].{field}", "mangler")


@pytest.mark.parametrize(("part", "name"), LISTS)
def test_every_row_keeps_codes_and_fields_that_are_new(part: str, name: str) -> None:
    tree = okonomi(part, name, {**ROW, "type": "helt-ny-kode", "nyttFelt": {"a": 1}})

    assert json.loads(parse(tree).to_json()) == tree


def test_amounts_of_the_registers_have_decimals_and_signs() -> None:
    tree = okonomi("opplysninger", "utbetaling", {**ROW, "belop": 5, "netto": 6000.5, "skattetrekk": -0.25})

    row = parse(tree).opplysninger.utbetaling[1]

    assert (row.belop, row.netto, row.skattetrekk) == (5, 6000.5, -0.25)


def test_an_organisasjon_may_be_named_by_its_number() -> None:
    tree = okonomi("opplysninger", "utbetaling", {**ROW, "organisasjon": {"organisasjonsnummer": "000000000"}})

    assert parse(tree).opplysninger.utbetaling[1].organisasjon
