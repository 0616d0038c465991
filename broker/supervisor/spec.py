"""How a process makes itself known to the supervisor, which may not import it.

Each edge registers, under the entry-point group ``meldingsformidler.processes``, a ``ProcessSpec``, or a function from the
layout to a list of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Final, cast

from broker.supervisor.layout import Layout
from schemas.errors import ConfigurationError

GROUP: Final = "meldingsformidler.processes"


@dataclass(frozen=True)
class ProcessSpec:
    """One child.

    Attributes:
        name: Unique; also its address's name in the layout, its log's, and its database's.
        module: Started as ``python -m <module>``.
        order: Begun in ascending order, side by side; stopped in descending order, those of one order side by side.
        environment: Its settings, from the layout. Only the ``FORMIDLER_*`` variables named here reach it.
    """

    name: str
    module: str
    order: int
    environment: Callable[[Layout], Mapping[str, str]]


def find_processes(layout: Layout) -> list[ProcessSpec]:
    """Return every process that this installation has for ``layout``, in starting order.

    Raises:
        ConfigurationError: An entry point gives something else, or two processes have one name.
    """
    found: list[ProcessSpec] = []
    for point in entry_points(group=GROUP):
        offered: object = point.load()
        if isinstance(offered, ProcessSpec):
            found.append(offered)
        elif callable(offered):
            found.extend(cast("Callable[[Layout], list[ProcessSpec]]", offered)(layout))
        else:
            raise ConfigurationError(f"{GROUP}: {point.name} er verken ProcessSpec eller funksjon")
    names = [spec.name for spec in found]
    if len(set(names)) != len(names):
        raise ConfigurationError(f"to prosesser har samme navn: {', '.join(sorted(names))}")
    return sorted(found, key=lambda spec: (spec.order, spec.name))
