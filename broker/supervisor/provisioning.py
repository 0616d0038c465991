"""What Kafka must have before the processes start: topics, users, rights."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from broker.files import write_private
from broker.log import get_logger
from broker.retention import RetentionSettings
from broker.routing import AclRule, TopicSpec, central_topics, connector_rights, kommune_topics, process_rights
from broker.settings import load_settings
from schemas.records import PARTITIONS_PER_KOMMUNE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from broker.kafka.admin import KafkaAdmin
    from broker.katalog import Katalog
    from broker.supervisor.layout import Layout

CENTRAL_PROCESSES: Final = ("producers", "broker", "kvittering")


def connector_principal(connector: str) -> str:
    """Return the Kafka user of a connector."""
    return f"konnektor-{connector}"


def wanted_topics(layout: Layout, katalog: Katalog) -> list[TopicSpec]:
    """Return every topic of the set-up, with as many partitions as the katalog says.

    Args:
        layout: Says which kommuner there are.
        katalog: As its file has it; a kommune that is not in it gets the usual number of partitions.
    """
    retention = load_settings(RetentionSettings).retention()
    topics = list(central_topics(retention))
    for number in layout.setup.kommuner():
        entry = katalog.get(number)
        topics.extend(kommune_topics(number, entry.partisjoner if entry else PARTITIONS_PER_KOMMUNE, retention))
    return topics


def wanted_rights(layout: Layout) -> list[AclRule]:
    """Return every right in the set-up; what is not here, nobody may."""
    rights: list[AclRule] = []
    for process in CENTRAL_PROCESSES:
        rights.extend(process_rights(process, layout.setup.kommuner()))
    for name, connector in layout.setup.konnektorer.items():
        for number in connector.kommuner:
            rights.extend(connector_rights(connector_principal(name), connector.leverandor, number))
    return rights


def principals(layout: Layout) -> list[str]:
    """Return every Kafka user of the set-up."""
    return [*CENTRAL_PROCESSES, *(connector_principal(name) for name in layout.setup.konnektorer)]


async def provision(layout: Layout, katalog: Katalog, admin: KafkaAdmin) -> dict[str, str]:
    """Make topics, users and rights, take back rights that are not wanted any more, and wait until the broker shows it.

    Returns:
        Password by principal; each is made once and kept beside the keys, readable by the owner alone.
    """
    passwords = {principal: kept_password(layout.kafka_password(principal)) for principal in principals(layout)}
    await admin.ensure_topics(wanted_topics(layout, katalog))
    await admin.ensure_acls(wanted_rights(layout))
    await withdraw(wanted_rights(layout), admin)
    for principal, password in passwords.items():
        await admin.upsert_user(principal, password)
    return passwords


async def withdraw(wanted: Iterable[AclRule], admin: KafkaAdmin) -> None:
    """Take back what our own users may and should not: rights of an earlier version, or of a connector that is gone.

    Users that are not ours keep what somebody else gave them.
    """
    keep = {replace(rule, operations=(operation,)) for rule in wanted for operation in rule.operations}
    present = {rule for rule in await admin.describe_acls() if _is_ours(rule.principal)}
    unwanted = present - keep
    if unwanted:
        await admin.delete_acls(unwanted)
        get_logger().warning("rights_withdrawn", antall=len(unwanted))


def _is_ours(principal: str) -> bool:
    return principal in CENTRAL_PROCESSES or principal.startswith(connector_principal(""))


def kept_password(path: Path) -> str:
    """Return the password in ``path``, made now if there is none."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24).encode())
    return path.read_text("ascii")
