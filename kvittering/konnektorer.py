"""Who may sign in which kommune's name, from the katalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvittering.chain import Konnektor

if TYPE_CHECKING:
    from broker.katalog import Katalog
    from schemas.names import Kommunenummer


def konnektor_of(katalog: Katalog, kommunenummer: Kommunenummer) -> Konnektor:
    """Return who may sign in the kommune's name, by the katalog as it is now."""
    entry = katalog.get(kommunenummer)
    return Konnektor(entry.konnektor if entry else None, katalog.signers(kommunenummer))
