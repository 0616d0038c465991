"""The register of operators as a value: who they are and were, and what one of them may do alone.

What it protects against, and what not, is said in ``broker.operatorer``.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import AwareDatetime, Field, field_validator

from broker.revisjon_records import OPERATOR_PREFIX
from crypto.certificates import parse_certificates
from schemas.errors import CertificateError
from schemas.model import WireModel

DEFAULT_LIMIT: Final = 10
DEFAULT_ROUNDS: Final = 3
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)


class OperatorEntry(WireModel):
    """One operator.

    Attributes:
        navn: a-z, 0-9 and hyphen, at most 32.
        sertifikat: X.509 in PEM, P-256.
        innfort: When the name was registered.
        fjernet: When it was taken out; acts from then on do not count.
    """

    navn: str
    sertifikat: str = Field(repr=False)
    innfort: AwareDatetime
    fjernet: AwareDatetime | None = None

    @field_validator("navn")
    @classmethod
    def _check_name(cls, navn: str) -> str:
        if not _NAME.fullmatch(navn):
            raise ValueError("skal være 1 til 32 tegn av a-z, 0-9 og -, med en bokstav først")
        return navn

    @field_validator("sertifikat")
    @classmethod
    def _check_certificate(cls, pem: str) -> str:
        try:
            _p256(parse_certificates(pem.encode())[0])
        except (CertificateError, ValueError, IndexError):
            raise ValueError("skal være et X.509-sertifikat i PEM for en P-256-nøkkel") from None
        return pem

    @property
    def aktor(self) -> str:
        """The actor's name in the revisjon."""
        return f"{OPERATOR_PREFIX}{self.navn}"

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate."""
        return parse_certificates(self.sertifikat.encode())[0]

    def is_active(self, moment: datetime) -> bool:
        """Return whether what was signed at ``moment`` counts."""
        certificate = self.certificate
        valid = certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc
        return valid and (self.fjernet is None or moment < self.fjernet)


class Register(WireModel):
    """Who the operators are, and what they may do alone.

    Attributes:
        grense: Most letters or søknader that an act may reach without another operator's approval.
        maks_runder: How many times a dead letter is redriven before it needs ``--tving``.
        operatorer: Everyone there ever was, the removed ones too: their earlier signatures still count.
    """

    grense: int = Field(default=DEFAULT_LIMIT, ge=0)
    maks_runder: int = Field(default=DEFAULT_ROUNDS, ge=1)
    operatorer: tuple[OperatorEntry, ...] = ()

    def get(self, navn: str) -> OperatorEntry | None:
        """Return the operator of that name, or None."""
        return next((one for one in self.operatorer if one.navn == navn), None)

    def of_actor(self, aktor: str) -> OperatorEntry | None:
        """Return the operator that this actor is, or None."""
        return self.get(aktor.removeprefix(OPERATOR_PREFIX)) if aktor.startswith(OPERATOR_PREFIX) else None


def _p256(certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateError("en operatør signerer med en P-256-nøkkel")
