"""The public API of ``crypto`` and ``schemas``, as a user types it. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import assert_type

from cryptography import x509

from crypto import (
    KeyRing,
    OpenedPackage,
    PackageSummary,
    PackageWriter,
    Signer,
    Spool,
    Trust,
    load_certificate,
    nokkel_id,
    open_package,
    organisasjonsnummer,
    seal_package,
)
from schemas.codec import decode, encode
from schemas.errors import MeldingsformidlerError, RefusedError
from schemas.names import Kommunenummer, NokkelId, Organisasjonsnummer, Sha256
from schemas.records import SoknadRecord

NOW = datetime.now(UTC)


def seal(recipient: x509.Certificate, signer: Signer) -> tuple[bytes, PackageSummary]:
    """Seal a package in memory, and one in pieces."""
    sink = BytesIO()
    writer = PackageWriter(sink.write, recipient=recipient, signer=signer, now=NOW)
    with writer.add("soknad.json", "application/json") as file:
        file.write(b"{}")
    assert_type(writer.finish().sha256, Sha256)
    return seal_package([("soknad.json", "application/json", b"{}")], recipient=recipient, signer=signer, now=NOW)


def look_into(spool: Spool, keys: KeyRing, trust: Trust) -> OpenedPackage:
    """Open a package and read its files."""
    opened = open_package(spool, keys=keys, trust=trust, now=NOW)
    for file in opened.files:
        assert_type(opened.read(file.name), Iterator[bytes])
    return opened


def name_a_certificate(path: Path) -> NokkelId:
    """Names are types of their own."""
    certificate = load_certificate(path)
    assert_type(organisasjonsnummer(certificate), Organisasjonsnummer)
    return nokkel_id(certificate)


def there_and_back(record: SoknadRecord) -> Kommunenummer:
    """A record comes back as its own type."""
    assert_type(encode(record), bytes)
    back = decode(SoknadRecord, encode(record))
    assert_type(back, SoknadRecord)
    return back.kommunenummer


def what_an_error_says(error: MeldingsformidlerError) -> tuple[str, bool]:
    """Codes and whether to try again are data."""
    if isinstance(error, RefusedError):
        assert_type(error.status, int)
    return error.code, error.retriable
