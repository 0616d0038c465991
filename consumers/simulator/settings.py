"""Settings of the simulated fagsystem, read once from ``FORMIDLER_FAGSYSTEM_*``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class FagsystemSettings(BaseSettings):
    """What the ``fagsystem`` process needs to know.

    Attributes:
        host: Address to listen on.
        port: TCP port.
        mappe: Where the HTTP fagsystem keeps what it receives.
        filedrop: Root of the folders that filedrop connectors use.
        intervall_s: How often it looks, in seconds.
        forsinkelser_s: After storing: when MOTTATT, UNDER_BEHANDLING and FERDIGBEHANDLET are told, in seconds.
    """

    model_config = SettingsConfigDict(env_prefix="FORMIDLER_FAGSYSTEM_", frozen=True)

    host: str = "127.0.0.1"
    port: int
    mappe: Path
    filedrop: Path
    intervall_s: float = Field(default=0.2, gt=0)
    forsinkelser_s: tuple[float, float, float] = (0.0, 1.0, 2.0)
