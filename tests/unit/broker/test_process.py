from __future__ import annotations

from pathlib import Path

import pytest

from broker.process import SPEC
from broker.settings import BrokerSettings, load_settings
from broker.supervisor.layout import ConnectorSetup, Layout
from schemas.errors import ConfigurationError
from schemas.names import Kommunenummer


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    setup = ConnectorSetup(leverandor="acme", type="http", kommuner=(Kommunenummer("0301"),))
    layout = Layout.prepare(tmp_path, {"acme": setup})
    layout.reserve_ports(["broker"])
    return layout


def test_what_the_supervisor_gives_is_what_the_process_reads(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.kafka = {"broker": {"FORMIDLER_KAFKA_BOOTSTRAP": "127.0.0.1:1"}}
    environment = SPEC.environment(layout)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(BrokerSettings)
    assert (settings.port, settings.katalog) == (layout.port("broker"), layout.katalog)
    assert settings.local_issuer_key == layout.key("utsteder")
    assert settings.local_issuer_url == layout.issuer_url
    assert environment["FORMIDLER_KAFKA_BOOTSTRAP"] == "127.0.0.1:1"


def test_every_setting_that_is_given_is_one_that_there_is(layout: Layout) -> None:
    layout.kafka = {"broker": {}}
    fields = {f"FORMIDLER_BROKER_{name.upper()}" for name in BrokerSettings.model_fields}
    assert set(SPEC.environment(layout)) <= fields


def test_a_process_without_access_to_kafka_cannot_start(layout: Layout) -> None:
    with pytest.raises(ConfigurationError):
        SPEC.environment(layout)


def test_it_starts_before_the_others() -> None:
    assert (SPEC.name, SPEC.module) == ("broker", "broker")
    assert SPEC.order == 10
