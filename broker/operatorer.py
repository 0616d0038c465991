"""Operators: who may act on søknader by command, each with a P-256 key that signs what they do.

The register is ``operatorer.yaml`` in the data folder: names, certificates (self-signed: the register itself vouches for them),
and two settings. A private key is ``nokler/operator-<navn>.key``, mode 0600. ``formidler operator ny --sertifikat`` registers
somebody whose key is on another machine and stays there.

What it protects against: one operator alone cannot make an approval that counts as another's, because it is signed by a key that
only the other can read; a removed operator's signature counts no more; two names never share a key.

What it does not protect against: whoever can write the register decides who the operators are, and can invent one; whoever can
read both key files is both operators, as anybody is on a machine where both keys lie under one user; and whoever holds the Kafka
password of ``broker`` can publish without these commands. Rights to files and to Kafka hold that. What was done through the
commands can be seen afterwards in the revisjon: each act is signed, and verified against the register.
"""

from __future__ import annotations

import getpass
import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from filelock import FileLock, Timeout
from pydantic import ValidationError

from broker.files import write_private
from broker.operator_register import OperatorEntry, Register
from broker.revisjon_records import OPERATOR_PREFIX, SIGNATURE_TYPE
from crypto.jws import sign_jws
from crypto.keys import load_private_key, write_private_key
from schemas.errors import ConfigurationError, GovernedActError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

