"""Settings of the ``broker`` process, read once from ``FORMIDLER_BROKER_*``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.errors import ConfigurationError

T = TypeVar("T", bound=BaseSettings)


class BrokerSettings(BaseSettings):
    """What the ``broker`` process needs to know.

    Attributes:
        host: Address to listen on.
        port: TCP port.
        katalog: The katalog file, published when it changes.
        local_issuer_key: PEM of a P-256 key. When given, a local issuer of tokens is served, on loopback only.
        local_issuer_url: The local issuer's name.
        audience: The ``aud`` of its tokens.
        sender_certificate: PEM. The local issuer gives tokens to the sender's own machines, who sign with its key.
    """

    model_config = SettingsConfigDict(env_prefix="FORMIDLER_BROKER_", frozen=True)

    host: str = "127.0.0.1"
    port: int
    katalog: Path
    local_issuer_key: Path | None = None
    local_issuer_url: str = ""
    audience: str = "meldingsformidler"
    sender_certificate: Path | None = None


def load_settings(model: type[T], **given: Any) -> T:
    """Read a group of settings from the environment.

    Raises:
        ConfigurationError: Names each setting that is missing or wrong, as its environment variable.
    """
    try:
        return model(**given)
    except ValidationError as error:
        prefix = str(model.model_config.get("env_prefix", ""))
        problems = "; ".join(
            f"{prefix}{'_'.join(str(part) for part in e['loc']).upper()}: {e['msg']}"
            for e in error.errors(include_url=False, include_input=False)
        )
        raise ConfigurationError(problems) from None
