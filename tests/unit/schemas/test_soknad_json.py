from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from schemas.errors import InvalidDocumentError
from schemas.examples import make_soknad
from schemas.names import Enhetsnummer, Fodselsnummer, Kommunenummer
from schemas.soknad_json import SoknadJson, parse_soknad

SMALLEST: dict[str, Any] = {
    "version": "1.0.11",
    "data": {
        "personalia": {
            "personIdentifikator": {"kilde": "system", "verdi": "01810000000"},
            "navn": {"kilde": "system", "fornavn": "", "mellomnavn": "", "etternavn": ""},
            "kontonummer": {"kilde": "bruker"},
        },
        "begrunnelse": {"kilde": "bruker", "hvaSokesOm": ""},
        "okonomi": {"opplysninger": {"utbetaling": []}, "oversikt": {"inntekt": []}},
    },
    "mottaker": {},
    "driftsinformasjon": {"utbetalingerFraNavFeilet": False, "inntektFraSkatteetatenFeilet": False},
    "kompatibilitet": [],
}


def soknad(path: str = "", value: object = None) -> dict[str, Any]:
    """Return the smallest søknad, with ``value`` at ``path``; without a value the field is taken away."""
    tree: dict[str, Any] = json.loads(json.dumps(SMALLEST))
    if path:
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is None:
            del node[last]
        else:
            node[last] = value
    return tree


def parse(path: str = "", value: object = None) -> SoknadJson:
    return parse_soknad(json.dumps(soknad(path, value)).encode())


def refusal(path: str, value: object = None) -> InvalidDocumentError:
    with pytest.raises(InvalidDocumentError) as caught:
        parse(path, value)
    return caught.value


def test_the_smallest_soknad_has_only_what_the_format_requires() -> None:
    parsed = parse()

    assert parsed.person() == Fodselsnummer("01810000000")
    assert (parsed.kommunenummer(), parsed.enhetsnummer(), parsed.soknadstype()) == (None, None, None)
    assert parsed.hastegrad() == "VANLIG"


@pytest.mark.parametrize(
    "path",
    [
        "version",
        "data",
        "data.personalia",
        "data.personalia.personIdentifikator",
        "data.personalia.personIdentifikator.kilde",
        "data.personalia.personIdentifikator.verdi",
        "data.personalia.navn",
        "data.personalia.navn.fornavn",
        "data.personalia.navn.mellomnavn",
        "data.personalia.navn.etternavn",
        "data.personalia.kontonummer",
        "data.personalia.kontonummer.kilde",
        "data.begrunnelse",
        "data.begrunnelse.kilde",
        "data.begrunnelse.hvaSokesOm",
        "data.okonomi",
        "data.okonomi.opplysninger",
        "data.okonomi.opplysninger.utbetaling",
        "data.okonomi.oversikt",
        "data.okonomi.oversikt.inntekt",
        "mottaker",
        "driftsinformasjon",
        "driftsinformasjon.utbetalingerFraNavFeilet",
        "driftsinformasjon.inntektFraSkatteetatenFeilet",
        "kompatibilitet",
    ],
)
def test_a_required_field_that_is_missing_is_named(path: str) -> None:
    error = refusal(path)

    assert (error.document, error.path, error.reason) == ("soknad.json", path, "mangler")


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("version", "2.0", "version"),
        ("data.personalia.personIdentifikator.verdi", "1234567890", "data.personalia.personIdentifikator.verdi"),
        ("data.personalia.personIdentifikator.verdi", 12345678901, "data.personalia.personIdentifikator.verdi"),
        ("data.personalia.personIdentifikator.verdi", "2345678901x", "data.personalia.personIdentifikator.verdi"),
        ("data.personalia.kontonummer.verdi", "1234.56.78901", "data.personalia.kontonummer.verdi"),
        ("data.personalia.telefonnummer", {"kilde": "bruker"}, "data.personalia.telefonnummer.verdi"),
        ("data.personalia.folkeregistrertAdresse.kilde", "system", "data.personalia.folkeregistrertAdresse.type"),
        ("data.begrunnelse.hvaSokesOm", ["penger"], "data.begrunnelse.hvaSokesOm"),
        ("data.familie.sivilstatus", {"kilde": "bruker", "status": "ugift"}, "data.familie.forsorgerplikt"),
        ("innsendingstidspunkt", "2026-01-01", "innsendingstidspunkt"),
        ("driftsinformasjon", "en tekst, som før 1.0.8", "driftsinformasjon"),
        ("mottaker.kommunenummer", 301, "mottaker.kommunenummer"),
    ],
)
def test_a_field_of_the_wrong_form_is_refused(path: str, value: object, told: str) -> None:
    error = refusal(path, value)

    assert error.path == told
    assert str(value) not in str(error)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.soknadstype", "lynrask"),
        ("data.personalia.navn.kilde", "matrikkel"),
        ("data.bosituasjon", {"kilde": "bruker", "botype": "husbat"}),
        ("data.personalia.postadresse", {"kilde": "bruker", "type": "koordinat", "nord": 59.9}),
        ("data.familie", {"forsorgerplikt": {"barnebidrag": {"verdi": "delt"}}}),
        ("data.familie", {"forsorgerplikt": {}, "sivilstatus": {"kilde": "system", "status": "registrertPartner"}}),
        ("version", "1.2.3-beta+abc"),
    ],
)
def test_new_codes_and_types_pass(path: str, value: object) -> None:
    assert json.loads(parse(path, value).to_json()) == soknad(path, value)


