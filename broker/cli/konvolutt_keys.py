"""Keys, certificates and trust for ``formidler konvolutt``, from the PEM files that a vendor has."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import typer
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broker.clock import timestamp
from crypto import (
    KeyRing,
    LoneKey,
    PrivateKey,
    Signer,
    Trust,
    judge_recipient,
    judge_signer,
    load_certificate,
    load_certificates,
    load_private_key,
    nokkel_id,
    organisasjonsnummer,
)
from crypto.inspection import name_text
from schemas.errors import CertificateError, ConfigurationError, KeyFileError
from schemas.names import Organisasjonsnummer

PASSWORD_ENV: Final = "FORMIDLER_NOKKEL_PASSORD"  # noqa: S105 - the variable's name

Password = Callable[[Path], bytes | None]
"""Returns the password of a key file, or None when nobody knows it."""


@dataclass(frozen=True, slots=True)
class NamedRing:
    """Keys to try together, with the file that they come from."""

    file: Path
    ring: KeyRing
    private_key: rsa.RSAPrivateKey


def password_source(file: Path | None) -> Password:
    """Return where passwords come from: a file, the environment, or whoever sits at the terminal, in that order.

    Raises:
        KeyFileError: The file cannot be read.
    """
    if file is not None:
        try:
            password = file.read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise KeyFileError(f"{file}: passordfilen kan ikke leses ({error.strerror})") from error
        return lambda _path: password
    stated = os.environ.get(PASSWORD_ENV)
    if stated is not None:
        return lambda _path: stated.encode()
    if not sys.stdin.isatty():
        return lambda _path: None
    return lambda path: str(typer.prompt(f"Passord for {path}", hide_input=True, err=True)).encode()


def private_key(path: Path, password: Password) -> PrivateKey:
    """Return the key in a PEM file.

    Raises:
        KeyFileError: Missing, readable by others, not such a key, or the password is missing or wrong; says what to do.
    """
    if path.suffix.lower() in {".p12", ".pfx"}:
        raise KeyFileError(
            f"{path}: er PKCS#12; hent ut nøkkelen med: openssl pkcs12 -in {path} -nocerts -out nokkel.pem"
        )
    try:
        return load_private_key(path)
    except KeyFileError as error:
        if not isinstance(error.__cause__, TypeError):  # which is how a missing password shows
            raise
    secret = password(path)
    if secret is None:
        raise KeyFileError(
            f"{path}: nøkkelen er kryptert; gi passordet med --passord-fil eller i miljøvariabelen {PASSWORD_ENV}"
        )
    try:
        return load_private_key(path, password=secret)
    except KeyFileError as error:
        if isinstance(error.__cause__, ValueError):
            raise KeyFileError(f"{path}: feil passord") from error
        raise


def signer(certificate_file: Path, key_file: Path, password: Password, now: datetime) -> Signer:
    """Return who signs. The other certificates in the file travel along as its chain.

    Raises:
        KeyFileError: A file is not what it should be, or the key belongs to none of the certificates.
        CertificateError: The certificate may not sign now.
    """
    key = private_key(key_file, password)
    certificates = load_certificates(certificate_file)
    own = [each for each in certificates if each.public_key() == key.public_key()]
    if not own:
        raise KeyFileError(f"{key_file}: nøkkelen hører ikke til sertifikatet i {certificate_file}")
    try:
        judge_signer(own[0], now)
    except CertificateError as error:
        raise CertificateError(f"{certificate_file}: {error}") from error
    return Signer(own[0], key, tuple(each for each in certificates if each != own[0]))


def recipient(certificate_file: Path, now: datetime) -> x509.Certificate:
    """Return whom to seal for.

    Raises:
        KeyFileError: Not a certificate.
        CertificateError: Nothing may be sealed for it now.
    """
    certificate = load_certificate(certificate_file)
    try:
        judge_recipient(certificate, now)
    except CertificateError as error:
        raise CertificateError(f"{certificate_file}: {error}") from error
    return certificate


def rings(key_files: Sequence[Path], certificate_files: Sequence[Path], password: Password) -> list[NamedRing]:
    """Return what to open with, in the order given. A key without its certificate is tried on every recipient.

    Raises:
        KeyFileError: A file is not what it should be, a key is not RSA, or a certificate belongs to no key.
        CertificateError: A key is too small.
    """
    certificates = [(file, each) for file in certificate_files for each in load_certificates(file)[:1]]
    used: set[Path] = set()
    found: list[NamedRing] = []
    for file in key_files:
        key = private_key(file, password)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise KeyFileError(f"{file}: nøkkelen er EC, og konvolutter åpnes med RSA")
        own = [(path, each) for path, each in certificates if each.public_key() == key.public_key()]
        used.update(path for path, _ in own)
        found.append(NamedRing(file, KeyRing([(each, key) for _, each in own]) if own else LoneKey(key), key))
    for file in certificate_files:
        if file not in used:
            raise KeyFileError(f"{file}: ingen av nøklene hører til sertifikatet")
    return found


def trust(files: Sequence[Path], allow_sha1_from: Sequence[str]) -> Trust:
    """Return whose signature counts: authorities by their chain, every other certificate pinned as it is.

    Raises:
        KeyFileError: A file is not a certificate.
        InvalidNameError: An organisasjonsnummer is not nine digits.
    """
    certificates = [each for file in files for each in load_certificates(file)]
    return Trust(
        roots=[each for each in certificates if _is_authority(each)],
        pinned=[each for each in certificates if not _is_authority(each)],
        allow_sha1_from=frozenset(Organisasjonsnummer(number) for number in allow_sha1_from),
    )


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def certificate_document(certificate: x509.Certificate) -> dict[str, Any]:
    """Return what ``--json`` says about a certificate."""
    try:
        number = str(organisasjonsnummer(certificate))
    except CertificateError:
        number = None
    key = certificate.public_key()
    kind = type(key).__name__
    if isinstance(key, rsa.RSAPublicKey):
        kind = f"RSA {key.key_size}"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        kind = f"EC {key.curve.name}"
    return {
        "subjekt": name_text(certificate.subject.public_bytes()),
        "utsteder": name_text(certificate.issuer.public_bytes()),
        "serienummer": f"{certificate.serial_number:x}",
        "organisasjonsnummer": number,
        "gyldigFra": timestamp(certificate.not_valid_before_utc),
        "gyldigTil": timestamp(certificate.not_valid_after_utc),
        "nokkel": kind,
        "sha256": str(nokkel_id(certificate)),
    }


def needs(value: Any, option: str, why: str) -> None:
    """Check that an option was given where another makes it necessary.

    Raises:
        typer.BadParameter: It was not.
    """
    if value is None or value in ((), []):
        raise typer.BadParameter(f"{option} trengs {why}", param_hint=option)


def excludes(value: Any, option: str, why: str) -> None:
    """Check that an option was not given where another makes it meaningless.

    Raises:
        typer.BadParameter: It was.
    """
    if value not in (None, False, (), []):
        raise typer.BadParameter(f"{option} {why}", param_hint=option)


def check_some_key(key_files: Sequence[Path]) -> None:
    """Check that there is a key file that exists, so that a misspelt name is the first thing that is said.

    Raises:
        ConfigurationError: One does not exist.
    """
    for file in key_files:
        if not file.exists():
            raise ConfigurationError(f"{file}: nøkkelfilen finnes ikke; sjekk navnet")