OPERATOR_ENV: Final = "FORMIDLER_OPERATOR"
REGISTER: Final = "operatorer.yaml"
VALID_FOR: Final = timedelta(days=10 * 365)


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator whose key is at hand: an ``ActSigner``.

    Attributes:
        navn: As in the register.
        certificate: As in the register.
        private_key: Its key.
    """

    navn: str
    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey

    @property
    def aktor(self) -> str:
        """The actor that it signs for."""
        return f"{OPERATOR_PREFIX}{self.navn}"

    def sign(self, payload: bytes, *, typ: str = SIGNATURE_TYPE) -> str:
        """Return the compact JWS of ``payload``; ``typ`` says what is signed."""
        return sign_jws(payload, self.private_key, self.certificate, typ=typ)


class Operatorer:
    """The operators of one data folder.

    Args:
        folder: The data folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / REGISTER

    def load(self) -> Register:
        """Return the register; an empty one when there is no file.

        Raises:
            ConfigurationError: The file cannot be read, or breaks a rule.
        """
        try:
            return Register.model_validate(yaml.safe_load(self.path.read_text("utf-8")) or {})
        except FileNotFoundError:
            return Register()
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigurationError(f"{self.path} kan ikke leses: {type(error).__name__}") from error
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
                for one in error.errors(include_url=False, include_input=False)
            )
            raise ConfigurationError(f"{self.path}: {problems}") from None

    def key_path(self, navn: str) -> Path:
        """Return where an operator's private key lies, if it is on this machine."""
        return self._folder / "nokler" / f"{OPERATOR_PREFIX}{navn}.key"

    def add(self, navn: str, now: datetime, *, certificate_pem: str | None = None) -> OperatorEntry:
        """Register an operator.

        Args:
            navn: The new name; one that was ever used is refused.
            now: Aware UTC.
            certificate_pem: Of a key that is elsewhere; when None, a key is made here.

        Raises:
            GovernedActError: The name or the key is another operator's, or was.
            ConfigurationError: The name or the certificate has another form, or the files cannot be written.
        """
        with self._alone():
            register = self.load()
            if register.get(navn) is not None:
                raise GovernedActError(f"operatøren {navn} finnes, eller har vært her; velg et annet navn")
            entry = self._entry(navn, now, certificate_pem)
            if any(_spki(one.certificate) == _spki(entry.certificate) for one in register.operatorer):
                raise GovernedActError("nøkkelen er en annen operatørs; to navn kan ikke dele nøkkel")
            self._save(register.model_copy(update={"operatorer": (*register.operatorer, entry)}))
            return entry

    def remove(self, navn: str, now: datetime) -> OperatorEntry:
        """Take an operator out: what is signed from ``now`` on does not count. The key file is deleted, the certificate kept.

        Raises:
            GovernedActError: There is no such operator, or it is taken out already.
        """
        with self._alone():
            register = self.load()
            entry = register.get(navn)
            if entry is None or entry.fjernet is not None:
                raise GovernedActError(f"det er ingen operatør {navn} å fjerne; se `formidler operator list`")
            gone = entry.model_copy(update={"fjernet": now})
            kept = tuple(gone if one.navn == navn else one for one in register.operatorer)
            self._save(register.model_copy(update={"operatorer": kept}))
            self.key_path(navn).unlink(missing_ok=True)
            return gone

    def choose(self, navn: str | None, now: datetime) -> Operator:
        """Return the operator who acts: the one named, or the only one with a key here, or a first one named after the OS user.

        Raises:
            GovernedActError: Nobody can be chosen without doubt, or the one named is not active; the text says what to do.
            KeyFileError: The key file cannot be read, or others can.
        """
        register = self.load()
        if navn is None and not register.operatorer:
            navn = self.add(operator_name(_os_user()), now).navn
            register = self.load()
        if navn is None:
            navn = self._only_one_here(register, now)
        entry = register.get(navn)
        if entry is None or not entry.is_active(now):
            raise GovernedActError(f"{navn} er ikke en operatør nå; se `formidler operator list`")
        path = self.key_path(navn)
        if not path.exists():
            raise GovernedActError(f"nøkkelen til {navn} er ikke på denne maskinen ({path} mangler)")
        key = load_private_key(path)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != entry.certificate.public_key():
            raise GovernedActError(f"{path} hører ikke til sertifikatet som {navn} er innført med")
        return Operator(navn, entry.certificate, key)

    @contextmanager
    def acting(self, operator: Operator) -> Generator[None]:
        """Let one command at a time act as this operator on this machine, so that its chain in the revisjon has no fork.

        Raises:
            GovernedActError: Another command acts now.
        """
        path = self.key_path(operator.navn).with_suffix(".lock")
        try:
            with FileLock(path, timeout=0, mode=0o600):
                yield
        except Timeout:
            raise GovernedActError(
                f"en annen kommando arbeider som {operator.navn} nå; vent til den er ferdig"
            ) from None

    def _only_one_here(self, register: Register, now: datetime) -> str:
        here = [one.navn for one in register.operatorer if one.is_active(now) and self.key_path(one.navn).exists()]
        if len(here) == 1:
            return here[0]
        if not here:
            raise GovernedActError("ingen operatør har nøkkel på denne maskinen; se `formidler operator ny --help`")
        raise GovernedActError(f"velg hvem du er med --operator eller {OPERATOR_ENV}: {', '.join(here)}")

    def _entry(self, navn: str, now: datetime, certificate_pem: str | None) -> OperatorEntry:
        if certificate_pem is not None:
            return _checked(navn, certificate_pem, now)
        entry, key = _new_key(navn, now)
        path = self.key_path(navn)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private_key(path, key)
        return entry

    def _save(self, register: Register) -> None:
        text = yaml.safe_dump(register.model_dump(mode="json", by_alias=True), allow_unicode=True, sort_keys=False)
        write_private(self.path, text.encode())

    @contextmanager
    def _alone(self) -> Generator[None]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock"), timeout=10, mode=0o600):
            yield


def operator_name(text: str) -> str:
    """Return ``text`` as an operator's name: what has no place in one becomes a hyphen."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower(), flags=re.ASCII).strip("-").lstrip("0123456789-")[:32]
    return name.rstrip("-") or "operator"


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in a container
        return "operator"


def _checked(navn: str, pem: str, now: datetime) -> OperatorEntry:
    try:
        return OperatorEntry(navn=navn, sertifikat=pem, innfort=now)
    except ValidationError as error:
        problems = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors(include_url=False))
        raise ConfigurationError(f"operatøren kan ikke innføres: {problems}") from None


def _new_key(navn: str, now: datetime) -> tuple[OperatorEntry, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{OPERATOR_PREFIX}{navn}"[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + VALID_FOR)
        .sign(key, hashes.SHA256())
    )
    return _checked(navn, certificate.public_bytes(Encoding.PEM).decode("ascii"), now), key


def _spki(certificate: x509.Certificate) -> object:
    return certificate.public_key()
