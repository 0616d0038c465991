"""Bytes that are on topics somewhere decode for ever, by our codec and by Apache's own."""

from __future__ import annotations

import importlib.util
import json
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import avro.io
import avro.schema
import pytest

from schemas.codec import decode, encode
from schemas.records import RECORD_TYPES
from schemas.registry import SCHEMAS, latest, schema_by_id

FOLDER = Path(__file__).parent
VECTORS = sorted(FOLDER.glob("*.bin"))


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_avro", FOLDER / "generate_avro.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_released_version_has_a_vector() -> None:
    assert {path.stem for path in VECTORS} == {f"{schema.kind}.v{schema.version}" for schema in SCHEMAS}


def _as_far_as(meant: Any, found: Any) -> Any:
    """Return ``found`` without the fields that ``meant`` does not name, also within lists."""
    match meant, found:
        case dict(), dict():
            return {name: _as_far_as(meant[name], found[name]) for name in meant}
        case list(), list() if len(meant) == len(found):
            return [_as_far_as(*pair) for pair in zip(meant, found, strict=True)]
        case _:
            return found


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_old_bytes_mean_what_they_meant(path: Path, generator: ModuleType) -> None:
    kind = path.stem.split(".")[0]
    meant = json.loads(path.with_suffix(".json").read_text("utf-8"))
    found = json.loads(generator.expected(decode(RECORD_TYPES[kind], path.read_bytes())))
    assert _as_far_as(meant, found) == meant  # a newer model may know more fields


@pytest.mark.parametrize("kind", RECORD_TYPES)
def test_we_still_write_the_same_bytes(kind: str, generator: ModuleType) -> None:
    assert encode(generator.records()[kind]) == (FOLDER / f"{kind}.v{latest(kind).version}.bin").read_bytes()


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case bytes():
            return {"hex": value.hex()}
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="milliseconds")
        case _:
            return value


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_apaches_own_reader_agrees(path: Path) -> None:
    data = path.read_bytes()
    schema = avro.schema.parse(schema_by_id(int.from_bytes(data[1:5], "big")).text)
    source = BytesIO(data[5:])
    found = avro.io.DatumReader(schema).read(avro.io.BinaryDecoder(source))
    assert _plain(found) == json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert source.read() == b""
