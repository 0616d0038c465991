from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.settings import load_settings
from kvittering.settings import NAV, KvitteringSettings, load_eier_key
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def key_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "eier.key"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_owner_key_is_read_as_hex(tmp_path: Path) -> None:
    assert load_eier_key(key_file(tmp_path, "ab" * 32 + "\n")) == b"\xab" * 32


@pytest.mark.parametrize(("text", "mode"), [("ab" * 31, 0o600), ("ikke hex", 0o600), ("ab" * 32, 0o644)])
def test_a_weak_broken_or_public_owner_key_is_refused_and_never_quoted(tmp_path: Path, text: str, mode: int) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_eier_key(key_file(tmp_path, text, mode))
    assert text not in str(raised.value)


def test_a_missing_owner_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        load_eier_key(tmp_path / "ingen")


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
