from __future__ import annotations

from pathlib import Path

import pytest

from broker.settings import load_settings
from broker.supervisor.layout import Layout
from producers.checks import MIB, IntakeLimits
from producers.process import SPEC
from producers.settings import ProducersSettings
from schemas.errors import ConfigurationError


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout.prepare(tmp_path, {})
    layout.reserve_ports(["broker", "producers"])
    layout.kafka["producers"] = {"FORMIDLER_KAFKA_BOOTSTRAP": "127.0.0.1:9092"}
    return layout


def test_a_local_set_up_gives_every_setting(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = dict(SPEC.environment(layout))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(ProducersSettings)
    assert settings.port == layout.port("producers")
    assert settings.mottak_keys == (layout.key("mottak"), layout.certificate("mottak"))
    assert settings.allow_clear_files is False
    assert settings.limits() == IntakeLimits()
    assert environment["FORMIDLER_KAFKA_BOOTSTRAP"] == "127.0.0.1:9092"


def test_limits_are_in_mib(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SPEC.environment(layout).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FORMIDLER_PRODUCERS_MAX_FILE_MIB", "2")
    assert load_settings(ProducersSettings).limits().max_file_bytes == 2 * MIB


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORMIDLER_PRODUCERS_MAX_FILES", "0")
    with pytest.raises(ConfigurationError, match="FORMIDLER_PRODUCERS_PORT") as error:
        load_settings(ProducersSettings)
    assert "FORMIDLER_PRODUCERS_MAX_FILES" in str(error.value)


def test_a_databases_password_is_never_shown(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SPEC.environment(layout).items():
        monkeypatch.setenv(name, value)
    url = "postgresql://producers:hemmelig@db/producers"
    monkeypatch.setenv("FORMIDLER_PRODUCERS_DATABASE", url)
    settings = load_settings(ProducersSettings)
    assert settings.database == url
    assert "hemmelig" not in repr(settings) + str(settings)
