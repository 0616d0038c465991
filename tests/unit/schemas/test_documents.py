from __future__ import annotations

import json
import traceback
from copy import deepcopy
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from schemas.digisos_soker_json import parse_digisos_soker
from schemas.documents import MAX_DEPTH, Document, FireSiffer, Tall, Tidspunkt, instant, parse_document, required_here
from schemas.errors import InvalidDocumentError
from schemas.examples import make_digisos_soker, make_soknad, make_vedlegg
from schemas.soknad_json import parse_soknad
from schemas.vedlegg_json import parse_vedlegg

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET_FNR = "31898099999"
SECRET_NAVN = "Hemmelighilde"
SECRETS = (SECRET_FNR, SECRET_NAVN)


class Inner(Document):
    fire_siffer: FireSiffer
    belop: Tall | None = None


class Outer(Document):
    indre_del: Inner
    liste: tuple[Inner, ...] = ()
    tid: Tidspunkt | None = None
    svar: bool | None = None


def parse(data: bytes | dict[str, Any]) -> Outer:
    return parse_document(Outer, data if isinstance(data, bytes) else json.dumps(data).encode(), "ytre.json")


def refusal(data: bytes | dict[str, Any]) -> InvalidDocumentError:
    with pytest.raises(InvalidDocumentError) as caught:
        parse(data)
    return caught.value


def test_names_in_json_are_camel_case_and_fields_are_snake_case() -> None:
    assert parse({"indreDel": {"fireSiffer": "0301"}}).indre_del.fire_siffer == "0301"


def test_the_python_name_of_a_field_is_an_unknown_field_in_json() -> None:
    assert refusal({"indre_del": {"fireSiffer": "0301"}}).path == "indreDel"


@pytest.mark.parametrize(
    ("document", "path", "reason"),
    [
        ({}, "indreDel", "mangler"),
        ({"indreDel": None}, "indreDel", "skal være et objekt"),
        ({"indreDel": []}, "indreDel", "skal være et objekt"),
        ({"indreDel": {}}, "indreDel.fireSiffer", "mangler"),
        ({"indreDel": {"fireSiffer": 301}}, "indreDel.fireSiffer", "skal være en tekst"),
        ({"indreDel": {"fireSiffer": "301"}}, "indreDel.fireSiffer", "skal være fire siffer"),
        ({"indreDel": {"fireSiffer": "0301\n"}}, "indreDel.fireSiffer", "skal være fire siffer"),
        ({"indreDel": {"fireSiffer": "０３０１"}}, "indreDel.fireSiffer", "skal være fire siffer"),
        ({"indreDel": {"fireSiffer": "0301", "belop": "5"}}, "indreDel.belop", "skal være et tall"),
        ({"indreDel": {"fireSiffer": "0301", "belop": True}}, "indreDel.belop", "skal være et tall"),
        ({"indreDel": {"fireSiffer": "0301"}, "liste": {}}, "liste", "skal være en liste"),
        ({"indreDel": {"fireSiffer": "0301"}, "liste": [{"fireSiffer": "1"}]}, "liste[0].fireSiffer", "fire siffer"),
        ({"indreDel": {"fireSiffer": "0301"}, "svar": 1}, "svar", "skal være true eller false"),
        ({"indreDel": {"fireSiffer": "0301"}, "tid": "2026-02-30T00:00:00.000Z"}, "tid", "tidspunkt i UTC"),
        ({"indreDel": {"fireSiffer": "0301"}, "tid": "2026-02-20T00:00:00Z"}, "tid", "tidspunkt i UTC"),
        ({"indreDel": {"fireSiffer": "0301"}, "tid": "2026-02-20T00:00:00.0+01:00"}, "tid", "tidspunkt i UTC"),
    ],
)
def test_a_broken_rule_is_told_with_its_path(document: dict[str, Any], path: str, reason: str) -> None:
    error = refusal(document)

    assert (error.document, error.path) == ("ytre.json", path)
    assert reason in error.reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "er tomt"),
        (b" \n", "er tomt"),
        (b"[]", "skal være et objekt"),
        (b"null", "skal være et objekt"),
        (b'\xef\xbb\xbf{"indreDel":{"fireSiffer":"0301"}}', "BOM"),
        ('{"indreDel":{"fireSiffer":"0301"}}'.encode("utf-16"), "er ikke UTF-8"),
        (b'{"indreDel":{"fireSiffer":"0301"},"navn":"\xe6"}', "er ikke UTF-8"),
        (b'{"indreDel":{"fireSiffer":"0301"}', "er ikke gyldig JSON"),
        (b'{"indreDel":{"fireSiffer":"0301"}} {}', "er ikke gyldig JSON"),
        (b'{"indreDel":{"fireSiffer":"0301"},"x":NaN}', "er ikke gyldig JSON (tegn 38)"),
        (b'{"indreDel":{"fireSiffer":"0301"},"x":-Infinity}', "er ikke gyldig JSON"),
        (b'{"indreDel":{"fireSiffer":"0301"},"x":1e999}', "er ikke gyldig JSON"),
        (b'{"indreDel":{"fireSiffer":"0301"},"x":"\\ud800"}', "er ikke gyldig JSON"),
        (b"[" * 100_000, "er nøstet dypere enn 64 nivåer"),
    ],
)
def test_bytes_that_are_no_document_are_refused(data: bytes, reason: str) -> None:
    error = refusal(data)

    assert error.path == ""
    assert reason in error.reason


