"""Settings of the ``producers`` process, read once from ``FORMIDLER_PRODUCERS_*``."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from broker.durations import Duration
from broker.routing import SOKNAD_RETENTION
from producers.checks import MIB, IntakeLimits
from producers.library import FRIST_BEKREFTET
from producers.places import MAX_CONCURRENT, MAX_PER_PERSON


class ProducersSettings(BaseSettings):
    """What the ``producers`` process needs to know.

    Attributes:
        host: Address to listen on.
        port: TCP port.
        database: The outbox's: a SQLite file, made if it is not there, or ``postgresql://…`` for several instances.
        dokumentlager: Folder of the sealed packages; made if it is not there.
        signing_certificate: PEM; who signs packages. Its subject names the sender's organisasjonsnummer.
        signing_key: PEM of its key, mode 0600.
        mottak_certificate: PEM of what clients encrypt files for.
        mottak_keys: PEM files or folders with that certificate's key, and former ones with theirs while keys rotate.
        kopi_keys: Files with the keys that wrap the sender's own copies, 32 bytes as hex each: the first wraps, all unwrap.
        former_signing_certificates: PEM files of what we signed with before; copies from that time open by them.
        kopi_oppbevaring: How long a copy is kept that nobody vouched for, for example ``180d``.
        pakke_oppbevaring: How long a package stays in the dokumentlager after its copy was destroyed.
        eier_key: File with the central key of the owners' HMAC, as hex; at least 32 bytes.
        issuer: The ``iss`` of tokens.
        jwks_url: Where the issuer's keys are.
        audience: The ``aud`` of tokens.
        frist_bekreftet: How long a receiver may wait before it begins, where the katalog does not say: ``24h``.
        operatorer: Folder with the register of operators, who sign what they demand; without it nobody may recall anything.
        utskrift: Folder of the letters to print; without it there is no print channel.
        allow_clear_files: Whether files may come in clear.
        max_file_mib: One file, in MiB.
        max_total_mib: All files of a submission, in MiB.
        max_files: Files of a submission: the citizen's 30, and the portal's three PDFs.
        max_concurrent: Submissions under way at once; more wait, and are told to come back.
        max_per_person: Of these, one person's.
    """

    model_config = SettingsConfigDict(env_prefix="FORMIDLER_PRODUCERS_", frozen=True)

    host: str = "127.0.0.1"
    port: int
    database: str = Field(repr=False)  # a URL may hold a password
    dokumentlager: Path
    signing_certificate: Path
    signing_key: Path
    mottak_certificate: Path
    mottak_keys: tuple[Path, ...]
    kopi_keys: tuple[Path, ...] = Field(min_length=1)
    former_signing_certificates: tuple[Path, ...] = ()
    kopi_oppbevaring: Duration = timedelta(days=180)
    pakke_oppbevaring: Duration = SOKNAD_RETENTION
    eier_key: Path
    issuer: str
    jwks_url: str
    audience: str = "meldingsformidler"
    frist_bekreftet: Duration = FRIST_BEKREFTET
    operatorer: Path | None = None
    utskrift: Path | None = None
    allow_clear_files: bool = False
    max_file_mib: int = Field(default=10, gt=0)
    max_total_mib: int = Field(default=150, gt=0)
    max_files: int = Field(default=33, gt=0)
    max_concurrent: int = Field(default=MAX_CONCURRENT, gt=0)
    max_per_person: int = Field(default=MAX_PER_PERSON, gt=0)

    def limits(self) -> IntakeLimits:
        """Return the limits of a submission."""
        return IntakeLimits(
            max_file_bytes=self.max_file_mib * MIB,
            max_total_bytes=self.max_total_mib * MIB,
            max_files=self.max_files,
        )
