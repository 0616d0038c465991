"""Who opens whose envelope, with fresh keys and OpenSSL as the witness: the rows of KS' matrix that it can play."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from crypto import (
    Authority,
    CmsEncryptor,
    KeyRing,
    PackageWriter,
    Signer,
    certificate_pem,
    open_enveloped,
    reseal,
    seal,
    verify_detached,
    write_private_key,
)
from crypto.trust import Trust
from schemas.errors import UnsealError
from schemas.names import Organisasjonsnummer

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography import x509

pytestmark = [
    pytest.mark.openssl,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not installed"),
]

NOW = datetime.now(UTC)
OAEP = ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256")
PLAIN = os.urandom(200_001)


class Bench(NamedTuple):
    folder: Path
    certificate: x509.Certificate
    keys: KeyRing
    authority: Authority

    def openssl(self, *arguments: str) -> bytes:
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, check=True)
        return done.stdout

    def write(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return name

    def encrypt(self, *recipients: tuple[str, ...], cipher: str = "-aes256", more: tuple[str, ...] = ()) -> bytes:
        to = [
            part
            for keyopts in recipients
            for part in ("-recip", "cert.pem", *(each for keyopt in keyopts for each in ("-keyopt", keyopt)))
        ]
        self.write("plain", PLAIN)
        return self.openssl("cms", "-encrypt", "-binary", cipher, "-in", "plain", "-outform", "DER", *more, *to)

    def decrypt(self, sealed: bytes) -> bytes:
        name = self.write("sealed", sealed)
        return self.openssl("cms", "-decrypt", "-binary", "-inform", "DER", "-in", name, "-inkey", "key.pem")


@pytest.fixture(scope="module", params=["rsa2048", "rsa3072"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("openssl")
    authority = Authority.create(NOW)
    certificate, key = authority.issue(
        "Oslo kommune", Organisasjonsnummer("958935420"), purpose="kryptering", now=NOW, key=request.param
    )
    assert isinstance(key, rsa.RSAPrivateKey)
    (folder / "cert.pem").write_bytes(certificate_pem(certificate))
    (folder / "ca.pem").write_bytes(certificate_pem(authority.certificate))
    write_private_key(folder / "key.pem", key)
    return Bench(folder, certificate, KeyRing([(certificate, key)]), authority)


def test_ours_in_memory_is_opened_by_openssl(bench: Bench) -> None:
    assert bench.decrypt(seal(PLAIN, bench.certificate)) == PLAIN


@pytest.mark.parametrize("chunk", [1000, 70_000])
def test_ours_as_a_stream_is_opened_by_openssl(chunk: int, bench: Bench) -> None:
    encryptor = CmsEncryptor(bench.certificate)
    parts = [encryptor.update(PLAIN[at : at + chunk]) for at in range(0, len(PLAIN), chunk)]

    assert bench.decrypt(b"".join([*parts, encryptor.finalize()])) == PLAIN


def test_openssl_oaep_is_opened_by_us(bench: Bench) -> None:
    assert open_enveloped(bench.encrypt(OAEP), bench.keys) == PLAIN


@pytest.mark.parametrize("digests", [("sha1", "sha1"), ("sha256", "sha1"), ("sha384", "sha512")])
def test_openssl_oaep_with_other_digests_is_opened_by_us(digests: tuple[str, str], bench: Bench) -> None:
    keyopts = ("rsa_padding_mode:oaep", f"rsa_oaep_md:{digests[0]}", f"rsa_mgf1_md:{digests[1]}")

    assert open_enveloped(bench.encrypt(keyopts), bench.keys) == PLAIN


def test_openssl_ber_of_indefinite_length_is_opened_by_us(bench: Bench) -> None:
    sealed = bench.encrypt(OAEP, more=("-stream",))

    assert sealed[:2] == b"\x30\x80"
    assert open_enveloped(sealed, bench.keys) == PLAIN


def test_openssl_key_identifier_is_opened_by_us(bench: Bench) -> None:
    bench.write("plain", PLAIN)
    fixed = ("cms", "-encrypt", "-binary", "-aes256", "-in", "plain", "-outform", "DER")
    sealed = bench.openssl(*fixed, "-recip", "cert.pem", "-keyid")

    assert open_enveloped(sealed, bench.keys) == PLAIN


def test_openssl_pkcs1_v15_is_opened_by_us(bench: Bench) -> None:
    assert open_enveloped(bench.encrypt(()), bench.keys) == PLAIN


def test_two_recipients_v15_and_oaep_for_the_same_certificate_are_opened_by_us(bench: Bench) -> None:
    for order in (((), OAEP), (OAEP, ())):
        assert open_enveloped(bench.encrypt(*order), bench.keys) == PLAIN


def test_openssl_aes_256_gcm_is_rejected_by_us(bench: Bench) -> None:
    with pytest.raises(UnsealError):
        open_enveloped(bench.encrypt(OAEP, cipher="-aes-256-gcm"), bench.keys)


@pytest.mark.parametrize("key", ["rsa2048", "p256"])
def test_openssl_verifies_our_signature_over_the_manifest_and_unzips_our_package(key: str, bench: Bench) -> None:
    number = Organisasjonsnummer("889640782")
    pair = bench.authority.issue("NAV", number, purpose="signering", now=NOW, key=key)  # type: ignore[arg-type]  # two of its kinds
    parts: list[bytes] = []
    signer = Signer(*pair, (bench.authority.certificate,))
    writer = PackageWriter(parts.append, recipient=bench.certificate, signer=signer, now=NOW)
    with writer.add("vedlegg/søknad.bin", "application/octet-stream") as entry:
        entry.write(PLAIN)
    writer.finish()

    with zipfile.ZipFile(io.BytesIO(bench.decrypt(b"".join(parts)))) as archive:
        assert archive.testzip() is None
        assert archive.read("vedlegg/søknad.bin") == PLAIN
        manifest = archive.read("META-INF/ASiCManifest.xml")
        (name,) = [each for each in archive.namelist() if each.endswith(".p7s")]
        signature = bench.write("signature", archive.read(name))
    content = bench.write("manifest", manifest)
    verify = ("cms", "-verify", "-cades", "-binary", "-inform", "DER", "-in", signature, "-content", content)
    assert bench.openssl(*verify, "-CAfile", "ca.pem", "-purpose", "any") == manifest


@pytest.mark.parametrize("key", ["rsa2048", "p256"])
@pytest.mark.parametrize("options", [(), ("-noattr",), ("-cades",), ("-keyid",), ("-md", "sha512")], ids=" ".join)
def test_openssl_signatures_are_verified_by_us(key: str, options: tuple[str, ...], bench: Bench) -> None:
    number = Organisasjonsnummer("889640782")
    certificate, private_key = bench.authority.issue("NAV", number, purpose="signering", now=NOW, key=key)  # type: ignore[arg-type]  # two of its kinds
    bench.write("signer.pem", certificate_pem(certificate))
    write_private_key(bench.folder / "signer-key.pem", private_key)
    bench.write("content", b"<ASiCManifest/>")
    sign = ("cms", "-sign", "-binary", "-in", "content", "-outform", "DER", "-signer", "signer.pem")
    signature = bench.openssl(*sign, "-inkey", "signer-key.pem", *(options or ("-md", "sha256")))

    verified = verify_detached(signature, b"<ASiCManifest/>", Trust(roots=[bench.authority.certificate]), NOW)
    assert verified.signer == certificate


def test_openssl_opens_what_was_given_another_recipient(bench: Bench) -> None:
    other, _ = bench.authority.issue(
        "Bergen kommune", Organisasjonsnummer("964338531"), purpose="kryptering", now=NOW, key="rsa2048"
    )
    encryptor = CmsEncryptor(other)
    sealed = encryptor.update(PLAIN) + encryptor.finalize()

    assert bench.decrypt(b"".join(reseal([sealed], encryptor.content_key, bench.certificate))) == PLAIN
