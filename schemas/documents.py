"""What NAV's JSON documents have in common: how they are read, how they are refused, and what they never show.

Rules, for ``soknad_json``, ``vedlegg_json`` and ``digisos_soker_json`` alike:

* A document is UTF-8 JSON (RFC 8259) without a byte order mark. A mark is refused, not skipped: the bytes travel
  unchanged to somebody else's parser, and many of those stop at it.
* A key twice in one object, ``NaN``, ``Infinity`` and numbers that overflow are refused: two readers could see two
  different documents in the same bytes. So is nesting beyond ``MAX_DEPTH``.
* A required field that is missing or of the wrong type is refused. An optional field may be missing or ``null``.
* Unknown fields are kept, and ``to_json`` gives them back. Code lists and enums are strings: a new value passes.
* An error names the path and never the value, and holds no reference to the document. ``repr`` of a model is empty.
* A model is for looking. What is packed and signed is the bytes that came in, never a model written out again.

Limiting the size in bytes is the caller's part; the work here is linear in it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from schemas.errors import InvalidDocumentError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_DEPTH: Final = 64
"""Levels of objects and lists in a document. The deepest that NAV's formats define is ten."""

BOM: Final = b"\xef\xbb\xbf"

_TOO_DEEP: Final = f"er nøstet dypere enn {MAX_DEPTH} nivåer"

_SEMVER: Final = r"^[0-9]+\.[0-9]+\.[0-9]+(-[a-zA-Z0-9]+)?(\+[a-zA-Z0-9]+)?$"
_FIRE_SIFFER: Final = r"^[0-9]{4}$"
_ELLEVE_SIFFER: Final = r"^[0-9]{11}$"
_TELEFON: Final = r"^\+[0-9]+$"
_TIDSPUNKT: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]+Z$"
_UUID: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"

_FORMS: Final = {
    _SEMVER: "skal være et versjonsnummer, for eksempel 1.0.11",
    _FIRE_SIFFER: "skal være fire siffer",
    _ELLEVE_SIFFER: "skal være elleve siffer",
    _TELEFON: "skal være + og siffer (E.164)",
    _TIDSPUNKT: "skal være et tidspunkt i UTC med brøkdel, for eksempel 2026-01-31T12:00:00.000Z",
    _UUID: "skal være en UUID med små bokstaver",
}

_NUMBER_TAGS: Final = frozenset({"int", "float"})

_REASONS: Final = {
    "missing": "mangler",
    "string_type": "skal være en tekst",
    "bool_type": "skal være true eller false",
    "int_type": "skal være et heltall",
    "int_from_float": "skal være et heltall",
    "float_type": "skal være et tall",
    "model_type": "skal være et objekt",
    "model_attributes_type": "skal være et objekt",
    "tuple_type": "skal være en liste",
    "too_short": "skal ha minst ett element",
    "required_here": "mangler, og kreves av et annet felt",
}


def required_here(field: str) -> PydanticCustomError:
    """Return the error for a field that is optional by itself and required by what another one says."""
    return PydanticCustomError("required_here", "missing", {"field": field})


class Document(BaseModel):
    """A part of a document: frozen, keeps unknown fields, shows nothing of itself.

    Fields have the format's own names in snake_case: ``hva_sokes_om`` is ``hvaSokesOm`` in the JSON.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        alias_generator=to_camel,
        serialize_by_alias=True,
        protected_namespaces=(),
    )

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Return nothing: whatever prints a model, a log or a traceback, prints no personal data."""
        return ()

    def __str__(self) -> str:
        return repr(self)

    def to_json(self) -> bytes:
        """Return the document as compact UTF-8 JSON: the same members and values, none added and none lost."""
        return self.model_dump_json(exclude_unset=True).encode()


D = TypeVar("D", bound=Document)
Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
Members: TypeAlias = "_Object | list[Members] | str | int | float | bool | None"
"""JSON whose objects are still lists of their members."""


def _check_tidspunkt(text: str) -> str:
    """Refuse what has the form of a point in time but is none, such as 30 February."""
    try:
        datetime.fromisoformat(f"{text[:19]}+00:00")
    except ValueError:
        raise PydanticCustomError("tidspunkt", "no such time") from None
    return text


Versjon: TypeAlias = Annotated[str, StringConstraints(pattern=_SEMVER)]
"""Semantic version with optional ``-pre`` and ``+build``."""
FireSiffer: TypeAlias = Annotated[str, StringConstraints(pattern=_FIRE_SIFFER)]
ElleveSiffer: TypeAlias = Annotated[str, StringConstraints(pattern=_ELLEVE_SIFFER)]
Telefon: TypeAlias = Annotated[str, StringConstraints(pattern=_TELEFON)]
"""E.164."""
UuidTekst: TypeAlias = Annotated[str, StringConstraints(pattern=_UUID)]
Tidspunkt: TypeAlias = Annotated[str, StringConstraints(pattern=_TIDSPUNKT), AfterValidator(_check_tidspunkt)]
"""UTC with a fraction and ``Z``; any number of fraction digits, kept as written. Compare with ``instant``."""
Tall: TypeAlias = int | float
"""A JSON number that stays what it was: 5000 is not turned into 5000.0, nor the other way."""


