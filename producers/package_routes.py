"""The dokumentlager over HTTP, for connectors: ``GET /dokumentlager/v1/pakker/{id}``.

Rules:

1. A package is shown to the connector that the katalog names for its kommune, and to nobody else. For everybody else it does
   not exist: the same answer as for an id that was never used.
2. Ranges as in RFC 9110 section 14: one range gives 206, one that cannot be satisfied 416; several, or a broken header, give
   all of it. The ETag is the package's SHA-256, so ``If-Range`` can trust it.
3. A package that is not the bytes that were stored is not served: 503, and an alarm. The connector asks again until somebody has
   put the right bytes in its place.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Header
from fastapi.responses import Response, StreamingResponse

from broker.log import get_logger
from broker.web import FiksError
from producers import metrics
from schemas.errors import InvalidNameError, PackageDamagedError, PackageMissingError
from schemas.names import DokumentlagerId

if TYPE_CHECKING:
    from broker.katalog import Katalog
    from broker.tokens import TokenVerifier
    from producers.dokumentlager import Dokumentlager
    from producers.outbox import Outbox, StoredPackage
    from producers.packages import Packages

PREFIX: Final = "/dokumentlager/v1/pakker"
MEDIA_TYPE: Final = "application/pkcs7-mime"
NOT_FOUND: Final = "pakken finnes ikke, eller er ikke for denne klienten"
DAMAGED: Final = "pakken mangler eller er skadet i dokumentlageret; driften er varslet, prøv igjen senere"
RETRY_AFTER_S: Final = 60

_RANGE: Final = re.compile(r"bytes=(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})", re.ASCII)


class UnsatisfiableError(ValueError):
    """A range that lies outside of the package."""


def parse_range(value: str | None, size: int) -> tuple[int, int] | None:
    """Return the range that a Range header asks for, as start and end (not included).

    Args:
        value: The header, if there was one.
        size: Bytes that there are.

    Returns:
        None when all of it is to be sent: no header, a broken one, or several ranges.

    Raises:
        UnsatisfiableError: There is nothing in the range.

    Source: RFC 9110 section 14.1.2.
    """
    match = _RANGE.fullmatch(value.strip().lower()) if value else None
    if match is None or not (match["first"] or match["last"]):
        return None
    if not match["first"]:
        length = int(match["last"])
        if length == 0 or size == 0:
            raise UnsatisfiableError
        return max(size - length, 0), size
    first = int(match["first"])
    last = int(match["last"]) if match["last"] else size - 1
    if match["last"] and last < first:
        return None
    if first >= size:
        raise UnsatisfiableError
    return first, min(last + 1, size)


def package_router(
    tokens: TokenVerifier, katalog: Katalog, outbox: Outbox, dokumentlager: Dokumentlager, packages: Packages
) -> APIRouter:
    """Return the route.

    Args:
        tokens: Checks who asks.
        katalog: Says which connector is a kommune's.
        outbox: Says whose a package is.
        dokumentlager: Has it.
        packages: Sees that it is whole.
    """
    router = APIRouter(prefix=PREFIX, tags=["dokumentlager"])

    @router.get("/{package_id}", response_class=StreamingResponse)
    async def package(
        package_id: str,
        authorization: Annotated[str | None, Header()] = None,
        range_: Annotated[str | None, Header(alias="Range")] = None,
        if_range: Annotated[str | None, Header()] = None,
    ) -> Response:
        client = await tokens.client(authorization)
        dokumentlager_id, stored = await _find(outbox, katalog, package_id, client.client_id)
        await _check(packages, dokumentlager_id, stored)
        size = dokumentlager.size(dokumentlager_id)
        etag = f'"{stored.sha256}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "no-store"}
        try:
            wanted = parse_range(range_, size) if if_range in {None, etag} else None
        except UnsatisfiableError:
            metrics.PACKAGES_FETCHED.labels(status="416").inc()
            message = f"Range er utenfor pakken, som er på {size} byte"
            raise FiksError(416, message, headers={**headers, "Content-Range": f"bytes */{size}"}) from None
        start, end = wanted or (0, size)
        status = 200 if wanted is None else 206
        if wanted is not None:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        metrics.PACKAGES_FETCHED.labels(status=str(status)).inc()
        get_logger().info(
            "package_fetched",
            dokumentlager_id=dokumentlager_id,
            kommunenummer=stored.kommunenummer,
            konnektor=client.client_id,
            http_status=status,
            lengde=end - start,
        )
        return StreamingResponse(
            dokumentlager.read(dokumentlager_id, start, end),
            status_code=status,
            media_type=MEDIA_TYPE,
            headers={**headers, "Content-Length": str(end - start)},
        )

    _ = package
    return router


async def _check(packages: Packages, dokumentlager_id: DokumentlagerId, stored: StoredPackage) -> None:
    """Return when the package is whole.

    Raises:
        FiksError: 503, it is not (rule 3).
    """
    try:
        await packages.check_stored(dokumentlager_id, stored.sha256)
    except (PackageDamagedError, PackageMissingError) as error:
        metrics.PACKAGES_FETCHED.labels(status="503").inc()
        get_logger().critical(
            "package_unusable",
            dokumentlager_id=dokumentlager_id,
            kommunenummer=stored.kommunenummer,
            exc_info=error,
        )
        raise FiksError(503, DAMAGED, error_code=error.code, headers={"Retry-After": str(RETRY_AFTER_S)}) from None


async def _find(
    outbox: Outbox, katalog: Katalog, package_id: str, client_id: str
) -> tuple[DokumentlagerId, StoredPackage]:
    """Return the package if it is this client's.

    Raises:
        FiksError: 404, for whatever reason (rule 1).
    """
    try:
        dokumentlager_id = DokumentlagerId(package_id)
    except InvalidNameError:
        raise FiksError(404, NOT_FOUND) from None
    stored = await outbox.package(dokumentlager_id)
    entry = katalog.get(stored.kommunenummer) if stored is not None else None
    if stored is None or entry is None or entry.konnektor != client_id:
        raise FiksError(404, NOT_FOUND)
    return dokumentlager_id, stored
