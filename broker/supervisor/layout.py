"""The data folder of a local set-up: where everything is, and who listens where.

::

    oppsett.json            what was chosen once: kommuner, connectors, ports
    klokke.json             how far the set-up's time is ahead of the machine's (`formidler tid`)
    katalog.yaml            the katalog, for people to edit
    nokler/                 certificates and private keys (0600), the owner key
    konnektorer/<id>.yaml   one connector process's settings
    kafka/                  the embedded broker's own
    data/<name>.sqlite      one database for each process that has one
    dokumentlager/          sealed packages
    utskrift/               letters to print: clear text for the kommune, as in fagsystem/
    fagsystem/              what the simulated fagsystemer have received
    logg/<name>.log         one JSON line per unit of work
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pydantic import Field, ValidationError

from broker.files import write_private
from schemas.errors import ConfigurationError
from schemas.model import WireModel
from schemas.names import Kommunenummer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HOST: Final = "127.0.0.1"
AUDIENCE: Final = "meldingsformidler"
DEFAULT_FOLDER_ENV: Final = "FORMIDLER_DATA"
DEFAULT_FOLDER: Final = Path(".formidler")
_SETUP: Final = "oppsett.json"
_PRIVATE: Final = 0o700


class ConnectorSetup(WireModel):
    """One connector process.

    Attributes:
        leverandor: Its vendor; part of the consumer groups' names.
        type: Kind of connector: ``http`` or ``filedrop``.
        kommuner: Whom it serves.
    """

    leverandor: str
    type: str
    kommuner: tuple[Kommunenummer, ...] = Field(min_length=1)


class Setup(WireModel):
    """What a set-up was made with; written once, and again only when ports are added."""

    konnektorer: dict[str, ConnectorSetup]
    porter: dict[str, int] = Field(default_factory=dict)

    def kommuner(self) -> tuple[Kommunenummer, ...]:
        """Return every kommune that a connector serves, in order."""
        return tuple(sorted(number for connector in self.konnektorer.values() for number in connector.kommuner))


@dataclass
class Layout:
    """Paths and addresses of one data folder.

    Attributes:
        folder: The data folder.
        setup: What it was made with.
        kafka: Environment that reaches Kafka, for each principal; filled in when Kafka is up.
    """

    folder: Path
    setup: Setup
    kafka: dict[str, dict[str, str]]

    @classmethod
    def prepare(cls, folder: Path, connectors: Mapping[str, ConnectorSetup]) -> Self:
        """Make the folders; the set-up itself is written by ``save``."""
        layout = cls(folder.resolve(), Setup(konnektorer=dict(connectors)), {})
        for name in ("", "nokler", "konnektorer", "data", "dokumentlager", "fagsystem", "logg"):
            (layout.folder / name).mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        return layout

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the set-up of a folder.

        Raises:
            ConfigurationError: There is none, or it cannot be read.
        """
        path = folder / _SETUP
        try:
            return cls(folder.resolve(), Setup.model_validate_json(path.read_bytes()), {})
        except FileNotFoundError:
            raise ConfigurationError(f"{folder} er ikke satt opp; kjør `formidler up --data {folder}` først") from None
        except (OSError, ValidationError) as error:
            raise ConfigurationError(f"{path} kan ikke leses: {type(error).__name__}") from error

    @staticmethod
    def exists(folder: Path) -> bool:
        """Return whether ``folder`` has been set up."""
        return (folder / _SETUP).is_file()

    def save(self) -> None:
        """Write the set-up down, whole or not at all."""
        write_private(self.folder / _SETUP, self.setup.model_dump_json(by_alias=True, indent=2).encode())

    def reserve_ports(self, names: Iterable[str]) -> None:
        """Give each name a free port that it keeps from now on."""
        missing = [name for name in names if name not in self.setup.porter]
        if missing:
            ports = dict(zip(missing, free_ports(len(missing)), strict=True))
            self.setup = self.setup.model_copy(update={"porter": self.setup.porter | ports})
            self.save()

    def port(self, name: str) -> int:
        """Return the port of the process ``name``.

        Raises:
            ConfigurationError: It has none.
        """
        try:
            return self.setup.porter[name]
        except KeyError:
            raise ConfigurationError(f"{self.folder}: prosessen {name} har ingen port") from None

    def address(self, name: str) -> str:
        """Return the base URL of the process ``name``, without a slash at the end."""
        return f"http://{HOST}:{self.port(name)}"

    @property
    def issuer_url(self) -> str:
        """The local issuer's name and base URL."""
        return f"{self.address('broker')}/utsteder"

    @property
    def audience(self) -> str:
        """The ``aud`` of every token here."""
        return AUDIENCE

    def kafka_env(self, principal: str) -> dict[str, str]:
        """Return the ``FORMIDLER_KAFKA_*`` variables of ``principal``.

        Raises:
            ConfigurationError: Kafka is not up, or the principal has no credentials.
        """
        try:
            return self.kafka[principal]
        except KeyError:
            raise ConfigurationError(f"{principal} har ingen tilgang til Kafka i dette oppsettet") from None

    def key(self, name: str) -> Path:
        """Return the path of a private key in PEM: ``ca``, ``avsender``, ``mottak``, ``innsyn``, ``utsteder``,
        ``kommune-<knr>`` or ``konnektor-<id>``."""  # noqa: D205, D209 - the list of names is the summary
        return self.folder / "nokler" / f"{name}.key"

    def certificate(self, name: str) -> Path:
        """Return the path of a certificate in PEM; names as for ``key``."""
        return self.folder / "nokler" / f"{name}.pem"

    def kafka_password(self, principal: str) -> Path:
        """Return the path of a Kafka user's password."""
        return self.folder / "nokler" / f"kafka-{principal}.passord"

    @property
    def eier_key(self) -> Path:
        """The central key of the owners' HMAC: 32 random bytes as hex."""
        return self.folder / "nokler" / "eier.key"

    @property
    def clock(self) -> Path:
        """How far the set-up's time is ahead of the machine's; not there until somebody moved it."""
        return self.folder / "klokke.json"

    @property
    def kopi_key(self) -> Path:
        """The key that wraps the sender's copies: 32 random bytes as hex."""
        return self.folder / "nokler" / "kopi.key"

    @property
    def katalog(self) -> Path:
        """The katalog file."""
        return self.folder / "katalog.yaml"

    def connector_config(self, connector: str) -> Path:
        """Return the path of one connector process's settings."""
        return self.folder / "konnektorer" / f"{connector}.yaml"

    def database(self, name: str) -> Path:
        """Return the path of one process's database."""
        return self.folder / "data" / f"{name}.sqlite"

    @property
    def dokumentlager(self) -> Path:
        """Folder of the sealed packages."""
        return self.folder / "dokumentlager"

    @property
    def utskrift(self) -> Path:
        """Folder of the letters to print, in clear."""
        return self.folder / "utskrift"

    @property
    def fagsystem(self) -> Path:
        """Folder of what the simulated fagsystemer receive."""
        return self.folder / "fagsystem"

    def log(self, name: str) -> Path:
        """Return the path of one process's log."""
        return self.folder / "logg" / f"{name}.log"


def free_ports(count: int) -> list[int]:
    """Return ``count`` TCP ports that are free on loopback now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()