def instant(tidspunkt: str) -> tuple[str, str]:
    """Return a key that orders points in time, whatever their number of fraction digits.

    As text, ``….1Z`` sorts after ``….134Z``; by this key it comes before, and equals ``….100Z``.
    """
    return tidspunkt[:19], tidspunkt[20:-1].rstrip("0")


def parse_document(model: type[D], data: bytes, name: str) -> D:
    """Read a document.

    Args:
        model: What it must be.
        data: UTF-8 JSON; the caller has limited its size.
        name: The document's name for errors, for example ``soknad.json``.

    Raises:
        InvalidDocumentError: It breaks a rule. The error has the path of the first break, and never a value.
    """
    refusal = _refusal(data)
    if refusal is None:
        try:
            return model.model_validate_json(data)
        except ValidationError as error:
            refusal = _first_break(error)
    # Raised outside of the except, so that not even __context__ leads to the input.
    raise InvalidDocumentError(name, *refusal)


def _first_break(error: ValidationError) -> tuple[str, str]:
    first = error.errors(include_url=False, include_input=False)[0]
    loc, kind, context = first["loc"], first["type"], first.get("ctx", {})
    if kind == "required_here":
        return f"{_path(loc)}.{context['field']}", _REASONS[kind]
    if kind == "string_pattern_mismatch":
        return _path(loc), _FORMS[context["pattern"]]
    if kind == "tidspunkt":
        return _path(loc), _FORMS[_TIDSPUNKT]
    if loc and loc[-1] in _NUMBER_TAGS:
        return _path(loc), "skal være et tall"
    return _path(loc), _REASONS.get(kind, "er ugyldig")


def _path(loc: tuple[int | str, ...]) -> str:
    """Write a location as ``hendelser[2].vedtaksfil``.

    Locations hold names that our models know, never a key that is unknown to them. Tags of unions start with ``#`` and
    members of ``Tall`` are type names: neither is part of the document.
    """
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("#") and part not in _NUMBER_TAGS:
            path += f".{part}"
    return path.removeprefix(".")


def _refusal(data: bytes) -> tuple[str, str] | None:
    """Judge the JSON itself: return None, or path and reason.

    The fast way finds a doubled key by counting colons: what is read and written again has fewer of them when a member
    was dropped. Escapes that hide a colon would spoil the count, so documents with such take the slow way.
    """
    try:
        value: Json = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return "", _why_not_json(data, error)
    if not _is_shallow(value):
        return "", _TOO_DEEP
    hidden = b"\\u003a" in data or b"\\u003A" in data
    if not hidden and orjson.dumps(value).count(b":") == data.count(b":"):
        return None
    doubled = _doubled_key(json.loads(data, object_pairs_hook=_Object))
    return None if doubled is None else (_shown_path(doubled), "står to ganger")


def _is_shallow(value: Json) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return True
    return False


def _why_not_json(data: bytes, error: orjson.JSONDecodeError) -> str:
    if not data.strip():
        return "er tomt"
    if data.startswith(BOM):
        return "starter med BOM; skal være UTF-8 uten"
    try:
        data.decode()
    except UnicodeDecodeError:
        return "er ikke UTF-8"
    return _TOO_DEEP if "depth" in error.msg else f"er ikke gyldig JSON (tegn {error.pos})"


@dataclass(slots=True)
class _Object:
    """A JSON object with its members as they stand, doubled ones too."""

    members: list[tuple[str, Members]]


def _doubled_key(node: Members) -> tuple[int | str, ...] | None:
    """Return the location of the first key that stands twice in its object, in document order."""
    if isinstance(node, _Object):
        seen: set[str] = set()
        for key, child in node.members:
            if key in seen:
                return (key,)
            seen.add(key)
            if (found := _doubled_key(child)) is not None:
                return (key, *found)
    elif isinstance(node, list):
        for index, item in enumerate(node):
            if (found := _doubled_key(item)) is not None:
                return (index, *found)
    return None


def _shown_path(loc: tuple[int | str, ...]) -> str:
    """Return a location as an error may show it: a key that no format defines could be a person's name."""
    known = _known_keys(Document)
    return _path(tuple(part if isinstance(part, int) or part in known else "(ukjent felt)" for part in loc))


def _known_keys(model: type[Document]) -> set[str]:
    keys = {field.alias or name for name, field in model.model_fields.items()}
    return keys.union(*(_known_keys(sub) for sub in model.__subclasses__()))
