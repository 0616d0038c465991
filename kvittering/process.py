"""How the supervisor starts the ``kvittering`` process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from broker.supervisor.spec import ProcessSpec

if TYPE_CHECKING:
    from broker.supervisor.layout import Layout


def environment(layout: Layout) -> dict[str, str]:
    """Return the settings of the ``kvittering`` process in a local set-up."""
    return {
        "FORMIDLER_KVITTERING_PORT": str(layout.port("kvittering")),
        "FORMIDLER_KVITTERING_DATABASE": str(layout.database("kvittering")),
        "FORMIDLER_KVITTERING_EIER_KEY": str(layout.eier_key),
        "FORMIDLER_KVITTERING_INNSYN_KEYS": json.dumps([str(layout.key("innsyn")), str(layout.certificate("innsyn"))]),
        "FORMIDLER_KVITTERING_ISSUER": layout.issuer_url,
        "FORMIDLER_KVITTERING_JWKS_URL": f"{layout.issuer_url}/jwks",
        "FORMIDLER_KVITTERING_AUDIENCE": layout.audience,
        **layout.kafka_env("kvittering"),
    }


SPEC = ProcessSpec("kvittering", "kvittering", order=30, environment=environment)
