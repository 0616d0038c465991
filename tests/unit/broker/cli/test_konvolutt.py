from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from rich.console import Console
from typer.testing import CliRunner, Result

from broker.cli import konvolutt_files
from broker.cli.konvolutt import app
from broker.cli.konvolutt_files import progress
from broker.cli.konvolutt_seal import mimetype
from crypto import (
    AsiceWriter,
    Authority,
    PrivateKey,
    Signer,
    certificate_pem,
    nokkel_id,
    seal,
    seal_package,
    write_private_key,
)
from schemas.names import Organisasjonsnummer

NAV = Organisasjonsnummer("889640782")
OSLO = Organisasjonsnummer("958935420")
NOW = datetime.now(UTC)
PDF = b"%PDF-1.7 " + bytes(range(256)) * 40
IDENTITY = (
    *("--digisos-id", "0e0d8a1c-5f5c-4a55-8d1c-3d2f6f8f0b11"),
    *("--melding-id", "7b7fd0c2-7b44-4d4e-9f65-0d1d8a6d2a22"),
    *("--kommune", "0301"),
    *("--type", "SOKNAD"),
)
SECRET = b"hemmelig"


@dataclass(frozen=True)
class Keys:
    """Who takes part; made once, because RSA keys take time."""

    authority: Authority
    kommune: tuple[x509.Certificate, rsa.RSAPrivateKey]
    other: tuple[x509.Certificate, rsa.RSAPrivateKey]
    sender: tuple[x509.Certificate, PrivateKey]
    stranger: Authority

    @property
    def signer(self) -> Signer:
        return Signer(*self.sender)


@pytest.fixture(scope="module")
def keys() -> Keys:
    authority = Authority.create(NOW)

    def encryption(name: str) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
        certificate, key = authority.issue(name, OSLO, purpose="kryptering", now=NOW, key="rsa2048")
        assert isinstance(key, rsa.RSAPrivateKey)
        return certificate, key

    return Keys(
        authority=authority,
        kommune=encryption("Oslo kommune"),
        other=encryption("Bergen kommune"),
        sender=authority.issue("NAV", NAV, purpose="signering", now=NOW, key="p256"),
        stranger=Authority.create(NOW, "Fremmed CA"),
    )


@dataclass(frozen=True)
class Desk:
    """A folder with everything that a vendor has, and the command to run in it."""

    folder: Path
    keys: Keys

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def run(self, *arguments: object, stdin: bytes | None = None, env: dict[str, str] | None = None) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin, env=env)

    def seal(self, *arguments: object, files: Sequence[object] | None = None) -> Result:
        return self.run(
            *("seal", "--mottaker", self / "kommune.pem", "--avsender", self / "nav.pem"),
            *("--nokkel", self / "nav.key", "--ut", self / "pakke.cms", *arguments),
            *([self / "soknad.json", self / "soknad.pdf"] if files is None else files),
        )

    def open(self, *arguments: object, key: str = "kommune.key", root: str = "ca.pem") -> Result:
        return self.run(
            *("open", "--nokkel", self / key, "--rot", self / root, "--mappe", self / "ut"),
            *(arguments or ["--tillat-uten-forsendelse"]),
            self / "pakke.cms",
        )

    def inspect(self, *arguments: object) -> dict[str, Any]:
        result = self.run("inspect", self / "pakke.cms", "--json", *arguments)
        document: dict[str, Any] = json.loads(result.stdout)
        assert result.exit_code == (0 if document["ok"] else 1)
        return document

    def inspect_with_key(self, *arguments: object) -> dict[str, Any]:
        return self.inspect("--nokkel", self / "kommune.key", "--rot", self / "ca.pem", *arguments)

    def put(self, archive: bytes) -> None:
        """Seal an archive of a test's own making."""
        (self / "pakke.cms").write_bytes(seal(archive, self.keys.kommune[0]))

    def everything(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}


@pytest.fixture
def desk(tmp_path: Path, keys: Keys) -> Desk:
    for name, certificate in (
        ("ca", keys.authority.certificate),
        ("fremmed", keys.stranger.certificate),
        ("kommune", keys.kommune[0]),
        ("bergen", keys.other[0]),
        ("nav", keys.sender[0]),
    ):
        (tmp_path / f"{name}.pem").write_bytes(certificate_pem(certificate))
    for name, key in (("kommune", keys.kommune[1]), ("bergen", keys.other[1]), ("nav", keys.sender[1])):
        write_private_key(tmp_path / f"{name}.key", key)
    (tmp_path / "soknad.json").write_bytes(b'{"soknad": 1}')
    (tmp_path / "soknad.pdf").write_bytes(PDF)
    return Desk(tmp_path, keys)