def test_the_receiver_is_typed() -> None:
    parsed = parse("mottaker", {"kommunenummer": "0301", "enhetsnummer": "0314"})

    assert isinstance(parsed.kommunenummer(), Kommunenummer)
    assert (parsed.kommunenummer(), parsed.enhetsnummer()) == (Kommunenummer("0301"), Enhetsnummer("0314"))


def test_an_empty_receiver_is_none() -> None:
    parsed = parse("mottaker", {"kommunenummer": "", "enhetsnummer": ""})

    assert (parsed.kommunenummer(), parsed.enhetsnummer()) == (None, None)


def test_a_receiver_that_is_no_number_is_readable_but_cannot_be_used() -> None:
    parsed = parse("mottaker", {"kommunenummer": "Oslo", "enhetsnummer": "314"})

    with pytest.raises(InvalidDocumentError, match=r"mottaker\.kommunenummer: skal være fire siffer") as caught:
        parsed.kommunenummer()
    with pytest.raises(InvalidDocumentError, match=r"mottaker\.enhetsnummer: skal være fire siffer"):
        parsed.enhetsnummer()
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "hastegrad"),
    [
        ("Nødhjelp: Har ikke mat\nJeg søker om penger til: Husleie\n", "NODHJELP"),
        ("Nødhjelp: Har ikke strøm, Har ikke bosted\n\n", "NODHJELP"),
        ("\n  Nødhjelp: Har ikke mat", "NODHJELP"),
        ("\nJeg søker om penger til: Livsopphold\nAnnet:\n Jeg fikk nødhjelp i fjor ", "VANLIG"),
        ("Jeg har søkt om Nødhjelp: det fikk jeg ikke", "VANLIG"),
        ("Jeg trenger nødhjelp", "VANLIG"),
        ("", "VANLIG"),
    ],
)
def test_urgency_is_read_from_the_block_that_the_portal_writes(text: str, hastegrad: str) -> None:
    assert parse("data.begrunnelse.hvaSokesOm", text).hastegrad() == hastegrad


@pytest.mark.parametrize("seed", range(5))
def test_an_example_is_read_in_every_part(seed: int) -> None:
    data = parse_soknad(make_soknad(Random(seed))).data

    assert data.arbeid
    assert data.arbeid.forhold
    assert data.okonomi.opplysninger.utbetaling[1].komponenter
    assert data.personalia.folkeregistrert_adresse
    assert data.personalia.folkeregistrert_adresse.type == "gateadresse"
    assert data.familie
    assert data.bosituasjon
    assert data.model_extra == {}
