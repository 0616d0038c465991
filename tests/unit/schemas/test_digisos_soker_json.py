from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.digisos_soker_json import (
    DigisosSoker,
    DokumentlagerFil,
    Filreferanse,
    Hendelse,
    SoknadsStatus,
    SvarUtFil,
    check_first,
    parse_digisos_soker,
)
from schemas.errors import InvalidDocumentError

TIME = "2026-03-01T12:00:00.000Z"
ID = "11111111-2222-3333-4444-55555555555a"
LAGER = {"type": "dokumentlager", "id": ID}
SVARUT = {"type": "svarut", "id": ID, "nr": 1}
SVARUT_UTEN_NR = {"referanse": {"type": "svarut", "id": ID}}
STORE_BOKSTAVER = {"tittel": "Vedlegg", "referanse": {"type": "dokumentlager", "id": ID.upper()}}

REQUIRED: dict[str, dict[str, Any]] = {
    "soknadsStatus": {"status": "MOTTATT"},
    "tildeltNavKontor": {"navKontor": "0314"},
    "saksStatus": {"referanse": "SAK1"},
    "vedtakFattet": {"vedtaksfil": {"referanse": LAGER}, "saksreferanse": "SAK1"},
    "dokumentasjonEtterspurt": {"dokumenter": [{"dokumenttype": "Strømfaktura", "innsendelsesfrist": TIME}]},
    "forelopigSvar": {"forvaltningsbrev": {"referanse": SVARUT}},
    "utbetaling": {"utbetalingsreferanse": "U1"},
    "vilkar": {"vilkarreferanse": "V1"},
    "dokumentasjonkrav": {"dokumentasjonkravreferanse": "D1"},
    "rammevedtak": {"rammevedtaksreferanse": "R1"},
}


def hendelse(type_: str, time: str = TIME, **fields: Any) -> dict[str, Any]:
    return {"type": type_, "hendelsestidspunkt": time, **REQUIRED.get(type_, {}), **fields}


def status(value: str, time: str = TIME) -> dict[str, Any]:
    return hendelse("soknadsStatus", time, status=value)


def encoded(*hendelser: dict[str, Any], **fields: Any) -> bytes:
    avsender = {"systemnavn": "Testfagsystem", "systemversjon": "1"}
    return json.dumps({"version": "1.3.0", "avsender": avsender, "hendelser": hendelser, **fields}).encode()


def parse(*hendelser: dict[str, Any]) -> DigisosSoker:
    return parse_digisos_soker(encoded(*hendelser))


def refusal(data: bytes) -> InvalidDocumentError:
    with pytest.raises(InvalidDocumentError) as caught:
        parse_digisos_soker(data)
    return caught.value


@pytest.mark.parametrize("type_", REQUIRED)
def test_every_documented_type_has_a_model_of_its_own(type_: str) -> None:
    (parsed,) = parse(hendelse(type_)).hendelser

    assert type(parsed) is not Hendelse
    assert parsed.model_extra == {}


@pytest.mark.parametrize(("type_", "field"), [(type_, field) for type_ in REQUIRED for field in REQUIRED[type_]])
def test_what_a_type_requires_is_named_when_it_is_missing(type_: str, field: str) -> None:
    broken = hendelse(type_)
    del broken[field]

    error = refusal(encoded(hendelse("soknadsStatus"), broken))

    assert (error.path, error.reason) == (f"hendelser[1].{field}", "mangler")


@pytest.mark.parametrize(
    ("broken", "path"),
    [
        ({"type": "soknadsStatus", "status": "MOTTATT"}, "hendelser[0].hendelsestidspunkt"),
        ({"hendelsestidspunkt": TIME}, "hendelser[0].type"),
        (status("MOTTATT", "2026-03-01T12:00:00Z"), "hendelser[0].hendelsestidspunkt"),
        (status("MOTTATT", "2026-03-01T12:00:00.000+01:00"), "hendelser[0].hendelsestidspunkt"),
        (hendelse("tildeltNavKontor", navKontor="314"), "hendelser[0].navKontor"),
        (hendelse("utbetaling", kontonummer="123"), "hendelser[0].kontonummer"),
        (hendelse("utbetaling", belop="100"), "hendelser[0].belop"),
        (hendelse("forelopigSvar", forvaltningsbrev=SVARUT_UTEN_NR), "hendelser[0].forvaltningsbrev.referanse.nr"),
        (hendelse("forelopigSvar", vedlegg=[STORE_BOKSTAVER]), "hendelser[0].vedlegg[0].referanse.id"),
        (hendelse("dokumentasjonkrav", frist="i morgen"), "hendelser[0].frist"),
    ],
)
def test_a_broken_hendelse_is_refused_with_its_path(broken: dict[str, Any], path: str) -> None:
    assert refusal(encoded(broken)).path == path


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"hendelser": []}, "hendelser"),
        ({"version": "en"}, "version"),
        ({"avsender": {"systemnavn": "a"}}, "avsender.systemversjon"),
    ],
)
def test_the_frame_is_checked(fields: dict[str, Any], path: str) -> None:
    assert refusal(encoded(hendelse("soknadsStatus"), **fields)).path == path


