from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from crypto import (
    Signer,
    seal_package,
)
from schemas.names import Organisasjonsnummer

if TYPE_CHECKING:
    from conftest import Desk

NAV = Organisasjonsnummer("889640782")
OSLO = Organisasjonsnummer("958935420")


def test_tells_without_a_key_whom_an_envelope_is_for(desk: Desk) -> None:
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


def test_tells_der_from_ber(desk: Desk) -> None:
    sealed, _ = seal_package(
        [("a", "text/plain", b"a")], recipient=desk.keys.kommune[0], signer=desk.keys.signer, now=desk.NOW
    )
    (desk / "pakke.cms").write_bytes(sealed)
    assert desk.inspect()["konvolutt"]["koding"] == "DER"


def test_tells_its_key_owner_what_is_inside(desk: Desk) -> None:
    sealed = json.loads(desk.seal(*desk.IDENTITY, "--json").stdout)
    document = desk.inspect_with_key()
    package = document["pakke"]
    assert [{key: file[key] for key in sealed["filer"][0]} for file in package["filer"]] == sealed["filer"]
    (signer,) = package["underskrivere"]
    assert signer["sertifikat"] == sealed["avsender"]
    assert signer["digest"] == "SHA-256"
    assert package["forsendelse"] == sealed["forsendelse"]
    assert document["konvolutt"]["mottakere"][0]["nokler"] == [{"fil": str(desk / "kommune.key"), "passer": True}]
    assert document["funn"] == []


def test_says_that_the_sender_is_not_checked_without_a_root(desk: Desk) -> None:
    desk.seal(*desk.IDENTITY)
    document = desk.inspect("--nokkel", desk / "kommune.key")
    assert document["ok"]
    assert "ikke kontrollert" in desk.texts(document, wrong=False)


def test_writes_no_plaintext_anywhere(desk: Desk) -> None:
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
def test_recognises_what_is_not_an_envelope(desk: Desk, content: bytes, expected: str) -> None:
    (desk / "pakke.cms").write_bytes(content)
    assert expected in desk.texts(desk.inspect())


@pytest.mark.openssl
def test_names_a_cipher_that_the_contract_does_not_have(desk: Desk) -> None:
    desk.encrypt_with_openssl(cipher="-aes-128-cbc")
    document = desk.inspect()
    assert document["konvolutt"]["innholdskryptering"] == "AES-128-CBC"
    assert "AES-128-CBC; avtalen er AES-256-CBC" in desk.texts(document)


@pytest.mark.openssl
def test_names_authenticated_encryption(desk: Desk) -> None:
    desk.encrypt_with_openssl(cipher="-aes-256-gcm")
    document = desk.inspect()
    assert document["konvolutt"]["type"] == "AuthEnvelopedData"
    assert document["konvolutt"]["innholdskryptering"] == "AES-256-GCM"
    assert document["konvolutt"]["mottakere"][0]["nokkelBit"] == 2048
    assert "AuthEnvelopedData" in desk.texts(document)


def test_tells_how_far_a_truncated_file_goes(desk: Desk) -> None:
    desk.seal()
    sealed = (desk / "pakke.cms").read_bytes()
    (desk / "pakke.cms").write_bytes(sealed[:-30])
    assert f"etter {len(sealed) - 30} byte" in desk.texts(desk.inspect())


def test_tells_that_something_follows_the_end(desk: Desk) -> None:
    desk.seal()
    with (desk / "pakke.cms").open("ab") as file:
        file.write(b"mer")
    assert "strukturen brytes" in desk.texts(desk.inspect())


def test_tells_that_the_key_is_another_receivers(desk: Desk) -> None:
    desk.seal()
    document = desk.inspect("--nokkel", desk / "bergen.key")
    assert "ingen av nøklene" in desk.texts(document)
    assert document["konvolutt"]["mottakere"][0]["nokler"][0]["passer"] is False


def test_finds_the_right_one_of_several_keys(desk: Desk) -> None:
    desk.seal(*desk.IDENTITY)
    document = desk.inspect_with_key("--nokkel", desk / "bergen.key")
    assert document["ok"]
    assert [key["passer"] for key in document["konvolutt"]["mottakere"][0]["nokler"]] == [True, False]


@pytest.mark.openssl
def test_cannot_be_sure_of_a_key_under_pkcs1(desk: Desk) -> None:
    desk.encrypt_with_openssl(oaep=False)
    document = desk.inspect("--nokkel", desk / "kommune.key")
    assert document["konvolutt"]["mottakere"][0]["nokler"][0]["passer"] is None
    assert "en PDF; er det bare CMS, så åpne det med --bare" in desk.texts(document)


def test_tells_that_the_last_block_is_damaged(desk: Desk) -> None:
    desk.put(desk.archive({"a": b"a"}))
    sealed = bytearray((desk / "pakke.cms").read_bytes())
    sealed[-20] ^= 0xFF  # the block before the last: its change shows in the padding
    sealed[-17] ^= 0xFF
    (desk / "pakke.cms").write_bytes(sealed)
    assert "innhold: utfyllingen" in desk.texts(desk.inspect_with_key())


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
def test_tells_which_check_fails(desk: Desk, change: Callable[[dict[str, bytes]], object], expected: str) -> None:
    archive = desk.archive({"soknad.json": b'{"soknad": 1}', "soknad.pdf": desk.PDF})
    desk.put(desk.rebuilt(archive, change))
    assert expected in desk.texts(desk.inspect_with_key())
    assert desk.open().exit_code == 1


def test_tells_that_the_signature_value_is_wrong(desk: Desk) -> None:
    archive = desk.archive({"soknad.pdf": desk.PDF})

    def flip(entries: dict[str, bytes]) -> None:
        name = next(name for name in entries if name.endswith(".p7s"))
        entries[name] = entries[name][:-1] + bytes((entries[name][-1] ^ 1,))

    desk.put(desk.rebuilt(archive, flip))
    assert "signaturverdien stemmer ikke" in desk.texts(desk.inspect_with_key())


def test_tells_that_the_sender_is_not_trusted(desk: Desk) -> None:
    desk.seal()
    document = desk.inspect("--nokkel", desk / "kommune.key", "--rot", desk / "fremmed.pem")
    assert "avsender: avsenderens sertifikat er verken festet eller utstedt" in desk.texts(document)


def test_tells_that_the_senders_certificate_has_expired(desk: Desk) -> None:
    certificate = desk.keys.authority.certify(
        desk.keys.sender[1], "NAV", NAV, purpose="signering", now=desk.NOW, valid_days=-2
    )
    desk.put(desk.archive({"soknad.pdf": desk.PDF}, Signer(certificate, desk.keys.sender[1])))
    assert "avsender: sertifikatet gikk ut" in desk.texts(desk.inspect_with_key())


def test_says_how_an_archive_breaks_the_rules(desk: Desk) -> None:
    archive = desk.archive({"soknad.pdf": desk.PDF})
    desk.put(b"foran" + archive)
    assert "arkiv" in desk.texts(desk.inspect_with_key())


def test_a_missing_file_is_named_in_json_too(desk: Desk) -> None:
    result = desk.run("inspect", desk / "borte.cms", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "ok": False,
        "feil": f"{desk / 'borte.cms'}: filen finnes ikke; sjekk navnet",
        "kode": "oppsett",
    }
