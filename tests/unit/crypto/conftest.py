from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from crypto import Authority, KeyRing, PrivateKey, Signer, Spool, Trust, der, open_package, seal
from crypto.certificates import issuer_and_serial
from crypto.envelope import OpenedPackage
from crypto.signed import sign_detached
from schemas.forsendelse import Forsendelse
from schemas.names import DigisosId, Kommunenummer, MeldingId, Organisasjonsnummer

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
NAV = Organisasjonsnummer("889640782")
OSLO = Organisasjonsnummer("958935420")

SHA256_URI = "http://www.w3.org/2001/04/xmlenc#sha256"
KS_NAMESPACE = "http://uri.etsi.org/02918/v1.2.1#"
FILES = {"soknad.json": b'{"soknad": 1}' * 40, "vedlegg/hus leie.pdf": b"%PDF-1.7 " + bytes(range(256)) * 30}

Pair = tuple[x509.Certificate, PrivateKey]


@dataclass(frozen=True)
class Actors:
    """A sender, a receiver and the authority that both trust; keys are made once for the whole run."""

    authority: Authority
    recipient: Pair
    other: Pair
    rsa_sender: Pair
    ec_sender: Pair
    now: datetime = NOW

    @property
    def keys(self) -> KeyRing:
        return make_ring(self.recipient)

    @property
    def signer(self) -> Signer:
        return Signer(*self.ec_sender, (self.authority.certificate,))

    @property
    def rsa_signer(self) -> Signer:
        return Signer(*self.rsa_sender, (self.authority.certificate,))

    @property
    def trust(self) -> Trust:
        return Trust(roots=[self.authority.certificate])


def make_ring(*pairs: Pair) -> KeyRing:
    return KeyRing([(certificate, key) for certificate, key in pairs if isinstance(key, rsa.RSAPrivateKey)])


def make_actors() -> Actors:
    authority = Authority.create(NOW - timedelta(days=400), "Prøve-CA")
    issue = authority.issue
    return Actors(
        authority=authority,
        recipient=issue("Oslo kommune", OSLO, purpose="kryptering", now=NOW, key="rsa2048"),
        other=issue("Bergen kommune", OSLO, purpose="kryptering", now=NOW, key="rsa2048"),
        rsa_sender=issue("NAV", NAV, purpose="signering", now=NOW, key="rsa2048"),
        ec_sender=issue("NAV", NAV, purpose="signering", now=NOW, key="p256"),
    )


def make_forsendelse(kommunenummer: str = "0301", type_: str = "SOKNAD") -> Forsendelse:
    return Forsendelse(
        digisos_id=DigisosId("0e0d8a1c-5f5c-4a55-8d1c-3d2f6f8f0b11"),
        melding_id=MeldingId("7b7fd0c2-7b44-4d4e-9f65-0d1d8a6d2a22"),
        kommunenummer=Kommunenummer(kommunenummer),
        type=type_,
        opprettet=NOW,
    )


@dataclass
class Archive:
    """An ASiC-E archive built by hand, so that a test can get any part of it wrong."""

    signer: Signer
    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    listed: dict[str, bytes] | None = None
    namespace: str = KS_NAMESPACE
    digest_uri: str = SHA256_URI
    digest_name: str = "sha256"
    manifest_name: str = "META-INF/ASiCManifest.xml"
    signature_name: str = "META-INF/signature-1.p7s"
    signature_reference: str | None = None
    mimetype: bytes | None = b"application/vnd.etsi.asic-e+zip"
    mimetype_method: int = zipfile.ZIP_STORED
    oasis: bool = True
    comment: bytes = b"mimetype=application/vnd.etsi.asic-e+zip"
    extra: dict[str, bytes] = field(default_factory=dict)
    manifest: bytes | None = None
    sign: Callable[[bytes], bytes] | None = None
    with_manifest: bool = True
    with_signature: bool = True

    def manifest_bytes(self) -> bytes:
        if self.manifest is not None:
            return self.manifest
        listed = self.files if self.listed is None else self.listed
        references = "".join(
            f'<DataObjectReference URI="{name}" MimeType="application/octet-stream">'
            f'<d:DigestMethod Algorithm="{self.digest_uri}"/><d:DigestValue>{self._digest(content)}</d:DigestValue>'
            "</DataObjectReference>"
            for name, content in listed.items()
        )
        return (
            f'<ASiCManifest xmlns="{self.namespace}" xmlns:d="http://www.w3.org/2000/09/xmldsig#">'
            f'<SigReference URI="{self.signature_reference or self.signature_name}"/>{references}</ASiCManifest>'
        ).encode()

    def _digest(self, content: bytes) -> str:
        return base64.b64encode(hashlib.new(self.digest_name, content).digest()).decode()

    def entries(self) -> Iterator[tuple[str, bytes, int]]:
        if self.mimetype is not None:
            yield "mimetype", self.mimetype, self.mimetype_method
        for name, content in self.files.items():
            yield name, content, zipfile.ZIP_DEFLATED
        manifest = self.manifest_bytes()
        if self.with_manifest:
            yield self.manifest_name, manifest, zipfile.ZIP_DEFLATED
        if self.with_signature:
            sign = self.sign or (lambda content: sign_detached(content, self.signer, NOW))
            yield self.signature_name, sign(manifest), zipfile.ZIP_DEFLATED
        if self.oasis:
            yield "META-INF/manifest.xml", b"<manifest/>", zipfile.ZIP_DEFLATED
        for name, content in self.extra.items():
            yield name, content, zipfile.ZIP_DEFLATED

    def build(self) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.comment = self.comment
            for name, content, method in self.entries():
                archive.writestr(zipfile.ZipInfo(name), content, method)
        return out.getvalue()


