"""Make the golden envelopes again: ``python tests/vectors/cms/generate_vectors.py``. See README.md for what each is.

Content keys and IVs are random, so every file changes; what must stay is that ``verify_vectors.sh`` and the tests accept them.
"""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7EnvelopeBuilder, PKCS7Options
from cryptography.x509.oid import NameOID

from crypto import CmsEncryptor, PackageWriter, Signer, seal, seal_package

HERE = Path(__file__).parent
NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
OAEP = ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256")
PLAIN = b"Golden plaintext, longer than one block of AES, for every envelope here.\n" * 3


def make_pair(stem: str) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    """Make a self-signed certificate as KS documents for SvarInn (RSA-2048, 99999 days), or load the one that is there."""
    key_file, certificate_file = HERE / f"{stem}-key.pem", HERE / f"{stem}.pem"
    if not key_file.exists():
        key = rsa.generate_private_key(65537, 2048)
        number = x509.NameAttribute(NameOID.SERIAL_NUMBER, "889640782")
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Testvektor {stem}"), number])
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        builder = builder.not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        builder = builder.not_valid_after(datetime(2299, 10, 16, tzinfo=UTC))
        certificate_file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    loaded = load_pem_private_key(key_file.read_bytes(), None)
    assert isinstance(loaded, rsa.RSAPrivateKey)
    return x509.load_pem_x509_certificate(certificate_file.read_bytes()), loaded


def openssl(name: str, *arguments: str) -> None:
    """Let OpenSSL write one envelope of plain.txt."""
    fixed = ("-encrypt", "-binary", "-in", "plain.txt", "-outform", "DER", "-out", name)
    subprocess.run(["openssl", "cms", *fixed, *arguments], cwd=HERE, check=True, capture_output=True)


def to(*keyopts: str, stem: str = "recipient", keyid: bool = False) -> tuple[str, ...]:
    """Return the arguments for one recipient."""
    options = tuple(part for keyopt in keyopts for part in ("-keyopt", keyopt))
    return ("-recip", f"{stem}.pem", *options, *(("-keyid",) if keyid else ()))


def generate() -> None:
    """Write every file."""
    certificate, key = make_pair("recipient")
    make_pair("other")
    (HERE / "plain.txt").write_bytes(PLAIN)
    openssl("openssl-oaep-sha256.p7m", "-aes256", *to(*OAEP))
    openssl("openssl-oaep-sha1.p7m", "-aes256", *to("rsa_padding_mode:oaep"))
    openssl("openssl-oaep-keyid.p7m", "-aes256", *to(*OAEP, keyid=True))
    openssl("openssl-pkcs1v15.p7m", "-aes256", *to())
    openssl("openssl-oaep-ber.p7m", "-aes256", "-stream", *to(*OAEP))
    openssl("openssl-two-recipients.p7m", "-aes256", *to(stem="other"), *to(*OAEP))
    openssl("openssl-dual.p7m", "-aes256", *to(), *to(*OAEP))
    openssl("openssl-other-recipient.p7m", "-aes256", *to(*OAEP, stem="other"))
    openssl("openssl-aes256gcm.p7m", "-aes-256-gcm", *to(*OAEP))
    openssl("openssl-aes128.p7m", "-aes128", *to(*OAEP))
    builder = PKCS7EnvelopeBuilder().set_data(PLAIN).add_recipient(certificate)
    sealed = builder.set_content_encryption_algorithm(AES256).encrypt(Encoding.DER, [PKCS7Options.Binary])
    (HERE / "cryptography-pkcs1v15.p7m").write_bytes(sealed)
    (HERE / "ours-der.p7m").write_bytes(seal(PLAIN, certificate))
    encryptor = CmsEncryptor(certificate)
    (HERE / "ours-ber.p7m").write_bytes(encryptor.update(PLAIN) + encryptor.finalize())
    signer = Signer(certificate, key)
    package, _ = seal_package([("plain.txt", "text/plain", PLAIN)], recipient=certificate, signer=signer, now=NOW)
    (HERE / "ours-package-der.p7m").write_bytes(package)
    with (HERE / "ours-package-ber.p7m").open("wb") as out:
        writer = PackageWriter(out.write, recipient=certificate, signer=signer, now=NOW)
        with writer.add("plain.txt", "text/plain") as entry:
            entry.write(PLAIN)
        writer.finish()


if __name__ == "__main__":
    generate()
