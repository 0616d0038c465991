from __future__ import annotations

import io
import json
import re
import subprocess
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from typer.testing import CliRunner, Result

from broker.cli.konvolutt import app
from crypto import AsiceWriter, Authority, PrivateKey, Signer, certificate_pem, seal, write_private_key
from schemas.names import Organisasjonsnummer

NAV = Organisasjonsnummer("889640782")
OSLO = Organisasjonsnummer("958935420")
NOW = datetime.now(UTC)


@dataclass(frozen=True)
class Keys:
    """Who takes part; made once for the whole run, because RSA keys take time."""

    authority: Authority
    kommune: tuple[x509.Certificate, rsa.RSAPrivateKey]
    other: tuple[x509.Certificate, rsa.RSAPrivateKey]
    sender: tuple[x509.Certificate, PrivateKey]
    stranger: Authority

    @property
    def signer(self) -> Signer:
        return Signer(*self.sender)


@dataclass(frozen=True)
class Desk:
    """A folder with everything that a vendor has, and the command to run in it."""

    NOW: ClassVar = NOW
    PDF: ClassVar = b"%PDF-1.7 " + bytes(range(256)) * 40
    IDENTITY: ClassVar = (
        *("--digisos-id", "0e0d8a1c-5f5c-4a55-8d1c-3d2f6f8f0b11"),
        *("--melding-id", "7b7fd0c2-7b44-4d4e-9f65-0d1d8a6d2a22"),
        *("--kommune", "0301"),
        *("--type", "SOKNAD"),
    )

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
            *arguments,
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

    def archive(self, files: dict[str, bytes], signer: Signer | None = None) -> bytes:
        """Return a signed archive; NAV signs if nobody else does."""
        out = io.BytesIO()
        writer = AsiceWriter(out.write, signer=signer or self.keys.signer, now=self.NOW)
        for name, content in files.items():
            with writer.add(name, "application/octet-stream") as entry:
                entry.write(content)
        writer.finish()
        return out.getvalue()

    @staticmethod
    def rebuilt(archive: bytes, change: Callable[[dict[str, bytes]], object]) -> bytes:
        """Return an archive with its entries changed, and its signature as it was."""
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

    def encrypt_with_openssl(self, *, oaep: bool = True, cipher: str = "-aes256") -> None:
        options = ["rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256"] if oaep else []
        command = ["openssl", "cms", "-encrypt", cipher, "-binary", "-outform", "DER", "-in", str(self / "soknad.pdf")]
        command += ["-out", str(self / "pakke.cms"), "-recip", str(self / "kommune.pem")]
        command += [part for option in options for part in ("-keyopt", option)]
        subprocess.run(command, check=True, capture_output=True)

    @staticmethod
    def said(result: Result) -> str:
        """Return what a person was told, with boxes and line breaks taken out."""
        return re.sub(r"[\s│╭╮╰╯─]+", " ", result.stderr)

    @staticmethod
    def texts(document: dict[str, Any], *, wrong: bool = True) -> str:
        """Return what was found, one line each."""
        return "\n".join(f"{each['hvor']}: {each['tekst']}" for each in document["funn"] if each["feil"] is wrong)


@pytest.fixture(scope="session")
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
    (tmp_path / "soknad.pdf").write_bytes(Desk.PDF)
    return Desk(tmp_path, keys)
