"""Seal and open against bare RSA and against OpenSSL's AES, and memory for 150 MB.

Run it alone with ``python tests/benchmarks/bench_crypto.py``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from _rows import Row, interleave, medians, print_table
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from crypto import (
    Authority,
    CmsEncryptor,
    KeyRing,
    Signer,
    Spool,
    Trust,
    open_enveloped,
    open_package,
    seal,
    seal_package,
)
from crypto.algorithms import OAEP_SHA256
from schemas.names import Organisasjonsnummer

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography import x509

    Pair = tuple[x509.Certificate, rsa.RSAPrivateKey]

ECDSA = ec.ECDSA(hashes.SHA256())
KIB, MIB = 1024, 1024 * 1024
ORGANISASJON = Organisasjonsnummer("889640782")
MEMORY_GOAL_MIB = 32
MEMORY_FILE_MIB = 150
SLICES = 151
SLICE_S = 0.004  # as long as a scheduler lets a process run, so that most slices are not interrupted


def rows() -> list[Row]:
    """Measure everything; takes about half a minute."""
    now = datetime.now(UTC)
    authority = Authority.create(now)
    memory = memory_mib()
    smaller, larger = (_recipient(authority, kind, now) for kind in ("rsa2048", "rsa3072"))
    return [
        _seal_row(*smaller),
        _seal_row(*larger),
        _open_row(*smaller, goal=1.15),
        _open_row(*larger, goal=1.10),
        *_bulk_rows(larger[0]),
        # A package's share of what a connector may spend on one message (0.55 and 0.70 bare operations end to end).
        _package_row(authority, smaller, now, goal=1 / 0.55),
        _package_row(authority, larger, now, goal=1 / 0.70),
        Row("minne over hvile, 150 MB forseglet og åpnet", memory, 0, memory, MEMORY_GOAL_MIB, "lower", "MiB"),
    ]


def memory_mib(file_mib: int = MEMORY_FILE_MIB) -> float:
    """Return how far a process rises above idle while it seals and opens so much, in MiB."""
    command = [sys.executable, str(Path(__file__).with_name("_memory_crypto.py")), str(file_mib)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _recipient(authority: Authority, kind: Literal["rsa2048", "rsa3072"], now: datetime) -> Pair:
    certificate, key = authority.issue("Kommune", ORGANISASJON, purpose="kryptering", now=now, key=kind)
    assert isinstance(key, rsa.RSAPrivateKey)
    return certificate, key


def _slice(call: Callable[[], object]) -> Callable[[], float]:
    """Return what measures ``call`` for a little while, in microseconds of CPU a call, as ``openssl speed`` counts too."""
    call()
    begin = time.process_time()
    call()
    count = max(int(SLICE_S / (time.process_time() - begin)), 1)

    def measure() -> float:
        begin = time.process_time()
        for _ in range(count):
            call()
        return (time.process_time() - begin) / count * 1e6

    return measure


def _against(name: str, ours: Callable[[], object], floor: Callable[[], object], goal: float) -> Row:
    mine, bare = medians(interleave(SLICES, _slice(ours), _slice(floor)))
    return Row(name, mine, bare, mine / bare, goal, "lower", "µs")


def _seal_row(certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> Row:
    plain, content_key, public = os.urandom(10 * KIB), os.urandom(32), key.public_key()
    return _against(
        f"forsegle 10 KB ÷ offentlig OAEP-operasjon, RSA-{key.key_size}",
        lambda: seal(plain, certificate),
        lambda: public.encrypt(content_key, OAEP_SHA256),
        2.5,
    )


def _open_row(certificate: x509.Certificate, key: rsa.RSAPrivateKey, *, goal: float) -> Row:
    keys, sealed = KeyRing([(certificate, key)]), seal(os.urandom(10 * KIB), certificate)
    wrapped = key.public_key().encrypt(os.urandom(32), OAEP_SHA256)
    return _against(
        f"åpne 10 KB ÷ bar privat operasjon, RSA-{key.key_size}",
        lambda: open_enveloped(sealed, keys),
        lambda: key.decrypt(wrapped, OAEP_SHA256),
        goal,
    )


def _package_row(authority: Authority, recipient: Pair, now: datetime, *, goal: float) -> Row:
    """Measure a whole package: envelope, archive, signature, trust and every digest, twice."""
    certificate, key = recipient
    signer = Signer(*authority.issue("NAV", ORGANISASJON, purpose="signering", now=now, key="p256"))
    files = [("soknad.json", "application/json", os.urandom(4 * KIB).hex().encode())]
    sealed, _ = seal_package(files, recipient=certificate, signer=signer, now=now)
    keys, trust = KeyRing([recipient]), Trust(roots=[authority.certificate])
    wrapped = key.public_key().encrypt(os.urandom(32), OAEP_SHA256)
    public, private = signer.certificate.public_key(), signer.private_key
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    signature = private.sign(wrapped, ECDSA)

    def floor() -> None:
        key.decrypt(wrapped, OAEP_SHA256)
        public.verify(signature, wrapped, ECDSA)

    def open_() -> bytes:
        with Spool() as spool:
            spool.write(sealed)
            spool.finish()
            with open_package(spool, keys=keys, trust=trust, now=now, require_forsendelse=False) as opened:
                return opened.read_bytes("soknad.json", MIB)

    return _against(
        f"åpne signert pakke på 8 KB ÷ privat operasjon og ECDSA-verifisering, RSA-{key.key_size}",
        open_,
        floor,
        goal,
    )


def _bulk_rows(certificate: x509.Certificate) -> list[Row]:
    """Compare 1 MB with ``openssl speed`` in turns of a second, since it measures in a process of its own."""
    plain = os.urandom(MIB)

    def stream() -> tuple[bytes, bytes]:
        encryptor = CmsEncryptor(certificate)
        return encryptor.update(plain), encryptor.finalize()

    def mb_s(call: Callable[[], object]) -> Callable[[], float]:
        measure = _slice(call)
        return lambda: MIB / medians([[measure() for _ in range(31)]])[0]

    sealing, streaming, floor = medians(interleave(5, mb_s(lambda: seal(plain, certificate)), mb_s(stream), _openssl))
    found = (("forsegle 1 MB", sealing), ("forsegle 1 MB som strøm", streaming))
    return [
        Row(f"{name} ÷ openssl speed AES-256-CBC", ours, floor, ours / floor, 0.85, "higher", "MB/s")
        for name, ours in found
    ]


def _openssl() -> float:
    """Return what ``openssl speed`` says of AES-256-CBC in blocks of 1 MiB, MB/s."""
    command = ["openssl", "speed", "-mr", "-seconds", "1", "-bytes", str(MIB), "-evp", "aes-256-cbc"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = re.search(r"\+F:\d+:[^:]+:([\d.]+)", output)
    assert match is not None, output
    return float(match[1]) / 1e6


if __name__ == "__main__":
    print_table(rows())
