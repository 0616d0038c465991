from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from crypto import KeyRing, Signer, certificate_pem, load_private_key, load_secret, write_private_key
from crypto.certificates import issuer_and_serial, subject_key_identifier
from schemas.errors import KeyFileError

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Actors


def same_key(path: Path, actors: Actors) -> bool:
    return load_private_key(path).private_numbers() == actors.recipient[1].private_numbers()


def test_a_written_key_is_0600_and_loads_again(actors: Actors, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    before = os.umask(0)
    try:
        write_private_key(path, actors.recipient[1])
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert same_key(path, actors)
    assert [file.name for file in tmp_path.iterdir()] == ["key.pem"]


def test_writing_replaces_a_key_at_once(actors: Actors, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    write_private_key(path, actors.other[1])
    write_private_key(path, actors.recipient[1])

    assert same_key(path, actors)


def test_a_key_that_cannot_be_written_leaves_nothing(actors: Actors, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="absent"):
        write_private_key(tmp_path / "absent" / "key.pem", actors.recipient[1])
    (tmp_path / "folder").mkdir()
    with pytest.raises(KeyFileError):
        write_private_key(tmp_path / "folder", actors.recipient[1])
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_key_that_others_may_read_is_refused_and_says_what_to_do(mode: int, actors: Actors, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    write_private_key(path, actors.recipient[1])
    path.chmod(mode)

    with pytest.raises(KeyFileError, match=r"chmod 600 .*key\.pem"):
        load_private_key(path)


def test_encrypted_keys_need_their_password(actors: Actors, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    pem = actors.recipient[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    path.touch(0o600)
    path.write_bytes(pem)

    assert load_private_key(path, password=b"secret").key_size == 2048
    for password in (None, b"wrong"):
        with pytest.raises(KeyFileError):
            load_private_key(path, password=password)


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_not_a_key_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.touch(0o600)
    path.write_bytes(content)

    with pytest.raises(KeyFileError, match=r"key\.pem"):
        load_private_key(path)


def test_keys_of_other_kinds_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.touch(0o600)
    key = ed25519.Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    with pytest.raises(KeyFileError, match="verken RSA eller EC"):
        load_private_key(path)
    with pytest.raises(KeyFileError):
        load_private_key(tmp_path / "absent.pem")


def test_a_ring_finds_a_key_by_both_names(actors: Actors) -> None:
    ring = actors.keys
    certificate, key = actors.recipient

    assert list(ring.find(issuer_and_serial(certificate))) == [key]
    assert list(ring.find(subject_key_identifier(certificate))) == [key]
    assert list(ring.find(b"other")) == []


def test_a_ring_is_loaded_from_a_folder_by_the_keys_themselves(actors: Actors, tmp_path: Path) -> None:
    for name, (certificate, key) in {"gammel": actors.other, "ny": actors.recipient}.items():
        (tmp_path / f"{name}.crt").write_bytes(certificate_pem(certificate))
        write_private_key(tmp_path / f"{name}.key", key)
    write_private_key(tmp_path / "signering.pem", actors.ec_sender[1])
    (tmp_path / "rot.pem").write_bytes(certificate_pem(actors.authority.certificate))
    (tmp_path / "les-meg.txt").write_text("not a key")

    assert set(KeyRing.load(tmp_path).certificates) == {actors.other[0], actors.recipient[0]}


def test_a_ring_is_loaded_from_named_files(actors: Actors, tmp_path: Path) -> None:
    certificate, key = tmp_path / "c", tmp_path / "k"
    certificate.write_bytes(certificate_pem(actors.recipient[0]))
    write_private_key(key, actors.recipient[1])

    assert KeyRing.load(certificate, key).certificates == (actors.recipient[0],)
    with pytest.raises(KeyFileError, match="ingen RSA-nøkkel"):
        KeyRing.load(certificate)


def test_a_ring_is_not_loaded_from_a_key_that_others_may_read(actors: Actors, tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_bytes(certificate_pem(actors.recipient[0]))
    write_private_key(tmp_path / "k.pem", actors.recipient[1])
    (tmp_path / "k.pem").chmod(0o644)

    with pytest.raises(KeyFileError, match="chmod 600"):
        KeyRing.load(tmp_path)


def test_a_key_must_belong_to_its_certificate(actors: Actors) -> None:
    other = actors.other[1]
    assert isinstance(other, rsa.RSAPrivateKey)

    with pytest.raises(ValueError, match="does not belong"):
        KeyRing([(actors.recipient[0], other)])
    with pytest.raises(ValueError, match="does not belong"):
        Signer(actors.ec_sender[0], actors.rsa_sender[1])


def key_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "eier.key"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_secret_is_read_as_hex(tmp_path: Path) -> None:
    assert load_secret(key_file(tmp_path, "ab" * 32 + "\n"), 32) == b"\xab" * 32


@pytest.mark.parametrize(("text", "mode"), [("ab" * 31, 0o600), ("ikke hex", 0o600), ("ab" * 32, 0o644)])
def test_a_weak_broken_or_public_secret_is_refused_and_never_quoted(tmp_path: Path, text: str, mode: int) -> None:
    with pytest.raises(KeyFileError) as raised:
        load_secret(key_file(tmp_path, text, mode), 32)
    assert text not in str(raised.value)


def test_a_missing_secret_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError):
        load_secret(tmp_path / "ingen", 32)
