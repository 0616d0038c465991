"""Private keys: on disk as PEM that only their owner can read, in memory as a ring that envelopes are opened with.

Loading and saving is the shell part of this package; ``KeyRing`` itself does no IO.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from crypto.certificates import MIN_RSA_BITS, issuer_and_serial, parse_certificates, rsa_key, subject_key_identifier
from schemas.errors import CertificateError, KeyFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cryptography import x509

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs packages.

    Args:
        certificate: The signing certificate.
        private_key: Its key, RSA or P-256.
        chain: Intermediate certificates, and the root if you like, which travel with every signature.
    """

    certificate: x509.Certificate
    private_key: PrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    def __post_init__(self) -> None:
        if self.private_key.public_key() != self.certificate.public_key():
            raise ValueError("the private key does not belong to the certificate")


class KeyRing:
    """The private keys that a receiver opens envelopes with, found by what a RecipientInfo says about its recipient.

    Args:
        pairs: Certificates with their RSA keys. Several may be valid at once while keys rotate; their time is not judged,
            because what was sealed yesterday must open today.

    Raises:
        CertificateError: A key is not RSA, or less than 2048 bits.
        ValueError: A key does not belong to its certificate.
    """

    def __init__(self, pairs: Sequence[tuple[x509.Certificate, rsa.RSAPrivateKey]]) -> None:
        self._by_name: dict[bytes, list[rsa.RSAPrivateKey]] = {}
        self.certificates: tuple[x509.Certificate, ...] = tuple(certificate for certificate, _ in pairs)
        for certificate, private_key in pairs:
            if rsa_key(certificate) != private_key.public_key():
                raise ValueError("the private key does not belong to the certificate")
            self._by_name.setdefault(issuer_and_serial(certificate), []).append(private_key)
            self._by_name.setdefault(subject_key_identifier(certificate), []).append(private_key)

    @classmethod
    def load(cls, *paths: Path) -> Self:
        """Return a ring of every RSA key that has its certificate in the same files or folders.

        Args:
            paths: PEM files, or folders whose ``*.pem``, ``*.key``, ``*.crt`` and ``*.cer`` files are read. Which certificate
                belongs to which key is seen from the keys themselves.

        Raises:
            KeyFileError: A file is missing, unreadable or readable by others, or no key has a certificate.
            CertificateError: An RSA key has less than 2048 bits.
        """
        private_keys: dict[bytes, rsa.RSAPrivateKey] = {}
        certificates: list[x509.Certificate] = []
        for file in _pem_files(paths):
            content = _read(file)
            if b"PRIVATE KEY-----" in content:
                private_key = load_private_key(file)
                if isinstance(private_key, rsa.RSAPrivateKey):
                    private_keys[_spki(private_key.public_key())] = private_key
            if b"BEGIN CERTIFICATE-----" in content:
                certificates.extend(parse_certificates(content))
        pairs = [
            (certificate, private_keys[name])
            for certificate in certificates
            if (name := _spki(certificate.public_key())) in private_keys
        ]
        if not pairs:
            names = ", ".join(str(path) for path in paths)
            raise KeyFileError(f"{names}: ingen RSA-nøkkel med tilhørende sertifikat")
        return cls(pairs)

    def find(self, name: bytes) -> Sequence[rsa.RSAPrivateKey]:
        """Return the keys for a DER IssuerAndSerialNumber or a subjectKeyIdentifier; none, one or seldom several."""
        return self._by_name.get(name, ())


class LoneKey(KeyRing):
    """A ring of one key whose certificate is not at hand: it is tried on every recipient.

    For tools that one key's owner runs on one envelope. A receiver with several keys uses ``KeyRing``, which knows for each
    recipient whose it is: with PKCS#1 v1.5 a wrong key now and then seems to fit.

    Args:
        private_key: RSA, at least 2048 bits.

    Raises:
        CertificateError: The key is less than 2048 bits.
    """

    def __init__(self, private_key: rsa.RSAPrivateKey) -> None:
        super().__init__(())
        if private_key.key_size < MIN_RSA_BITS:
            raise CertificateError(f"RSA-nøkkelen har {private_key.key_size} bit, og må ha minst {MIN_RSA_BITS}")
        self._private_key = private_key

    def find(self, name: bytes) -> Sequence[rsa.RSAPrivateKey]:
        """Return the key, whatever the recipient is called."""
        _ = name
        return (self._private_key,)


def load_private_key(path: Path, *, password: bytes | None = None) -> PrivateKey:
    """Return the RSA or EC private key in a PEM file.

    Args:
        path: A file that nobody but its owner may read.
        password: What the file is encrypted with, if it is.

    Raises:
        KeyFileError: Missing, unreadable, readable by others, or not such a key.
    """
    content = _read_private(path)
    try:
        key = load_pem_private_key(content, password)
    except TypeError as error:
        raise KeyFileError(f"{path}: nøkkelen er kryptert med passord, eller passordet er overflødig") from error
    except ValueError as error:
        raise KeyFileError(f"{path}: ikke en privat nøkkel i PEM, eller feil passord") from error
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise KeyFileError(f"{path}: nøkkelen er verken RSA eller EC")
    return key


def load_secret(path: Path, min_bytes: int) -> bytes:
    """Return a secret that a file holds as hexadecimal digits, for example the owners' HMAC key.

    Args:
        path: A file that nobody but its owner may read.
        min_bytes: How long the secret must be at least.

    Raises:
        KeyFileError: Missing, unreadable, readable by others, not hexadecimal, or too short.
    """
    try:
        secret = bytes.fromhex(_read_private(path).decode("ascii"))
    except ValueError as error:
        raise KeyFileError(f"{path}: skal være heksadesimale siffer") from error
    if len(secret) < min_bytes:
        raise KeyFileError(f"{path}: har {len(secret)} byte, og må ha minst {min_bytes}")
    return secret


def write_private_key(path: Path, key: PrivateKey) -> None:
    """Write the key as unencrypted PKCS#8 PEM, mode 0600, all of it or nothing.

    Raises:
        KeyFileError: The file cannot be written.
    """
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp's mode is 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise KeyFileError(f"{path}: nøkkelen kan ikke skrives ({error.strerror})") from error


def _read_private(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode  # of the open file, so that nobody can swap it in between
            if mode & _OTHERS:
                raise KeyFileError(f"{path}: andre kan lese den private nøkkelen; kjør: chmod 600 {path}")
            return file.read()
    except OSError as error:
        raise KeyFileError(f"{path}: kan ikke leses ({error.strerror})") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path}: kan ikke leses ({error.strerror})") from error


def _pem_files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.iterdir() if file.suffix in {".pem", ".key", ".crt", ".cer"})
        else:
            yield path


def _spki(key: object) -> bytes:
    if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)):
        raise CertificateError("nøkkelen er verken RSA eller EC")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
