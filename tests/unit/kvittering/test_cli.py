from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from crypto.certificates import certificate_pem
from kvittering.cli import app
from kvittering.facts import SoknadState
from kvittering.projection import apply, project
from kvittering.views import bundle
from schemas.errors import DecodeError, KeyFileError


class Files:
    """A bundle as the portal gives it, and what it is verified by."""

    def __init__(self, folder: Path, kit: Any, issuer: Any) -> None:
        soknad = kit.soknad()
        state = SoknadState(digisos_id=soknad.digisos_id)
        self.links = [issuer.issue(soknad, "LEVERT"), issuer.issue(soknad, "MOTTATT")]
        for fact in (soknad.transport("AKSEPTERT"), *self.links):
            state = apply(state, fact).state
        self.bundle, self.certificate, self.root, self.package = (
            folder / name for name in ("bunt.json", "konnektor.pem", "ca.pem", "soknad.cms")
        )
        self.bundle.write_text(json.dumps(bundle(project(state), [issuer.certificate])))
        self.certificate.write_bytes(certificate_pem(issuer.certificate))
        self.root.write_bytes(certificate_pem(issuer.authority.certificate))
        self.package.write_bytes(b"pakken")


@pytest.fixture
def files(tmp_path: Path, kit: Any) -> Files:
    return Files(tmp_path, kit, kit.issuer())


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["verify", *(str(one) for one in arguments)], catch_exceptions=True)


def test_a_bundle_holds_by_its_root_alone(files: Files) -> None:
    result = run(files.bundle, "--rot", files.root, "--pakke", files.package)
    assert result.exit_code == 0, result.output
    assert "nr 2 MOTTATT" in result.output
    assert "alt holder" in result.output


def test_kvitteringer_hold_as_arguments_and_in_a_text_file(files: Files, tmp_path: Path) -> None:
    first, second = (link.jws for link in files.links)
    text = tmp_path / "kvittering.jws"
    text.write_text(second + "\n")
    assert run(first, text, "--sertifikat", files.certificate).exit_code == 0


def test_machines_get_every_check(files: Files) -> None:
    result = run(files.bundle, "--sertifikat", files.certificate, "--json")
    document = json.loads(result.output)
    assert document["holder"]
    (chain,) = document["kjeder"]
    assert [one["status"] for one in chain["kvitteringer"]] == ["LEVERT", "MOTTATT"]
    names = {check["navn"] for check in chain["kvitteringer"][0]["kontroller"]}
    assert names == {"signatur", "kjede", "samme utsteder", "samme søknad"}


def test_a_missing_link_is_exit_1_and_says_which(files: Files) -> None:
    result = run(files.links[1].jws, "--sertifikat", files.certificate)
    assert result.exit_code == 1
    assert "et tidligere ledd mangler" in result.output


def test_another_package_is_exit_1(files: Files, tmp_path: Path) -> None:
    other = tmp_path / "annen.cms"
    other.write_bytes(b"en annen pakke")
    result = run(files.bundle, "--sertifikat", files.certificate, "--pakke", other, "--json")
    assert result.exit_code == 1
    (chain,) = json.loads(result.output)["kjeder"]
    assert [check["navn"] for check in chain["felles"] if not check["holder"]] == ["pakke"]


def test_a_bundle_cannot_vouch_for_itself(files: Files) -> None:
    assert run(files.bundle).exit_code == 2


def test_a_forged_bundle_with_its_own_certificate_does_not_hold(files: Files, tmp_path: Path, kit: Any) -> None:
    folder = tmp_path / "forfalsket"
    folder.mkdir()
    forged = Files(folder, kit, kit.issuer())
    assert run(forged.bundle, "--rot", files.root).exit_code == 1
    assert run(forged.bundle, "--sertifikat", files.certificate).exit_code == 1


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"{", DecodeError),
        (b'{"kvitteringer": "x"}', DecodeError),
        (b'{"kvitteringer": [1]}', DecodeError),
        (b"{}", DecodeError),
        (b'{"kvitteringer": ["a.b.c"], "sertifikater": ["rot"]}', DecodeError),
        (b"\xff", KeyFileError),
    ],
)
def test_a_file_that_is_no_bundle_is_told_so(files: Files, tmp_path: Path, content: bytes, error: type) -> None:
    bad = tmp_path / "rot.json"
    bad.write_bytes(content)
    assert isinstance(run(bad, "--rot", files.root).exception, error)


def test_a_file_that_is_not_there_is_told_so(files: Files, tmp_path: Path) -> None:
    assert isinstance(run(tmp_path / "ingen.json", "--rot", files.root).exception, KeyFileError)


def test_each_bundle_is_a_chain_of_its_own(files: Files, tmp_path: Path) -> None:
    again = tmp_path / "samme-igjen.json"
    again.write_bytes(Path(files.bundle).read_bytes())
    result = run(files.bundle, again, "--sertifikat", files.certificate, "--json")
    assert result.exit_code == 0
    assert [len(chain["kvitteringer"]) for chain in json.loads(result.output)["kjeder"]] == [2, 2]


def test_one_bundle_that_does_not_hold_is_named_and_fails_all(files: Files, tmp_path: Path) -> None:
    document = json.loads(Path(files.bundle).read_text())
    document["kvitteringer"] = document["kvitteringer"][1:]
    broken = tmp_path / "uten-forste-ledd.json"
    broken.write_text(json.dumps(document))
    result = run(files.bundle, broken, "--sertifikat", files.certificate, "--json")
    assert result.exit_code == 1
    assert [chain["navn"] for chain in json.loads(result.output)["kjeder"] if not chain["holder"]] == [str(broken)]
