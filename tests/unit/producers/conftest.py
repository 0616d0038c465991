from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from crypto.authority import Authority
from crypto.envelope import open_package
from crypto.keys import KeyRing, Signer
from crypto.spool import Spool
from crypto.trust import Trust
from producers.checks import IntakeLimits
from producers.dokument import Dokument
from producers.dokumentlager import DiskDokumentlager
from producers.http_client import multipart_body, parts
from producers.intake import Accepted, Innsending, Sealing, Submission
from producers.multipart import MultipartReader
from producers.spill import Spill
from schemas.examples import make_jpeg, make_pdf, make_png, make_soknad, make_vedlegg, synthetic_fodselsnummer
from schemas.names import (
    DigisosId,
    Fodselsnummer,
    Kommunenummer,
    MeldingId,
    NavEksternRefId,
    Organisasjonsnummer,
    Uuid,
)

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography import x509

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
KNR = Kommunenummer("0301")
AVSENDER = Organisasjonsnummer("889640782")
EIER_KEY = b"e" * 32


@dataclass(frozen=True)
class Keys:
    authority: Authority
    signer: Signer
    mottak: x509.Certificate
    mottak_keys: KeyRing
    kommune: x509.Certificate
    kommune_keys: KeyRing

    def open(self, package: bytes) -> dict[str, bytes]:
        with Spool() as spool:
            spool.write(package)
            spool.finish()
            trust = Trust(roots=[self.authority.certificate])
            with open_package(spool, keys=self.kommune_keys, trust=trust, now=NOW) as opened:
                return {file.name: b"".join(opened.read(file.name)) for file in opened.files}


@cache
def make_keys() -> Keys:
    authority = Authority.create(NOW)
    pairs: list[tuple[x509.Certificate, rsa.RSAPrivateKey]] = []
    for name in ("Mottak", "Oslo kommune"):
        certificate, key = authority.issue(name, AVSENDER, purpose="kryptering", now=NOW, key="rsa2048")
        assert isinstance(key, rsa.RSAPrivateKey)
        pairs.append((certificate, key))
    signing, signing_key = authority.issue("Avsender", AVSENDER, purpose="signering", now=NOW, key="p256")
    return Keys(
        authority,
        Signer(signing, signing_key),
        pairs[0][0],
        KeyRing(pairs[:1]),
        pairs[1][0],
        KeyRing(pairs[1:]),
    )


@pytest.fixture(scope="session")
def keys() -> Keys:
    return make_keys()


@dataclass
class Sending:
    """A søknad to send, with three files: PDF, PNG and JPEG."""

    fodselsnummer: str
    soknad_json: bytes
    vedlegg_json: bytes
    files: list[Dokument]
    encrypt_for: x509.Certificate | None
    enhetsnummer: Any = None
    content: dict[str, bytes] = field(default_factory=dict)
    other_certificate: x509.Certificate | None = None

    def body(self, boundary: str = "grense") -> bytes:
        return b"".join(
            multipart_body(
                boundary,
                parts(
                    self.soknad_json, self.vedlegg_json, self.files, self.encrypt_for, enhetsnummer=self.enhetsnummer
                ),
            )
        )


def make_sending(
    *,
    seed: int = 1,
    kommunenummer: str = "0301",
    kind: Any = "standard",
    encrypt_for: x509.Certificate | None = None,
    sizes: tuple[int, int, int] = (4096, 3000, 2500),
    **soknad: Any,
) -> Sending:
    rng = Random(seed)
    person = synthetic_fodselsnummer(rng)
    content = {
        "Soknad.pdf": make_pdf(rng, sizes[0]),
        "Lønnslipp.png": make_png(rng, sizes[1]),
        "Kontoutskrift.jpg": make_jpeg(rng, sizes[2]),
    }
    listed = [
        ("lonnslipp", "arbeid", name, hashlib.sha512(content[name]).hexdigest())
        for name in ("Lønnslipp.png", "Kontoutskrift.jpg")
    ]
    return Sending(
        fodselsnummer=person,
        soknad_json=make_soknad(rng, kind=kind, fodselsnummer=person, kommunenummer=kommunenummer, **soknad),
        vedlegg_json=make_vedlegg(listed),
        files=[Dokument.of_bytes(name, data) for name, data in content.items()],
        encrypt_for=encrypt_for,
        content=content,
    )


@pytest.fixture(name="make_sending")
def _make_sending() -> Any:
    return make_sending


def make_innsending(fodselsnummer: str, *, ref: str = "ref-1", kommunenummer: str = "0301") -> Innsending:
    person = Fodselsnummer(fodselsnummer)
    return Innsending(
        kommunenummer=Kommunenummer(kommunenummer),
        nav_ekstern_ref_id=NavEksternRefId(ref),
        person=person,
        eier=person.eier(EIER_KEY),
        digisos_id=DigisosId.new(),
        melding_id=MeldingId.new(),
        hendelse_id=Uuid.new(),
        tidspunkt=NOW,
    )


class Intake:
    """The core with real crypto and a real folder."""

    def __init__(
        self, keys: Keys, folder: Path, *, clear_files: bool = False, limits: IntakeLimits | None = None
    ) -> None:
        self.keys = keys
        self.folder = folder
        self.dokumentlager = DiskDokumentlager(folder)
        self.limits = limits or IntakeLimits()
        self.clear_files = clear_files

    def take(
        self, sending: Sending, *, person: str | None = None, body: bytes | None = None, cut: int = 65536
    ) -> Accepted:
        sealing = Sealing(
            self.keys.kommune, self.keys.signer, AVSENDER, self.keys.mottak_keys, self.clear_files, self.limits
        )
        spill = Spill(self.dokumentlager)
        submission = Submission(make_innsending(person or sending.fodselsnummer), sealing, spill)
        reader = MultipartReader("multipart/form-data; boundary=grense", max_parts=self.limits.max_parts)
        whole = sending.body() if body is None else body
        try:
            for start in range(0, len(whole), cut):
                for event in reader.feed(whole[start : start + cut]):
                    submission.feed(event)
            reader.close()
            return submission.finish()
        except BaseException:
            submission.abort()
            raise

    def package(self, accepted: Accepted) -> bytes:
        if accepted.soknad.pakke is not None:
            return accepted.soknad.pakke
        assert accepted.soknad.dokumentlager_id is not None
        return b"".join(self.dokumentlager.read(accepted.soknad.dokumentlager_id))


@pytest.fixture
def intake(keys: Keys, tmp_path: Path) -> Intake:
    return Intake(keys, tmp_path / "dokumentlager")


@pytest.fixture
def sending(keys: Keys) -> Sending:
    return make_sending(encrypt_for=keys.mottak)
