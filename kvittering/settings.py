"""Settings of the ``kvittering`` process, read once from ``FORMIDLER_KVITTERING_*``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from broker.durations import Duration
from broker.routing import KVITTERING_RETENTION
from kvittering.frister import Frister
from schemas.names import Organisasjonsnummer

NAV: Final = Organisasjonsnummer("889640782")


class KvitteringSettings(BaseSettings):
    """What the ``kvittering`` process needs to know.

    Attributes:
        host: Address to listen on.
        port: TCP port.
        database: The status store's SQLite file, or ``postgresql://…``.
        eier_key: File with the central key of the owners' HMAC, as hex.
        innsyn_keys: PEM files or folders: the keys (0600) and certificates that case updates are sealed for. JSON list.
        issuer: The ``iss`` of the tokens that count.
        jwks_url: Where the issuer's public keys are.
        audience: The ``aud`` of the tokens that count.
        avsendere: Organisations whose machines may ask about any søknad: the senders, never a kommune or a vendor. JSON list.
        frist_bekreftet: How long after acceptance a receiver's first answer is too late, where the katalog does not say.
        frist_mottatt: How long after acceptance MOTTATT is too late, where the katalog does not say.
        frist_margin: How long after a deadline the watch acts.
        heartbeat_s: How often an idle stream says that it lives, in seconds.
        oppbevaring: How long a søknad is kept after the latest thing that happened to it, for example ``496d``.
        max_stream_s: How long a stream lasts before the client must show its token again, in seconds.
    """

    model_config = SettingsConfigDict(env_prefix="FORMIDLER_KVITTERING_", frozen=True)

    host: str = "127.0.0.1"
    port: int
    database: str = Field(repr=False)  # a URL may hold a password
    eier_key: Path
    innsyn_keys: tuple[Path, ...] = Field(min_length=1)
    issuer: str
    jwks_url: str
    audience: str = "meldingsformidler"
    avsendere: frozenset[Organisasjonsnummer] = frozenset({NAV})
    oppbevaring: Duration = KVITTERING_RETENTION
    frist_bekreftet: Duration = Frister().bekreftet
    frist_mottatt: Duration = Frister().mottatt
    frist_margin: Duration = Frister().margin
    heartbeat_s: float = Field(default=15.0, gt=0)
    max_stream_s: float = Field(default=1800.0, gt=0)

    def frister(self) -> Frister:
        """Return the deadlines of whom the katalog says nothing about."""
        return Frister(self.frist_bekreftet, self.frist_mottatt, self.frist_margin)