def nested(levels: int) -> bytes:
    """Return a valid document whose deepest value lies within ``levels`` objects and lists."""
    return b'{"indreDel":{"fireSiffer":"0301"},"x":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_nesting_is_limited_exactly() -> None:
    parse(nested(MAX_DEPTH))

    assert refusal(nested(MAX_DEPTH + 1)).reason == "er nøstet dypere enn 64 nivåer"


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b'{"indreDel":{"fireSiffer":"0301","fireSiffer":"0302"}}', "indreDel.fireSiffer"),
        (b'{"indreDel":{"fireSiffer":"0301"},"liste":[{},{"belop":1,"belop":1}]}', "liste[1].belop"),
        (b'{"indreDel":{"fireSiffer":"0301"},"tid":null,"\\u0074id":null}', "tid"),
        (b'{"x":"\\u003a","y\\u003A":1,"svar":true,"svar":true}', "svar"),
        (b'{"x":"a:b:c","svar":true,"svar":true}', "svar"),
        (b'{"Hemmelighilde":{"svar":1,"svar":2}}', "(ukjent felt).svar"),
    ],
)
def test_a_key_twice_in_one_object_is_refused(data: bytes, path: str) -> None:
    error = refusal(data)

    assert (error.path, error.reason) == (path, "står to ganger")


def test_the_same_key_in_two_objects_is_fine_even_where_a_colon_is_escaped() -> None:
    parse(b'{"indreDel":{"fireSiffer":"0301","x":"\\u003a"},"liste":[{"fireSiffer":"0301","x":":"}]}')


def test_a_field_that_another_one_requires_is_named_in_the_path() -> None:
    error = required_here("ektefelle")

    assert error.context == {"field": "ektefelle"}


def test_numbers_stay_what_they_were() -> None:
    data = b'{"indreDel":{"fireSiffer":"0301","belop":5000},"liste":[{"fireSiffer":"0302","belop":5000.0}]}'

    assert parse(data).to_json() == data


def test_what_was_absent_stays_absent_and_null_stays_null() -> None:
    data = b'{"indreDel":{"fireSiffer":"0301","belop":null},"ukjent":[{"a":null}]}'

    assert parse(data).to_json() == data


def test_a_document_cannot_be_changed() -> None:
    document = parse({"indreDel": {"fireSiffer": "0301"}})

    with pytest.raises(ValueError, match="frozen"):
        document.svar = True  # type: ignore[misc]  # the assignment that must fail


def test_no_way_of_printing_a_document_shows_what_is_in_it() -> None:
    document = parse({"indreDel": {"fireSiffer": "0301", SECRET_NAVN: SECRET_FNR}, "x": SECRET_NAVN})

    printed = f"{document} {document!r} {[document]} {document.indre_del!r} {pretty_repr(document)}"

    assert printed.startswith("Outer() Outer() [Outer()] Inner()")
    assert not any(secret in printed for secret in SECRETS)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2026-01-01T00:00:00.1Z", "2026-01-01T00:00:00.134Z"),
        ("2026-01-01T00:00:00.134Z", "2026-01-01T00:00:00.2Z"),
        ("2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00.0000001Z"),
        ("2026-01-01T00:00:59.999999999Z", "2026-01-01T00:01:00.0Z"),
    ],
)
def test_instants_are_in_order_whatever_their_digits(earlier: str, later: str) -> None:
    assert instant(earlier) < instant(later)


def test_instants_with_more_zeros_are_the_same() -> None:
    assert instant("2026-01-01T00:00:00.1Z") == instant("2026-01-01T00:00:00.100Z")


# Properties over the three formats: a document of ours is broken at random, with secrets planted where it breaks.

