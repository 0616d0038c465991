"""Records to bytes and back, in the Confluent wire format.

One zero byte, the schema's id as four bytes big-endian, then the record in Avro's binary encoding. Any client that knows
that format and can reach the registry (``broker.registry_api``) reads our topics.
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any, Final, TypeVar

from fastavro import schemaless_reader, schemaless_writer
from pydantic import ValidationError

from schemas.errors import DecodeError, UnknownSchemaError
from schemas.records import Record
from schemas.registry import latest, schema_by_id

_FRAME: Final = struct.Struct(">bI")
_MAGIC: Final = 0

R = TypeVar("R", bound=Record)


def encode(record: Record) -> bytes:
    """Return ``record`` as framed Avro, by the newest schema of its kind."""
    schema = latest(record.KIND)
    out = BytesIO()
    out.write(_FRAME.pack(_MAGIC, schema.id))
    schemaless_writer(out, schema.parsed, record.model_dump(by_alias=True))
    return out.getvalue()


def decode(model: type[R], data: bytes | None) -> R:
    """Return the record in ``data``, whatever version wrote it.

    Args:
        model: The record that belongs on the topic that ``data`` was read from.
        data: Framed Avro.

    Raises:
        UnknownSchemaError: Not our framing, an id that we do not know, or a schema of another kind.
        DecodeError: The bytes do not decode by their schema, a field has the wrong form, or bytes are left over.
    """
    if data is None or len(data) < _FRAME.size:
        raise UnknownSchemaError("meldingen er tom eller uten skjema-id")
    magic, schema_id = _FRAME.unpack_from(data)
    if magic != _MAGIC:
        raise UnknownSchemaError("meldingen har ikke Confluents ramme")
    writer = schema_by_id(schema_id)
    if writer.kind != model.KIND:
        raise UnknownSchemaError(f"skjema-id {schema_id} er {writer.subject}, ventet {model.KIND}-value")
    try:
        return model.model_validate(_read(data, writer.parsed, latest(model.KIND).parsed))
    except ValidationError as error:
        fields = ", ".join(str(e["loc"][0]) for e in error.errors(include_url=False, include_input=False) if e["loc"])
        raise DecodeError(f"{writer.subject}: ugyldige felt: {fields}") from None


def schema_of(data: bytes | None) -> str | None:
    """Return what wrote ``data`` as kind and version, for example ``soknad:2``; None when the frame names no schema of ours."""
    if data is None or len(data) < _FRAME.size:
        return None
    magic, schema_id = _FRAME.unpack_from(data)
    try:
        schema = schema_by_id(schema_id)
    except UnknownSchemaError:
        return None
    return f"{schema.kind}:{schema.version}" if magic == _MAGIC else None


def _read(data: bytes, writer: dict[str, Any], reader: dict[str, Any]) -> object:
    source = BytesIO(data)
    source.seek(_FRAME.size)
    try:
        record = schemaless_reader(source, writer, reader)
    except Exception as error:  # noqa: BLE001 - fastavro raises whatever the bytes lead it into, and may quote them
        raise DecodeError(f"meldingen er ikke gyldig Avro ({type(error).__name__})") from None
    if source.read(1):
        raise DecodeError("det er bytes igjen etter meldingen")
    return record
