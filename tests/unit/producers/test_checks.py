from __future__ import annotations

import pytest

from producers.checks import (
    Delivered,
    IntakeLimits,
    check_complete,
    check_name,
    check_type,
    declared_type,
    detect_type,
    expected_digests,
    parse_metadata,
)
from schemas.errors import InvalidDocumentError, RefusedError
from schemas.vedlegg_json import ExpectedFile


@pytest.mark.parametrize(
    "name", ["Soknad.pdf", "Soknad-juridisk.pdf", "søknad æøå (1), v2.PDF", "x" * 222 + ".pdf", "uten-endelse"]
)
def test_ordinary_names_pass(name: str) -> None:
    check_name(name, 1)


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "a*b.pdf", "a:b.pdf", 'a"b.pdf', "a\\b.pdf", "a/b.pdf", "a<b.pdf", "a>b.pdf", "a|b.pdf", "a?b.pdf",
        "x" * 227, "ø" * 200, ".hidden.pdf", "a..pdf", "..", "a\x00b.pdf", "a\u202eb.pdf", "slutt.", "slutt ",
        "soknad.json", "VEDLEGG.json", "forsendelse.json", "mimetype", "META-INF", "CON.pdf", "\ufeffa.pdf",
    ],
)  # fmt: skip
def test_names_that_a_receiver_could_stumble_on_are_refused_without_repeating_them(name: str) -> None:
    with pytest.raises(RefusedError, match="fil nr 7") as refused:
        check_name(name, 7)
    assert refused.value.status == 400
    assert len(name) < 3 or name not in str(refused.value)


def test_names_are_compared_without_case_and_unicode_form() -> None:
    assert check_name("Lønn\u0061\u030a.PDF", 1) == check_name("LØNN\u00e5.pdf", 2)


@pytest.mark.parametrize(
    ("head", "mimetype"),
    [
        (b"%PDF-1.7\n", "application/pdf"),
        (b"\xef\xbb\xbf%PDF-1.4", "application/pdf"),
        (b"\r\n%PDF-1.4", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n\x00", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", None),
        (b"PK\x03\x04", None),
        (b"<html>%PDF-", None),
        (b"%PD", None),
        (b"", None),
    ],
)
def test_the_content_tells_the_type(head: bytes, mimetype: str | None) -> None:
    assert detect_type(head) == mimetype


def test_a_type_may_have_parameters_and_an_old_name() -> None:
    assert declared_type("image/JPG", 2) == "image/jpeg"
    assert declared_type("application/pdf; charset=binary", 1) == "application/pdf"


@pytest.mark.parametrize(("declared", "nr"), [("text/plain", 2), ("", 2), ("image/png", 1), ("image/gif", 3)])
def test_a_type_that_is_not_taken_is_415(declared: str, nr: int) -> None:
    with pytest.raises(RefusedError, match=f"fil nr {nr}") as refused:
        declared_type(declared, nr)
    assert refused.value.status == 415


def test_content_must_be_what_was_declared() -> None:
    check_type(b"%PDF-1.4", "application/pdf", 1)
    with pytest.raises(RefusedError, match="image/png"):
        check_type(b"\x89PNG\r\n\x1a\n", "application/pdf", 1)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"", "JSON"),
        (b"[]", "JSON"),
        (b"{}", "filnavn, mimetype, storrelse"),
        (b'{"filnavn":"Kari.pdf","mimetype":"application/pdf"}', "storrelse"),
        (b'{"filnavn":"Kari.pdf","mimetype":"application/pdf","storrelse":"12"}', "storrelse"),
        (b'{"filnavn":"Kari.pdf","mimetype":"application/pdf","storrelse":1.5}', "storrelse"),
        (b'{"filnavn":null,"mimetype":"application/pdf","storrelse":1}', "filnavn"),
        (b'{"filnavn":"Kari\\ud800.pdf","mimetype":"a","storrelse":1}', "fil nr 2"),
    ],
)
def test_broken_metadata_is_told_by_its_field(data: bytes, field: str) -> None:
    with pytest.raises(RefusedError, match="metadata for fil nr 2") as refused:
        parse_metadata(data, 2)
    assert field in str(refused.value)
    assert "Kari" not in str(refused.value)


def test_metadata_may_have_more_fields() -> None:
    metadata = parse_metadata(b'{"filnavn":"a.pdf","mimetype":"application/pdf","storrelse":3,"dokumentId":1}', 1)
    assert (metadata.filnavn, metadata.storrelse) == ("a.pdf", 3)
    assert "a.pdf" not in repr(metadata)


def test_a_listed_file_may_have_no_digest() -> None:
    expected = expected_digests([ExpectedFile("a.pdf", None), ExpectedFile("b.pdf", "ab")])
    check_complete(expected, {"a.pdf": Delivered(2, "x"), "b.pdf": Delivered(3, "ab"), "Soknad.pdf": Delivered(1, "y")})


def test_a_listed_file_that_differs_is_told_by_the_place_of_the_delivered_one() -> None:
    with pytest.raises(RefusedError, match="fil nr 3: "):
        check_complete({"b.pdf": "ab"}, {"b.pdf": Delivered(3, "cd")})


def test_a_listed_file_that_is_missing_is_told_by_its_place_in_vedlegg_json() -> None:
    with pytest.raises(RefusedError, match="vedleggJson: fil nr 2 "):
        check_complete({"a.pdf": None, "b.pdf": None}, {"a.pdf": Delivered(2, "x")})


@pytest.mark.parametrize(
    "file", [Delivered(3, "cd", encrypted=True), Delivered(3, "ab", encrypted=True, as_stated=False)]
)
def test_what_is_wrong_inside_of_an_encrypted_file_is_told_after_everything_else(file: Delivered) -> None:
    with pytest.raises(RefusedError, match="en kryptert fil") as refused:
        check_complete({"b.pdf": "ab"}, {"b.pdf": file})
    assert (refused.value.status, refused.value.reason, "nr" in str(refused.value)) == (400, "kryptering", False)
    with pytest.raises(RefusedError, match="fil nr 2 med status"):
        check_complete({"b.pdf": "ab", "c.pdf": None}, {"b.pdf": file})
    with pytest.raises(RefusedError, match="fil nr 4: "):
        check_complete({"b.pdf": "ab", "c.pdf": "x"}, {"b.pdf": file, "c.pdf": Delivered(4, "y")})


def test_a_name_may_be_listed_twice_with_one_digest_but_not_with_two() -> None:
    assert expected_digests([ExpectedFile("a", None), ExpectedFile("a", "ab")]) == {"a": "ab"}
    with pytest.raises(InvalidDocumentError):
        expected_digests([ExpectedFile("a", "cd"), ExpectedFile("a", "ab")])


def test_the_limits_are_those_of_nav() -> None:
    limits = IntakeLimits()
    assert limits.max_file_bytes == 10 * 1024 * 1024
    assert limits.max_total_bytes == 150 * 1024 * 1024
    assert limits.max_files == 30 + 3
    assert limits.max_body_bytes > limits.max_total_bytes
