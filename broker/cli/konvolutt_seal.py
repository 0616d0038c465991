"""``formidler konvolutt seal``: files to a package, or one file to a bare CMS envelope."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from broker.cli.konvolutt_files import reading, writing
from broker.cli.konvolutt_keys import certificate_document
from crypto import CmsEncryptor, Limits, PackageWriter, Signer, filenames, nokkel_id
from schemas.errors import ConfigurationError, PackError
from schemas.forsendelse import FILENAME, Forsendelse

_BY_CONTENT: Final = (
    (b"%PDF-", "application/pdf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)
_BY_SUFFIX: Final = {
    ".csv": "text/csv",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".heic": "image/heic",
    ".json": "application/json",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".pdf": "application/pdf",
    ".txt": "text/plain",
    ".webp": "image/webp",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".xml": "application/xml",
    ".zip": "application/zip",
}
_UNKNOWN: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Result:
    """Where a sealed file goes, and whether it may replace one that is there."""

    path: Path
    overwrite: bool


def mimetype(name: str, start: bytes) -> str:
    """Return what a file is: by its first bytes, otherwise by its name."""
    for magic, kind in _BY_CONTENT:
        if start.startswith(magic):
            return kind
    return _BY_SUFFIX.get(Path(name).suffix.lower(), _UNKNOWN)


def check_files(files: Sequence[Path], *, extra: Sequence[str] = ()) -> None:
    """Check the files' names and sizes before anything is written.

    Args:
        files: What to pack; a path becomes its last part.
        extra: Names that are in the package beside them.

    Raises:
        ConfigurationError: A file does not exist, or is not an ordinary file.
        PackError: Two get the same name, a name is not allowed, or together they are more than any receiver takes.
    """
    limits = Limits()
    taken: dict[str, Path | None] = {filenames.same(name): None for name in extra}
    total = 0
    for file in files:
        if not file.is_file():
            raise ConfigurationError(f"{file}: {'er ikke en vanlig fil' if file.exists() else 'filen finnes ikke'}")
        reason = filenames.problem(file.name)
        if reason is not None:
            raise PackError(f"{file}: {reason}")
        key = filenames.same(file.name)
        if key in taken:
            raise PackError(
                f"{taken[key] or 'forsendelse.json fra opsjonene'} og {file} får samme navn i pakken; gi den ene et annet"
            )
        taken[key] = file
        size = file.stat().st_size
        total += size
        if size > limits.max_file_bytes:
            raise PackError(f"{file}: er over {limits.max_file_bytes >> 20} MiB, som er det meste en mottaker tar")
    if total > limits.max_total_bytes or len(taken) > limits.max_files:
        raise PackError(
            f"{len(taken)} filer med {total} byte er for mye; en pakke har høyst {limits.max_files} filer og "
            f"{limits.max_total_bytes >> 20} MiB"
        )


def seal_files(
    files: Sequence[Path],
    *,
    recipient: x509.Certificate,
    signer: Signer,
    forsendelse: Forsendelse | None,
    result: Result,
    now: datetime,
) -> dict[str, Any]:
    """Pack, sign and seal files, and return what there is to say about the package.

    Raises:
        ConfigurationError, PackError, StoreError: See ``check_files`` and ``writing``.
    """
    check_files(files, extra=[FILENAME] if forsendelse else [])
    listed: list[dict[str, Any]] = []
    with writing(result.path, overwrite=result.overwrite, private=False, inputs=files) as out:
        package = PackageWriter(out.write, recipient=recipient, signer=signer, now=now)
        listed.extend(_add(package, file) for file in files)
        if forsendelse is not None:
            listed.append(_add_forsendelse(package, forsendelse))
        summary = package.finish()
    return {
        "ok": True,
        "ut": str(result.path),
        "storrelse": summary.size,
        "sha256": summary.sha256,
        "nokkelId": summary.nokkel_id,
        "mottaker": certificate_document(recipient),
        "avsender": certificate_document(signer.certificate),
        "filer": listed,
        "forsendelse": forsendelse.model_dump(mode="json", by_alias=True, exclude_none=True) if forsendelse else None,
    }


def _add(package: PackageWriter, file: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with reading(file, file.name) as chunks:
        first = next(chunks, b"")
        kind = mimetype(file.name, first)
        with package.add(file.name, kind) as entry:
            while first:
                digest.update(first)
                size += len(first)
                entry.write(first)
                first = next(chunks, b"")
    return {"navn": file.name, "mimetype": kind, "storrelse": size, "sha256": digest.hexdigest()}


def _add_forsendelse(package: PackageWriter, forsendelse: Forsendelse) -> dict[str, Any]:
    content = forsendelse.to_json()
    with package.add(FILENAME, "application/json") as entry:
        entry.write(content)
    return {
        "navn": FILENAME,
        "mimetype": "application/json",
        "storrelse": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def seal_bare(file: Path, *, recipient: x509.Certificate, result: Result) -> dict[str, Any]:
    """Seal one file, without archive and without signature, in constant memory.

    Raises:
        ConfigurationError, StoreError: See ``reading`` and ``writing``.
    """
    encryptor = CmsEncryptor(recipient)
    digest, size, plain_size = hashlib.sha256(), 0, 0
    writer = writing(result.path, overwrite=result.overwrite, private=False, inputs=[file])
    with reading(file, os.fspath(file)) as chunks, writer as out:
        for chunk in chunks:
            plain_size += len(chunk)
            sealed = encryptor.update(chunk)
            digest.update(sealed)
            size += out.write(sealed)
        sealed = encryptor.finalize()
        digest.update(sealed)
        size += out.write(sealed)
    return {
        "ok": True,
        "ut": str(result.path),
        "storrelse": size,
        "sha256": digest.hexdigest(),
        "klartekstStorrelse": plain_size,
        "nokkelId": nokkel_id(recipient),
        "mottaker": certificate_document(recipient),
    }
