from __future__ import annotations

from pathlib import Path

import pytest

from broker.settings import BrokerSettings, load_settings
from schemas.errors import ConfigurationError


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORMIDLER_BROKER_PORT", "8080")
    monkeypatch.setenv("FORMIDLER_BROKER_KATALOG", "katalog.yaml")
    settings = load_settings(BrokerSettings)
    assert (settings.host, settings.port, settings.katalog) == ("127.0.0.1", 8080, Path("katalog.yaml"))
    assert settings.local_issuer_key is None


def test_a_missing_and_a_wrong_setting_are_named_together_and_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORMIDLER_BROKER_PORT", "hemmelig")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(BrokerSettings)
    assert "FORMIDLER_BROKER_PORT" in str(caught.value)
    assert "FORMIDLER_BROKER_KATALOG" in str(caught.value)
    assert "hemmelig" not in str(caught.value)