DOCUMENTS: list[tuple[Callable[[bytes], Document], bytes]] = [
    (parse_soknad, make_soknad(Random(1), navn=f"{SECRET_NAVN} {SECRET_NAVN}", fodselsnummer=SECRET_FNR)),
    (parse_soknad, make_soknad(Random(2), kind="kort", navn=f"Ola {SECRET_NAVN}", fodselsnummer=SECRET_FNR, now=NOW)),
    (parse_vedlegg, make_vedlegg([("faktura", "strom", f"{SECRET_NAVN}.pdf", SECRET_FNR)])),
    (
        parse_digisos_soker,
        make_digisos_soker(
            ["MOTTATT", "FERDIGBEHANDLET"],
            now=NOW,
            nav_kontor="0314",
            hendelser=[
                {"type": "utbetaling", "hendelsestidspunkt": "2026-03-01T12:00:00.000Z", "utbetalingsreferanse": "U1"},
                {
                    "type": "vedtakFattet",
                    "hendelsestidspunkt": "2026-03-01T12:00:00.000Z",
                    "saksreferanse": SECRET_NAVN,
                    "vedtaksfil": {
                        "referanse": {"type": "svarut", "id": "11111111-2222-3333-4444-555555555555", "nr": 1}
                    },
                },
            ],
        ),
    ),
]

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
PLANTED = st.sampled_from(
    [
        SECRET_FNR,
        SECRET_NAVN,
        int(SECRET_FNR),
        [SECRET_FNR],
        {SECRET_NAVN: SECRET_FNR},
        {"type": SECRET_NAVN, "verdi": SECRET_FNR},
        True,
        None,
        -1.5,
    ]
).map(deepcopy)


def places(node: object) -> list[tuple[Any, Any]]:
    """Return every (container, key) in a parsed document."""
    if not isinstance(node, dict | list):
        return []
    keys = list(node if isinstance(node, dict) else range(len(node)))
    return [(node, key) for key in keys] + [place for key in keys for place in places(node[key])]


def objects(node: object) -> list[dict[str, Any]]:
    own = [node] if isinstance(node, dict) else []
    return own + [found for container, key in places(node) if isinstance(found := container[key], dict)]


def attempt(parse_it: Callable[[bytes], Document], data: bytes) -> Document | InvalidDocumentError:
    try:
        return parse_it(data)
    except InvalidDocumentError as error:
        return error


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(DOCUMENTS), st.data())
def test_a_document_broken_anywhere_never_leaks_a_value(
    case: tuple[Callable[[bytes], Document], bytes], data: Any
) -> None:
    parse_it, document = case
    tree = json.loads(document)
    for _ in range(data.draw(st.integers(1, 3), label="mutations")):
        container, key = data.draw(st.sampled_from(places(tree) or [({}, "x")]), label="place")
        match data.draw(st.sampled_from(["delete", "replace", "add", "double"]), label="how"):
            case "delete" if key in container or isinstance(container, list):
                del container[key]
            case "replace":
                container[key] = data.draw(PLANTED, label="planted")
            case _ if isinstance(container, dict):
                container[SECRET_NAVN] = data.draw(PLANTED, label="planted")
    raw = json.dumps(tree, ensure_ascii=data.draw(st.booleans())).encode()
    if data.draw(st.booleans(), label="double a member"):
        raw = raw.replace(b'"type"', f'"{SECRET_NAVN}":1,"{SECRET_NAVN}":2,"type"'.encode(), 1)

    result = attempt(parse_it, raw)
    told = repr(result) + str(result)
    if isinstance(result, InvalidDocumentError):
        told += "".join(traceback.format_exception(result)) + repr(vars(result))
        assert result.__cause__ is None
        assert result.__context__ is None
    assert not any(secret in told for secret in SECRETS)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(DOCUMENTS), st.integers(0), st.integers(0, 255))
def test_a_flipped_byte_never_raises_anything_else(
    case: tuple[Callable[[bytes], Document], bytes], where: int, byte: int
) -> None:
    parse_it, document = case
    flipped = bytearray(document)
    flipped[where % len(flipped)] = byte

    assert not any(secret in str(attempt(parse_it, bytes(flipped))) for secret in SECRETS)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(DOCUMENTS), st.data())
def test_unknown_fields_anywhere_are_kept(case: tuple[Callable[[bytes], Document], bytes], data: Any) -> None:
    parse_it, document = case
    tree = json.loads(document)
    target = data.draw(st.sampled_from(objects(tree)), label="object")
    target.update(
        {f"ny_{key}": value for key, value in data.draw(st.dictionaries(st.text(), JSON_VALUES, max_size=3)).items()}
    )

    assert json.loads(parse_it(json.dumps(tree).encode()).to_json()) == tree


@pytest.mark.parametrize(("parse_it", "document"), DOCUMENTS)
def test_reading_and_writing_gives_the_same_document(parse_it: Callable[[bytes], Document], document: bytes) -> None:
    written = parse_it(document).to_json()

    assert json.loads(written) == json.loads(document)
    assert parse_it(written).to_json() == written
