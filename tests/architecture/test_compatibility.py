"""FULL_TRANSITIVE, judged by Apache Avro's own checker: every version reads every other of its subject, both ways.

Connectors upgrade when they can, before or after us. So each pair counts, not only neighbours.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations
from typing import Any

import avro.schema
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from schemas.records import RECORD_TYPES
from schemas.registry import latest, versions


def incompatible_pairs(texts: list[str]) -> list[tuple[int, int]]:
    """Return (reader, writer) by place in ``texts`` for each pair where the reader cannot read all that the writer wrote."""
    parsed = [avro.schema.parse(text) for text in texts]
    checker = ReaderWriterCompatibilityChecker()
    return [
        (reader, writer)
        for reader, writer in permutations(range(len(parsed)), 2)
        if checker.get_compatibility(parsed[reader], parsed[writer]).compatibility
        is not SchemaCompatibilityType.compatible
    ]


@pytest.mark.parametrize("kind", RECORD_TYPES)
def test_every_version_reads_every_other(kind: str) -> None:
    assert incompatible_pairs([schema.text for schema in versions(kind)]) == []


@pytest.mark.parametrize("kind", RECORD_TYPES)
def test_apaches_own_parser_takes_every_version(kind: str) -> None:
    for schema in versions(kind):
        assert avro.schema.parse(schema.text).fullname.startswith("no.fiks.meldingsformidler.")  # type: ignore[attr-defined]  # a record


def _field(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return next(field for field in schema["fields"] if field["name"] == name)


def _optional_field_added(schema: dict[str, Any]) -> None:
    schema["fields"].append({"name": "nytt", "type": ["null", "string"], "default": None})


def _optional_field_removed(schema: dict[str, Any]) -> None:
    schema["fields"].remove(_field(schema, "enhetsnummer"))


def _required_field_added(schema: dict[str, Any]) -> None:
    schema["fields"].append({"name": "nytt", "type": "string"})


def _required_field_removed(schema: dict[str, Any]) -> None:
    schema["fields"].remove(_field(schema, "digisosId"))


def _field_renamed(schema: dict[str, Any]) -> None:
    _field(schema, "digisosId")["name"] = "soknadId"


def _type_changed(schema: dict[str, Any]) -> None:
    _field(schema, "storrelse")["type"] = "string"


def _type_widened(schema: dict[str, Any]) -> None:
    _field(schema, "storrelse")["type"] = "double"  # reads a long; but an old reader cannot read a double


def _optional_made_required(schema: dict[str, Any]) -> None:
    _field(schema, "enhetsnummer").update(type="string", default="")


def _record_renamed(schema: dict[str, Any]) -> None:
    schema["name"] = "Annet"


BREAKING = [
    _required_field_added,
    _required_field_removed,
    _field_renamed,
    _type_changed,
    _type_widened,
    _optional_made_required,
    _record_renamed,
]


@pytest.mark.parametrize("change", BREAKING)
def test_the_checker_sees_a_breaking_change(change: Callable[[dict[str, Any]], None]) -> None:
    changed = json.loads(latest("soknad").text)
    change(changed)
    assert incompatible_pairs([latest("soknad").text, json.dumps(changed)]) != []


@pytest.mark.parametrize("change", [_optional_field_added, _optional_field_removed])
def test_the_checker_lets_a_compatible_change_pass(change: Callable[[dict[str, Any]], None]) -> None:
    changed = json.loads(latest("soknad").text)
    change(changed)
    assert incompatible_pairs([latest("soknad").text, json.dumps(changed)]) == []


def test_a_break_between_the_first_and_the_third_is_seen_although_neighbours_agree() -> None:
    first, second, third = (json.loads(latest("soknad").text) for _ in range(3))
    first["fields"].append({"name": "nytt", "type": "string"})
    second["fields"].append({"name": "nytt", "type": "string", "default": ""})
    assert incompatible_pairs([json.dumps(second), json.dumps(third)]) == []
    assert (0, 2) in incompatible_pairs([json.dumps(first), json.dumps(second), json.dumps(third)])
