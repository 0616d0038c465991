"""How the supervisor starts the ``broker`` process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.supervisor.spec import ProcessSpec

if TYPE_CHECKING:
    from broker.supervisor.layout import Layout


def environment(layout: Layout) -> dict[str, str]:
    """Return the settings of the ``broker`` process in a local set-up."""
    return {
        "FORMIDLER_BROKER_PORT": str(layout.port("broker")),
        "FORMIDLER_BROKER_KATALOG": str(layout.katalog),
        "FORMIDLER_BROKER_LOCAL_ISSUER_KEY": str(layout.key("utsteder")),
        "FORMIDLER_BROKER_LOCAL_ISSUER_URL": layout.issuer_url,
        "FORMIDLER_BROKER_AUDIENCE": layout.audience,
        "FORMIDLER_BROKER_SENDER_CERTIFICATE": str(layout.certificate("avsender")),
        **layout.kafka_env("broker"),
    }


SPEC = ProcessSpec("broker", "broker", order=10, environment=environment)
