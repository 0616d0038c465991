"""Settings of the ``kvittering`` process, read once from ``FORMIDLER_KVITTERING_*``."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.errors import ConfigurationError
from schemas.names import Organisasjonsnummer

NAV: Final = Organisasjonsnummer("889640782")
MIN_KEY_BYTES: Final = 32
_READABLE_BY_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class KvitteringSettings(BaseSettings):
    """What the ``kvittering`` process needs to know.

    Attributes:
        host: Address to listen on.
        port: TCP port.
        database: The status store's file.
        eier_key: File with the central key of the owners' HMAC, as hex.
        innsyn_keys: PEM files or folders: the keys (0600) and certificates that case updates are sealed for. JSON list.
        issuer: The ``iss`` of the tokens that count.
        jwks_url: Where the issuer's public keys are.
        audience: The ``aud`` of the tokens that count.
        avsendere: Organisations whose machines may ask about any søknad: the senders, never a kommune or a vendor. JSON list.
        heartbeat_s: How often an idle stream says that it lives, in seconds.
        max_stream_s: How long a stream lasts before the client must show its token again, in seconds.
    """

    model_config = SettingsConfigDict(env_prefix="FORMIDLER_KVITTERING_", frozen=True)

    host: str = "127.0.0.1"
    port: int
    database: Path
    eier_key: Path
    innsyn_keys: tuple[Path, ...] = Field(min_length=1)
    issuer: str
    jwks_url: str
    audience: str = "meldingsformidler"
    avsendere: frozenset[Organisasjonsnummer] = frozenset({NAV})
    heartbeat_s: float = Field(default=15.0, gt=0)
    max_stream_s: float = Field(default=1800.0, gt=0)


def load_eier_key(path: Path) -> bytes:
    """Return the central key of the owners' HMAC.

    Raises:
        ConfigurationError: The file is missing, is readable by others, or does not hold at least 32 bytes as hex.
    """
    try:
        mode = path.stat().st_mode
        key = bytes.fromhex(path.read_text("ascii"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: eiernøkkelen kan ikke leses ({type(error).__name__})") from error
    if mode & _READABLE_BY_OTHERS:
        raise ConfigurationError(f"{path}: kan leses av andre enn eieren; kjør `chmod 600 {path}`")
    if len(key) < MIN_KEY_BYTES:
        raise ConfigurationError(f"{path}: eiernøkkelen har {len(key)} byte, og må ha minst {MIN_KEY_BYTES}")
    return key
