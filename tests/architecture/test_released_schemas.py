"""A released schema is a file that is added and never edited: 357 connectors hold copies of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from schemas.records import RECORD_TYPES
from schemas.registry import SCHEMAS


@pytest.fixture(scope="session")
def frozen(root: Path) -> dict[str, str]:
    lines = (root / "tests" / "architecture" / "released_schemas.sha256").read_text("utf-8").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


@pytest.fixture(scope="session")
def folder(root: Path) -> Path:
    return root / "schemas" / "avro"


def test_no_released_schema_has_changed(folder: Path, frozen: dict[str, str]) -> None:
    changed = [
        name for name, digest in frozen.items() if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest
    ]
    assert changed == [], "add a new version instead"


def test_every_schema_file_is_frozen_and_every_frozen_one_is_here(folder: Path, frozen: dict[str, str]) -> None:
    assert {path.name for path in folder.glob("*.avsc")} == set(frozen)


def test_every_schema_file_is_registered_under_its_own_name(folder: Path) -> None:
    assert {f"{schema.kind}.v{schema.version}.avsc" for schema in SCHEMAS} == {
        path.name for path in folder.glob("*.avsc")
    }


def test_ids_are_given_once_and_versions_have_no_holes() -> None:
    assert [schema.id for schema in SCHEMAS] == list(range(1, len(SCHEMAS) + 1))
    for kind in RECORD_TYPES:
        numbers = [schema.version for schema in SCHEMAS if schema.kind == kind]
        assert numbers == list(range(1, len(numbers) + 1)), kind
        assert numbers, kind


def _undocumented(schema: Any, path: str) -> list[str]:
    if isinstance(schema, list):
        return [hit for branch in schema for hit in _undocumented(branch, path)]
    if not isinstance(schema, dict):
        return []
    missing = [f"{path}.{field['name']}" for field in schema.get("fields", []) if not field.get("doc")]
    nested = [
        hit for field in schema.get("fields", []) for hit in _undocumented(field["type"], f"{path}.{field['name']}")
    ]
    return missing + nested + _undocumented(schema.get("items"), path)


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda s: s.subject)
def test_every_record_says_what_it_is(schema: Any) -> None:
    assert json.loads(schema.text)["doc"]


@pytest.mark.parametrize("kind", RECORD_TYPES)
def test_model_and_schema_have_the_same_fields(kind: str) -> None:
    newest = next(schema for schema in reversed(SCHEMAS) if schema.kind == kind)
    fields = {field["name"] for field in json.loads(newest.text)["fields"]}
    assert fields == {field.alias for field in RECORD_TYPES[kind].model_fields.values()}


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda s: s.subject)
def test_no_name_needs_other_letters_than_avro_and_kafka_take(schema: Any) -> None:
    names = [field["name"] for field in json.loads(schema.text)["fields"]]
    assert all(name.isascii() and name.isidentifier() for name in names)
