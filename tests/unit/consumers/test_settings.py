from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from consumers.settings import ConnectorSettings, KommuneSettings, connector_of, find_connectors
from schemas.errors import ConfigurationError


def document(**change: Any) -> dict[str, Any]:
    return {
        "konnektor": "acme",
        "leverandor": "acme",
        "signering": {"sertifikat": "k.pem", "nokkel": "k.key"},
        "tillit": {"rotter": ["ca.pem"]},
        "innsyn_sertifikat": "/et/annet/sted/innsyn.pem",
        "tokenutsteder": {"navn": "i", "token_url": "http://i/token"},
        "dokumentlager_url": "http://d",
        "database": "k.sqlite",
        "port": 0,
        "kommuner": [{"kommunenummer": "0301", "nokler": ["n.pem"], "type": "memory"}],
    } | change


def load(folder: Path, content: Any) -> ConnectorSettings:
    path = folder / "k.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return ConnectorSettings.load(path)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, document())
    assert settings.signering.sertifikat == tmp_path / "k.pem"
    assert settings.tillit.rotter == (tmp_path / "ca.pem",)
    assert settings.kommuner[0].nokler == (tmp_path / "n.pem",)
    assert settings.innsyn_sertifikat == Path("/et/annet/sted/innsyn.pem")
    assert settings.database == tmp_path / "k.sqlite"


def test_what_is_let_through_is_said_for_each_sender(tmp_path: Path) -> None:
    weak = {"rotter": ["ca.pem"], "sha1_fra": ["889640782"], "uten_forsendelse_fra": ["974760673"]}
    tillit = load(tmp_path, document(tillit=weak)).tillit
    assert (tillit.sha1_fra, tillit.uten_forsendelse_fra) == (("889640782",), ("974760673",))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "YAML"),
        ("nei", "filen"),
        (document(konnektor="Acme AS"), "konnektor"),
        (document(kommuner=[]), "kommuner"),
        (document(ukjent=1), "ukjent"),
        (document(dokumentlager_url="ftp://d"), "dokumentlager_url"),
        (document(signering={"sertifikat": "k.pem"}), "signering.nokkel"),
        (document(kommuner=[{"kommunenummer": 301, "nokler": ["n"], "type": "x"}]), "anførselstegn"),
        (document(kommuner=[{"kommunenummer": "0301", "nokler": [], "type": "x"}]), "kommuner.0.nokler"),
        (document(kommuner=document()["kommuner"] * 2), "to ganger"),
        (document(port=70000), "port"),
        (document(tillit={"uten_forsendelse_fra": ["123"]}), "tillit.uten_forsendelse_fra"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, content: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        load(tmp_path, content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="finnes-ikke"):
        ConnectorSettings.load(tmp_path / "finnes-ikke.yaml")


def test_the_connectors_that_ship_are_found() -> None:
    assert {"filedrop", "http", "memory"} <= find_connectors().keys()


@pytest.mark.parametrize(
    ("kind", "own", "named"),
    [
        ("telepati", {}, "0301.type"),
        ("filedrop", {}, "innstillinger.mappe"),
        ("http", {"url": "ftp://x"}, "innstillinger.url"),
        ("http", {"url": "http://x", "passord": "hemmelig"}, "innstillinger.passord"),
    ],
)
def test_a_connectors_own_settings_are_checked_before_anything_starts(kind: str, own: Any, named: str) -> None:
    kommune = KommuneSettings(kommunenummer="0301", nokler=(Path("n"),), type=kind, innstillinger=own)
    with pytest.raises(ConfigurationError, match=named) as raised:
        connector_of(kommune, find_connectors())
    assert "hemmelig" not in str(raised.value)


def test_a_connectors_own_settings_come_out_typed() -> None:
    kommune = KommuneSettings(
        kommunenummer="0301", nokler=(Path("n"),), type="http", innstillinger={"url": "http://x", "intervall_s": 3}
    )
    spec, own = connector_of(kommune, find_connectors())
    assert spec.name == "http"
    assert own.intervall_s == 3.0