def test_an_unknown_type_passes_whole_and_hides_nothing() -> None:
    new = hendelse("klageMottatt", klage={"id": 1}, vedtaksfil="noe annet")
    data = encoded(status("MOTTATT"), new)
    parsed = parse_digisos_soker(data)

    assert type(parsed.hendelser[1]) is Hendelse
    assert parsed.latest_status() == "MOTTATT"
    assert json.loads(parsed.to_json()) == json.loads(data)


def test_new_values_of_enums_pass() -> None:
    parsed = parse(status("UTREDES"), hendelse("saksStatus", status="NY"), hendelse("utbetaling", status="DELVIS"))

    assert parsed.latest_status() == "UTREDES"


@pytest.mark.parametrize(
    ("statuses", "latest"),
    [
        ({"MOTTATT": "01T00:00:00.0Z"}, "MOTTATT"),
        ({"UNDER_BEHANDLING": "01T00:00:00.0Z", "MOTTATT": "01T00:00:00.0Z"}, "UNDER_BEHANDLING"),
        ({"FERDIGBEHANDLET": "01T00:00:00.0Z", "MOTTATT": "01T00:00:00.0Z"}, "FERDIGBEHANDLET"),
        ({"UNDER_BEHANDLING": "02T00:00:00.0Z", "MOTTATT": "01T00:00:00.0Z"}, "UNDER_BEHANDLING"),
        ({"FERDIGBEHANDLET": "01T00:00:00.0Z", "UNDER_BEHANDLING": "02T00:00:00.0Z"}, "UNDER_BEHANDLING"),
        # As text, .1Z sorts after .134Z.
        ({"UNDER_BEHANDLING": "01T00:00:00.134Z", "MOTTATT": "01T00:00:00.1Z"}, "UNDER_BEHANDLING"),
        ({"UNDER_BEHANDLING": "01T00:00:00.10Z", "MOTTATT": "01T00:00:00.1Z"}, "UNDER_BEHANDLING"),
        ({}, None),
    ],
)
def test_the_latest_status_is_the_one_with_the_latest_instant(statuses: dict[str, str], latest: str | None) -> None:
    hendelser = [status(name, f"2026-03-{time}") for name, time in statuses.items()]

    assert parse(hendelse("saksStatus", status="BEHANDLES_IKKE"), *hendelser).latest_status() == latest


@given(st.permutations(["utbetaling", "vilkar", "dokumentasjonkrav"]))
def test_a_utbetaling_comes_before_what_names_it_at_the_same_instant(types: list[str]) -> None:
    assert parse(*map(hendelse, types)).in_order()[0].type == "utbetaling"


@given(st.lists(st.sampled_from(["UNDER_BEHANDLING", "FERDIGBEHANDLET", "BEHANDLES_IKKE"]), min_size=1))
def test_at_one_instant_mottatt_is_first_and_the_rest_keeps_its_order(others: list[str]) -> None:
    ordered = parse(*map(status, [*others, "MOTTATT"])).in_order()

    assert [h.status for h in ordered if isinstance(h, SoknadsStatus)] == ["MOTTATT", *others]


def test_the_first_file_must_say_mottatt() -> None:
    check_first(parse(status("UNDER_BEHANDLING"), status("MOTTATT", "2026-02-01T00:00:00.0Z")))

    with pytest.raises(InvalidDocumentError) as caught:
        check_first(parse(status("UNDER_BEHANDLING")))

    assert (caught.value.path, caught.value.reason) == ("hendelser", "første innsynsfil skal ha soknadsStatus MOTTATT")


def test_every_file_that_is_referred_to_is_found() -> None:
    vedlegg = [{"tittel": "Vedlegg", "referanse": SVARUT}, {"tittel": "Nytt lager", "referanse": {"type": "arkiv"}}]
    parsed = parse(
        hendelse("vedtakFattet", vedlegg=vedlegg),
        hendelse("forelopigSvar"),
        hendelse("dokumentasjonEtterspurt"),
        hendelse("dokumentasjonEtterspurt", forvaltningsbrev={"referanse": LAGER}, vedlegg=vedlegg[:1]),
    )

    kinds = [type(referanse) for referanse in parsed.referanser()]

    assert kinds == [DokumentlagerFil, SvarUtFil, Filreferanse, SvarUtFil, DokumentlagerFil, SvarUtFil]


def test_a_type_that_is_written_as_a_unions_tag_is_unknown() -> None:
    assert type(parse(hendelse("#soknadsStatus")).hendelser[0]) is Hendelse
