"""The released Avro schemas: files that are added and never edited.

A schema's id travels in every record (``schemas.codec``), so the table below is append-only: a new version of a kind is
a new line with the next free id. ``tests/architecture`` freezes the hash of each released file and checks
FULL_TRANSITIVE compatibility within each subject.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Final

from fastavro import parse_schema

from schemas.errors import UnknownSchemaError


@dataclass(frozen=True)
class RegisteredSchema:
    """One released schema.

    Attributes:
        id: What stands in the four bytes after the magic byte.
        kind: First part of the subject, for example ``soknad``.
        version: 1 for the first of its subject.
    """

    id: int
    kind: str
    version: int

    @property
    def subject(self) -> str:
        """Name in the Confluent registry API: ``<kind>-value``."""
        return f"{self.kind}-value"

    @cached_property
    def text(self) -> str:
        """The schema file's JSON text."""
        return files("schemas").joinpath("avro", f"{self.kind}.v{self.version}.avsc").read_text("utf-8")

    @cached_property
    def parsed(self) -> dict[str, Any]:
        """The schema, ready for fastavro."""
        return parse_schema(json.loads(self.text))


SCHEMAS: Final = (
    RegisteredSchema(1, "soknad", 1),
    RegisteredSchema(2, "kvittering", 1),
    RegisteredSchema(3, "hendelse", 1),
    RegisteredSchema(4, "dlq", 1),
    RegisteredSchema(5, "katalog", 1),
    RegisteredSchema(6, "status", 1),
    RegisteredSchema(7, "transport", 1),
    RegisteredSchema(8, "revisjon", 1),
    RegisteredSchema(9, "soknad", 2),
    RegisteredSchema(10, "katalog", 2),
    RegisteredSchema(11, "revisjon", 2),
    RegisteredSchema(12, "transport", 2),
    RegisteredSchema(13, "katalog", 3),
)

_BY_ID: Final = {schema.id: schema for schema in SCHEMAS}


def schema_by_id(schema_id: int) -> RegisteredSchema:
    """Return the schema that a record names.

    Raises:
        UnknownSchemaError: No released schema has this id.
    """
    try:
        return _BY_ID[schema_id]
    except KeyError:
        raise UnknownSchemaError(f"ukjent skjema-id {schema_id}") from None


def versions(kind: str) -> tuple[RegisteredSchema, ...]:
    """Return every version of ``kind``, oldest first; empty when there is none."""
    return tuple(sorted((s for s in SCHEMAS if s.kind == kind), key=lambda s: s.version))


@cache
def latest(kind: str) -> RegisteredSchema:
    """Return the newest version of ``kind``, which is what we write.

    Raises:
        UnknownSchemaError: There is no such kind.
    """
    found = versions(kind)
    if not found:
        raise UnknownSchemaError(f"ukjent skjema {kind!r}")
    return found[-1]
