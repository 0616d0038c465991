from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from asn1crypto import cms
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs7

from crypto import KeyRing, OpenedPackage, Spool, Trust, load_certificate, open_enveloped, open_package
from crypto.signed import SHA1_WARNING
from schemas.errors import UnsealError
from schemas.names import Organisasjonsnummer

HERE = Path(__file__).parent
NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
RECIPIENT = load_certificate(HERE / "recipient.pem")
PLAIN = (HERE / "plain.txt").read_bytes()
REFUSED = {"openssl-other-recipient.p7m", "openssl-aes256gcm.p7m", "openssl-aes128.p7m"}
EVERY = {path.name for path in HERE.glob("*.p7m")}
PACKAGES = {name for name in EVERY if "-package-" in name}


def make_ring(stem: str = "recipient") -> KeyRing:
    key = load_pem_private_key((HERE / f"{stem}-key.pem").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return KeyRing([(load_certificate(HERE / f"{stem}.pem"), key)])


def open_vector(name: str, spool: Spool, trust: Trust) -> OpenedPackage:
    spool.write((HERE / name).read_bytes())
    spool.finish()
    return open_package(spool, keys=make_ring(), trust=trust, now=NOW, require_forsendelse=False)


def test_the_readme_names_every_file() -> None:
    readme = (HERE / "README.md").read_text()

    assert len(EVERY) == 18
    assert [name for name in sorted(EVERY) if f"`{name}`" not in readme] == []


@pytest.mark.parametrize("name", sorted(EVERY - REFUSED - PACKAGES))
def test_every_known_producers_envelope_opens(name: str) -> None:
    assert open_enveloped((HERE / name).read_bytes(), make_ring()) == PLAIN


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_the_contract_refuses_is_refused(name: str) -> None:
    with pytest.raises(UnsealError):
        open_enveloped((HERE / name).read_bytes(), make_ring())


def test_both_recipients_of_an_envelope_for_two_open_it() -> None:
    sealed = (HERE / "openssl-two-recipients.p7m").read_bytes()

    assert open_enveloped(sealed, make_ring("other")) == PLAIN


@pytest.mark.parametrize("name", sorted(PACKAGES - {"bouncycastle-package-sha1.p7m"}))
def test_packages_open(name: str) -> None:
    with Spool() as spool, open_vector(name, spool, Trust(pinned=[RECIPIENT])) as opened:
        assert opened.read_bytes("plain.txt", 1000) == PLAIN
        assert opened.warnings == ()


def test_a_package_as_ks_java_writes_it_opens_where_a_setting_names_the_sender() -> None:
    allowing = Trust(pinned=[RECIPIENT], allow_sha1_from=frozenset({Organisasjonsnummer("889640782")}))
    with Spool() as spool, open_vector("bouncycastle-package-sha1.p7m", spool, allowing) as opened:
        assert opened.read_bytes("plain.txt", 1000) == PLAIN
        assert opened.warnings == (SHA1_WARNING,)
    with Spool() as spool, pytest.raises(UnsealError):
        open_vector("bouncycastle-package-sha1.p7m", spool, Trust(pinned=[RECIPIENT]))


@pytest.mark.openssl
@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not installed")
def test_openssl_opens_ours_and_agrees_about_the_others() -> None:
    done = subprocess.run([HERE / "verify_vectors.sh"], capture_output=True, text=True, check=False)

    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr


@pytest.mark.parametrize("name", ["ours-der.p7m", "ours-ber.p7m", "bouncycastle-array.p7m", "bouncycastle-stream.p7m"])
def test_the_pkcs7_helper_of_cryptography_cannot_open_what_the_contract_writes(name: str) -> None:
    """The day this fails, most of ``crypto/cms.py`` has a well-kept library to give way to."""
    key = load_pem_private_key((HERE / "recipient-key.pem").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)

    with pytest.raises((ValueError, UnsupportedAlgorithm)):
        pkcs7.pkcs7_decrypt_der((HERE / name).read_bytes(), RECIPIENT, key, [])


@pytest.mark.parametrize("name", ["ours-der.p7m", "ours-ber.p7m"])
def test_ours_has_what_the_net_decryption_service_insists_on(name: str) -> None:
    """It takes the first recipient, whichever, and nothing but AES-256-CBC (``DecryptStreamConverter.cs``)."""
    envelope = cms.ContentInfo.load((HERE / name).read_bytes())["content"]
    (recipient,) = envelope["recipient_infos"]

    assert envelope["encrypted_content_info"]["content_encryption_algorithm"]["algorithm"].native == "aes256_cbc"
    assert recipient.name == "ktri"
    assert recipient.chosen["rid"].chosen["serial_number"].native == RECIPIENT.serial_number
