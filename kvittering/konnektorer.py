"""Who may sign in which kommune's name, from the katalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvittering.chain import Konnektor
from schemas.records import BRUK_KVITTERING

if TYPE_CHECKING:
    from broker.katalog import Katalog
    from schemas.names import Kommunenummer


def konnektor_of(katalog: Katalog, kommunenummer: Kommunenummer) -> Konnektor:
    """Return who may sign in the kommune's name, by the katalog as it is now."""
    entry = katalog.get(kommunenummer)
    if entry is None:
        return Konnektor()
    signing = [one for one in entry.sertifikater if one.bruk == BRUK_KVITTERING]
    return Konnektor(
        entry.konnektor,
        katalog.signers(kommunenummer),
        {one.nokkel_id: one.tilbakekalt for one in signing if one.tilbakekalt is not None},
        {one.nokkel_id: one.konnektor for one in signing if one.konnektor is not None},
    )
