"""What Kafka must have before the processes start: topics, users, rights."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from broker.files import write_private
from broker.routing import AclRule, TopicSpec, central_topics, connector_rights, kommune_topics, process_rights

if TYPE_CHECKING:
    from pathlib import Path

    from broker.kafka.admin import KafkaAdmin
    from broker.supervisor.layout import Layout

CENTRAL_PROCESSES: Final = ("producers", "broker", "kvittering")


def connector_principal(connector: str) -> str:
    """Return the Kafka user of a connector."""
    return f"konnektor-{connector}"


def wanted_topics(layout: Layout) -> list[TopicSpec]:
    """Return every topic of the set-up."""
    topics = list(central_topics())
    for number in layout.setup.kommuner():
        topics.extend(kommune_topics(number))
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


async def provision(layout: Layout, admin: KafkaAdmin) -> dict[str, str]:
    """Make topics, users and rights, and wait until the broker shows them.

    Returns:
        Password by principal; each is made once and kept beside the keys, readable by the owner alone.
    """
    passwords = {principal: kept_password(layout.kafka_password(principal)) for principal in principals(layout)}
    await admin.ensure_topics(wanted_topics(layout))
    await admin.ensure_acls(wanted_rights(layout))
    for principal, password in passwords.items():
        await admin.upsert_user(principal, password)
    return passwords


def kept_password(path: Path) -> str:
    """Return the password in ``path``, made now if there is none."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24).encode())
    return path.read_text("ascii")
