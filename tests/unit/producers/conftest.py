from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broker.issuer import LocalIssuer
from broker.katalog import Katalog
from broker.sql import Database, SqliteDatabase
from broker.tokens import StaticJwks, TokenVerifier
from broker.web import Health
from crypto.authority import Authority
from crypto.certificates import certificate_pem, nokkel_id
from crypto.envelope import open_package
from crypto.key_wrap import KeyWrapper
from crypto.keys import KeyRing, Signer
from crypto.spool import Spool
from crypto.trust import Trust
from producers.app import create_app
from producers.avsenderkopi import Avsenderkopier
from producers.checks import IntakeLimits
from producers.database import MIGRATIONS
from producers.dokument import Dokument
from producers.dokumentlager import DiskDokumentlager
from producers.envelopes import SeenKeys
from producers.http_client import multipart_body, parts
from producers.intake import Accepted, Innsending, Sealing, Submission
from producers.library import IntakeKeys, Producer
from producers.multipart import MultipartReader
from producers.outbox import Outbox, Queued
from producers.picking import Bounds
from producers.places import Places
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
from schemas.records import KatalogRecord, Sertifikat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from cryptography import x509


@pytest.fixture(autouse=True)
def quiet_logs() -> Iterator[None]:
    def drop(*_: object) -> Any:
        raise structlog.DropEvent

    structlog.configure(processors=[drop])
    yield
    structlog.reset_defaults()


NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
KNR = Kommunenummer("0301")
AVSENDER = Organisasjonsnummer("889640782")
EIER_KEY = b"e" * 32
KOPI_KEY = b"k" * 32


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
        self.seen = SeenKeys()

    def take(
        self,
        sending: Sending,
        *,
        person: str | None = None,
        ref: str = "ref-1",
        body: bytes | None = None,
        cut: int = 65536,
    ) -> Accepted:
        sealing = Sealing(
            self.keys.kommune,
            self.keys.signer,
            AVSENDER,
            self.keys.mottak_keys,
            self.clear_files,
            self.limits,
            self.seen,
        )
        spill = Spill(self.dokumentlager)
        submission = Submission(make_innsending(person or sending.fodselsnummer, ref=ref), sealing, spill)
        reader = MultipartReader("multipart/form-data; boundary=grense", max_parts=self.limits.max_parts)
        whole = sending.body() if body is None else body
        try:
            for start in range(0, len(whole), cut):
                for event in reader.feed(whole[start : start + cut]):
                    if submission.feed(event):
                        submission.unwrap()
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


def make_katalog_record(keys: Keys, kommunenummer: str = "0301", **changes: Any) -> KatalogRecord:
    certificate = Sertifikat(
        nokkel_id=nokkel_id(keys.kommune),
        bruk="KRYPTERING",
        pem=certificate_pem(keys.kommune).decode(),
        gyldig_fra=keys.kommune.not_valid_before_utc,
        gyldig_til=keys.kommune.not_valid_after_utc,
    )
    values: dict[str, Any] = {
        "kommunenummer": Kommunenummer(kommunenummer),
        "navn": "Oslo",
        "organisasjonsnummer": Organisasjonsnummer("958935420"),
        "leverandor": "acme",
        "konnektor": "acme-oslo",
        "sertifikater": (certificate,),
        "endret": NOW,
    }
    return KatalogRecord(**(values | changes))


def make_kopier(keys: Keys, database: Database, dokumentlager: DiskDokumentlager) -> Avsenderkopier:
    trust = Trust(pinned=[keys.signer.certificate])
    return Avsenderkopier(database, dokumentlager, wrapper=KeyWrapper([KOPI_KEY]), trust=trust)


class World:
    """The intake as an application, with everything real but Kafka."""

    def __init__(self, keys: Keys, folder: Path, database: Database) -> None:
        self.keys = keys
        self.now = NOW
        self.database = database
        self.outbox = Outbox(database)
        self.folder = folder / "dokumentlager"
        self.dokumentlager = DiskDokumentlager(self.folder)
        self.kopier = make_kopier(keys, database, self.dokumentlager)
        self.katalog = Katalog([make_katalog_record(keys)])
        self.katalog_problem: str | None = None
        self.health = Health()
        self.producer = self.make_producer()
        key = ec.generate_private_key(ec.SECP256R1())
        self.issuer = LocalIssuer("https://utsteder.test", "meldingsformidler", key, self.katalog, self.clock)
        self.tokens = TokenVerifier(
            "https://utsteder.test", "meldingsformidler", StaticJwks(self.issuer.jwks()), self.clock
        )
        self.app = create_app(
            producer=self.producer,
            tokens=self.tokens,
            katalog=self.katalog,
            certificate=keys.mottak,
            health=self.health,
        )

    def clock(self) -> datetime:
        return self.now

    def make_producer(
        self, *, limits: IntakeLimits | None = None, clear_files: bool = False, places: Places | None = None
    ) -> Producer:
        return Producer(
            katalog=self.katalog,
            katalog_problem=lambda: self.katalog_problem,
            outbox=self.outbox,
            dokumentlager=self.dokumentlager,
            kopier=self.kopier,
            keys=IntakeKeys(self.keys.signer, self.keys.mottak_keys, EIER_KEY),
            limits=limits or IntakeLimits(),
            clear_files=clear_files,
            clock=self.clock,
            places=places or Places(64, 4),
        )

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="https://mottak.test")

    def token(self, person: str) -> str:
        return self.issuer.citizen_token(Fodselsnummer(person))

    async def post(
        self,
        sending: Sending,
        *,
        path: str = "0301/ref-1",
        token: str | None = None,
        body: bytes | None = None,
        **headers: str,
    ) -> httpx.Response:
        token = self.token(sending.fodselsnummer) if token is None else token
        given = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "multipart/form-data; boundary=grense",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http() as http:
            return await http.post(
                f"/digisos/api/v1/soknader/{path}",
                content=sending.body() if body is None else body,
                headers={name: value for name, value in given.items() if value},
            )

    async def queued(self) -> list[Queued]:
        waiting = await self.outbox.waiting(Bounds(max_runs=1000, max_bytes=2**40))
        return [queued for run in waiting.runs for queued in run]

    def stored_files(self) -> list[Path]:
        return list(self.folder.iterdir())


@pytest.fixture
async def world(keys: Keys, tmp_path: Path) -> AsyncIterator[World]:
    async with SqliteDatabase(tmp_path / "producers.sqlite", MIGRATIONS) as database:
        world = World(keys, tmp_path, database)
        yield world
        world.producer.close()


@pytest.fixture
def make_world(keys: Keys, tmp_path: Path) -> Any:
    return lambda database: World(keys, tmp_path, database)
