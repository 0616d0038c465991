from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.cli.konvolutt_seal import mimetype
from crypto import (
    certificate_pem,
)
from schemas.names import Organisasjonsnummer

if TYPE_CHECKING:
    from conftest import Desk

NAV = Organisasjonsnummer("889640782")
OSLO = Organisasjonsnummer("958935420")


def test_reduces_paths_to_their_last_part(desk: Desk) -> None:
    (desk / "dypt/nede").mkdir(parents=True)
    (desk / "dypt/nede/hus.pdf").write_bytes(desk.PDF)
    desk.seal(files=[desk / "dypt/nede/hus.pdf"])
    desk.open()
    assert [path.name for path in (desk / "ut").iterdir()] == ["hus.pdf"]


def test_refuses_two_files_that_get_the_same_name(desk: Desk) -> None:
    (desk / "b").mkdir()
    (desk / "b/SOKNAD.pdf").write_bytes(b"annet")
    result = desk.seal(files=[desk / "soknad.pdf", desk / "b/SOKNAD.pdf"])
    assert result.exit_code == 1
    assert "b/SOKNAD.pdf får samme navn" in desk.said(result)
    assert not (desk / "pakke.cms").exists()


def test_refuses_a_name_that_receivers_refuse(desk: Desk) -> None:
    (desk / "en:to.pdf").write_bytes(desk.PDF)
    assert desk.seal(files=[desk / "en:to.pdf"]).exit_code == 1


@pytest.mark.parametrize(("missing", "reason"), [("borte.pdf", "filen finnes ikke"), (".", "er ikke en vanlig fil")])
def test_says_which_file_is_not_one(desk: Desk, missing: str, reason: str) -> None:
    result = desk.seal(files=[desk / missing])
    assert result.exit_code == 1
    assert reason in desk.said(result)


def test_does_not_replace_a_result_unasked(desk: Desk) -> None:
    (desk / "pakke.cms").write_bytes(b"viktig")
    refused = desk.seal()
    assert refused.exit_code == 1
    assert "--overskriv" in desk.said(refused)
    assert (desk / "pakke.cms").read_bytes() == b"viktig"
    assert desk.seal("--overskriv").exit_code == 0
    assert desk.open().exit_code == 0


def test_never_replaces_a_file_that_it_reads(desk: Desk) -> None:
    result = desk.seal("--overskriv", "--ut", desk / "soknad.pdf")
    assert result.exit_code == 1
    assert (desk / "soknad.pdf").read_bytes() == desk.PDF


@pytest.mark.parametrize(
    ("name", "start", "expected"),
    [
        ("a.bin", b"%PDF-1.7", "application/pdf"),
        ("a.pdf", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("a.PNG", b"\x89PNG\r\n\x1a\n", "image/png"),
        ("a.JSON", b"{}", "application/json"),
        ("a.docx", b"PK\x03\x04", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ("a", b"", "application/octet-stream"),
    ],
)
def test_finds_the_type_by_content_and_then_by_name(name: str, start: bytes, expected: str) -> None:
    assert mimetype(name, start) == expected


def test_refuses_a_recipient_that_has_expired(desk: Desk) -> None:
    old = desk.keys.authority.certify(
        desk.keys.kommune[1], "Oslo", OSLO, purpose="kryptering", now=desk.NOW, valid_days=-2
    )
    (desk / "gammel.pem").write_bytes(certificate_pem(old))
    result = desk.seal("--mottaker", desk / "gammel.pem")
    assert result.exit_code == 1
    assert "gikk ut" in desk.said(result)
    assert "gammel.pem" in desk.said(result)


def test_refuses_to_sign_with_a_certificate_for_encryption(desk: Desk) -> None:
    result = desk.seal("--avsender", desk / "kommune.pem", "--nokkel", desk / "kommune.key")
    assert result.exit_code == 1
    assert "ikke for signering" in desk.said(result)


def test_sends_the_rest_of_the_senders_file_along_as_chain(desk: Desk) -> None:
    with (desk / "nav.pem").open("ab") as file:
        file.write(certificate_pem(desk.keys.authority.certificate))
    desk.seal()
    assert desk.open().exit_code == 0


@pytest.mark.parametrize("option", ["--avsender", "--nokkel"])
def test_needs_a_sender(desk: Desk, option: str) -> None:
    given = {"--avsender": desk / "nav.pem", "--nokkel": desk / "nav.key"}
    del given[option]
    (other, path), *_ = given.items()
    result = desk.run("seal", "--mottaker", desk / "kommune.pem", other, path, "--ut", desk / "x", desk / "soknad.pdf")
    assert result.exit_code == 2
    assert option in desk.said(result)
