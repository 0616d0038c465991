"""Fetching a sealed package that is too large for its record, over HTTP with ranges.

Rules:

1. A break in the middle is resumed from the byte where it was, a limited number of times, and only if the package is still the
   same (``If-Range`` with the first answer's ETag).
2. Nothing that comes is trusted: whoever called compares size and digest with the record.
3. A refused token is our own set-up and no fault of the søknad: unavailable, not missing. A new token is tried once first, since
   the issuer may have got new keys.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import httpx

from schemas.errors import PackageMissingError, PackageUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from broker.tokens import ClientTokens
    from schemas.names import DokumentlagerId

PATH: Final = "/dokumentlager/v1/pakker/"
MAX_RESUMES: Final = 5

_OK: Final = 200
_PARTIAL: Final = 206
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404


class DokumentlagerClient:
    """Reads packages as one connector.

    Args:
        base_url: The dokumentlager's address, without a path.
        http: Does the calls; its timeouts hold.
        tokens: Who we are.
    """

    def __init__(self, base_url: str, *, http: httpx.AsyncClient, tokens: ClientTokens) -> None:
        self._base_url = base_url.rstrip("/")
        self._http = http
        self._tokens = tokens

    async def read(self, dokumentlager_id: DokumentlagerId, size: int) -> AsyncIterator[bytes]:
        """Return a package in pieces, at most one byte more than ``size``.

        Args:
            dokumentlager_id: Which package.
            size: Bytes that the record says it has; a longer answer is cut off behind it, so that the digest tells.

        Raises:
            PackageMissingError: There is no such package, or it is not for us.
            PackageUnavailableError: No answer, or not all of it; try again later.
        """
        at, etag = 0, None
        for _ in range(1 + MAX_RESUMES):
            before = at
            try:
                async with self._request(dokumentlager_id, at, etag) as answer:
                    etag = _check(answer, at)
                    async for piece in answer.aiter_bytes():
                        at += len(piece)
                        yield piece
                        if at > size:
                            return
                    return  # an answer that breaks off raises; this one came to its end
            except httpx.HTTPError as error:
                if at == before:  # no progress: an outage, and the delivery core's business
                    raise PackageUnavailableError(f"dokumentlageret svarer ikke ({type(error).__name__})") from error
        raise PackageUnavailableError("dokumentlageret brøt forbindelsen for mange ganger")

    @asynccontextmanager
    async def _request(
        self, dokumentlager_id: DokumentlagerId, at: int, etag: str | None
    ) -> AsyncGenerator[httpx.Response]:
        url = f"{self._base_url}{PATH}{dokumentlager_id}"
        async with self._http.stream("GET", url, headers=await self._headers(at, etag)) as answer:
            if answer.status_code != _UNAUTHORIZED:
                yield answer
                return
        self._tokens.forget()
        async with self._http.stream("GET", url, headers=await self._headers(at, etag)) as answer:
            yield answer

    async def _headers(self, at: int, etag: str | None) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {await self._token()}"}
        if at:
            headers["Range"] = f"bytes={at}-"
            if etag is not None:
                headers["If-Range"] = etag
        return headers

    async def _token(self) -> str:
        try:
            return await self._tokens.access_token()
        except (ValueError, KeyError, TypeError) as error:  # an answer of the issuer's that is no token
            raise PackageUnavailableError(f"tokenutstederen svarte uleselig ({type(error).__name__})") from error


def _check(answer: httpx.Response, at: int) -> str | None:
    """Return the answer's ETag if it continues at ``at``."""
    if answer.status_code == _NOT_FOUND:
        raise PackageMissingError("dokumentlageret har ikke pakken, eller ikke for oss")
    if answer.status_code not in {_OK, _PARTIAL}:
        raise PackageUnavailableError(f"dokumentlageret svarte {answer.status_code}")
    if at and answer.status_code == _OK:
        raise PackageUnavailableError("dokumentlageret kan ikke fortsette der det brøt")
    etag = answer.headers.get("ETag")
    return None if etag is None else str(etag)
