"""Seal and open a package of the given size in a process of its own, and print how many MiB it rose above idle."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import rsa

from crypto import Authority, KeyRing, PackageWriter, Signer, Spool, Trust, open_package
from schemas.names import Organisasjonsnummer

if TYPE_CHECKING:
    from cryptography import x509

MIB = 1024 * 1024
CHUNK = os.urandom(64 * 1024)


def measure(size_mib: int) -> float:
    """Return how far the process rose above what it held with its code and keys loaded and nothing done."""
    now = datetime.now(UTC)
    authority = Authority.create(now)
    name = Organisasjonsnummer("889640782")
    certificate, key = authority.issue("Kommune", name, purpose="kryptering", now=now, key="rsa2048")
    assert isinstance(key, rsa.RSAPrivateKey)
    signer = Signer(*authority.issue("NAV", name, purpose="signering", now=now, key="p256"))
    keys, trust = KeyRing([(certificate, key)]), Trust(roots=[authority.certificate])
    idle = memory_mib("VmRSS")
    run(size_mib, now=now, certificate=certificate, signer=signer, keys=keys, trust=trust)
    return memory_mib("VmHWM") - idle


def run(
    size_mib: int, *, now: datetime, certificate: x509.Certificate, signer: Signer, keys: KeyRing, trust: Trust
) -> None:
    """Seal to a file, then open from it, as producers and connectors do."""
    with tempfile.TemporaryFile() as file:
        writer = PackageWriter(file.write, recipient=certificate, signer=signer, now=now)
        expected = []
        for number, (mimetype, share) in enumerate((("application/pdf", 2), ("application/octet-stream", 1))):
            digest = hashlib.sha256()
            with writer.add(f"vedlegg{number}", mimetype) as entry:
                for _ in range(size_mib * share * MIB // 3 // len(CHUNK)):
                    entry.write(CHUNK)
                    digest.update(CHUNK)
            expected.append(digest.hexdigest())
        writer.finish()
        file.seek(0)
        with Spool() as spool:
            while data := file.read(len(CHUNK)):
                spool.write(data)
            spool.finish()
            with open_package(spool, keys=keys, trust=trust, now=now, require_forsendelse=False) as opened:
                for found, sha256 in zip(opened.files, expected, strict=True):
                    digest = hashlib.sha256()
                    for piece in opened.read(found.name):
                        digest.update(piece)
                    assert found.sha256 == sha256 == digest.hexdigest()


def memory_mib(field: str) -> float:
    """Return ``VmRSS`` (resident now) or ``VmHWM`` (its highest); ``ru_maxrss`` would count what the parent held at fork."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


if __name__ == "__main__":
    sys.stdout.write(f"{measure(int(sys.argv[1])):.1f}\n")
