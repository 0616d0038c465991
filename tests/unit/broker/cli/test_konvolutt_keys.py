from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

if TYPE_CHECKING:
    from conftest import Desk

SECRET = b"hemmelig"


def test_a_key_that_others_can_read_is_refused_with_what_to_do(desk: Desk) -> None:
    (desk / "nav.key").chmod(0o640)
    result = desk.seal()
    assert result.exit_code == 1
    assert f"chmod 600 {desk / 'nav.key'}" in desk.said(result)


def test_a_missing_key_is_named(desk: Desk) -> None:
    result = desk.seal("--nokkel", desk / "borte.key")
    assert result.exit_code == 1
    assert "borte.key" in desk.said(result)


def test_what_is_not_pem_is_said_to_be_that(desk: Desk) -> None:
    (desk / "tull.key").write_bytes(b"tull")
    (desk / "tull.key").chmod(0o600)
    result = desk.seal("--nokkel", desk / "tull.key")
    assert "ikke en privat nøkkel i PEM" in desk.said(result)


def test_what_is_not_a_certificate_is_said_to_be_that(desk: Desk) -> None:
    result = desk.seal("--mottaker", desk / "soknad.pdf")
    assert result.exit_code == 1
    assert "ikke et X.509-sertifikat" in desk.said(result)


def test_pkcs12_comes_with_a_way_out(desk: Desk) -> None:
    assert "openssl pkcs12" in desk.said(desk.seal("--nokkel", desk / "nokkel.p12"))


def test_a_key_of_another_certificate_is_a_mistake(desk: Desk) -> None:
    result = desk.seal("--nokkel", desk / "kommune.key")
    assert result.exit_code == 1
    assert "hører ikke til sertifikatet" in desk.said(result)


def test_an_ec_key_opens_nothing(desk: Desk) -> None:
    desk.seal()
    assert "RSA" in desk.said(desk.open(key="nav.key"))


def test_an_encrypted_key_asks_for_its_password(desk: Desk) -> None:
    encrypt(desk)
    result = desk.seal()
    assert result.exit_code == 1
    assert "--passord-fil" in desk.said(result)


def test_a_wrong_password_is_called_wrong(desk: Desk) -> None:
    encrypt(desk)
    (desk / "passord").write_bytes(b"galt\n")
    result = desk.seal("--passord-fil", desk / "passord")
    assert result.exit_code == 1
    assert "feil passord" in desk.said(result)
    assert "galt" not in result.output


def test_the_password_comes_from_a_file(desk: Desk) -> None:
    encrypt(desk)
    (desk / "passord").write_bytes(SECRET + b"\n")
    assert desk.seal("--passord-fil", desk / "passord").exit_code == 0


def test_the_password_comes_from_the_environment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    encrypt(desk)
    monkeypatch.setenv("FORMIDLER_NOKKEL_PASSORD", SECRET.decode())
    assert desk.seal().exit_code == 0


def encrypt(desk: Desk) -> None:
    key = desk.keys.sender[1]
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(SECRET))
    (desk / "nav.key").write_bytes(pem)


def test_trusts_a_pinned_certificate_as_root(desk: Desk) -> None:
    desk.seal()
    assert desk.open(root="nav.pem").exit_code == 0


def test_several_roots_are_alternatives(desk: Desk) -> None:
    desk.seal()
    assert desk.open("--rot", desk / "ca.pem", root="fremmed.pem").exit_code == 0


def test_tries_several_keys(desk: Desk) -> None:
    desk.seal()
    result = desk.open("--nokkel", desk / "kommune.key", key="bergen.key")
    assert result.exit_code == 0


def test_matches_a_key_to_its_recipient_when_its_certificate_is_given(desk: Desk) -> None:
    desk.seal()
    result = desk.open("--sertifikat", desk / "kommune.pem")
    assert result.exit_code == 0


def test_a_certificate_of_another_key_is_a_mistake(desk: Desk) -> None:
    desk.seal()
    result = desk.open("--sertifikat", desk / "bergen.pem")
    assert result.exit_code == 1
    assert "ingen av nøklene hører til sertifikatet" in desk.said(result)
