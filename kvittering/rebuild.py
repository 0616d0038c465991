"""The same answer again: folding every topic from its first record into an empty store, and comparing.

The status is a pure fold over the topics (invariant 8), so a store can be thrown away. A rebuild publishes nothing: what the old
store queued has gone out, or will.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.catch_up import read_until_caught_up
from kvittering.projection import project
from kvittering.views import operator_view

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.ports import OpenTail
    from kvittering.applier import Applier
    from kvittering.facts import SoknadState
    from schemas.names import DigisosId


@dataclass(frozen=True, slots=True)
class Difference:
    """A søknad that two stores see differently; ``felt`` names the fields of ``views.operator_view`` that differ."""

    digisos_id: DigisosId
    felt: tuple[str, ...]


async def rebuild(applier: Applier, topics: Iterable[str], open_tail: OpenTail) -> None:
    """Take in all that lies on ``topics`` now.

    Args:
        applier: Over an empty store.
        topics: Those of ``follower.topics_of``.
        open_tail: Opens a reader of topics; it is opened from the first record on.

    Raises:
        TransportError: Kafka cannot be read. Begin again with an empty store.
    """
    async with open_tail(topics, {}) as tail:
        await read_until_caught_up(tail, applier.handle)


def differences(kept: Iterable[SoknadState], rebuilt: Iterable[SoknadState]) -> list[Difference]:
    """Return the søknader that are not shown alike, by id; none when replay gives the same answer."""
    left = {state.digisos_id: operator_view(project(state)) for state in kept}
    right = {state.digisos_id: operator_view(project(state)) for state in rebuilt}
    found: list[Difference] = []
    for digisos_id in sorted(left.keys() | right.keys()):
        one, other = left.get(digisos_id, {}), right.get(digisos_id, {})
        fields = tuple(name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name))
        if fields:
            found.append(Difference(digisos_id, fields))
    return found