def make_archive(signer: Signer, files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    writer = AsiceWriter(out.write, signer=signer, now=NOW)
    for name, content in files.items():
        with writer.add(name, "application/octet-stream") as entry:
            entry.write(content)
    writer.finish()
    return out.getvalue()


def rebuilt(archive: bytes, change: Callable[[dict[str, bytes]], object]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as old:
        entries = {info.filename: old.read(info) for info in old.infolist()}
        comment = old.comment
    change(entries)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as new:
        new.comment = comment
        for name, content in entries.items():
            new.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def said(result: Result) -> str:
    """Return what a person was told, with boxes and line breaks taken out."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", result.stderr)


def texts(document: dict[str, Any], *, wrong: bool = True) -> str:
    return "\n".join(f"{each['hvor']}: {each['tekst']}" for each in document["funn"] if each["feil"] is wrong)


class TestSealAndOpen:
    def test_gives_the_same_bytes_back_to_their_owner_alone(self, desk: Desk) -> None:
        sealed = desk.seal()
        opened = desk.open()
        assert (sealed.exit_code, opened.exit_code) == (0, 0), sealed.stderr + opened.stderr
        assert (desk / "ut/soknad.pdf").read_bytes() == PDF
        assert (desk / "ut/soknad.json").read_bytes() == b'{"soknad": 1}'
        assert (desk / "ut").stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in (desk / "ut").iterdir()} == {0o600}
        assert PDF[:40] not in (desk / "pakke.cms").read_bytes()

    def test_answers_in_json_that_agree_with_each_other(self, desk: Desk) -> None:
        sealed = json.loads(desk.seal("--json").stdout)
        opened = json.loads(desk.open("--tillat-uten-forsendelse", "--json").stdout)
        assert sealed["ok"]
        assert opened["ok"]
        assert opened["filer"] == sealed["filer"]
        assert opened["avsender"] == sealed["avsender"]
        assert opened["avsender"]["organisasjonsnummer"] == NAV
        assert opened["sha256"] == sealed["sha256"]
        assert sealed["nokkelId"] == nokkel_id(desk.keys.kommune[0])
        assert [file["mimetype"] for file in sealed["filer"]] == ["application/json", "application/pdf"]

    def test_signs_a_forsendelse_when_it_is_told_what_the_package_is(self, desk: Desk) -> None:
        assert desk.seal(*IDENTITY).exit_code == 0
        opened = desk.open("--json")
        forsendelse = json.loads(opened.stdout)["forsendelse"]
        assert forsendelse["kommunenummer"] == "0301"
        assert forsendelse["type"] == "SOKNAD"
        assert json.loads((desk / "ut/forsendelse.json").read_bytes()) == forsendelse

    def test_refuses_a_package_without_forsendelse_unless_told_otherwise(self, desk: Desk) -> None:
        desk.seal()
        refused = desk.open("--json")
        assert refused.exit_code == 1
        assert json.loads(refused.stdout)["kode"] == "krypto.apning"
        assert not (desk / "ut").exists()

    def test_names_what_is_missing_of_a_forsendelse(self, desk: Desk) -> None:
        result = desk.seal(*IDENTITY[:4])
        assert result.exit_code == 2
        assert "mangler --kommune, --type" in said(result)

    def test_refuses_an_id_of_another_form_without_repeating_it(self, desk: Desk) -> None:
        result = desk.seal("--digisos-id", "01010112345", *IDENTITY[2:])
        assert result.exit_code == 1
        assert "01010112345" not in result.output
        assert not (desk / "pakke.cms").exists()

    def test_trusts_a_pinned_certificate_as_root(self, desk: Desk) -> None:
        desk.seal()
        assert desk.open(root="nav.pem").exit_code == 0

    def test_several_roots_are_alternatives(self, desk: Desk) -> None:
        desk.seal()
        assert desk.open("--tillat-uten-forsendelse", "--rot", desk / "ca.pem", root="fremmed.pem").exit_code == 0

    def test_refuses_a_signer_whom_nobody_named(self, desk: Desk) -> None:
        desk.seal()
        before = desk.everything()
        assert desk.open(root="fremmed.pem").exit_code == 1
        assert desk.everything() == before

    def test_tries_several_keys(self, desk: Desk) -> None:
        desk.seal()
        result = desk.open("--tillat-uten-forsendelse", "--nokkel", desk / "kommune.key", key="bergen.key")
        assert result.exit_code == 0

    def test_refuses_another_receivers_package(self, desk: Desk) -> None:
        desk.seal()
        assert desk.open(key="bergen.key").exit_code == 1

    def test_matches_a_key_to_its_recipient_when_its_certificate_is_given(self, desk: Desk) -> None:
        desk.seal()
        result = desk.open("--tillat-uten-forsendelse", "--sertifikat", desk / "kommune.pem")
        assert result.exit_code == 0

    def test_a_certificate_of_another_key_is_a_mistake(self, desk: Desk) -> None:
        desk.seal()
        result = desk.open("--tillat-uten-forsendelse", "--sertifikat", desk / "bergen.pem")
        assert result.exit_code == 1
        assert "ingen av nøklene hører til sertifikatet" in said(result)

    @pytest.mark.parametrize("at", [1, 900, -40, -1])
    def test_a_tampered_package_leaves_nothing_behind(self, desk: Desk, at: int) -> None:
        desk.seal()
        sealed = bytearray((desk / "pakke.cms").read_bytes())
        sealed[at] ^= 1
        (desk / "pakke.cms").write_bytes(sealed)
        before = desk.everything()
        result = desk.open()
        assert result.exit_code == 1
        assert "pakken kan ikke åpnes" in said(result)
        assert "formidler konvolutt inspect" in said(result)
        assert desk.everything() == before

    def test_a_failure_while_writing_leaves_nothing_behind(self, desk: Desk) -> None:
        desk.put(make_archive(desk.keys.signer, {"vedlegg": b"en fil", "vedlegg/hus.pdf": PDF}))
        before = desk.everything()
        result = desk.open()
        assert result.exit_code == 1
        assert "kan ikke skrives" in said(result)
        assert desk.everything() == before

    def test_keeps_folders_inside_a_package(self, desk: Desk) -> None:
        desk.put(make_archive(desk.keys.signer, {"vedlegg/hus.pdf": PDF}))
        assert desk.open().exit_code == 0
        assert (desk / "ut/vedlegg/hus.pdf").read_bytes() == PDF
        assert (desk / "ut/vedlegg").stat().st_mode & 0o777 == 0o700

    def test_fills_an_empty_folder(self, desk: Desk) -> None:
        desk.seal()
        (desk / "ut").mkdir()
        assert desk.open().exit_code == 0

    def test_refuses_a_folder_that_is_not_empty(self, desk: Desk) -> None:
        desk.seal()
        (desk / "ut").mkdir()
        (desk / "ut/mitt").write_bytes(b"mitt")
        result = desk.open()
        assert result.exit_code == 1
        assert "er ikke tom" in said(result)
        assert [path.name for path in (desk / "ut").iterdir()] == ["mitt"]

    def test_refuses_a_folder_in_a_folder_that_does_not_exist(self, desk: Desk) -> None:
        result = desk.run(
            *("open", "--nokkel", desk / "kommune.key", "--rot", desk / "ca.pem"),
            *("--mappe", desk / "ikke/her", desk / "pakke.cms"),
        )
        assert result.exit_code == 1
        assert "lag den først" in said(result)


class TestSeal:
    def test_reduces_paths_to_their_last_part(self, desk: Desk) -> None:
        (desk / "dypt/nede").mkdir(parents=True)
        (desk / "dypt/nede/hus.pdf").write_bytes(PDF)
        desk.seal(files=[desk / "dypt/nede/hus.pdf"])
        desk.open()
        assert [path.name for path in (desk / "ut").iterdir()] == ["hus.pdf"]

    def test_refuses_two_files_that_get_the_same_name(self, desk: Desk) -> None:
        (desk / "b").mkdir()
        (desk / "b/SOKNAD.pdf").write_bytes(b"annet")
        result = desk.seal(files=[desk / "soknad.pdf", desk / "b/SOKNAD.pdf"])
        assert result.exit_code == 1
        assert "b/SOKNAD.pdf får samme navn" in said(result)
        assert not (desk / "pakke.cms").exists()

    def test_refuses_a_name_that_receivers_refuse(self, desk: Desk) -> None:
        (desk / "en:to.pdf").write_bytes(PDF)
        assert desk.seal(files=[desk / "en:to.pdf"]).exit_code == 1

    @pytest.mark.parametrize(
        ("missing", "reason"), [("borte.pdf", "filen finnes ikke"), (".", "er ikke en vanlig fil")]
    )
    def test_says_which_file_is_not_one(self, desk: Desk, missing: str, reason: str) -> None:
        result = desk.seal(files=[desk / missing])
        assert result.exit_code == 1
        assert reason in said(result)

    def test_does_not_replace_a_result_unasked(self, desk: Desk) -> None:
        (desk / "pakke.cms").write_bytes(b"viktig")
        refused = desk.seal()
        assert refused.exit_code == 1
        assert "--overskriv" in said(refused)
        assert (desk / "pakke.cms").read_bytes() == b"viktig"
        assert desk.seal("--overskriv").exit_code == 0
        assert desk.open().exit_code == 0

    def test_never_replaces_a_file_that_it_reads(self, desk: Desk) -> None:
        result = desk.seal("--overskriv", "--ut", desk / "soknad.pdf")
        assert result.exit_code == 1
        assert (desk / "soknad.pdf").read_bytes() == PDF

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
    def test_finds_the_type_by_content_and_then_by_name(self, name: str, start: bytes, expected: str) -> None:
        assert mimetype(name, start) == expected

    def test_refuses_a_recipient_that_has_expired(self, desk: Desk) -> None:
        old = desk.keys.authority.certify(
            desk.keys.kommune[1], "Oslo", OSLO, purpose="kryptering", now=NOW, valid_days=-2
        )
        (desk / "gammel.pem").write_bytes(certificate_pem(old))
        result = desk.seal("--mottaker", desk / "gammel.pem")
        assert result.exit_code == 1
        assert "gikk ut" in said(result)
        assert "gammel.pem" in said(result)

    def test_refuses_to_sign_with_a_certificate_for_encryption(self, desk: Desk) -> None:
        result = desk.seal("--avsender", desk / "kommune.pem", "--nokkel", desk / "kommune.key")
        assert result.exit_code == 1
        assert "ikke for signering" in said(result)

    def test_sends_the_rest_of_the_senders_file_along_as_chain(self, desk: Desk) -> None:
        with (desk / "nav.pem").open("ab") as file:
            file.write(certificate_pem(desk.keys.authority.certificate))
        desk.seal()
        assert desk.open().exit_code == 0

    @pytest.mark.parametrize("option", ["--avsender", "--nokkel"])
    def test_needs_a_sender(self, desk: Desk, option: str) -> None:
        given = {"--avsender": desk / "nav.pem", "--nokkel": desk / "nav.key"}
        del given[option]
        (other, path), *_ = given.items()
        result = desk.run(
            "seal", "--mottaker", desk / "kommune.pem", other, path, "--ut", desk / "x", desk / "soknad.pdf"
        )
        assert result.exit_code == 2
        assert option in said(result)


class TestKeys:
    def test_a_key_that_others_can_read_is_refused_with_what_to_do(self, desk: Desk) -> None:
        (desk / "nav.key").chmod(0o640)
        result = desk.seal()
        assert result.exit_code == 1
        assert f"chmod 600 {desk / 'nav.key'}" in said(result)

    def test_a_missing_key_is_named(self, desk: Desk) -> None:
        result = desk.seal("--nokkel", desk / "borte.key")
        assert result.exit_code == 1
        assert "borte.key" in said(result)

    def test_what_is_not_pem_is_said_to_be_that(self, desk: Desk) -> None:
        (desk / "tull.key").write_bytes(b"tull")
        (desk / "tull.key").chmod(0o600)
        result = desk.seal("--nokkel", desk / "tull.key")
        assert "ikke en privat nøkkel i PEM" in said(result)

    def test_what_is_not_a_certificate_is_said_to_be_that(self, desk: Desk) -> None:
        result = desk.seal("--mottaker", desk / "soknad.pdf")
        assert result.exit_code == 1
        assert "ikke et X.509-sertifikat" in said(result)

    def test_pkcs12_comes_with_a_way_out(self, desk: Desk) -> None:
        assert "openssl pkcs12" in said(desk.seal("--nokkel", desk / "nokkel.p12"))

    def test_a_key_of_another_certificate_is_a_mistake(self, desk: Desk) -> None:
        result = desk.seal("--nokkel", desk / "kommune.key")
        assert result.exit_code == 1
        assert "hører ikke til sertifikatet" in said(result)

    def test_an_ec_key_opens_nothing(self, desk: Desk) -> None:
        desk.seal()
        assert "RSA" in said(desk.open(key="nav.key"))

    def test_an_encrypted_key_asks_for_its_password(self, desk: Desk) -> None:
        self.encrypt(desk)
        result = desk.seal()
        assert result.exit_code == 1
        assert "--passord-fil" in said(result)

    def test_a_wrong_password_is_called_wrong(self, desk: Desk) -> None:
        self.encrypt(desk)
        (desk / "passord").write_bytes(b"galt\n")
        result = desk.seal("--passord-fil", desk / "passord")
        assert result.exit_code == 1
        assert "feil passord" in said(result)
        assert "galt" not in result.output

    def test_the_password_comes_from_a_file(self, desk: Desk) -> None:
        self.encrypt(desk)
        (desk / "passord").write_bytes(SECRET + b"\n")
        assert desk.seal("--passord-fil", desk / "passord").exit_code == 0

    def test_the_password_comes_from_the_environment(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        self.encrypt(desk)
        monkeypatch.setenv("FORMIDLER_NOKKEL_PASSORD", SECRET.decode())
        assert desk.seal().exit_code == 0

    @staticmethod
    def encrypt(desk: Desk) -> None:
        key = desk.keys.sender[1]
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(SECRET))
        (desk / "nav.key").write_bytes(pem)


class TestBare:
    def seal(self, desk: Desk, *arguments: object) -> Result:
        return desk.run(
            *("seal", "--bare", "--mottaker", desk / "kommune.pem", "--ut", desk / "pakke.cms"),
            *(arguments or [desk / "soknad.pdf"]),
        )

    def open(self, desk: Desk, *arguments: object) -> Result:
        return desk.run(
            *("open", "--bare", "--nokkel", desk / "kommune.key", "--ut", desk / "inn.pdf"),
            *(arguments or [desk / "pakke.cms"]),
        )

    def test_gives_the_same_bytes_back_and_warns(self, desk: Desk) -> None:
        assert self.seal(desk).exit_code == 0
        result = self.open(desk)
        assert result.exit_code == 0
        assert "beskytter ikke mot endring" in said(result)
        assert (desk / "inn.pdf").read_bytes() == PDF
        assert (desk / "inn.pdf").stat().st_mode & 0o777 == 0o600

    def test_answers_in_json(self, desk: Desk) -> None:
        sealed = json.loads(self.seal(desk, "--json", desk / "soknad.pdf").stdout)
        opened = json.loads(self.open(desk, "--json", desk / "pakke.cms").stdout)
        assert sealed["klartekstStorrelse"] == opened["storrelse"] == len(PDF)
        assert sealed["sha256"] == opened["sha256"]
        assert opened["advarsler"]

    @pytest.mark.openssl
    def test_openssl_opens_ours(self, desk: Desk) -> None:
        self.seal(desk)
        command = ["openssl", "cms", "-decrypt", "-inform", "DER", "-in", str(desk / "pakke.cms")]
        opened = subprocess.run([*command, "-inkey", str(desk / "kommune.key")], capture_output=True, check=True)
        assert opened.stdout == PDF

    @pytest.mark.openssl
    @pytest.mark.parametrize("oaep", [True, False])
    @pytest.mark.parametrize("with_certificate", [True, False])
    def test_we_open_openssls(self, desk: Desk, *, oaep: bool, with_certificate: bool) -> None:
        encrypt_with_openssl(desk, oaep=oaep)
        extra = ["--sertifikat", desk / "kommune.pem"] if with_certificate else []
        assert self.open(desk, *extra, desk / "pakke.cms").exit_code == 0
        assert (desk / "inn.pdf").read_bytes() == PDF

    @pytest.mark.parametrize("cut", [1, 17, 4000])
    def test_a_truncated_envelope_leaves_nothing_behind(self, desk: Desk, cut: int) -> None:
        self.seal(desk)
        sealed = (desk / "pakke.cms").read_bytes()
        (desk / "pakke.cms").write_bytes(sealed[:-cut])
        before = desk.everything()
        assert self.open(desk).exit_code == 1
        assert desk.everything() == before

    def test_does_not_replace_a_result_unasked(self, desk: Desk) -> None:
        self.seal(desk)
        (desk / "inn.pdf").write_bytes(b"viktig")
        assert self.open(desk).exit_code == 1
        assert (desk / "inn.pdf").read_bytes() == b"viktig"
        assert self.open(desk, "--overskriv", desk / "pakke.cms").exit_code == 0

    @pytest.mark.parametrize(
        "arguments",
        [
            ("open", "--bare", "--nokkel", "k", "--ut", "u", "--rot", "r", "f"),
            ("open", "--bare", "--nokkel", "k", "--ut", "u", "--mappe", "m", "f"),
            ("open", "--bare", "--nokkel", "k", "f"),
            ("open", "--bare", "--nokkel", "k", "--ut", "-", "--json", "f"),
            ("open", "--nokkel", "k", "--rot", "r", "--mappe", "m", "--ut", "u", "f"),
            ("open", "--nokkel", "k", "--mappe", "m", "f"),
            ("open", "--rot", "r", "--mappe", "m", "f"),
            ("seal", "--bare", "--mottaker", "m", "--ut", "u", "--avsender", "a", "f"),
            ("seal", "--bare", "--mottaker", "m", "--ut", "u", "f", "g"),
            ("seal", "--bare", "--mottaker", "m", "--ut", "-", "--json", "f"),
            ("seal", "--mottaker", "m", "--ut", "-", "--avsender", "a", "--nokkel", "k", "f"),
            ("inspect", "--rot", "r", "f"),
        ],
    )
    def test_options_that_do_not_fit_together_are_wrong_usage(self, arguments: tuple[str, ...]) -> None:
        assert CliRunner().invoke(app, arguments).exit_code == 2


def encrypt_with_openssl(desk: Desk, *, oaep: bool = True, cipher: str = "-aes256") -> None:
    options = ["rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256"] if oaep else []
    command = ["openssl", "cms", "-encrypt", cipher, "-binary", "-outform", "DER", "-in", str(desk / "soknad.pdf")]
    command += ["-out", str(desk / "pakke.cms"), "-recip", str(desk / "kommune.pem")]
    command += [part for option in options for part in ("-keyopt", option)]
    subprocess.run(command, check=True, capture_output=True)


class TestInspect:
    def test_tells_without_a_key_whom_an_envelope_is_for(self, desk: Desk) -> None:
        desk.seal()
        document = desk.inspect()
        envelope = document["konvolutt"]
        certificate = desk.keys.kommune[0]
        assert (envelope["type"], envelope["koding"]) == ("EnvelopedData", "BER")
        assert envelope["innholdskryptering"] == "AES-256-CBC"
        (recipient,) = envelope["mottakere"]
        assert recipient["serienummer"] == f"{certificate.serial_number:x}"
        assert recipient["utsteder"] == certificate.issuer.rfc4514_string()
        assert recipient["nokkeltransport"] == "RSAES-OAEP (SHA-256, MGF1 med SHA-256)"
        assert recipient["nokkelBit"] == 2048
        assert document["storrelse"] == (desk / "pakke.cms").stat().st_size
        assert document["pakke"] is None
        assert document["ok"]

    def test_tells_der_from_ber(self, desk: Desk) -> None:
        sealed, _ = seal_package(
            [("a", "text/plain", b"a")], recipient=desk.keys.kommune[0], signer=desk.keys.signer, now=NOW
        )
        (desk / "pakke.cms").write_bytes(sealed)
        assert desk.inspect()["konvolutt"]["koding"] == "DER"

    def test_tells_its_key_owner_what_is_inside(self, desk: Desk) -> None:
        sealed = json.loads(desk.seal(*IDENTITY, "--json").stdout)
        document = desk.inspect_with_key()
        package = document["pakke"]
        assert [{key: file[key] for key in sealed["filer"][0]} for file in package["filer"]] == sealed["filer"]
        (signer,) = package["underskrivere"]
        assert signer["sertifikat"] == sealed["avsender"]
        assert signer["digest"] == "SHA-256"
        assert package["forsendelse"] == sealed["forsendelse"]
        assert document["konvolutt"]["mottakere"][0]["nokler"] == [{"fil": str(desk / "kommune.key"), "passer": True}]
        assert document["funn"] == []

    def test_says_that_the_sender_is_not_checked_without_a_root(self, desk: Desk) -> None:
        desk.seal(*IDENTITY)
        document = desk.inspect("--nokkel", desk / "kommune.key")
        assert document["ok"]
        assert "ikke kontrollert" in texts(document, wrong=False)

    def test_speaks_to_people(self, desk: Desk) -> None:
        desk.seal(*IDENTITY)
        result = desk.run("inspect", desk / "pakke.cms", "--nokkel", desk / "kommune.key", "--rot", desk / "ca.pem")
        for expected in ("AES-256-CBC", "Oslo", "kommune.key: passer", f"orgnr {NAV}", "soknad.pdf", "Ingenting galt"):
            assert expected in result.stdout or expected == "Oslo", expected

    def test_writes_no_plaintext_anywhere(self, desk: Desk) -> None:
        desk.seal()
        before = desk.everything()
        desk.inspect_with_key()
        assert desk.everything() == before

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"", "filen er tom"),
            (b"-----BEGIN CMS-----\nMIAG\n", "PEM"),
            (b"MIAGCSqGSIb3DQEHA6CAMIACAQAxgg", "base64"),
            (b"MIME-Version: 1.0\n", "S/MIME"),
            (b"PK\x03\x04 et arkiv", "zip-arkiv i klartekst"),
            (b"\x00\x01\x02", "ikke CMS"),
        ],
    )
    def test_recognises_what_is_not_an_envelope(self, desk: Desk, content: bytes, expected: str) -> None:
        (desk / "pakke.cms").write_bytes(content)
        assert expected in texts(desk.inspect())

    @pytest.mark.openssl
    def test_names_a_cipher_that_the_contract_does_not_have(self, desk: Desk) -> None:
        encrypt_with_openssl(desk, cipher="-aes-128-cbc")
        document = desk.inspect()
        assert document["konvolutt"]["innholdskryptering"] == "AES-128-CBC"
        assert "AES-128-CBC; avtalen er AES-256-CBC" in texts(document)

    @pytest.mark.openssl
    def test_names_authenticated_encryption(self, desk: Desk) -> None:
        encrypt_with_openssl(desk, cipher="-aes-256-gcm")
        document = desk.inspect()
        assert document["konvolutt"]["type"] == "AuthEnvelopedData"
        assert document["konvolutt"]["innholdskryptering"] == "AES-256-GCM"
        assert document["konvolutt"]["mottakere"][0]["nokkelBit"] == 2048
        assert "AuthEnvelopedData" in texts(document)

    def test_tells_how_far_a_truncated_file_goes(self, desk: Desk) -> None:
        desk.seal()
        sealed = (desk / "pakke.cms").read_bytes()
        (desk / "pakke.cms").write_bytes(sealed[:-30])
        assert f"etter {len(sealed) - 30} byte" in texts(desk.inspect())

    def test_tells_that_something_follows_the_end(self, desk: Desk) -> None:
        desk.seal()
        with (desk / "pakke.cms").open("ab") as file:
            file.write(b"mer")
        assert "strukturen brytes" in texts(desk.inspect())

    def test_tells_that_the_key_is_another_receivers(self, desk: Desk) -> None:
        desk.seal()
        document = desk.inspect("--nokkel", desk / "bergen.key")
        assert "ingen av nøklene" in texts(document)
        assert document["konvolutt"]["mottakere"][0]["nokler"][0]["passer"] is False

    def test_finds_the_right_one_of_several_keys(self, desk: Desk) -> None:
        desk.seal(*IDENTITY)
        document = desk.inspect_with_key("--nokkel", desk / "bergen.key")
        assert document["ok"]
        assert [key["passer"] for key in document["konvolutt"]["mottakere"][0]["nokler"]] == [True, False]

    @pytest.mark.openssl
    def test_cannot_be_sure_of_a_key_under_pkcs1(self, desk: Desk) -> None:
        encrypt_with_openssl(desk, oaep=False)
        document = desk.inspect("--nokkel", desk / "kommune.key")
        assert document["konvolutt"]["mottakere"][0]["nokler"][0]["passer"] is None
        assert "en PDF; er det bare CMS, så åpne det med --bare" in texts(document)

    def test_tells_that_the_last_block_is_damaged(self, desk: Desk) -> None:
        desk.put(make_archive(desk.keys.signer, {"a": b"a"}))
        sealed = bytearray((desk / "pakke.cms").read_bytes())
        sealed[-20] ^= 0xFF  # the block before the last: its change shows in the padding
        sealed[-17] ^= 0xFF
        (desk / "pakke.cms").write_bytes(sealed)
        assert "innhold: utfyllingen" in texts(desk.inspect_with_key())

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (lambda e: e.update({"soknad.json": b"{}"}), "filer: soknad.json: innholdet er endret etter signering"),
            (lambda e: e.update({"ekstra.txt": b"x"}), "filer: ekstra.txt: står ikke i manifestet"),
            (lambda e: e.pop("soknad.json"), "filer: soknad.json: står i manifestet, men er ikke i arkivet"),
            (lambda e: e.pop("META-INF/ASiCManifest.xml"), "skal finnes én gang, og finnes 0 ganger"),
            (lambda e: e.update({"META-INF/x.bin": b"x"}), "arkiv: META-INF/x.bin: filnavnet er reservert"),
            (lambda e: e.update({"../ut.txt": b"x"}), "arkiv: ../ut.txt: filnavnet har"),
            (lambda e: e.update({"mimetype": b"text/plain"}), "mimetype"),
            (
                lambda e: e.update({"META-INF/ASiCManifest.xml": e["META-INF/ASiCManifest.xml"] + b" "}),
                "signatur: signaturen er over andre byte enn manifestet",
            ),
            (lambda e: e.update({"META-INF/ASiCManifest.xml": b"<!DOCTYPE x><x/>"}), "dokumenttype"),
            (lambda e: e.update({"META-INF/ASiCManifest.xml": b"<x>"}), "ikke gyldig XML"),
            (
                lambda e: e.update(
                    {"META-INF/ASiCManifest.xml": e["META-INF/ASiCManifest.xml"].replace(b"#sha256", b"#md5")}
                ),
                "xmlenc#md5",
            ),
            (
                lambda e: e.update({next(n for n in e if n.endswith(".p7s")): b"tull"}),
                "signatur: signaturen er ikke en CMS SignedData",
            ),
            (lambda e: e.pop(next(n for n in e if n.endswith(".p7s"))), "signaturer i arkivet: ingen"),
            (lambda e: e.update({"forsendelse.json": b"{}"}), "forsendelse: forsendelse.json"),
        ],
    )
    def test_tells_which_check_fails(
        self, desk: Desk, change: Callable[[dict[str, bytes]], object], expected: str
    ) -> None:
        archive = make_archive(desk.keys.signer, {"soknad.json": b'{"soknad": 1}', "soknad.pdf": PDF})
        desk.put(rebuilt(archive, change))
        assert expected in texts(desk.inspect_with_key())
        assert desk.open().exit_code == 1

    def test_tells_that_the_signature_value_is_wrong(self, desk: Desk) -> None:
        archive = make_archive(desk.keys.signer, {"soknad.pdf": PDF})

        def flip(entries: dict[str, bytes]) -> None:
            name = next(name for name in entries if name.endswith(".p7s"))
            entries[name] = entries[name][:-1] + bytes((entries[name][-1] ^ 1,))

        desk.put(rebuilt(archive, flip))
        assert "signaturverdien stemmer ikke" in texts(desk.inspect_with_key())

    def test_tells_that_the_sender_is_not_trusted(self, desk: Desk) -> None:
        desk.seal()
        document = desk.inspect("--nokkel", desk / "kommune.key", "--rot", desk / "fremmed.pem")
        assert "avsender: avsenderens sertifikat er verken festet eller utstedt" in texts(document)

    def test_tells_that_the_senders_certificate_has_expired(self, desk: Desk) -> None:
        certificate = desk.keys.authority.certify(
            desk.keys.sender[1], "NAV", NAV, purpose="signering", now=NOW, valid_days=-2
        )
        desk.put(make_archive(Signer(certificate, desk.keys.sender[1]), {"soknad.pdf": PDF}))
        assert "avsender: sertifikatet gikk ut" in texts(desk.inspect_with_key())

    def test_says_how_an_archive_breaks_the_rules(self, desk: Desk) -> None:
        archive = make_archive(desk.keys.signer, {"soknad.pdf": PDF})
        desk.put(b"foran" + archive)
        assert "arkiv" in texts(desk.inspect_with_key())

    def test_letters_that_steer_a_terminal_are_written_out(self, desk: Desk) -> None:
        archive = make_archive(desk.keys.signer, {"soknad.pdf": PDF})
        desk.put(rebuilt(archive, lambda entries: entries.update({"a\x1b[2J[red]b": b"x"})))
        result = desk.run("inspect", desk / "pakke.cms", "--nokkel", desk / "kommune.key")
        assert result.exit_code == 1
        assert "\x1b" not in result.stdout
        assert "\\x1b[2J[red]b" in result.stdout

    def test_a_missing_file_is_named_in_json_too(self, desk: Desk) -> None:
        result = desk.run("inspect", desk / "borte.cms", "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout) == {
            "ok": False,
            "feil": f"{desk / 'borte.cms'}: filen finnes ikke; sjekk navnet",
            "kode": "oppsett",
        }


class TestPage:
    PAGE = Path(__file__).parents[4] / "docs/konvolutt.md"

    def test_every_option_on_the_vendors_page_exists(self) -> None:
        page = self.PAGE.read_text("utf-8")
        helped = "".join(
            CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout
            for command in ("seal", "open", "inspect")
        )
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", page))
        assert len(named) > 10
        assert {option for option in named if option not in helped} == set()

    @pytest.mark.openssl
    def test_the_page_opens_and_verifies_our_package_with_openssl_alone(self, desk: Desk) -> None:
        assert desk.seal().exit_code == 0
        for name in ("kommune.key", "pakke.cms", "ca.pem"):
            assert (desk / name).exists()
        block = next(block for block in self.blocks() if "unzip" in block)
        program = block.replace("unzip -q pakke.asice -d ut", f"{sys.executable} -m zipfile -e pakke.asice ut")
        done = subprocess.run(["sh", "-ec", program], cwd=desk.folder, capture_output=True, check=True)
        assert b"Verification successful" in done.stderr
        assert done.stdout.strip() in (desk / "ut/META-INF/ASiCManifest.xml").read_bytes()

    @pytest.mark.openssl
    def test_the_pages_own_key_pair_serves(self, desk: Desk) -> None:
        block = next(block for block in self.blocks() if "openssl req" in block)
        subprocess.run(["sh", "-ec", block], cwd=desk.folder, capture_output=True, check=True)
        assert desk.seal().exit_code == 0
        assert desk.open().exit_code == 0

    def blocks(self) -> list[str]:
        return re.findall(r"```sh\n(.*?)```", self.PAGE.read_text("utf-8"), re.DOTALL)


class TestProcess:
    """The command as it is really run."""

    def formidler(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "broker.cli", "konvolutt", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, check=False, **options)

    def test_round_trip_through_pipes(self, desk: Desk) -> None:
        sealed = self.formidler("seal", "--bare", "--mottaker", desk / "kommune.pem", "--ut", "-", "-", input=PDF)
        assert sealed.returncode == 0, sealed.stderr
        key = desk / "kommune.key"
        opened = self.formidler("open", "--bare", "--nokkel", key, "--ut", "-", "-", input=sealed.stdout)
        assert (opened.returncode, opened.stdout) == (0, PDF)
        assert "beskytter ikke mot endring" in opened.stderr.decode()

    def test_nothing_comes_out_of_a_damaged_pipe(self, desk: Desk) -> None:
        sealed = self.formidler("seal", "--bare", "--mottaker", desk / "kommune.pem", "--ut", "-", "-", input=PDF)
        key = desk / "kommune.key"
        opened = self.formidler("open", "--bare", "--nokkel", key, "--ut", "-", "-", input=sealed.stdout[:-2])
        assert (opened.returncode, opened.stdout) == (1, b"")

    @pytest.mark.parametrize(("command", "expected"), [("seal", 2), ("open", 2), ("inspect", 2)])
    def test_without_arguments_is_wrong_usage(self, command: str, expected: int) -> None:
        assert self.formidler(command).returncode == expected

    @pytest.mark.parametrize("command", ["seal", "open", "inspect"])
    def test_help_has_an_example(self, command: str) -> None:
        result = self.formidler(command, "--help", env={**os.environ, "COLUMNS": "200"})
        assert f"Eksempel: formidler konvolutt {command}" in result.stdout.decode()

    def test_loads_neither_a_web_framework_nor_kafka(self, desk: Desk) -> None:
        desk.seal()
        program = (
            "import sys; from broker.cli.main import app\n"
            f"sys.argv[1:] = ['konvolutt', 'inspect', {str(desk / 'pakke.cms')!r}, '--json']\n"
            "try: app()\n"
            "except SystemExit as end: assert not end.code, end.code\n"
            "print(sorted({'fastapi', 'starlette', 'uvicorn', 'aiokafka', 'confluent_kafka', 'httpx', 'asyncio'} "
            "& set(sys.modules)), file=sys.stderr)"
        )
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        assert result.stderr.decode().strip() == "[]"

    def test_being_stopped_leaves_nothing_behind(self, desk: Desk) -> None:
        before = desk.everything()
        command = [sys.executable, "-m", "broker.cli", "konvolutt", "seal", "--bare"]
        command += ["--mottaker", str(desk / "kommune.pem"), "--ut", str(desk / "pakke.cms"), "-"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            wait_for(lambda: desk.everything() != before)
            child.send_signal(signal.SIGTERM)
            child.communicate()
        assert child.returncode == 143
        assert desk.everything() == before

    def test_a_large_file_takes_little_memory(self, desk: Desk) -> None:
        size = 96 * 1024 * 1024
        with (desk / "stor.bin").open("wb") as file:
            file.truncate(size)
        seal_options = ["seal", "--bare", "--mottaker", desk / "kommune.pem", "--ut", desk / "stor.cms"]
        open_options = ["open", "--bare", "--nokkel", desk / "kommune.key", "--ut", desk / "stor.ut"]
        idle = peak_kib("inspect", desk / "soknad.json")
        assert peak_kib(*seal_options, desk / "stor.bin") - idle < 32 * 1024
        assert peak_kib(*open_options, desk / "stor.cms") - idle < 32 * 1024
        assert (desk / "stor.ut").stat().st_size == size


def peak_kib(*arguments: object) -> int:
    """Return the largest resident size of a run, in KiB."""
    program = (
        "import resource, sys; from broker.cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, "konvolutt", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, check=True)
    return int(result.stderr.split()[-1])


def wait_for(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class TestProgress:
    @pytest.mark.parametrize(("total", "shown"), [(20_000_000, True), (9_000_000, False)])
    def test_is_shown_for_large_files(self, monkeypatch: pytest.MonkeyPatch, total: int, *, shown: bool) -> None:
        screen = io.StringIO()
        monkeypatch.setattr(konvolutt_files, "errors", Console(file=screen, force_terminal=True, width=100))
        with progress("leser", total) as advance:
            advance(total // 2)
        assert ("leser" in screen.getvalue()) is shown

    def test_is_not_shown_to_a_pipe(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = io.StringIO()
        monkeypatch.setattr(konvolutt_files, "errors", Console(file=screen, force_terminal=False))
        with progress("leser", 20_000_000) as advance:
            advance(10_000_000)
        assert screen.getvalue() == ""