@pytest.fixture(scope="session")
def actors() -> Actors:
    return make_actors()


@pytest.fixture
def archive(actors: Actors) -> Callable[..., Archive]:
    def make(**parts: object) -> Archive:
        return Archive(actors.signer, **parts)  # type: ignore[arg-type]  # each test names the parts that it changes

    return make


@pytest.fixture(scope="session")
def forsendelse() -> Callable[..., Forsendelse]:
    return make_forsendelse


@pytest.fixture(scope="session")
def ring() -> Callable[..., KeyRing]:
    return make_ring


@pytest.fixture
def open_sealed(actors: Actors) -> Iterator[Callable[..., OpenedPackage]]:
    """Open sealed bytes as a receiver does; ``now``, ``trust``, ``keys`` and ``limits`` may be given."""
    with ExitStack() as stack:

        def open_(sealed: bytes, *, chunk: int = 4096, **options: object) -> OpenedPackage:
            spool = stack.enter_context(Spool())
            for at in range(0, len(sealed), chunk):
                spool.write(sealed[at : at + chunk])
            spool.finish()
            arguments: dict[str, object] = {"keys": actors.keys, "trust": actors.trust, "now": NOW, **options}
            return stack.enter_context(open_package(spool, **arguments))  # type: ignore[arg-type]  # typed where declared

        yield open_


@pytest.fixture
def open_archive(actors: Actors, open_sealed: Callable[..., OpenedPackage]) -> Callable[..., Mapping[str, bytes]]:
    """Seal an archive built by hand, open it, and return the files that came out."""

    def open_(archive: bytes, **options: object) -> Mapping[str, bytes]:
        sealed = seal(archive, actors.recipient[0])
        with open_sealed(sealed, **{"require_forsendelse": False, **options}) as opened:
            return {file.name: b"".join(opened.read(file.name)) for file in opened.files}

    return open_


@pytest.fixture
def sha1_signature(actors: Actors) -> Callable[[bytes], bytes]:
    """Sign as KS' Java client: SHA1withRSA, with the certificate."""

    def sign(content: bytes) -> bytes:
        certificate, private_key = actors.rsa_sender
        assert isinstance(private_key, rsa.RSAPrivateKey)
        value = private_key.sign(content, padding.PKCS1v15(), hashes.SHA1())
        digest = der.sequence(der.oid("1.3.14.3.2.26"), der.NULL_TLV)
        algorithm = der.sequence(der.oid("1.2.840.113549.1.1.1"), der.NULL_TLV)
        info = der.sequence(der.integer(1), issuer_and_serial(certificate), digest, algorithm, der.octet_string(value))
        signed = der.sequence(
            der.integer(1),
            der.set_of(digest),
            der.sequence(der.oid("1.2.840.113549.1.7.1")),
            der.context(0, certificate.public_bytes(Encoding.DER)),
            der.set_of(info),
        )
        return der.sequence(der.oid("1.2.840.113549.1.7.2"), der.context(0, signed))

    return sign
