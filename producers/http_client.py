"""Sending a søknad over HTTP, as NAV's clients do: each file encrypted for Fiks' certificate, all in one streamed multipart.

Sending again with the same ``navEksternRefId`` is safe. The intake answers that the søknad is there already and with which
digisosId, in a text that clients have always had to parse; here that is a ``Sent`` like any other, marked ``duplicate``.

Source: Fiks Digisos send API v1; fiks-digisos-klient.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import orjson
from cryptography import x509

from crypto.cms import CmsEncryptor
from schemas.errors import InvalidNameError, RefusedError
from schemas.model import WireModel
from schemas.names import DigisosId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    import httpx

    from producers.dokument import Dokument
    from schemas.names import Enhetsnummer, Kommunenummer, NavEksternRefId

PUBLIC_KEY_PATH: Final = "/digisos/api/v1/dokumentlager-public-key"
TIMEOUT_S: Final = 120.0
"""What NAV's client waits for an answer."""

_DUPLICATE: Final = re.compile(
    r"Soknad med tilhørende navEksternRefId (?P<ref>\S+) finnes allerede i Fiks-Digisos med DigisosId (?P<id>\S+)"
)
_ACCEPTED: Final = 202


class _FiksError(WireModel):
    """The part of Fiks' error object that we read."""

    message: str | None = None
    error_code: str | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """The answer to a submission.

    Attributes:
        digisos_id: The søknad's id, for ever.
        duplicate: Whether it had been sent before.
    """

    digisos_id: DigisosId
    duplicate: bool


class SoknadClient:
    """Sends søknader to one intake.

    Args:
        base_url: The intake's address, without a path.
        http: Does the calls; its timeouts hold.
    """

    def __init__(self, base_url: str, http: httpx.AsyncClient) -> None:
        self.base_url = base_url.rstrip("/")
        self._http = http

    async def public_key(self, token: str) -> x509.Certificate:
        """Return the certificate that files are encrypted for.

        Raises:
            RefusedError: The intake refused the token.
            httpx.HTTPError: The intake was not reached.
        """
        answer = await self._http.get(self.base_url + PUBLIC_KEY_PATH, headers={"Authorization": f"Bearer {token}"})
        if not answer.is_success:
            raise refused(answer)
        return x509.load_der_x509_certificate(answer.content)

    async def send(
        self,
        kommunenummer: Kommunenummer,
        nav_ekstern_ref_id: NavEksternRefId,
        *,
        soknad_json: bytes,
        vedlegg_json: bytes,
        files: Sequence[Dokument],
        token: str,
        enhetsnummer: Enhetsnummer | None = None,
        encrypt_for: x509.Certificate | None = None,
        headers: dict[str, str] | None = None,
    ) -> Sent:
        """Send a søknad.

        Args:
            kommunenummer: The receiver.
            nav_ekstern_ref_id: The sender's own id of this submission; the same one again is the same søknad.
            soknad_json: UTF-8.
            vedlegg_json: UTF-8.
            files: ``soknad.pdf`` first.
            token: The citizen's access token.
            enhetsnummer: The receiving office, sent as ``tilleggsinformasjonJson`` as NAV's v2 clients do.
            encrypt_for: The intake's certificate, fetched first when None.
            headers: More headers, for example ``traceparent``.

        Raises:
            RefusedError: The intake said no; ``status`` and ``message`` are its answer.
            httpx.HTTPError: The intake was not reached, or broke off. Send again with the same reference.
        """
        certificate = encrypt_for or await self.public_key(token)
        boundary = uuid4().hex
        answer = await self._http.post(
            f"{self.base_url}/digisos/api/v1/soknader/{kommunenummer}/{nav_ekstern_ref_id}",
            headers={
                **(headers or {}),
                "Authorization": f"Bearer {token}",
                "Content-Type": f"multipart/form-data; boundary={boundary}",
            },
            content=_stream(
                multipart_body(
                    boundary, parts(soknad_json, vedlegg_json, files, certificate, enhetsnummer=enhetsnummer)
                )
            ),
        )
        if answer.status_code == _ACCEPTED:
            return Sent(DigisosId(answer.json()), duplicate=False)
        error = refused(answer)
        with suppress(InvalidNameError):
            if (found := _DUPLICATE.search(error.message)) is not None and found["ref"] == nav_ekstern_ref_id:
                return Sent(DigisosId(found["id"]), duplicate=True)
        raise error


def parts(
    soknad_json: bytes,
    vedlegg_json: bytes,
    files: Iterable[Dokument],
    certificate: x509.Certificate | None,
    *,
    enhetsnummer: Enhetsnummer | None = None,
) -> Iterator[tuple[str, Iterable[bytes]]]:
    """Return the parts of a submission in order, with the names that KS' streaming client gives them.

    Args:
        soknad_json: UTF-8.
        vedlegg_json: UTF-8.
        files: ``soknad.pdf`` first.
        certificate: What files are encrypted for; in clear when None.
        enhetsnummer: Adds ``tilleggsinformasjonJson``.
    """
    if enhetsnummer is not None:
        yield "tilleggsinformasjonJson", (orjson.dumps({"enhetsnummer": str(enhetsnummer)}),)
    yield "soknadJson", (soknad_json,)
    yield "vedleggJson", (vedlegg_json,)
    for nr, file in enumerate(files):
        metadata = {"filnavn": file.filnavn, "mimetype": file.mimetype, "storrelse": file.storrelse}
        yield f"metadata:{nr}", (orjson.dumps(metadata),)
        yield f"dokument:{nr}", file.read() if certificate is None else encrypted(file.read(), certificate)


def encrypted(content: Iterable[bytes], certificate: x509.Certificate) -> Iterator[bytes]:
    """Return ``content`` as a CMS envelope for ``certificate``, in pieces."""
    encryptor = CmsEncryptor(certificate)
    for piece in content:
        if sealed := encryptor.update(piece):
            yield sealed
    yield encryptor.finalize()


def multipart_body(boundary: str, parts: Iterable[tuple[str, Iterable[bytes]]]) -> Iterator[bytes]:
    """Return a multipart/form-data body, in pieces."""
    for name, content in parts:
        yield (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        yield from content
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


async def _stream(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def refused(answer: httpx.Response) -> RefusedError:
    """Return an answer that is not success as an error with Fiks' message."""
    error = _FiksError()
    with suppress(ValueError):
        error = _FiksError.model_validate_json(answer.content)
    message = error.message or f"HTTP {answer.status_code}"
    return RefusedError(answer.status_code, message, reason=error.error_code or "ukjent")
