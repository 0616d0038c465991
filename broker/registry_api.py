"""The read side of Confluent's schema registry API, served from the released schema files.

Enough for any Confluent-compatible client to read our topics: schemas by id, subjects, versions, compatibility level. Writing
is answered with 405: our schemas are released with the code.

Source: Confluent Schema Registry API reference, the paths below.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from schemas.registry import SCHEMAS, RegisteredSchema, versions

MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"
COMPATIBILITY: Final = "FULL_TRANSITIVE"

_SUBJECT_NOT_FOUND: Final = 40401
_VERSION_NOT_FOUND: Final = 40402
_SCHEMA_NOT_FOUND: Final = 40403
_SUFFIX: Final = "-value"


def registry_router() -> APIRouter:  # noqa: C901 - a list of routes, not a path through them
    """Return the routes; clients expect them at the root of a base URL, so they are mounted under ``/registry``."""
    router = APIRouter(prefix="/registry", tags=["registry"])

    @router.get("/schemas/ids/{schema_id}")
    async def by_id(schema_id: int) -> JSONResponse:
        found = next((schema for schema in SCHEMAS if schema.id == schema_id), None)
        return _answer({"schema": found.text}) if found else _not_found(_SCHEMA_NOT_FOUND, "Schema not found")

    @router.get("/schemas/ids/{schema_id}/versions")
    async def versions_of_id(schema_id: int) -> JSONResponse:
        found = [{"subject": s.subject, "version": s.version} for s in SCHEMAS if s.id == schema_id]
        return _answer(found) if found else _not_found(_SCHEMA_NOT_FOUND, "Schema not found")

    @router.get("/schemas/types")
    async def types() -> JSONResponse:
        return _answer(["AVRO"])

    @router.get("/subjects")
    async def subjects() -> JSONResponse:
        return _answer(sorted({schema.subject for schema in SCHEMAS}))

    @router.get("/subjects/{subject}/versions")
    async def subject_versions(subject: str) -> JSONResponse:
        found = _of_subject(subject)
        if not found:
            return _not_found(_SUBJECT_NOT_FOUND, f"Subject '{subject}' not found.")
        return _answer([schema.version for schema in found])

    @router.get("/subjects/{subject}/versions/{version}")
    async def subject_version(subject: str, version: str) -> JSONResponse:
        found = _of_subject(subject)
        if not found:
            return _not_found(_SUBJECT_NOT_FOUND, f"Subject '{subject}' not found.")
        wanted = found[-1] if version in {"latest", "-1"} else _with_version(found, version)
        if wanted is None:
            return _not_found(_VERSION_NOT_FOUND, f"Version {version} not found.")
        return _answer({"subject": wanted.subject, "version": wanted.version, "id": wanted.id, "schema": wanted.text})

    @router.get("/config")
    @router.get("/config/{subject}")
    async def config(subject: str = "") -> JSONResponse:
        _ = subject
        return _answer({"compatibilityLevel": COMPATIBILITY})

    _ = by_id, versions_of_id, types, subjects, subject_versions, subject_version, config
    return router


def _of_subject(subject: str) -> tuple[RegisteredSchema, ...]:
    return versions(subject.removesuffix(_SUFFIX)) if subject.endswith(_SUFFIX) else ()


def _with_version(found: tuple[RegisteredSchema, ...], version: str) -> RegisteredSchema | None:
    return next((schema for schema in found if str(schema.version) == version), None)


def _answer(body: Any) -> JSONResponse:
    return JSONResponse(body, media_type=MEDIA_TYPE)


def _not_found(code: int, message: str) -> JSONResponse:
    return JSONResponse({"error_code": code, "message": message}, status_code=404, media_type=MEDIA_TYPE)
