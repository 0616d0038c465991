"""How a command reaches Kafka: by the environment when it says where Kafka is, else by the data folder of ``formidler up``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from broker.catch_up import read_until_caught_up
from broker.cli.kafka import SUBFOLDER
from broker.embedded.folder import DataFolder
from broker.kafka.settings import PREFIX, KafkaSettings
from broker.kafka.subscriber import read_from_start
from broker.katalog import Katalog, apply_record
from broker.routing import KATALOG
from broker.supervisor.layout import Layout
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from broker.record import Incoming

PRINCIPAL: Final = "broker"
"""The central process whose rights an operator's commands use."""
_SAYS_WHERE: Final = (f"{PREFIX}BOOTSTRAP", "KAFKA_BROKERS")


def kafka_access(
    data: Path, *, principal: str = PRINCIPAL, environment: Mapping[str, str] | None = None
) -> KafkaSettings:
    """Return how to reach Kafka, and as whom.

    Args:
        data: The data folder, asked when the environment does not say where Kafka is.
        principal: Whose password to use from the data folder. The environment names its own user.
        environment: The process's own when None.

    Raises:
        ConfigurationError: Neither says where Kafka is, or the principal has no password there.
    """
    given = os.environ if environment is None else environment
    if any(given.get(name) for name in _SAYS_WHERE):
        return KafkaSettings.from_environment(given)
    layout = Layout.load(data)
    path = layout.kafka_password(principal)
    try:
        password = path.read_text("ascii")
    except OSError:
        text = f"{path} kan ikke leses: har `formidler up --data {data}` kjørt? En annen Kafka oppgis med {PREFIX}*"
        raise ConfigurationError(text) from None
    admin = DataFolder(layout.folder / SUBFOLDER).admin_settings()
    return admin.model_copy(update={"username": principal, "password": SecretStr(password)})


def administrator_access(data: Path, *, environment: Mapping[str, str] | None = None) -> KafkaSettings:
    """Return how to reach Kafka as whoever administers it: who the environment names, or the embedded broker's administrator.

    Args:
        data: The data folder, asked when the environment does not say where Kafka is.
        environment: The process's own when None.

    Raises:
        ConfigurationError: Neither says where Kafka is.
    """
    given = os.environ if environment is None else environment
    if any(given.get(name) for name in _SAYS_WHERE):
        return KafkaSettings.from_environment(given)
    return DataFolder(Layout.load(data).folder / SUBFOLDER).admin_settings()


async def read_katalog(settings: KafkaSettings) -> Katalog:
    """Return the katalog as it is on its topic now: which kommuner there are, and who signs for them.

    Raises:
        TransportError: Kafka does not answer, or refuses.
    """
    katalog = Katalog()

    async def take_in(batch: Sequence[Incoming]) -> None:
        for record in batch:
            apply_record(katalog, record)

    async with read_from_start(settings, [KATALOG]) as tail:
        await read_until_caught_up(tail, take_in)
    return katalog
