from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from crypto import Authority
from crypto.certificates import nokkel_id
from schemas.names import Kommunenummer, Organisasjonsnummer
from schemas.records import BRUK_KRYPTERING, BRUK_KVITTERING, KatalogRecord, Sertifikat

NOW: Final = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class MovedClock:
    """A clock that stands still until somebody moves it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority.create(NOW - timedelta(days=400), "Prøve-CA")


Issued = tuple[x509.Certificate, RSAPrivateKey | EllipticCurvePrivateKey]


@pytest.fixture(scope="session")
def issue(authority: Authority) -> Callable[..., Issued]:
    def issue(
        purpose: Literal["kryptering", "signering"] = "signering", *, start: timedelta = timedelta(0), days: int = 365
    ) -> Issued:
        return authority.issue(
            "Prøve kommune",
            Organisasjonsnummer("958935420"),
            purpose=purpose,
            now=NOW + start,
            valid_days=days,
            key="rsa2048" if purpose == "kryptering" else "p256",
        )

    return issue


@pytest.fixture(scope="session")
def make_sertifikat() -> Callable[..., Sertifikat]:
    def make(certificate: x509.Certificate, bruk: str = BRUK_KRYPTERING) -> Sertifikat:
        return Sertifikat(
            nokkel_id=nokkel_id(certificate),
            bruk=bruk,
            pem=certificate.public_bytes(Encoding.PEM).decode(),
            gyldig_fra=certificate.not_valid_before_utc,
            gyldig_til=certificate.not_valid_after_utc,
        )

    return make


@pytest.fixture(scope="session")
def connector_key(issue: Callable[..., Issued]) -> Issued:
    return issue("signering", start=timedelta(days=-1))


@pytest.fixture(scope="session")
def make_entry(
    issue: Callable[..., Issued], make_sertifikat: Callable[..., Sertifikat], connector_key: Issued
) -> Callable[..., KatalogRecord]:
    encryption, _ = issue("kryptering", start=timedelta(days=-1))
    certificates = (make_sertifikat(encryption), make_sertifikat(connector_key[0], BRUK_KVITTERING))

    def make(kommunenummer: str = "0301", **changes: Any) -> KatalogRecord:
        fields: dict[str, Any] = {
            "kommunenummer": Kommunenummer(kommunenummer),
            "navn": "Prøve",
            "organisasjonsnummer": Organisasjonsnummer("958935420"),
            "leverandor": "acme",
            "konnektor": "acme",
            "sertifikater": certificates,
            "endret": NOW,
        }
        return KatalogRecord(**(fields | changes))

    return make
