from __future__ import annotations

import json

import pytest

from schemas.errors import UnknownSchemaError
from schemas.registry import SCHEMAS, RegisteredSchema, latest, schema_by_id, versions


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda s: s.subject)
def test_a_schema_is_found_by_its_id(schema: RegisteredSchema) -> None:
    assert schema_by_id(schema.id) is schema


@pytest.mark.parametrize("schema_id", [0, -1, len(SCHEMAS) + 1, 2**31])
def test_an_unknown_id_is_refused(schema_id: int) -> None:
    with pytest.raises(UnknownSchemaError):
        schema_by_id(schema_id)


def test_the_newest_version_is_the_last() -> None:
    for kind in {schema.kind for schema in SCHEMAS}:
        assert latest(kind) is versions(kind)[-1]
        assert latest(kind).version == max(schema.version for schema in versions(kind))


def test_an_unknown_kind_has_no_versions_and_no_newest() -> None:
    assert versions("finnes-ikke") == ()
    with pytest.raises(UnknownSchemaError):
        latest("finnes-ikke")


def test_a_subject_is_the_kind_with_value_behind() -> None:
    assert latest("soknad").subject == "soknad-value"


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda s: s.subject)
def test_a_schema_is_a_record_in_our_namespace(schema: RegisteredSchema) -> None:
    document = json.loads(schema.text)
    assert (document["type"], document["namespace"]) == ("record", "no.fiks.meldingsformidler")
