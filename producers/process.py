"""How the supervisor starts the ``producers`` process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from broker.supervisor.spec import ProcessSpec

if TYPE_CHECKING:
    from broker.supervisor.layout import Layout


def environment(layout: Layout) -> dict[str, str]:
    """Return the settings of the ``producers`` process in a local set-up."""
    mottak = [str(layout.key("mottak")), str(layout.certificate("mottak"))]
    settings = {
        "PORT": str(layout.port("producers")),
        "DATABASE": str(layout.database("producers")),
        "DOKUMENTLAGER": str(layout.dokumentlager),
        "SIGNING_CERTIFICATE": str(layout.certificate("avsender")),
        "SIGNING_KEY": str(layout.key("avsender")),
        "MOTTAK_CERTIFICATE": str(layout.certificate("mottak")),
        "MOTTAK_KEYS": json.dumps(mottak),
        "KOPI_KEYS": json.dumps([str(layout.kopi_key)]),
        "OPERATORER": str(layout.folder),
        "UTSKRIFT": str(layout.utskrift),
        "EIER_KEY": str(layout.eier_key),
        "ISSUER": layout.issuer_url,
        "JWKS_URL": f"{layout.issuer_url}/jwks",
        "AUDIENCE": layout.audience,
    }
    return {f"FORMIDLER_PRODUCERS_{name}": value for name, value in settings.items()} | layout.kafka_env("producers")


SPEC = ProcessSpec("producers", "producers", order=20, environment=environment)
