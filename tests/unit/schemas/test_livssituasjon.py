from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from schemas.documents import parse_document
from schemas.errors import InvalidDocumentError
from schemas.livssituasjon import BARNEBIDRAG, BOTYPER, SIVILSTATUSER, Arbeid, Bosituasjon, Familie

if TYPE_CHECKING:
    from schemas.documents import Document

NAVN = {"fornavn": "", "mellomnavn": "", "etternavn": ""}


def read(model: type[Document], tree: dict[str, Any]) -> object:
    """Return ``tree`` as the model read it and wrote it again."""
    return json.loads(parse_document(model, json.dumps(tree).encode(), "del").to_json())


def familie(**sivilstatus: Any) -> dict[str, Any]:
    return {"forsorgerplikt": {}, "sivilstatus": {"kilde": "bruker", **sivilstatus}}


def test_gift_requires_ektefelle() -> None:
    with pytest.raises(InvalidDocumentError) as caught:
        read(Familie, familie(status="gift"))

    assert caught.value.path == "sivilstatus.ektefelle"
    with_ektefelle = familie(status="gift", ektefelle={"navn": NAVN})
    assert read(Familie, with_ektefelle) == with_ektefelle


@pytest.mark.parametrize("status", [*(status for status in SIVILSTATUSER if status != "gift"), "registrertPartner"])
def test_other_sivilstatuser_do_not(status: str) -> None:
    assert read(Familie, familie(status=status)) == familie(status=status)


@pytest.mark.parametrize("botype", [*BOTYPER, "husbat"])
def test_every_botype_passes(botype: str) -> None:
    tree = {"kilde": "bruker", "botype": botype}

    assert read(Bosituasjon, tree) == tree


@pytest.mark.parametrize("verdi", [*BARNEBIDRAG, "delt"])
def test_every_barnebidrag_passes(verdi: str) -> None:
    tree = {"forsorgerplikt": {"barnebidrag": {"kilde": "bruker", "verdi": verdi}}}

    assert read(Familie, tree) == tree


def test_a_child_is_checked_where_it_stands() -> None:
    barn = {"kilde": "system", "navn": NAVN, "personIdentifikator": "123"}

    with pytest.raises(InvalidDocumentError) as caught:
        read(Familie, {"forsorgerplikt": {"ansvar": [{}, {"barn": barn}]}})

    assert caught.value.path == "forsorgerplikt.ansvar[1].barn.personIdentifikator"


def test_a_date_from_a_register_passes_as_it_is() -> None:
    tree = {"forhold": [{"kilde": "system", "fom": "2017-13-01", "stillingsprosent": 80}]}

    assert read(Arbeid, tree) == tree
