"""From a record to an opened, verified package.

Rules, in the order in which they are checked:

1. The value decodes by a schema of ours (``UnknownSchemaError``, ``DecodeError``).
2. The record is for this topic's kommune, and its key is its digisosId (``MismatchError``). A withdrawal carries no package.
3. The package, inline or fetched, has the size and digest that the record says (``UnsealError``: altered is altered).
4. It opens with the kommune's keys and everything in it verifies (``UnsealError``).
5. What the sender signed in ``forsendelse.json`` is what the record says in clear, and its ``avsender`` is the organisation that
   signed (``MismatchError``): the record itself is not signed, and a fagsystem acts on these fields. A sender that a setting
   names may leave ``forsendelse.json`` out, with a warning.
6. ``soknad.json`` and ``vedlegg.json``, where there are any, keep their formats (``InvalidDocumentError``).

Opening a small package is one private RSA operation and as much again of small steps. The operation runs in a pool of as many
threads as there are cores; the small steps stay in the event loop, where they are quicker than in threads that take turns. A
large package is bulk work, and goes to the pool as a whole.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self

from consumers.connector import Fil, Leveranse
from crypto import OpenedPackage, Spool, check_forsendelse, open_package, organisasjonsnummer
from schemas.errors import CertificateError, DecodeError, MismatchError, UnsealError
from schemas.forsendelse import FILENAME
from schemas.records import TILBAKEKALL
from schemas.soknad_json import parse_soknad
from schemas.vedlegg_json import parse_vedlegg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from datetime import datetime

    from crypto import KeyRing, PackageFile, Trust
    from schemas.names import DokumentlagerId, Kommunenummer, Organisasjonsnummer
    from schemas.records import SoknadRecord

MAX_DOCUMENT_BYTES: Final = 8 * 1024 * 1024
"""A larger soknad.json or vedlegg.json is handed over unread."""
IN_LOOP_BYTES: Final = 128 * 1024
"""Packages and files up to this size are verified and released in the event loop: some milliseconds at most."""

FORSENDELSE_WARNING: Final = "uten-forsendelse"
"""Only a setting let the package in: nothing that its sender signed says where it belongs."""

_PARSERS: Final[Mapping[str, Callable[[bytes], object]]] = {"soknad.json": parse_soknad, "vedlegg.json": parse_vedlegg}


def check_record(record: SoknadRecord, key: bytes, kommunenummer: Kommunenummer) -> None:
    """Check that a decoded record belongs where it lay (rule 2), and has its package in one place.

    Raises:
        MismatchError: For another kommune, or under another søknad's key.
        DecodeError: The package is nowhere, or in two places.
    """
    if record.kommunenummer != kommunenummer:
        raise MismatchError("meldingen er til en annen kommune enn emnet")
    if record.digisos_id.encode("ascii") != key:
        raise MismatchError("meldingens nøkkel er ikke dens digisosId")
    if record.type == TILBAKEKALL:
        return
    if (record.pakke is None) == (record.dokumentlager_id is None):
        raise DecodeError("soknad-value: nøyaktig ett av pakke og dokumentlagerId skal være gitt")


class PackageSource(Protocol):
    """Where packages are that are too large for a record; see ``DokumentlagerClient.read``."""

    def read(self, dokumentlager_id: DokumentlagerId, size: int) -> AsyncIterator[bytes]:
        """Return a package in pieces."""
        ...


@dataclass(frozen=True)
class Opener:
    """Opens one kommune's packages.

    Attributes:
        keys: The kommune's private keys.
        trust: Whose signature counts.
        dokumentlager: Where large packages are.
        pool: As many threads as cores, shared by all kommuner of the process.
        without_forsendelse_from: Whose packages may lack ``forsendelse.json``; they can be moved from record to record.
    """

    keys: KeyRing
    trust: Trust
    dokumentlager: PackageSource
    pool: Executor
    without_forsendelse_from: frozenset[Organisasjonsnummer] = frozenset()

    async def open(self, record: SoknadRecord, now: datetime) -> OpenedSoknad:
        """Fetch, open and verify (rules 3 to 6). Close what is returned.

        Args:
            record: One that ``check_record`` let through.
            now: Aware UTC time that the signer is judged against.

        Raises:
            UnsealError: Altered, not for us, or not signed by somebody trusted.
            MismatchError: Moved from another søknad, type or kommune, or in another sender's name.
            InvalidDocumentError: ``soknad.json`` or ``vedlegg.json`` breaks its format.
            PackageMissingError: The dokumentlager does not have it.
            PackageUnavailableError: The dokumentlager does not answer.
            StoreError: No room for the spool.
        """
        spool = Spool()
        loop = asyncio.get_running_loop()
        try:
            await self._fill(spool, record)
            _check_received(spool, record)
            if spool.size > IN_LOOP_BYTES:
                package = await loop.run_in_executor(self.pool, self._verify, spool, record, now)
            else:
                await loop.run_in_executor(self.pool, _unlock, spool, self.keys)
                package = self._verify(spool, record, now)
        except BaseException:
            spool.close()
            raise
        return OpenedSoknad(record, package, spool, self.pool)

    async def _fill(self, spool: Spool, record: SoknadRecord) -> None:
        if record.pakke is not None:
            spool.write(record.pakke)
            return
        if record.dokumentlager_id is None:
            raise ValueError("a record without a package, which check_record refuses")
        async for piece in self.dokumentlager.read(record.dokumentlager_id, record.storrelse):
            await asyncio.get_running_loop().run_in_executor(self.pool, spool.write, piece)

    def _verify(self, spool: Spool, record: SoknadRecord, now: datetime) -> OpenedPackage:
        package = open_package(
            spool,
            keys=self.keys,
            trust=self.trust,
            now=now,
            require_forsendelse=not self.without_forsendelse_from,
        )
        try:
            _check_sender(package, record)
            if package.forsendelse is not None or record.avsender not in self.without_forsendelse_from:
                check_forsendelse(package.forsendelse, record.forsendelse())
            _check_documents(package)
        except BaseException:
            package.close()
            raise
        return package


class OpenedSoknad:
    """An opened package with its record. Close it, or use it as a context manager.

    Args:
        record: What carried it.
        package: Verified.
        spool: What it reads from.
        pool: Where large files are released.
    """

    def __init__(self, record: SoknadRecord, package: OpenedPackage, spool: Spool, pool: Executor) -> None:
        self._record = record
        self._package = package
        self._spool = spool
        self._pool = pool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget the plaintext and the ciphertext."""
        self._package.close()
        self._spool.close()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was let through by a setting: as for ``OpenedPackage``, and ``uten-forsendelse``."""
        missing = (FORSENDELSE_WARNING,) if self._package.forsendelse is None else ()
        return (*self._package.warnings, *missing)

    def leveranse(self) -> Leveranse:
        """Return what a connector gets. ``forsendelse.json`` is between the sender and us, and is left out."""
        record = self._record
        return Leveranse(
            melding_id=record.melding_id,
            digisos_id=record.digisos_id,
            kommunenummer=record.kommunenummer,
            nav_ekstern_ref_id=record.nav_ekstern_ref_id,
            enhetsnummer=record.enhetsnummer,
            hastegrad=record.hastegrad,
            type=record.type,
            innsendt=record.innsendt,
            avsender=record.avsender,
            files=tuple(_fil(file) for file in self._package.files if file.name != FILENAME),
            _read=self._read,
        )

    async def _read(self, name: str) -> AsyncIterator[bytes]:
        size = next(file.size for file in self._package.files if file.name == name)
        pieces = self._package.read(name)
        if size <= IN_LOOP_BYTES:
            for piece in pieces:
                yield piece
            return
        loop = asyncio.get_running_loop()
        while piece := await loop.run_in_executor(self._pool, _next, pieces):
            yield piece


def _check_received(spool: Spool, record: SoknadRecord) -> None:
    spool.finish()
    if spool.size != record.storrelse or spool.sha256 != record.sha256:
        raise UnsealError


def _check_sender(package: OpenedPackage, record: SoknadRecord) -> None:
    try:
        signer = organisasjonsnummer(package.signer)
    except CertificateError as error:
        raise MismatchError("avsenders sertifikat har ikke noe organisasjonsnummer") from error
    if signer != record.avsender:
        raise MismatchError("pakken er ikke signert av den som meldingen oppgir som avsender")


def _unlock(spool: Spool, keys: KeyRing) -> None:
    with suppress(UnsealError):  # opening it comes to the same end, with everything else that can fail
        spool.unlock(keys)


def _next(pieces: Iterator[bytes]) -> bytes:
    """Return the next piece, empty at the end: ``StopIteration`` cannot cross from a thread."""
    return next(pieces, b"")


def _fil(file: PackageFile) -> Fil:
    return Fil(file.name, file.mimetype, file.size, file.sha256)


def _check_documents(package: OpenedPackage) -> None:
    for file in package.files:
        parse = _PARSERS.get(file.name)
        if parse is not None and file.size <= MAX_DOCUMENT_BYTES:
            parse(package.read_bytes(file.name, MAX_DOCUMENT_BYTES))
