from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from typer.testing import Result

from crypto import (
    nokkel_id,
)
from schemas.names import Organisasjonsnummer

if TYPE_CHECKING:
    from conftest import Desk

NAV = Organisasjonsnummer("889640782")
OSLO = Organisasjonsnummer("958935420")


def test_gives_the_same_bytes_back_to_their_owner_alone(desk: Desk) -> None:
    sealed = desk.seal()
    opened = desk.open()
    assert (sealed.exit_code, opened.exit_code) == (0, 0), sealed.stderr + opened.stderr
    assert (desk / "ut/soknad.pdf").read_bytes() == desk.PDF
    assert (desk / "ut/soknad.json").read_bytes() == b'{"soknad": 1}'
    assert (desk / "ut").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (desk / "ut").iterdir()} == {0o600}
    assert desk.PDF[:40] not in (desk / "pakke.cms").read_bytes()


def test_answers_in_json_that_agree_with_each_other(desk: Desk) -> None:
    sealed = json.loads(desk.seal("--json").stdout)
    opened = json.loads(desk.open("--json").stdout)
    assert sealed["ok"]
    assert opened["ok"]
    assert opened["filer"] == sealed["filer"]
    assert opened["avsender"] == sealed["avsender"]
    assert opened["avsender"]["organisasjonsnummer"] == NAV
    assert opened["sha256"] == sealed["sha256"]
    assert sealed["nokkelId"] == nokkel_id(desk.keys.kommune[0])
    assert [file["mimetype"] for file in sealed["filer"]] == ["application/json", "application/pdf"]


def test_signs_a_forsendelse_when_it_is_told_what_the_package_is(desk: Desk) -> None:
    assert desk.seal(*desk.IDENTITY).exit_code == 0
    opened = desk.open("--json")
    forsendelse = json.loads(opened.stdout)["forsendelse"]
    assert forsendelse["kommunenummer"] == "0301"
    assert forsendelse["type"] == "SOKNAD"
    assert json.loads((desk / "ut/forsendelse.json").read_bytes()) == forsendelse


def test_what_seal_made_opens_as_it_is_and_the_lack_of_a_forsendelse_is_told(desk: Desk) -> None:
    assert desk.seal().exit_code == 0
    opened = desk.open()
    assert opened.exit_code == 0
    assert "forsendelse.json" in opened.output


def test_refuses_a_package_without_forsendelse_where_one_is_demanded(desk: Desk) -> None:
    desk.seal()
    refused = desk.open("--krev-forsendelse", "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["kode"] == "krypto.apning"
    assert not (desk / "ut").exists()


def test_names_what_is_missing_of_a_forsendelse(desk: Desk) -> None:
    result = desk.seal(*desk.IDENTITY[:4])
    assert result.exit_code == 2
    assert "mangler --kommune, --type" in desk.said(result)


def test_refuses_an_id_of_another_form_without_repeating_it(desk: Desk) -> None:
    result = desk.seal("--digisos-id", "01010112345", *desk.IDENTITY[2:])
    assert result.exit_code == 1
    assert "01010112345" not in result.output
    assert not (desk / "pakke.cms").exists()


def test_refuses_a_signer_whom_nobody_named(desk: Desk) -> None:
    desk.seal()
    before = desk.everything()
    assert desk.open(root="fremmed.pem").exit_code == 1
    assert desk.everything() == before


def test_refuses_another_receivers_package(desk: Desk) -> None:
    desk.seal()
    assert desk.open(key="bergen.key").exit_code == 1


@pytest.mark.parametrize("at", [1, 900, -40, -1])
def test_a_tampered_package_leaves_nothing_behind(desk: Desk, at: int) -> None:
    desk.seal()
    sealed = bytearray((desk / "pakke.cms").read_bytes())
    sealed[at] ^= 1
    (desk / "pakke.cms").write_bytes(sealed)
    before = desk.everything()
    result = desk.open()
    assert result.exit_code == 1
    assert "pakken kan ikke åpnes" in desk.said(result)
    assert "formidler konvolutt inspect" in desk.said(result)
    assert desk.everything() == before


def seal_bare(desk: Desk, *arguments: object) -> Result:
    return desk.run(
        *("seal", "--bare", "--mottaker", desk / "kommune.pem", "--ut", desk / "pakke.cms"),
        *(arguments or [desk / "soknad.pdf"]),
    )


def open_bare(desk: Desk, *arguments: object) -> Result:
    return desk.run(
        *("open", "--bare", "--nokkel", desk / "kommune.key", "--ut", desk / "inn.pdf"),
        *(arguments or [desk / "pakke.cms"]),
    )


def test_gives_the_same_bytes_back_and_warns(desk: Desk) -> None:
    assert seal_bare(desk).exit_code == 0
    result = open_bare(desk)
    assert result.exit_code == 0
    assert "beskytter ikke mot endring" in desk.said(result)
    assert (desk / "inn.pdf").read_bytes() == desk.PDF
    assert (desk / "inn.pdf").stat().st_mode & 0o777 == 0o600


def test_answers_in_json(desk: Desk) -> None:
    sealed = json.loads(seal_bare(desk, "--json", desk / "soknad.pdf").stdout)
    opened = json.loads(open_bare(desk, "--json", desk / "pakke.cms").stdout)
    assert sealed["klartekstStorrelse"] == opened["storrelse"] == len(desk.PDF)
    assert sealed["sha256"] == opened["sha256"]
    assert opened["advarsler"]


@pytest.mark.openssl
def test_openssl_opens_ours(desk: Desk) -> None:
    seal_bare(desk)
    command = ["openssl", "cms", "-decrypt", "-inform", "DER", "-in", str(desk / "pakke.cms")]
    opened = subprocess.run([*command, "-inkey", str(desk / "kommune.key")], capture_output=True, check=True)
    assert opened.stdout == desk.PDF


@pytest.mark.openssl
@pytest.mark.parametrize("oaep", [True, False])
@pytest.mark.parametrize("with_certificate", [True, False])
def test_we_open_openssls(desk: Desk, *, oaep: bool, with_certificate: bool) -> None:
    desk.encrypt_with_openssl(oaep=oaep)
    extra = ["--sertifikat", desk / "kommune.pem"] if with_certificate else []
    assert open_bare(desk, *extra, desk / "pakke.cms").exit_code == 0
    assert (desk / "inn.pdf").read_bytes() == desk.PDF


@pytest.mark.parametrize("cut", [1, 17, 4000])
def test_a_truncated_envelope_leaves_nothing_behind(desk: Desk, cut: int) -> None:
    seal_bare(desk)
    sealed = (desk / "pakke.cms").read_bytes()
    (desk / "pakke.cms").write_bytes(sealed[:-cut])
    before = desk.everything()
    assert open_bare(desk).exit_code == 1
    assert desk.everything() == before


def test_does_not_replace_a_result_unasked(desk: Desk) -> None:
    seal_bare(desk)
    (desk / "inn.pdf").write_bytes(b"viktig")
    assert open_bare(desk).exit_code == 1
    assert (desk / "inn.pdf").read_bytes() == b"viktig"
    assert open_bare(desk, "--overskriv", desk / "pakke.cms").exit_code == 0
