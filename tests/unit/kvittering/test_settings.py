from __future__ import annotations

from datetime import timedelta

import pytest

from broker.settings import load_settings
from kvittering.frister import Frister
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
    monkeypatch.setenv("FORMIDLER_KVITTERING_DATABASE", "postgresql://k:hemmelig@db/k")
    assert "hemmelig" not in repr(load_settings(KvitteringSettings))
    assert (settings.port, settings.avsendere) == (8080, frozenset([NAV]))
    assert settings.frister() == Frister(timedelta(hours=24), timedelta(hours=48), timedelta(minutes=10))
    monkeypatch.setenv("FORMIDLER_KVITTERING_FRIST_BEKREFTET", "6h")
    monkeypatch.setenv("FORMIDLER_KVITTERING_FRIST_MOTTATT", "P3D")
    changed = load_settings(KvitteringSettings).frister()
    assert (changed.bekreftet, changed.mottatt) == (timedelta(hours=6), timedelta(days=3))
    monkeypatch.delenv("FORMIDLER_KVITTERING_INNSYN_KEYS")
    with pytest.raises(ConfigurationError, match="FORMIDLER_KVITTERING_INNSYN_KEYS"):
        load_settings(KvitteringSettings)
