from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from broker.settings import load_settings
from broker.supervisor.layout import ConnectorSetup, Layout
from kvittering.process import SPEC
from kvittering.settings import KvitteringSettings
from schemas.names import Kommunenummer

if TYPE_CHECKING:
    from pathlib import Path


def test_the_supervisors_environment_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connector = ConnectorSetup(leverandor="acme", type="http", kommuner=(Kommunenummer("0301"),))
    layout = Layout.prepare(tmp_path, {"acme": connector})
    layout.reserve_ports(["broker", "kvittering"])
    layout.kafka["kvittering"] = {"FORMIDLER_KAFKA_BOOTSTRAP": "127.0.0.1:9092"}
    environment = SPEC.environment(layout)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(KvitteringSettings)
    assert settings.port == layout.port("kvittering")
    assert settings.issuer == layout.issuer_url
    assert [str(path) for path in settings.innsyn_keys] == json.loads(environment["FORMIDLER_KVITTERING_INNSYN_KEYS"])
    assert environment["FORMIDLER_KAFKA_BOOTSTRAP"] == "127.0.0.1:9092"
