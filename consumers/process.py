"""How the supervisor starts connector processes: one for each connector of the set-up."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import yaml

from broker.files import write_private
from broker.supervisor.provisioning import connector_principal
from broker.supervisor.spec import ProcessSpec
from consumers.settings import CONFIG_ENV

if TYPE_CHECKING:
    from broker.supervisor.layout import ConnectorSetup, Layout
    from schemas.names import Kommunenummer

ORDER = 40
INTERVAL_S = 0.25
"""How often a local set-up looks for answers: people look on."""


def specs(layout: Layout) -> list[ProcessSpec]:
    """Return a process for each connector."""
    return [
        ProcessSpec(f"konnektor-{name}", "consumers", ORDER, partial(environment, name))
        for name in layout.setup.konnektorer
    ]


def environment(name: str, layout: Layout) -> dict[str, str]:
    """Write the connector's settings file, if people have not got one already, and return what points to it."""
    path = layout.connector_config(name)
    if not path.exists():
        document = settings_document(name, layout.setup.konnektorer[name], layout)
        write_private(path, yaml.safe_dump(document, allow_unicode=True, sort_keys=False).encode())
    return {CONFIG_ENV: str(path), **layout.kafka_env(connector_principal(name))}


def settings_document(name: str, setup: ConnectorSetup, layout: Layout) -> dict[str, Any]:
    """Return the connector's settings, as they stand in its file."""
    return {
        "konnektor": name,
        "leverandor": setup.leverandor,
        "signering": {
            "sertifikat": str(layout.certificate(f"konnektor-{name}")),
            "nokkel": str(layout.key(f"konnektor-{name}")),
        },
        "tillit": {"rotter": [str(layout.certificate("ca"))]},
        "innsyn_sertifikat": str(layout.certificate("innsyn")),
        "tokenutsteder": {"navn": layout.issuer_url, "token_url": f"{layout.issuer_url}/token"},
        "dokumentlager_url": layout.address("producers"),
        "database": str(layout.database(f"konnektor-{name}")),
        "port": layout.port(f"konnektor-{name}"),
        "kommuner": [
            {
                "kommunenummer": str(number),
                "nokler": [
                    str(layout.key(f"kommune-{number}")),
                    str(layout.certificate(f"kommune-{number}")),
                ],
                "type": setup.type,
                "innstillinger": _own_settings(setup.type, number, layout),
            }
            for number in setup.kommuner
        ],
    }


def _own_settings(kind: str, number: Kommunenummer, layout: Layout) -> dict[str, Any]:
    match kind:
        case "filedrop":
            return {"mappe": str(layout.fagsystem / "mapper"), "intervall_s": INTERVAL_S}
        case "http":
            return {"url": f"{layout.address('fagsystem')}/{number}", "intervall_s": INTERVAL_S}
        case _:
            return {}
