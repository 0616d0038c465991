"""The ``broker`` process over HTTP: the registry's read side, the katalog, and in a local set-up an issuer of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI

from broker.issuer import issuer_router
from broker.registry_api import registry_router
from broker.web import FiksError, Health, health_router, install_fiks_errors
from schemas.errors import InvalidNameError
from schemas.names import Kommunenummer

if TYPE_CHECKING:
    from broker.issuer import LocalIssuer
    from broker.katalog import Katalog
    from schemas.records import KatalogRecord


def create_app(katalog: Katalog, health: Health, issuer: LocalIssuer | None) -> FastAPI:
    """Return the application.

    Args:
        katalog: What is shown.
        health: Whether the process is ready.
        issuer: Served when given.
    """
    app = FastAPI(title="Meldingsformidler: broker", version="1")
    install_fiks_errors(app)
    app.include_router(health_router(health))
    app.include_router(registry_router())
    app.include_router(katalog_router(katalog))
    if issuer is not None:
        app.include_router(issuer_router(issuer))
    return app


def katalog_router(katalog: Katalog) -> APIRouter:
    """Return the katalog's routes: what anybody may know about the kommuner, without keys to open anything."""
    router = APIRouter(prefix="/katalog/v1/kommuner", tags=["katalog"])

    @router.get("")
    async def kommuner() -> list[dict[str, Any]]:
        return [shown(entry) for entry in katalog.all()]

    @router.get("/{kommunenummer}")
    async def kommune(kommunenummer: str) -> dict[str, Any]:
        try:
            entry = katalog.get(Kommunenummer(kommunenummer))
        except InvalidNameError as error:
            raise FiksError(400, str(error)) from None
        if entry is None:
            raise FiksError(404, "kommunen er ikke i katalogen")
        return shown(entry)

    _ = kommuner, kommune
    return router


def shown(entry: KatalogRecord) -> dict[str, Any]:
    """Return an entry as JSON; certificates are public."""
    return entry.model_dump(mode="json", by_alias=True)
