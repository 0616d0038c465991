"""The settings of one connector process: a YAML file, and Kafka's from the environment.

::

    konnektor: fjordsak                     # our id: issuer of kvitteringer, client of the issuer of tokens
    leverandor: fjordsak                    # part of the consumer groups' names
    signering: {sertifikat: konnektor.pem, nokkel: konnektor.key}
    tillit: {rotter: [ca.pem]}              # whose packages are accepted
    innsyn_sertifikat: innsyn.pem           # what case updates are sealed for
    tokenutsteder: {navn: https://…, token_url: https://…/token}
    dokumentlager_url: https://…
    database: konnektor.sqlite
    port: 8090                              # /isalive /isready /metrics
    kommuner:
      - kommunenummer: "0301"               # in quotation marks: YAML reads 0301 as a number
        nokler: [kommune-0301.pem, kommune-0301.key]
        type: filedrop
        samtidige: 32                       # søknader at the fagsystem at the same time
        innstillinger: {mappe: /srv/fagsystem}

Paths are relative to the file. Kafka is reached by ``FORMIDLER_KAFKA_*`` (``broker.kafka.settings``).
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from consumers.connector import GROUP, AnySpec, ConnectorSpec
from schemas.errors import ConfigurationError
from schemas.names import Kommunenummer, Organisasjonsnummer

CONFIG_ENV: Final = "FORMIDLER_KONNEKTOR_OPPSETT"
"""Path of the settings file, for ``python -m consumers``."""


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Signering(_Group):
    """Who signs kvitteringer and updates; P-256."""

    sertifikat: Path
    nokkel: Path
    tidligere_sertifikater: tuple[Path, ...] = ()


class Tillit(_Group):
    """Whose packages are accepted: issued by a root, or pinned.

    Two weaknesses can be let through, for each sender by itself: signatures with SHA-1, and packages without
    ``forsendelse.json``, which can be moved from one record to another. What comes in by them is logged and counted.
    """

    rotter: tuple[Path, ...] = ()
    fastlaste: tuple[Path, ...] = ()
    sha1_fra: tuple[Organisasjonsnummer, ...] = ()
    uten_forsendelse_fra: tuple[Organisasjonsnummer, ...] = ()


class Tokenutsteder(_Group):
    """Where machine tokens come from."""

    navn: str = Field(min_length=1)
    token_url: str = Field(pattern=r"^https?://")


class KommuneSettings(_Group):
    """One kommune of the process; ``samtidige`` is how many søknader its fagsystem gets at the same time."""

    kommunenummer: Kommunenummer
    nokler: tuple[Path, ...] = Field(min_length=1)
    type: str
    samtidige: int = Field(default=32, ge=1, le=256)
    innstillinger: dict[str, Any] = Field(default_factory=dict)


class ConnectorSettings(_Group):
    """One connector process."""

    konnektor: str = Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")
    leverandor: str = Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")
    signering: Signering
    tillit: Tillit
    innsyn_sertifikat: Path
    tokenutsteder: Tokenutsteder
    dokumentlager_url: str = Field(pattern=r"^https?://")
    database: Path
    host: str = "127.0.0.1"
    port: int = Field(ge=0, le=65535)
    kommuner: tuple[KommuneSettings, ...] = Field(min_length=1)

    @classmethod
    def load(cls, path: Path) -> ConnectorSettings:
        """Read a settings file; paths in it become absolute.

        Raises:
            ConfigurationError: The file is missing, is not YAML, or a setting is missing or wrong; the text names the setting.
        """
        try:
            document = yaml.safe_load(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: kan ikke leses ({type(error).__name__})") from error
        except yaml.YAMLError as error:
            raise ConfigurationError(f"{path}: ikke gyldig YAML ({type(error).__name__})") from error
        try:
            settings = cls.model_validate(document)
        except ValidationError as error:
            raise ConfigurationError(f"{path}: {_problems(error)}") from None
        numbers = [kommune.kommunenummer for kommune in settings.kommuner]
        if len(set(numbers)) != len(numbers):
            raise ConfigurationError(f"{path}: kommuner: et kommunenummer står to ganger")
        return cast("ConnectorSettings", _resolved(settings, path.parent.resolve()))


def find_connectors() -> dict[str, AnySpec]:
    """Return every kind of connector that is installed, by name.

    Raises:
        ConfigurationError: An entry point gives something else, or under another name.
    """
    found: dict[str, AnySpec] = {}
    for point in sorted(entry_points(group=GROUP)):
        spec: object = point.load()
        if not isinstance(spec, ConnectorSpec) or spec.name != point.name:
            raise ConfigurationError(f"{GROUP}: {point.name} er ikke en ConnectorSpec med dette navnet")
        found[point.name] = spec
    return found


def connector_of(kommune: KommuneSettings, specs: dict[str, AnySpec]) -> tuple[AnySpec, BaseModel]:
    """Return the kommune's kind of connector, and its own settings, checked.

    Raises:
        ConfigurationError: There is no such kind, or a setting is missing or wrong.
    """
    where = f"kommuner.{kommune.kommunenummer}"
    spec = specs.get(kommune.type)
    if spec is None:
        raise ConfigurationError(f"{where}.type: ukjent; finnes: {', '.join(sorted(specs))}")
    try:
        return spec, cast("BaseModel", spec.settings.model_validate(kommune.innstillinger))
    except ValidationError as error:
        raise ConfigurationError(f"{where}.innstillinger.{_problems(error)}") from None


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in one['loc']) or 'filen'}: {_reason(one['loc'], one['msg'])}"
        for one in error.errors(include_url=False, include_input=False, include_context=False)
    )


def _reason(where: tuple[int | str, ...], message: str) -> str:
    if where and where[-1] == "kommunenummer":
        return "skal være fire siffer i anførselstegn, for eksempel “0301”"
    return message


def _resolved(value: object, folder: Path) -> object:
    """Return the model with every path below ``folder`` made absolute."""
    if isinstance(value, Path):
        return folder / value
    if isinstance(value, tuple):
        return tuple(_resolved(each, folder) for each in cast("tuple[object, ...]", value))
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return value.model_copy(update={name: _resolved(getattr(value, name), folder) for name in fields})
    return value
