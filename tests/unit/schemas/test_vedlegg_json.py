from __future__ import annotations

import json

import pytest

from schemas.errors import InvalidDocumentError
from schemas.vedlegg_json import ExpectedFile, VedleggJson, parse_vedlegg


def parse(*vedlegg: dict[str, object]) -> VedleggJson:
    return parse_vedlegg(json.dumps({"vedlegg": vedlegg}).encode())


@pytest.mark.parametrize("data", [b"{}", b'{"vedlegg":null}', b'{"vedlegg":[]}', b'{"vedlegg":[{}]}'])
def test_nothing_is_required(data: bytes) -> None:
    assert parse_vedlegg(data).expected_files() == ()


def test_files_that_were_uploaded_are_expected_in_order() -> None:
    parsed = parse(
        {
            "type": "faktura",
            "status": "LastetOpp",
            "filer": [{"filnavn": "b.png", "sha512": "AbC1"}, {"filnavn": "a.jpg"}],
        },
        {"type": "faktura", "status": "VedleggAlleredeSendt", "filer": []},
        {"type": "annet", "status": "LastetOpp", "filer": [{"filnavn": "c.pdf", "sha512": ""}]},
    )

    assert parsed.expected_files() == (("b.png", "abc1"), ("a.jpg", None), ("c.pdf", None))
    assert isinstance(parsed.expected_files()[0], ExpectedFile)


@pytest.mark.parametrize("status", ["VedleggKreves", "VedleggAlleredeSendt", "NoeHeltNytt", None])
def test_other_statuses_expect_no_file_and_stop_nothing(status: str | None) -> None:
    assert parse({"status": status, "filer": [{"filnavn": "a.pdf"}]}).expected_files() == ()


def test_a_file_without_a_name_cannot_be_expected() -> None:
    assert parse({"status": "LastetOpp", "filer": [{"sha512": "aa"}, {}, {"filnavn": ""}]}).expected_files() == ()


def test_new_types_and_fields_pass() -> None:
    row: dict[str, object] = {
        "type": "ny",
        "tilleggsinfo": "nyere",
        "hendelseType": "nyest",
        "klageId": "1",
        "ukjent": {"a": [1]},
    }

    assert json.loads(parse(row).to_json()) == {"vedlegg": [row]}


@pytest.mark.parametrize(
    ("row", "path"),
    [
        ({"filer": {}}, "vedlegg[0].filer"),
        ({"filer": ["a.pdf"]}, "vedlegg[0].filer[0]"),
        ({"filer": [{"filnavn": 1}]}, "vedlegg[0].filer[0].filnavn"),
        ({"status": 1}, "vedlegg[0].status"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused(row: dict[str, object], path: str) -> None:
    with pytest.raises(InvalidDocumentError) as caught:
        parse(row)

    assert (caught.value.document, caught.value.path) == ("vedlegg.json", path)
