from __future__ import annotations

import pytest

from broker.settings import load_settings
from kvittering.settings import NAV, KvitteringSettings
from schemas.errors import ConfigurationError


def test_settings_come_from_the_environment_and_name_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "PORT": "8080",
        "DATABASE": "k.sqlite",
        "EIER_KEY": "eier.key",
        "INNSYN_KEYS": '["nokler"]',
        "ISSUER": "http://utsteder",
        "JWKS_URL": "http://utsteder/jwks",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"FORMIDLER_KVITTERING_{name}", value)
    settings = load_settings(KvitteringSettings)
    assert (settings.port, settings.avsendere) == (8080, frozenset([NAV]))
    monkeypatch.delenv("FORMIDLER_KVITTERING_INNSYN_KEYS")
    with pytest.raises(ConfigurationError, match="FORMIDLER_KVITTERING_INNSYN_KEYS"):
        load_settings(KvitteringSettings)
