"""Whether two status stores say the same: a rebuilt one beside the running one, søknad by søknad.

A søknad that the running store has read more or less about than the rebuilt one cannot be compared: that is told apart from a
difference, and a rebuild of a process that stands still has none. So is a søknad that one of them has forgotten by age
(``oppbevaring``) while the topics still hold it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvittering.facts import SoknadState
from kvittering.oppbevaring import newest
from kvittering.projection import project
from kvittering.rows import FORMER
from kvittering.views import operator_view
from schemas.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import datetime
    from typing import Any

    from broker.record import TopicPartition
    from kvittering.bulk_store import BulkStore, Kept

MANGLER_I_LAGERET = "mangler i lageret"
MANGLER_PA_EMNENE = "mangler på emnene"
ULESELIG = "tilstanden kan ikke leses"


@dataclass(frozen=True, slots=True)
class Difference:
    """A søknad that two stores see differently.

    Attributes:
        digisos_id: Which one.
        felt: Names of the fields of ``views.operator_view`` that differ, ``kolonne:<name>`` for a column that does not follow
            from the state, or one of the three words of this module.
    """

    digisos_id: str
    felt: tuple[str, ...]


@dataclass(slots=True)
class Comparison:
    """What two stores came to.

    Attributes:
        compared: How many søknader were looked at.
        differing: How many of them differ.
        under_way: How many could not be compared, since one store has read more about them than the other.
        forgotten: How many one store alone has, and which are over age.
    """

    compared: int = 0
    differing: int = 0
    under_way: int = 0
    forgotten: int = 0


def difference(kept: Kept | None, rebuilt: Kept | None) -> tuple[str, ...]:
    """Return in which fields a søknad differs; none when both stores say the same."""
    if kept is None:
        return (MANGLER_I_LAGERET,)
    if rebuilt is None:
        return (MANGLER_PA_EMNENE,)
    columns = tuple(
        f"kolonne:{name}" for name, value in sorted(kept.kolonner.items()) if value != rebuilt.kolonner[name]
    )
    if kept.tilstand == rebuilt.tilstand:
        return columns
    try:
        fields = differing_fields(_view(kept), _view(rebuilt))
    except StoreError:
        return (ULESELIG,)
    return fields or columns


def differing_fields(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the fields that are not alike, in order."""
    return tuple(name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name))


def _view(kept: Kept) -> dict[str, Any]:
    return operator_view(project(SoknadState.from_json(kept.tilstand)))


async def compare(
    kept: BulkStore, rebuilt: BulkStore, result: Comparison, *, forgotten_before: datetime | None = None
) -> AsyncIterator[Difference]:
    """Return the søknader that two stores do not show alike, by id; one page of each is in memory.

    Args:
        kept: The running store.
        rebuilt: The other.
        result: Is counted in.
        forgotten_before: What nothing has happened to since then may be missing from either; aware UTC.
    """
    ends = (await kept.offsets(), await rebuilt.offsets())
    async for one, other in _side_by_side(kept, rebuilt):
        result.compared += 1
        fields = difference(one, other)
        if not fields:
            continue
        found = one or other
        if found is None:
            raise RuntimeError("one of the two stores has it")
        digisos_id = found.digisos_id
        if (one is None or other is None) and _is_over_age(found, forgotten_before):
            result.forgotten += 1
        elif await _is_under_way(digisos_id, (kept, rebuilt), ends):
            result.under_way += 1
        else:
            result.differing += 1
            yield Difference(digisos_id, fields)


async def _side_by_side(kept: BulkStore, rebuilt: BulkStore) -> AsyncIterator[tuple[Kept | None, Kept | None]]:
    """Return the two stores' søknader in pairs, by id."""
    left, right = kept.soknader(), rebuilt.soknader()
    one, other = await anext(left, None), await anext(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.digisos_id < other.digisos_id):
            yield one, None
            one = await anext(left, None)
        elif one is None or other.digisos_id < one.digisos_id:
            yield None, other
            other = await anext(right, None)
        else:
            yield one, other
            one, other = await anext(left, None), await anext(right, None)


def _is_over_age(kept: Kept, before: datetime | None) -> bool:
    if before is None:
        return False
    try:
        last = newest(SoknadState.from_json(kept.tilstand))
    except StoreError:
        return False
    return last is None or last < before


async def _is_under_way(
    digisos_id: str,
    stores: tuple[BulkStore, BulkStore],
    ends: tuple[Mapping[TopicPartition, int], Mapping[TopicPartition, int]],
) -> bool:
    """Return whether one store has a record about the søknad that lies past where the other one has read to."""
    for store, end in ((stores[0], ends[1]), (stores[1], ends[0])):
        places = await store.places(digisos_id)
        if any(offset >= end.get(partition, 0) for partition, offset in places if FORMER not in partition.topic):
            return True
    return False
