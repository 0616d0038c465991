"""``formidler konvolutt open``: a package to its files, or a bare CMS envelope to its content."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from broker.cli.konvolutt_files import check_folder, check_result, new_folder, progress, reading, write_file, writing
from broker.cli.konvolutt_keys import NamedRing, certificate_document
from crypto import Limits, OpenedPackage, Spool, Trust, open_package
from schemas.errors import UnsealError

BARE_WARNING: Final = (
    "OBS: CMS alene beskytter ikke mot endring. Ingen har signert dette innholdet, og noen kan ha byttet ut eller endret "
    "det uten at det synes. Stol ikke på det før en signatur i det er kontrollert."
)
_READ_BYTES: Final = 1024 * 1024


def spooled(path: Path, *, limits: Limits, directory: Path | None = None) -> Spool:
    """Return a finished spool of a file, which the caller closes.

    Raises:
        ConfigurationError: The file cannot be read.
        StoreError: The ciphertext cannot be kept.
    """
    spool = Spool(limits=limits, directory=directory)
    try:
        with reading(path, "leser") as chunks:
            for chunk in chunks:
                spool.write(chunk)
        spool.finish()
    except BaseException:
        spool.close()
        raise
    return spool


def open_files(
    path: Path, folder: Path, *, rings: Sequence[NamedRing], trust: Trust, now: datetime, require_forsendelse: bool
) -> dict[str, Any]:
    """Open and verify a package, then write its files, and return what there is to say about it.

    Raises:
        UnsealError: It cannot be opened with any of the keys, or is not what a trusted sender signed.
        ConfigurationError, StoreError: See ``reading`` and ``new_folder``.
    """
    check_folder(folder)
    with (
        spooled(path, limits=Limits()) as spool,
        _opened(spool, rings, trust, now, require_forsendelse=require_forsendelse) as package,
    ):
        _release(package, folder)
        forsendelse = package.forsendelse
        return {
            "ok": True,
            "mappe": str(folder),
            "storrelse": spool.size,
            "sha256": spool.sha256,
            "avsender": certificate_document(package.signer),
            "forsendelse": forsendelse.model_dump(mode="json", by_alias=True, exclude_none=True)
            if forsendelse
            else None,
            "filer": [
                {"navn": file.name, "mimetype": file.mimetype, "storrelse": file.size, "sha256": file.sha256}
                for file in package.files
            ],
            "advarsler": list(package.warnings),
        }


def _opened(
    spool: Spool, rings: Sequence[NamedRing], trust: Trust, now: datetime, *, require_forsendelse: bool
) -> OpenedPackage:
    for each in rings:
        try:
            return open_package(spool, keys=each.ring, trust=trust, now=now, require_forsendelse=require_forsendelse)
        except UnsealError:
            continue
    raise UnsealError


def _release(package: OpenedPackage, folder: Path) -> None:
    total = sum(file.size for file in package.files)
    with new_folder(folder) as temporary, progress("pakker ut", total) as advance:
        for file in package.files:
            write_file(temporary, file.name, package.read(file.name))
            advance(file.size)


def open_bare(path: Path, out: Path, *, rings: Sequence[NamedRing], overwrite: bool) -> dict[str, Any]:
    """Open one envelope, in constant memory; nothing is released before all of it has come and its padding is right.

    Raises:
        UnsealError: It cannot be opened with any of the keys, or is damaged so that it shows.
        ConfigurationError, StoreError: See ``reading`` and ``writing``.
    """
    to_file = str(out) != "-"
    if to_file:
        check_result(out, overwrite=overwrite, inputs=[path])
    limits = Limits(max_package_bytes=sys.maxsize)
    with spooled(path, limits=limits, directory=out.parent if to_file else None) as spool:
        for each in rings:
            try:
                size = _release_bare(spool, each, out, overwrite=overwrite)
            except UnsealError:
                continue
            return {"ok": True, "ut": str(out), "storrelse": size, "sha256": spool.sha256, "advarsler": [BARE_WARNING]}
    raise UnsealError


def _release_bare(spool: Spool, keys: NamedRing, out: Path, *, overwrite: bool) -> int:
    with spool.plaintext(keys.ring) as view:
        view.check_padding()
        buffer = memoryview(bytearray(_READ_BYTES))
        with writing(out, overwrite=overwrite, private=True) as file, progress("skriver", view.size) as advance:
            while count := view.readinto(buffer):
                file.write(buffer[:count])
                advance(count)
        return view.size
