from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from broker.topic_identity import TopicIdentity
from consumers.cli import app
from consumers.dedup import DedupStore
from crypto import certificate_pem, write_private_key
from schemas.errors import ConfigurationError


@pytest.fixture
def config(tmp_path: Path, keys: Any) -> Path:
    for name, certificate, key in (
        ("kommune", keys.recipient, keys.key),
        ("konnektor", *keys.connector),
        ("innsyn", keys.innsyn, keys.innsyn_key),
    ):
        (tmp_path / f"{name}.pem").write_bytes(certificate_pem(certificate))
        write_private_key(tmp_path / f"{name}.key", key)
    (tmp_path / "ca.pem").write_bytes(certificate_pem(keys.authority.certificate))
    document = {
        "konnektor": "acme",
        "leverandor": "acme",
        "signering": {"sertifikat": "konnektor.pem", "nokkel": "konnektor.key"},
        "tillit": {"rotter": ["ca.pem"]},
        "innsyn_sertifikat": "innsyn.pem",
        "tokenutsteder": {"navn": "i", "token_url": "http://i/token"},
        "dokumentlager_url": "http://d",
        "database": "k.sqlite",
        "port": 0,
        "kommuner": [{"kommunenummer": "4601", "nokler": ["kommune.pem", "kommune.key"], "type": "memory"}],
    }
    path = tmp_path / "k.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_the_kinds_are_listed_with_their_settings() -> None:
    kinds = {one["navn"]: one for one in json.loads(run("list", "--json").stdout)}
    assert {"filedrop", "http", "memory"} <= kinds.keys()
    (folder,) = [one for one in kinds["filedrop"]["innstillinger"] if one["navn"] == "mappe"]
    assert folder["pakrevd"]
    assert folder["beskrivelse"]
    assert "filedrop" in run("list").stdout


def test_a_good_set_up_is_checked_without_starting_anything(config: Path) -> None:
    answer = run("run", "--config", str(config), "--check", "--json")
    assert answer.exit_code == 0
    assert json.loads(answer.stdout)["kommuner"] == [{"kommunenummer": "4601", "type": "memory"}]
    assert "4601 (memory)" in run("run", "--config", str(config), "--check").stdout


@pytest.mark.parametrize(
    ("wrong", "right", "named"),
    [
        ("konnektor.key", "innsyn.key", "signering"),
        ("ca.pem", "borte.pem", "tillit"),
        ("innsyn.pem", "borte.pem", "innsyn_sertifikat"),
        ("kommune.key", "borte.key", "4601.nokler"),
        ("memory", "telepati", "4601.type"),
    ],
)
def test_what_is_wrong_in_a_set_up_is_named(config: Path, wrong: str, right: str, named: str) -> None:
    config.write_text(config.read_text().replace(wrong, right))
    with pytest.raises(ConfigurationError, match=named):
        raise run("run", "--config", str(config), "--check").exception


def test_trust_in_nobody_is_refused(config: Path) -> None:
    config.write_text(config.read_text().replace("- ca.pem", "").replace("rotter:", "rotter: []"))
    with pytest.raises(ConfigurationError, match="tillit"):
        raise run("run", "--config", str(config), "--check").exception


def test_a_key_that_others_can_read_is_refused(config: Path) -> None:
    (config.parent / "konnektor.key").chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod"):
        raise run("run", "--config", str(config), "--check").exception


def test_a_missing_file_is_wrong_usage(tmp_path: Path) -> None:
    assert run("run", "--config", str(tmp_path / "borte.yaml")).exit_code == 2


@pytest.mark.parametrize("command", ["run", "list"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    assert "Eksempel" in run(command, "--help").stdout


def test_a_topic_that_was_made_again_is_accepted_by_name(config: Path) -> None:
    async def remember() -> None:
        async with DedupStore(config.parent / "k.sqlite") as store:
            await store.remember_topic("fiks.4601.soknad.v1", TopicIdentity("a", 2))

    asyncio.run(remember())
    accepted = run("godta-emne", "--config", str(config), "--json", "fiks.4601.soknad.v1")
    assert (accepted.exit_code, json.loads(accepted.stdout)) == (0, {"emne": "fiks.4601.soknad.v1", "godtatt": True})
    again = run("godta-emne", "--config", str(config), "fiks.4601.soknad.v1")
    assert again.exit_code == 1
    assert "ikke et emne som konnektoren har lest" in again.stdout
