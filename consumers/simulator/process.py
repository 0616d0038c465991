"""How the supervisor starts the simulated fagsystem."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.supervisor.spec import ProcessSpec

if TYPE_CHECKING:
    from broker.supervisor.layout import Layout


def environment(layout: Layout) -> dict[str, str]:
    """Return the settings of the ``fagsystem`` process in a local set-up."""
    return {
        "FORMIDLER_FAGSYSTEM_PORT": str(layout.port("fagsystem")),
        "FORMIDLER_FAGSYSTEM_MAPPE": str(layout.fagsystem / "http"),
        "FORMIDLER_FAGSYSTEM_FILEDROP": str(layout.fagsystem / "mapper"),
    }


SPEC = ProcessSpec("fagsystem", "consumers.simulator", order=35, environment=environment)
